"""What a study found, as plain values; nothing is chosen here, and ``summary_text`` tells it."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aesearch.studies.results.evaluation import Evaluation, EvaluationSummary
from aesearch.studies.results.front import knee, pareto_front, sizes_by
from aesearch.studies.results.records import (
    Document,
    Facts,
    RetrainRecord,
    StudySnapshot,
    TrialCounts,
    TrialRecord,
)
from aesearch.studies.results.selection import (
    SelectionRule,
    eligible_trials,
    indistinguishable,
    pooled_spread,
)
from aesearch.studies.results.space_bounds import Edge, edges
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.studies.spec.sections import Objective, TrainingSpec
from aesearch.studies.spec.weights import n_parameters

ALPHA = 0.05  # p of the corrected resampled t-test from which two trials are called a near-tie
# Worst over best retrained seed, from where it is said. The settings in docs/reports.md end at up
# to 1.2, but those with a ReLU behind the code at 1.4 to 1.9, with a rate too high at 2.6 and 13.
SEEDS_APART = 1.3
SIZES_SHOWN = 20  # a range of sizes is no table


@dataclass(frozen=True)
class Denoising(Document):
    """The corruption of all validation images, and its level."""

    corruption: str
    level: float

    @classmethod
    def of(cls, training: TrainingSpec) -> "Denoising | None":
        """Read it out of resolved settings; None of a study without."""
        level = training.validation_corruption_level
        if training.corruption == "none" or level is None:
            return None
        return cls(training.corruption, level)


@dataclass(frozen=True)
class TrialSummary(Document):
    """One trial.

    Attributes
    ----------
    params : dict
        What was searched.
    architecture : str
        Searched, or fixed in the specification.
    value, standard_error : float or None
        Mean over folds of the validation MSE per pixel, and its standard error.
    fold_scores : list of float
        In fold order.
    """

    number: int
    params: dict[str, float | int | str | None]
    architecture: str
    value: float | None
    standard_error: float | None
    fold_scores: list[float | None]

    @classmethod
    def of(cls, trial: TrialRecord, spec: ResolvedSpec) -> "TrialSummary":
        """Sum up a trial of a study."""
        return cls(
            number=trial.number,
            params={
                name: _finite(value) if isinstance(value, float) else value
                for name, value in trial.params.items()
            },
            architecture=str(trial.params.get("architecture", spec.model.architecture)),
            value=_finite(trial.value),
            standard_error=_finite(trial.standard_error),
            fold_scores=[_finite(score) for score in trial.fold_scores],
        )


@dataclass(frozen=True)
class SizeSummary(Document):
    """One searched size of the code.

    Attributes
    ----------
    n_trials : int
        Trials of that size.
    best : TrialSummary or None
        None where none of them may be chosen.
    pca : float or None
        Error of as many principal components on the same folds.
    """

    encoding_dim: int
    n_trials: int
    best: TrialSummary | None
    pca: float | None


@dataclass(frozen=True)
class FrontTrial(Document):
    """A trial on the Pareto front, with all that may be an objective."""

    number: int
    mse: float
    encoding_dim: int
    n_parameters: int


@dataclass(frozen=True)
class Front(Document):
    """Trials than which no other has less of one objective and no more of the rest.

    Attributes
    ----------
    objectives : list of str
        As ``search.objectives`` has them.
    trials : list of FrontTrial
        The smallest first.
    knee : int or None
        Number of the trial at which the front bends most; None where it does not, or has fewer
        than three trials.
    """

    objectives: list[str]
    trials: list[FrontTrial]
    knee: int | None


@dataclass(frozen=True)
class NearTie(Document):
    """A trial that cannot be told apart from the winner, and the p of the test."""

    number: int
    value: float | None
    p: float


@dataclass(frozen=True)
class NearTies(Document):
    """Which trials cannot be told apart from the winner.

    Attributes
    ----------
    test : str
        By which test.
    alpha : float
        From which p on.
    n_compared : int
        With how many trials the winner was compared.
    """

    test: str
    alpha: float
    n_compared: int
    trials: list[NearTie]


@dataclass(frozen=True)
class SetAside(Document):
    """A trial that is never chosen, and why."""

    number: int
    reason: str | None


@dataclass(frozen=True)
class SeedSummary(Document):
    """One retrained seed; losses are mean squared errors per pixel, of its best epoch."""

    seed_index: int
    seed: int
    epochs: int
    best_epoch: int
    validation_loss: float | None
    test_mse: float | None
    weights_sha256: str


@dataclass(frozen=True)
class SeedsMean(Document):
    """Mean and standard deviation over seeds; no deviation of one seed."""

    mean: float
    sd: float | None
    n_seeds: int


@dataclass(frozen=True)
class Retraining(Document):
    """What came of retraining the winner.

    Attributes
    ----------
    max_epochs, patience : int
        As they were set.
    n_cut_off : int
        Seeds whose patience was not over at the limit of epochs.
    longer_is_another_study : bool
        Whether another limit of epochs means another study.
    score_over_test : float or None
        The winner's value over the mean test MSE; None where either is missing or the study
        denoises.
    seeds_apart : float or None
        Validation loss of the worst seed over that of the best, where it is at least
        ``SEEDS_APART`` and none is still to be trained.
    test_mse : SeedsMean or None
        None before the test set was looked at.
    """

    seeds: list[SeedSummary]
    max_epochs: int
    patience: int
    n_cut_off: int
    longer_is_another_study: bool
    score_over_test: float | None
    seeds_apart: float | None
    test_mse: SeedsMean | None


@dataclass(frozen=True)
class Summary(Document):
    """A study, finished or not; every number is finite.

    Attributes
    ----------
    study : str
        Its name.
    read : str or None
        One line on what was read and left out; None where it is unknown.
    image_shape : list of int or None
        Channel, height, width.
    n_trials : int
        How many it has, and in ``trials`` how many are in each state.
    finished : bool
        Whether no trial waits or runs.
    selection : str
        The rule by which the winner is chosen.
    denoising : Denoising or None
    has_noisy : bool
        Whether networks see images that are noisy by themselves, of the test set too, and are to
        give their clean ones back.
    winner, best : TrialSummary or None
        The chosen trial, and the one with the lowest value so far.
    fold_effects_out : bool
        Whether standard errors leave out what a fold does to all trials alike.
    edges : list of Edge
        Parameters of the winner that lie at an end of what was searched.
    sizes : list of SizeSummary
        Of each searched size of the code, where there are several.
    front : Front or None
        None of a study whose only objective is the mse, or without a trial that may be chosen.
    indistinguishable : NearTies or None
        None where there is nothing to test.
    unstable, failed : list of SetAside
    retrain : Retraining or None
        None before the first seed is done.
    retraining : bool
        Whether seeds are still to be trained.
    evaluation : EvaluationSummary or None
    test_looks : int
        How many times the test set was looked at.
    """

    study: str
    dataset: str | None
    read: str | None
    image_shape: list[int] | None
    n_trials: int
    trials: TrialCounts
    finished: bool
    selection: SelectionRule
    denoising: Denoising | None
    has_noisy: bool
    winner: TrialSummary | None
    best: TrialSummary | None
    fold_effects_out: bool
    edges: list[Edge]
    sizes: list[SizeSummary]
    front: Front | None = field(default=None, kw_only=True)
    indistinguishable: NearTies | None
    unstable: list[SetAside]
    failed: list[SetAside]
    retrain: Retraining | None
    retraining: bool
    evaluation: EvaluationSummary | None
    test_looks: int

    def to_dict(self) -> dict[str, Any]:
        """Give it in plain values; ``front`` only where there is one."""
        found = super().to_dict()
        if self.front is None:
            del found["front"]
        return found


def summary(snapshot: StudySnapshot, evaluation: Evaluation | None = None) -> Summary:
    """Sum a study up, finished or not.

    Parameters
    ----------
    snapshot : StudySnapshot
        Each of its ``facts`` may be missing.
    evaluation : Evaluation, optional
        Of the exported seed, if there is one.
    """
    spec = snapshot.spec
    trials = sorted(snapshot.trials, key=lambda trial: trial.number)
    ranked = eligible_trials(trials)
    winner = next((trial for trial in trials if trial.number == snapshot.chosen), None)
    states: Counter[str] = Counter(trial.state for trial in trials)
    states["waiting"] += max(snapshot.n_trials - len(trials), 0)
    counts = TrialCounts(**states)
    shape = snapshot.facts.get("image_shape")
    retraining = any(lease.kind == "retrain" and not lease.done for lease in snapshot.leases)
    return Summary(
        study=snapshot.name,
        dataset=snapshot.facts.get("dataset"),
        read=snapshot.facts.get("read"),
        image_shape=None if shape is None else [int(size) for size in shape],
        n_trials=snapshot.n_trials,
        trials=counts,
        finished=not (counts.waiting or counts.running),
        selection=spec.search.select,
        denoising=Denoising.of(spec.training),
        has_noisy=spec.data.noisy is not None,
        winner=None if winner is None else TrialSummary.of(winner, spec),
        best=TrialSummary.of(ranked[0], spec) if ranked else None,
        fold_effects_out=pooled_spread(trials) is not None,
        # After a fixed number of epochs fast learners score best, which says nothing of the end.
        edges=edges(winner.params, spec.space) if winner and spec.scores_delivery else [],
        sizes=_sizes(trials, snapshot),
        front=front_of(snapshot),
        indistinguishable=_near_ties(ranked, winner, snapshot.facts),
        unstable=[
            SetAside(trial.number, trial.unstable)
            for trial in trials
            if trial.state == "complete" and trial.unstable is not None
        ],
        failed=[SetAside(t.number, t.reason) for t in trials if t.state == "failed"],
        retrain=_retrain(snapshot.retrains, spec, winner, retraining=retraining),
        retraining=retraining,
        evaluation=None if evaluation is None else evaluation.summary(spec.training),
        test_looks=snapshot.test_looks,
    )


def _sizes(trials: Sequence[TrialRecord], snapshot: StudySnapshot) -> list[SizeSummary]:
    by_size: dict[int, list[TrialRecord]] = {}
    for trial in trials:
        size = trial.params.get("encoding_dim")
        if size is not None:
            by_size.setdefault(int(size), []).append(trial)
    if len(by_size) < 2 or len(by_size) > SIZES_SHOWN:
        return []
    # Principal components see clean images, a denoiser corrupted ones.
    denoises = snapshot.spec.training.corruption != "none"
    rows = () if denoises else snapshot.facts.get("pca", ())
    pca = {row["encoding_dim"]: row["mse"] for row in rows}
    found = []
    for size, own in sorted(by_size.items()):
        ranked = eligible_trials(own)
        best = TrialSummary.of(ranked[0], snapshot.spec) if ranked else None
        found.append(SizeSummary(size, len(own), best, _finite(pca.get(size))))
    return found


def front_of(
    snapshot: StudySnapshot, objectives: Sequence[Objective] | None = None
) -> Front | None:
    """Give the Pareto front of a study so far; None for one objective, and where it is empty.

    Parameters
    ----------
    objectives : sequence of str, optional
        None for those of the study.
    """
    spec, shape = snapshot.spec, snapshot.image_shape
    names = spec.search.objectives if objectives is None else tuple(objectives)
    ranked = eligible_trials(snapshot.trials)
    if len(names) < 2 or not ranked or shape is None:
        return None
    sizes = sizes_by(names, spec, shape)
    found = pareto_front(ranked, sizes)
    bend = knee(found, sizes)
    rows = []
    for trial in found:
        assert trial.value is not None, "a trial that may be chosen has a value"
        own = spec.configuration(trial.params)
        weights = n_parameters(own, shape)
        rows.append(FrontTrial(trial.number, trial.value, own.encoding_dim, weights))
    return Front(list(names), rows, None if bend is None else bend.number)


def _finite(value: float | None) -> float | None:
    """Turn what JSON cannot hold into None."""
    return float(value) if value is not None and math.isfinite(value) else None


def _near_ties(
    ranked: Sequence[TrialRecord], winner: TrialRecord | None, facts: Facts
) -> NearTies | None:
    n_train = facts.get("n_train_per_fold")
    n_validation = facts.get("n_validation_per_fold")
    if n_train is None or n_validation is None:
        return None
    if winner is None or winner not in ranked or len(winner.fold_scores) < 2:
        return None
    ties = indistinguishable(
        ranked, winner, n_train=n_train, n_validation=n_validation, alpha=ALPHA
    )
    return NearTies(
        test="corrected resampled t-test",
        alpha=ALPHA,
        n_compared=len(ranked) - 1,
        trials=[NearTie(trial.number, _finite(trial.value), p) for trial, p in ties],
    )


def _retrain(
    retrains: Sequence[RetrainRecord],
    spec: ResolvedSpec,
    winner: TrialRecord | None,
    *,
    retraining: bool,
) -> Retraining | None:
    if not retrains:
        return None
    limit, patience = spec.retrain.max_epochs, spec.retrain.patience
    ordered = sorted(retrains, key=lambda record: record.seed_index)
    tested = [m for m in (_finite(record.test_mse) for record in ordered) if m is not None]
    return Retraining(
        seeds=[
            SeedSummary(
                seed_index=record.seed_index,
                seed=record.seed,
                epochs=record.epochs,
                best_epoch=record.best_epoch,
                validation_loss=_finite(record.validation_loss),
                test_mse=_finite(record.test_mse),
                weights_sha256=record.weights_sha256,
            )
            for record in ordered
        ],
        max_epochs=limit,
        patience=patience,
        n_cut_off=_n_cut_off(retrains, limit, patience),
        # By these settings the trials are scored too: others are another study.
        longer_is_another_study=spec.scores_delivery,
        score_over_test=_score_over_test(winner, tested, spec),
        seeds_apart=None
        if retraining
        else seeds_apart([record.validation_loss for record in retrains]),
        test_mse=None
        if not tested
        else SeedsMean(
            mean=float(np.mean(tested)),
            sd=float(np.std(tested, ddof=1)) if len(tested) > 1 else None,
            n_seeds=len(tested),
        ),
    )


def _score_over_test(
    winner: TrialRecord | None, tested: Sequence[float], spec: ResolvedSpec
) -> float | None:
    # Test images are clean, validation images of a study that denoises are not.
    if winner is None or not tested or winner.value is None or spec.training.corruption != "none":
        return None
    mean = float(np.mean(tested))
    return _finite(winner.value / mean) if mean > 0 else None


def _n_cut_off(retrains: Sequence[RetrainRecord], limit: int, patience: int) -> int:
    # Patience that cannot run out asks for a fixed number of epochs: nothing is cut off.
    if patience >= limit:
        return 0
    return sum(
        record.epochs == limit and record.epochs - record.best_epoch < patience
        for record in retrains
    )


def seeds_apart(losses: Sequence[float]) -> float | None:
    """Give the worst of the retrained seeds' losses over the best where they lie far apart."""
    best, worst = min(losses), max(losses)
    if not 0.0 < best <= worst < math.inf or worst / best < SEEDS_APART:
        return None
    return worst / best
