"""What a study found, as one JSON-able table and as plain words; nothing is chosen here."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from aesearch.studies.results.evaluation_text import (
    against,
    evaluation_lines,
    evaluation_numbers,
    own_corruption,
)
from aesearch.studies.results.records import RetrainRecord, StudySnapshot, TrialRecord, TrialState
from aesearch.studies.results.selection import eligible_trials, indistinguishable, pooled_spread
from aesearch.studies.results.space_bounds import edges

ALPHA = 0.05  # p of the corrected resampled t-test from which two trials are called a near-tie
# Worst over best retrained seed, from where it is said. The settings in docs/reports.md end at up
# to 1.2, but those with a ReLU behind the code at 1.4 to 1.9, with a rate too high at 2.6 and 13.
SEEDS_APART = 1.3
SIZES_SHOWN = 20  # a range of sizes is no table
REASONS_SHOWN = 5  # a study whose every trial failed still fits on a screen


def kept_text(best_epoch: int, epochs: int) -> str:
    """Say which epoch's weights a retrained network has, out of how many."""
    if best_epoch == 0:
        return f"stays the PCA it started as (none of {epochs} epochs is better)"
    return f"best epoch {best_epoch} of {epochs}"


def value_text(value: float | None, standard_error: float | None = None) -> str:
    """Write a loss to the digits that its standard error leaves meaningful.

    Examples
    --------
    >>> value_text(0.0123449, 0.000121)
    '0.01234 ± 0.00012'
    >>> value_text(0.0119)
    '0.0119'
    """
    if value is None:
        return "no value"
    if standard_error is None or not math.isfinite(standard_error) or not math.isfinite(value):
        return f"{value:.4g}"
    if standard_error <= 0.0:
        return f"{value:.4g} ± 0"
    decimals = max(1 - math.floor(math.log10(standard_error)), 0)
    if decimals > 8:
        return f"{value:.4g} ± {standard_error:.2g}"
    return f"{value:.{decimals}f} ± {standard_error:.{decimals}f}"


def parameter_text(value: Any) -> str:
    """Write one hyperparameter: floats to four significant digits, everything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def one_line(text: str) -> str:
    """Keep text to one line and the terminal safe: control characters are shown, not sent."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in re.sub(r"\s*[\r\n]+\s*", " ", text)
    )


def summary(snapshot: StudySnapshot, evaluation: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Sum a study up, finished or not, in values that JSON can hold (no nan, no infinity).

    Parameters
    ----------
    snapshot : StudySnapshot
        Of its ``facts``, ``dataset``, ``image_shape``, ``n_train_per_fold`` and
        ``n_validation_per_fold`` are used; each may be missing.
    evaluation : mapping, optional
        The document that the evaluation of the exported seed left, if there is one.

    Returns
    -------
    dict
        ``study, dataset, image_shape, n_trials``; ``trials`` (count per state), ``finished``
        (no trial waits or runs); ``selection`` (the rule, None if unknown); ``denoising``
        (None, or the ``corruption`` of all validation images and its ``level``); ``winner`` and
        ``best`` (the chosen trial, and the lowest value so far, or None: ``number, params,
        architecture, value, standard_error, fold_scores``); ``fold_effects_out`` (whether what a
        fold does to all trials alike is left out of their standard errors); ``edges`` (of the
        winner, see ``space_bounds.edges``); ``sizes`` (of each searched size of the code, where
        there are several, ``encoding_dim``, ``n_trials``, ``best``: a trial or None, and ``pca``:
        the error of as many principal components on the same folds, or None);
        ``indistinguishable`` (None
        where there is nothing to test, else ``test, alpha, n_compared`` and ``trials``:
        ``number, value, p``); ``unstable``, ``failed`` (``number, reason``); ``retrain``
        (None before the first seed is done, else ``seeds``; ``max_epochs, patience`` as they were
        set, None if unknown; ``n_cut_off``, the seeds whose patience was not over at the limit of
        epochs; ``longer_is_another_study``, whether another limit means another study;
        ``score_over_test``, the winner's value over the mean test MSE, None where either is
        missing or the study denoises; ``seeds_apart``, the validation loss of the worst seed
        over that of the best where it is at least ``SEEDS_APART`` and none is still to be
        trained, else None; ``test_mse``: ``mean, sd, n_seeds``); ``retraining`` (whether
        seeds are still to be trained);
        ``evaluation`` (None where there is none, else of the exported seed ``seed_index, n_test,
        encoding_dim, n_live_units``, the four metrics with ``mean, low, high``, ``pca``: its
        ``encoding_dim`` and metrics, and ``denoised``: None, or the row of the robustness under
        the noise that it was trained for); ``test_looks``.
    """
    trials = sorted(snapshot.trials, key=lambda trial: trial.number)
    ranked = eligible_trials(trials)
    winner = next((trial for trial in trials if trial.number == snapshot.chosen), None)
    states = Counter(trial.state for trial in trials)
    states["waiting"] += max(snapshot.n_trials - len(trials), 0)
    shape = snapshot.facts.get("image_shape")
    retraining = any(lease.kind == "retrain" and not lease.done for lease in snapshot.leases)
    return {
        "study": snapshot.name,
        "dataset": snapshot.facts.get("dataset"),
        "image_shape": None if shape is None else [int(size) for size in shape],
        "n_trials": snapshot.n_trials,
        "trials": {state: states[state] for state in get_args(TrialState)},
        "finished": not (states["waiting"] or states["running"]),
        "selection": selection_rule(snapshot.spec),
        "denoising": denoising(snapshot.spec),
        "winner": None if winner is None else _trial(winner, snapshot.spec),
        "best": _trial(ranked[0], snapshot.spec) if ranked else None,
        "fold_effects_out": pooled_spread(trials) is not None,
        "edges": _edges(winner, snapshot.spec),
        "sizes": _sizes(trials, snapshot),
        "indistinguishable": _near_ties(ranked, winner, snapshot.facts),
        "unstable": [
            {"number": trial.number, "reason": trial.unstable}
            for trial in trials
            if trial.state == "complete" and trial.unstable is not None
        ],
        "failed": [
            {"number": trial.number, "reason": trial.reason}
            for trial in trials
            if trial.state == "failed"
        ],
        "retrain": _retrain(snapshot.retrains, snapshot.spec, winner, retraining),
        "retraining": retraining,
        "evaluation": None if evaluation is None else _evaluation(evaluation, snapshot.spec),
        "test_looks": snapshot.test_looks,
    }


def _evaluation(document: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    denoised = own_corruption(document, spec.get("training", {}))
    return evaluation_numbers(document) | {"denoised": denoised and dict(denoised)}


def _sizes(trials: Sequence[TrialRecord], snapshot: StudySnapshot) -> list[dict[str, Any]]:
    by_size: dict[int, list[TrialRecord]] = {}
    for trial in trials:
        size = trial.params.get("encoding_dim")
        if size is not None:
            by_size.setdefault(int(size), []).append(trial)
    if len(by_size) < 2 or len(by_size) > SIZES_SHOWN:
        return []
    # Principal components see clean images, a denoiser corrupted ones.
    rows = () if denoising(snapshot.spec) else snapshot.facts.get("pca", ())
    pca = {row["encoding_dim"]: row["mse"] for row in rows}
    found = []
    for size, own in sorted(by_size.items()):
        ranked = eligible_trials(own)
        found.append(
            {
                "encoding_dim": size,
                "n_trials": len(own),
                "best": _trial(ranked[0], snapshot.spec) if ranked else None,
                "pca": _finite(pca.get(size)),
            }
        )
    return found


def _edges(winner: TrialRecord | None, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    # After a fixed number of epochs fast learners score best, which says nothing of the end.
    if winner is None or not scores_delivery(spec):
        return []
    return edges(winner.params, spec.get("space", {}))


def scores_delivery(spec: Mapping[str, Any]) -> bool:
    """Whether a resolved specification scores trials by what would be delivered."""
    return bool(spec.get("training", {}).get("epochs") == "auto")


def selection_rule(spec: Mapping[str, Any]) -> str | None:
    """Read the selection rule out of a resolved specification; None where it names none."""
    rule = spec.get("search", {}).get("select")
    return None if rule is None else str(rule)


def denoising(spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give corruption and level of the validation images; None of a study without."""
    training = spec.get("training", {})
    # A study from before there were corruptions names none.
    if training.get("corruption", "none") == "none":
        return None
    return {
        "corruption": training["corruption"],
        "level": training["validation_corruption_level"],
    }


def validation_words(noise: Mapping[str, Any] | None) -> str:
    """Say what a score is, under the corruption that ``denoising`` gave."""
    if noise is None:
        return "validation MSE per pixel"
    of = f"{noise['corruption']} {noise['level']:g}"
    return f"validation MSE per pixel; inputs corrupted by {of}, targets clean"


def summary_text(facts: Mapping[str, Any]) -> str:
    """Tell a summary in plain words, and say what is missing.

    Parameters
    ----------
    facts : mapping
        What `summary` returned.

    Returns
    -------
    str
        Lines without a newline at the end.
    """
    lines = [_study_line(facts), *_winner_lines(facts), *_near_tie_lines(facts)]
    lines += _set_aside("unstable and set aside", facts["unstable"])
    lines += _set_aside("failed", facts["failed"], verb=False)
    lines += [*_retrain_lines(facts), *evaluation_lines(facts["evaluation"])]
    lines += size_lines(facts)
    return "\n".join(one_line(line) for line in lines)


def _finite(value: float | None) -> float | None:
    """Turn what JSON cannot hold into None."""
    return float(value) if value is not None and math.isfinite(value) else None


def _plain(value: Any) -> Any:
    return _finite(value) if isinstance(value, float) else value


def _trial(trial: TrialRecord, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": trial.number,
        "params": {name: _plain(value) for name, value in trial.params.items()},
        "architecture": _architecture(trial, spec),
        "value": _finite(trial.value),
        "standard_error": _finite(trial.standard_error),
        "fold_scores": [_finite(score) for score in trial.fold_scores],
    }


def _architecture(trial: TrialRecord, spec: Mapping[str, Any]) -> str | None:
    """Name the architecture: searched, or fixed in the specification."""
    name = trial.params.get("architecture", spec.get("model", {}).get("architecture"))
    return None if name is None else str(name)


def _near_ties(
    ranked: Sequence[TrialRecord], winner: TrialRecord | None, facts: Mapping[str, Any]
) -> dict[str, Any] | None:
    n_train = facts.get("n_train_per_fold")
    n_validation = facts.get("n_validation_per_fold")
    if n_train is None or n_validation is None:
        return None
    if winner is None or winner not in ranked or len(winner.fold_scores) < 2:
        return None
    # Folds differ by one sample at most, so where they are listed their mean stands for all.
    ties = indistinguishable(
        ranked,
        winner,
        n_train=float(np.mean(n_train)),
        n_validation=float(np.mean(n_validation)),
        alpha=ALPHA,
    )
    return {
        "test": "corrected resampled t-test",
        "alpha": ALPHA,
        "n_compared": len(ranked) - 1,
        "trials": [{"number": t.number, "value": _finite(t.value), "p": p} for t, p in ties],
    }


def _retrain(
    retrains: Sequence[RetrainRecord],
    spec: Mapping[str, Any],
    winner: TrialRecord | None,
    retraining: bool,
) -> dict[str, Any] | None:
    if not retrains:
        return None
    settings = spec.get("retrain", {})
    limit, patience = settings.get("max_epochs"), settings.get("patience")
    ordered = sorted(retrains, key=lambda record: record.seed_index)
    tested = [m for m in (_finite(record.test_mse) for record in ordered) if m is not None]
    return {
        "seeds": [
            {
                "seed_index": record.seed_index,
                "seed": record.seed,
                "epochs": record.epochs,
                "best_epoch": record.best_epoch,
                "validation_loss": _finite(record.validation_loss),
                "test_mse": _finite(record.test_mse),
                "weights_sha256": record.weights_sha256,
            }
            for record in ordered
        ],
        "max_epochs": limit,
        "patience": patience,
        "n_cut_off": _n_cut_off(retrains, limit, patience),
        # By these settings the trials are scored too: others are another study.
        "longer_is_another_study": scores_delivery(spec),
        "score_over_test": _score_over_test(winner, tested, spec),
        "seeds_apart": None
        if retraining
        else seeds_apart([record.validation_loss for record in retrains]),
        "test_mse": None
        if not tested
        else {
            "mean": float(np.mean(tested)),
            "sd": float(np.std(tested, ddof=1)) if len(tested) > 1 else None,
            "n_seeds": len(tested),
        },
    }


def _score_over_test(
    winner: TrialRecord | None, tested: Sequence[float], spec: Mapping[str, Any]
) -> float | None:
    # Test images are clean, validation images of a study that denoises are not.
    if winner is None or not tested or winner.value is None or denoising(spec) is not None:
        return None
    mean = float(np.mean(tested))
    return _finite(winner.value / mean) if mean > 0 else None


def longer_training(retrain: Mapping[str, Any]) -> str:
    """Say how a summary's ``retrain`` trains for longer, from its limit of epochs."""
    how = "begin a new study" if retrain["longer_is_another_study"] else "run again"
    return f"{how} with --set retrain.max_epochs={2 * retrain['max_epochs']} to train for longer"


def _n_cut_off(retrains: Sequence[RetrainRecord], limit: int | None, patience: int | None) -> int:
    # Patience that cannot run out asks for a fixed number of epochs: nothing is cut off.
    if limit is None or patience is None or patience >= limit:
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


def seeds_apart_text(retrain: Mapping[str, Any]) -> str:
    """Say how far apart the seeds of a summary's ``retrain`` lie, where ``seeds_apart`` is set."""
    return (
        f"the worst has {retrain['seeds_apart']:.2g} times the validation MSE of the best, so what "
        "this configuration reaches depends on the seed"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _study_line(facts: Mapping[str, Any]) -> str:
    counts = facts["trials"]
    finished = counts["complete"] + counts["pruned"] + counts["failed"]
    ended = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    images = "" if facts["dataset"] is None else f" on {facts['dataset']}"
    if facts["image_shape"]:
        images += f" ({' x '.join(str(size) for size in facts['image_shape'])} images)"
    total = _count(facts["n_trials"], "trial")
    return f"Study {facts['study']}{images}: {finished} of {total} finished ({ended})"


def _described(trial: Mapping[str, Any]) -> str:
    words = [] if trial["architecture"] is None else [trial["architecture"]]
    words += [
        f"{name} {parameter_text(value)}"
        for name, value in trial["params"].items()
        if name != "architecture"
    ]
    return f"trial {trial['number']}" + (f" — {', '.join(words)}" if words else "")


def _winner_lines(facts: Mapping[str, Any]) -> list[str]:
    winner, best = facts["winner"], facts["best"]
    if winner is None and best is None:
        return ["No winner: no trial has completed and is stable" + _so_far(facts)]
    trial = best if winner is None else winner
    lines = [("Best so far: " if winner is None else "Winner: ") + _described(trial)]
    scores = trial["fold_scores"]
    error = trial["standard_error"]
    if error is None:
        lines.append(f"  {value_text(trial['value'])} (mean over {_count(len(scores), 'fold')})")
    else:
        lines.append(
            f"  {value_text(trial['value'], error)} "
            f"(mean ± standard error over {_count(len(scores), 'fold')}"
            f"{', fold effects out' * facts['fold_effects_out']}; "
            f"{validation_words(facts['denoising'])})"
        )
    if scores:
        lines.append(f"  per fold: {', '.join(value_text(score) for score in scores)}")
    if winner is None:
        lines.append("Nothing is chosen yet" + _so_far(facts))
    elif best is not None and best["number"] != winner["number"]:
        lines.append(
            f"  chosen by {facts['selection']} although trial {best['number']} has the lowest "
            f"mean, {value_text(best['value'], best['standard_error'])}"
        )
    return [*lines, *(f"  {edge_text(edge)}" for edge in facts["edges"])]


def edge_text(edge: Mapping[str, Any]) -> str:
    """Say where a parameter of the winner lies, and what to do about it."""
    ends = f"{value_text(edge['low'])} to {value_text(edge['high'])}"
    return (
        f"{edge['name']} lies at the {edge['end']} end of what was searched ({ends}): "
        "a new study may find better beyond"
    )


def size_lines(facts: Mapping[str, Any]) -> list[str]:
    """Tell the best of each size of the code, beside principal components; nothing for one."""
    rows = facts["sizes"]
    if not rows:
        return []
    lines = ["Best of each code size, mean ± standard error over the folds:"]
    width = max(len(str(row["encoding_dim"])) for row in rows)
    for row in rows:
        best, pca = row["best"], row["pca"]
        words = f"  {row['encoding_dim']:>{width}}: "
        if best is None:
            lines.append(f"{words}none of {_count(row['n_trials'], 'trial')} may be chosen")
            continue
        words += value_text(best["value"], best["standard_error"])
        if pca:
            words += f", PCA {value_text(pca)} ({against(best['value'], pca)})"
        lines.append(f"{words}, trial {best['number']} ({row['n_trials']} tried)")
    if facts["winner"] is not None:
        lines.append(
            f"  another size than the winner's: aesearch train {shlex.quote(facts['study'])} "
            "--encoding-dim <size>"
        )
    return lines


def _so_far(facts: Mapping[str, Any]) -> str:
    return "." if facts["finished"] else ": the search is not finished."


def _near_tie_lines(facts: Mapping[str, Any]) -> list[str]:
    if facts["winner"] is None:
        return []
    ties = facts["indistinguishable"]
    if ties is None:
        return ["Whether other trials can be told apart from it was not tested."]
    how = f"({ties['test']}, p >= {ties['alpha']:g})"
    if not ties["n_compared"]:
        return ["There is no other eligible trial to compare it with."]
    if not ties["trials"]:
        return [f"Every other eligible trial can be told apart from it {how.replace('>=', '<')}."]
    numbers = ", ".join(str(tie["number"]) for tie in ties["trials"])
    others = _count(len(ties["trials"]), "other trial")
    return [f"{others} cannot be told apart from it {how}: {numbers}"]


def _set_aside(what: str, rows: Sequence[Mapping[str, Any]], *, verb: bool = True) -> list[str]:
    if not rows:
        return []
    were = ("was " if len(rows) == 1 else "were ") if verb else ""
    lines = [
        f"  trial {row['number']}: {row['reason'] or 'no reason was stored'}"
        for row in rows[:REASONS_SHOWN]
    ]
    others = ", ".join(str(row["number"]) for row in rows[REASONS_SHOWN:])
    if others:
        lines.append(f"  and trials {others}")
    return [f"{_count(len(rows), 'trial')} {were}{what}:", *lines]


def _retrain_lines(facts: Mapping[str, Any]) -> list[str]:
    if facts["winner"] is None:
        return []
    retrain = facts["retrain"]
    if retrain is None:
        return ["It has not been retrained yet."]
    seeds = retrain["seeds"]
    more = "; more are under way" if facts["retraining"] else ""
    lines = [f"Retrained with {_count(len(seeds), 'seed')}{more}:"]
    for seed in seeds:
        tested = "" if seed["test_mse"] is None else f", test MSE {value_text(seed['test_mse'])}"
        lines.append(
            f"  seed {seed['seed_index']}: {kept_text(seed['best_epoch'], seed['epochs'])}, "
            f"validation MSE {value_text(seed['validation_loss'])}{tested}"
        )
    if retrain["n_cut_off"]:
        lines.append(
            f"  {retrain['n_cut_off']} of {_count(len(seeds), 'seed')} still got better at the "
            f"limit of {retrain['max_epochs']} epochs; {longer_training(retrain)}"
        )
    if retrain["seeds_apart"]:
        lines.append(
            f"  the seeds lie far apart: {seeds_apart_text(retrain)}; run again with "
            f"--set retrain.seeds={2 * len(seeds)} to see how often that happens"
        )
    test = retrain["test_mse"]
    if test is None:
        return [*lines, "The test set has not been looked at yet."]
    looks = facts["test_looks"]
    over = (
        "1 seed"
        if test["sd"] is None
        else f"mean ± standard deviation over {test['n_seeds']} seeds"
    )
    clean = "" if facts["denoising"] is None else " of clean images"
    lines.append(f"Test MSE per pixel{clean}: {value_text(test['mean'], test['sd'])} ({over})")
    if retrain["score_over_test"] is not None:
        why = (
            "a fold's network trains as the delivered one does, on the other folds only"
            if retrain["longer_is_another_study"]
            else "a fold's network trains for a fixed number of epochs, on the other folds only"
        )
        lines.append(
            f"  the mean over the folds is {retrain['score_over_test']:.2f} times that: {why}"
        )
    if looks > 1:
        lines.append(
            f"The test set was looked at {looks} times; only the first look is free of bias."
        )
    if facts["evaluation"] is None:
        lines.append(
            "The model was not evaluated further: 'aesearch evaluate' does it, or says why not."
        )
    return lines
