"""How trials are scored, compared and chosen from their fold scores; no store, no curves kept.

| symbol | meaning |
|---|---|
| k | number of folds |
| n | number of trials that completed on all folds and are stable |
| x | score of a trial on a fold, (trial, fold); m its mean over the folds |
| d | score of one trial minus score of another, per fold |
| s2 | variance of what a fold adds to a score by chance, relative to the score |

Three folds say little about the variance of one trial, and all trials have the same folds: so
the variance is pooled over the trials. A fold that is harder for all of them is no chance: it is
taken off. That is a two-way analysis of variance without replication, of the relative scores:

    r = x / m                                   (trial, fold), the mean of each trial is 1
    e = r - (mean of r over the trials)         what is left without the effect of the fold
    s2 = sum(e**2) / ((n - 1) * (k - 1))        with (n - 1) * (k - 1) degrees of freedom

A trial's standard error is then ``m * sqrt(s2 / k)``. Where only one trial is complete, it is that
of its own scores, ``sqrt(var(x) / k)``, fold effects and all.

References
----------
Montgomery: Design and Analysis of Experiments (2012), section 4.1 (blocks: here the folds).
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from aesearch.studies.errors import RunFailedError
from aesearch.studies.results.front import Sizes, knee, pareto_front, sizes_by
from aesearch.studies.results.records import RetrainRecord, TrialRecord
from aesearch.studies.results.stability import end_above_limit
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.spec.weights import ImageShape

Seed = TypeVar("Seed", bound=RetrainRecord)
SelectionRule = Literal["best", "one-se", "knee"]


def fold_scores(curves: npt.ArrayLike, score_epochs: int) -> npt.NDArray[np.float64]:
    """Score each fold by its mean validation loss over the last epochs: no epoch is picked.

    Parameters
    ----------
    curves : array_like, (fold, epoch)
        Validation losses, mean squared error per pixel.
    score_epochs : int
        How many of the last epochs count; >= 1; all of them where there are fewer.

    Returns
    -------
    ndarray, (fold,)

    Raises
    ------
    ValueError
        If ``curves`` is not a non-empty (fold, epoch) array or ``score_epochs`` < 1.
    """
    losses = np.asarray(curves, dtype=np.float64)
    if losses.ndim != 2 or losses.size == 0:
        raise ValueError(
            f"curves must be a non-empty (fold, epoch) array, got shape {losses.shape!r}"
        )
    if score_epochs < 1:
        raise ValueError(f"score_epochs must be >= 1, got {score_epochs!r}")
    scores: npt.NDArray[np.float64] = losses[:, -score_epochs:].mean(axis=1)
    return scores


def mean_and_standard_error(scores: npt.ArrayLike) -> tuple[float, float]:
    """Mean over folds and its standard error, ``sqrt(s2 / k)``.

    Parameters
    ----------
    scores : array_like, (fold,)
        At least two.

    Returns
    -------
    mean, standard_error : float

    Raises
    ------
    ValueError
        If there are fewer than two scores.
    """
    values = _at_least_two("scores", scores)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


@dataclass(frozen=True)
class Spread:
    """What a fold adds to a score by chance, relative to the score.

    Attributes
    ----------
    variance : float
        s2; > 0.
    degrees : int
        Of freedom: ``(n - 1) * (k - 1)``.
    """

    variance: float
    degrees: int


def pooled_spread(trials: Sequence[TrialRecord]) -> Spread | None:
    """Estimate the spread of scores over folds from all trials that may be chosen.

    Parameters
    ----------
    trials : sequence of TrialRecord
        Those that are not complete and stable, or miss a fold, are passed over.

    Returns
    -------
    Spread or None
        None for fewer than two such trials, or where their scores leave nothing to chance.
    """
    scores = [trial.fold_scores for trial in eligible_trials(trials)]
    n_folds = max(map(len, scores), default=0)
    rows = np.array([own for own in scores if len(own) == n_folds], dtype=np.float64)
    if len(rows) < 2 or n_folds < 2 or not (rows > 0).all():
        return None
    relative = rows / rows.mean(axis=1, keepdims=True)
    residuals = relative - relative.mean(axis=0)
    degrees = (len(rows) - 1) * (n_folds - 1)
    variance = float((residuals**2).sum() / degrees)
    # Rounding leaves this much where every trial found each fold equally hard.
    return Spread(variance, degrees) if variance > 1e-28 else None


def with_pooled_errors(trials: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Give complete trials the standard errors of the pooled variance, where there is one."""
    spread = pooled_spread(trials)
    if spread is None:
        return tuple(trials)
    return tuple(
        replace(
            trial,
            standard_error=trial.value * math.sqrt(spread.variance / len(trial.fold_scores)),
        )
        if trial.state == "complete" and len(trial.fold_scores) > 1 and trial.value is not None
        else trial
        for trial in trials
    )


def eligible_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials that may be chosen, best first: complete, stable and finite, by (value, number)."""
    return sorted((trial for trial in trials if _may_be_chosen(trial)), key=_rank)


def choose(trials: Sequence[TrialRecord], rule: SelectionRule, sizes: Sizes) -> TrialRecord:
    """Choose one trial; ties go to the lowest trial number, whatever the order of ``trials``.

    Parameters
    ----------
    trials : sequence of TrialRecord
        All trials of the study; those that are not complete and stable are passed over.
    rule : {"best", "one-se", "knee"}
        ``best``: the lowest value, then the smallest. ``one-se``: the smallest among the trials
        whose value is at most the best value plus its standard error; among these the lowest
        value. ``knee``: where the Pareto front bends most, and the best where it does not.
    sizes : callable
        By what a trial is small; see :func:`selection_sizes`.

    Returns
    -------
    TrialRecord
        On the Pareto front of value and sizes.

    Raises
    ------
    RunFailedError
        If no trial may be chosen; says how many trials ended how, and why.
    ValueError
        If ``rule`` is unknown.
    """
    ranked = eligible_trials(trials)
    if not ranked:
        raise RunFailedError(_nothing_to_choose(trials))
    # min keeps the first of equals, and `ranked` is sorted by (value, number).
    best = min(ranked, key=lambda trial: (trial.value, sizes(trial)))
    if rule == "best":
        return best
    if rule == "one-se":
        bound = _rank(best)[0] + (best.standard_error or 0.0)
        return min((trial for trial in ranked if _rank(trial)[0] <= bound), key=sizes)
    if rule == "knee":
        return knee(pareto_front(ranked, sizes), sizes) or best
    raise ValueError(f"rule must be 'best', 'one-se' or 'knee', got {rule!r}")


def selection_sizes(spec: StudySpec, image_shape: ImageShape | None) -> Sizes:
    """Give by what a trial of a study is small when one is chosen.

    That is by its objectives beside mse; without any, ``one-se`` goes by the size of the code.
    """
    objectives = spec.search.objectives
    if objectives == ("mse",) and spec.search.select == "one-se":
        objectives = ("mse", "encoding_dim")
    return sizes_by(objectives, spec, image_shape)


def corrected_resampled_t_test(
    differences: npt.ArrayLike, *, n_train: float, n_test: float
) -> tuple[float, float]:
    """Test two-sided whether the mean of ``d`` is 0, allowing for overlapping training sets.

    ``t = mean(d) / sqrt(s2 * (1/k + n_test/n_train))`` with k - 1 degrees of freedom.
    The plain paired t-test (``n_test = 0``) finds differences too often, because the
    folds' models share most of their training data.

    Parameters
    ----------
    differences : array_like, (fold,)
        d, one per fold; at least two.
    n_train, n_test : float
        Samples that a fold trains on (> 0) and is scored on (>= 0).

    Returns
    -------
    t, p : float
        Where s2 is 0: t = 0 and p = 1 if the mean is 0 too, else t = +-inf and p = 0.

    Raises
    ------
    ValueError
        If there are fewer than two differences, or the sample counts make no sense.

    References
    ----------
    Nadeau, C. and Bengio, Y., "Inference for the Generalization Error", Machine
    Learning 52, 2003, section 4 (the corrected resampled t-test).
    """
    values = _at_least_two("differences", differences)
    if n_train <= 0:
        raise ValueError(f"n_train must be > 0, got {n_train!r}")
    if n_test < 0:
        raise ValueError(f"n_test must be >= 0, got {n_test!r}")
    k = len(values)
    mean = float(values.mean())
    if np.ptp(values) == 0.0:  # exact, where the rounding of the mean would leave s2 > 0
        return (0.0, 1.0) if mean == 0.0 else (math.copysign(math.inf, mean), 0.0)
    variance = float(values.var(ddof=1))
    t = mean / math.sqrt(variance * (1.0 / k + n_test / n_train))
    return t, _two_sided_p(t, k - 1)


def indistinguishable(
    trials: Sequence[TrialRecord],
    winner: TrialRecord,
    *,
    n_train: float,
    n_validation: float,
    alpha: float = 0.05,
) -> list[tuple[TrialRecord, float]]:
    """Trials that the folds cannot tell apart from the winner, each with its p.

    ``t = (m - m_winner) / sqrt(s2 * (m**2 + m_winner**2) * (1/k + n_test/n_train))`` with the
    pooled variance and its degrees of freedom, and the correction of Nadeau and Bengio (2003)
    for training sets that overlap; where there is no pooled variance,
    :func:`corrected_resampled_t_test` of the two alone. Each trial is tested against the winner
    by itself; no correction for many tests, which would only make the list longer.

    Parameters
    ----------
    trials : sequence of TrialRecord
        All trials of the study; only complete, stable ones with the winner's number of
        fold scores are compared.
    winner : TrialRecord
        With at least two fold scores.
    n_train, n_validation : float
        Samples that a fold trains on and is scored on.
    alpha : float
        Trials with p >= alpha are listed; in (0, 1).

    Returns
    -------
    list of (TrialRecord, float)
        By (value, number), without the winner.

    Raises
    ------
    ValueError
        If the winner has fewer than two fold scores, or the sample counts make no sense.
    """
    reference = _at_least_two("fold_scores of the winner", winner.fold_scores)
    spread = pooled_spread(trials)
    ties = []
    for trial in eligible_trials(trials):
        if trial.number == winner.number or len(trial.fold_scores) != len(reference):
            continue
        scores = np.asarray(trial.fold_scores)
        if spread is None:
            _, p = corrected_resampled_t_test(
                scores - reference, n_train=n_train, n_test=n_validation
            )
        else:
            p = _pooled_p(scores, reference, spread, n_train=n_train, n_test=n_validation)
        if p >= alpha:
            ties.append((trial, p))
    return ties


def _pooled_p(
    scores: npt.NDArray[np.float64],
    others: npt.NDArray[np.float64],
    spread: Spread,
    *,
    n_train: float,
    n_test: float,
) -> float:
    one, other = float(scores.mean()), float(others.mean())
    variance = spread.variance * (one**2 + other**2) * (1.0 / len(scores) + n_test / n_train)
    return _two_sided_p((one - other) / math.sqrt(variance), spread.degrees)


def _two_sided_p(t: float, degrees: int) -> float:
    from scipy.special import stdtr  # noqa: PLC0415 - half a second that the display need not pay

    return float(2.0 * stdtr(degrees, -abs(t)))


def _may_be_chosen(trial: TrialRecord) -> bool:
    """Whether the trial is eligible and its value is a number that can win."""
    return trial.eligible and trial.value is not None and math.isfinite(trial.value)


def _rank(trial: TrialRecord) -> tuple[float, int]:
    assert trial.value is not None
    return trial.value, trial.number


def _at_least_two(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"{name} must be one value per fold for at least 2 folds, got {values!r}")
    return array


def _nothing_to_choose(trials: Sequence[TrialRecord]) -> str:
    """Say how the trials ended and the three most frequent reasons, each by an example."""
    counts = Counter("complete but unstable" if t.unstable else t.state for t in trials)
    ended = ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "none"
    examples: dict[str, list[tuple[int, str]]] = {}
    for trial in trials:
        reason = trial.unstable or trial.reason
        if reason:
            # Reasons that differ in their figures only are one kind of reason.
            kind = re.sub(r"[-+]?\d[\d.]*(e[-+]?\d+)?", "#", reason)
            examples.setdefault(kind, []).append((trial.number, reason))
    frequent = sorted(examples.values(), key=lambda found: (-len(found), found[0][0]))[:3]
    reasons = "".join(
        f"\n  - {len(found)} like trial {found[0][0]}: {found[0][1]}" for found in frequent
    )
    return f"no completed trial to choose among {len(trials)} ({ended}); {_remedy(trials)}{reasons}"


def _remedy(trials: Sequence[TrialRecord]) -> str:
    if any(trial.state in ("waiting", "running") for trial in trials):
        return "give the search more time: the same command without --timeout goes on"
    high = [found for trial in trials if (found := end_above_limit(trial.unstable)) is not None]
    # Pruned trials have no say: they were no better than those that went on.
    judged = sum(trial.state != "pruned" for trial in trials)
    if not high or 2 * len(high) < judged:
        return "lower the learning rates of the space or train for more epochs"
    loss, limit = min(high)
    return (
        f"the smallest loss at the end was {loss:g}, above search.unstable_loss {limit:g}: train "
        "for more epochs, or begin a new study with --set search.unstable_loss="
        f"{_round_above(loss):g}"
    )


def _round_above(value: float) -> float:
    """Give a round figure that lies at least a tenth above a value, and below twice the value."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15)
    return next(step * power for step in steps if step * power >= 1.1 * value)


def best_seed(rows: Sequence[Seed]) -> Seed:
    """Choose the retrained seed to export: the lowest validation loss, then the lowest index."""
    return min(rows, key=lambda row: (row.validation_loss, row.seed_index))
