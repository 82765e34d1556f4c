"""A summary told in plain words."""

import shlex
from collections.abc import Sequence

from aesearch.studies.results.evaluation_text import against, evaluation_lines
from aesearch.studies.results.space_bounds import Edge
from aesearch.studies.results.summary import (
    Denoising,
    Retraining,
    SetAside,
    Summary,
    TrialSummary,
)
from aesearch.studies.results.text import counted, kept_text, one_line, parameter_text, value_text

FRONT_SHOWN = 20
NO_KNEE = (
    "it has no knee, which takes three trials, one of them below the line between the ends: the "
    "best is chosen"
)
REASONS_SHOWN = 5  # a study whose every trial failed still fits on a screen


def validation_words(noise: Denoising | None, *, has_noisy: bool = False) -> str:
    """Say what a score is, under the corruption of the validation images."""
    if has_noisy:
        return "validation MSE per pixel; inputs noisy, targets clean"
    if noise is None:
        return "validation MSE per pixel"
    of = f"{noise.corruption} {noise.level:g}"
    return f"validation MSE per pixel; inputs corrupted by {of}, targets clean"


def summary_text(found: Summary) -> str:
    """Tell a summary in plain words, and say what is missing.

    Returns
    -------
    str
        Lines without a newline at the end.
    """
    lines = [_study_line(found), *_winner_lines(found), *_near_tie_lines(found)]
    lines += _set_aside("unstable and set aside", found.unstable)
    lines += _set_aside("failed", found.failed, verb=False)
    lines += [*_retrain_lines(found), *evaluation_lines(found.evaluation)]
    lines += [*size_lines(found), *_front_lines(found)]
    return "\n".join(one_line(line) for line in lines)


def longer_training(retrain: Retraining) -> str:
    """Say how a summary's ``retrain`` trains for longer, from its limit of epochs."""
    how = "begin a new study" if retrain.longer_is_another_study else "run again"
    return f"{how} with --set retrain.max_epochs={2 * retrain.max_epochs} to train for longer"


def seeds_apart_text(retrain: Retraining) -> str:
    """Say how far apart the seeds of a summary's ``retrain`` lie, where ``seeds_apart`` is set."""
    return (
        f"the worst has {retrain.seeds_apart:.2g} times the validation MSE of the best, so what "
        "this configuration reaches depends on the seed"
    )


def _study_line(found: Summary) -> str:
    finished, ended = found.trials.finished, found.trials.text()
    images = "" if found.dataset is None else f" on {found.dataset}"
    if found.image_shape:
        images += f" ({' x '.join(str(size) for size in found.image_shape)} images)"
    total = counted(found.n_trials, "trial")
    return f"Study {found.study}{images}: {finished} of {total} finished ({ended})"


def _described(trial: TrialSummary) -> str:
    words = [trial.architecture]
    words += [
        f"{name} {parameter_text(value)}"
        for name, value in trial.params.items()
        if name != "architecture"
    ]
    return f"trial {trial.number} — {', '.join(words)}"


def _winner_lines(found: Summary) -> list[str]:
    winner, best = found.winner, found.best
    trial = winner or best
    if trial is None:
        return ["No winner: no trial has completed and is stable" + _so_far(found)]
    lines = [("Best so far: " if winner is None else "Winner: ") + _described(trial)]
    scores = trial.fold_scores
    error = trial.standard_error
    if error is None:
        lines.append(f"  {value_text(trial.value)} (mean over {counted(len(scores), 'fold')})")
    else:
        lines.append(
            f"  {value_text(trial.value, error)} "
            f"(mean ± standard error over {counted(len(scores), 'fold')}"
            f"{', fold effects out' * found.fold_effects_out}; "
            f"{validation_words(found.denoising, has_noisy=found.has_noisy)})"
        )
    if scores:
        lines.append(f"  per fold: {', '.join(value_text(score) for score in scores)}")
    if winner is None:
        lines.append("Nothing is chosen yet" + _so_far(found))
    elif best is not None and best.number != winner.number:
        lines.append(
            f"  chosen by {found.selection} although trial {best.number} has the lowest "
            f"mean, {value_text(best.value, best.standard_error)}"
        )
    return [*lines, *(f"  {edge_text(edge)}" for edge in found.edges)]


def edge_text(edge: Edge) -> str:
    """Say where a parameter of the winner lies, and what to do about it."""
    ends = f"{value_text(edge.low)} to {value_text(edge.high)}"
    return (
        f"{edge.name} lies at the {edge.end} end of what was searched ({ends}): "
        "a new study may find better beyond"
    )


def size_lines(found: Summary) -> list[str]:
    """Tell the best of each size of the code, beside principal components; nothing for one."""
    rows = found.sizes
    if not rows:
        return []
    lines = ["Best of each code size, mean ± standard error over the folds:"]
    width = max(len(str(row.encoding_dim)) for row in rows)
    for row in rows:
        best, pca = row.best, row.pca
        words = f"  {row.encoding_dim:>{width}}: "
        if best is None:
            lines.append(f"{words}none of {counted(row.n_trials, 'trial')} may be chosen")
            continue
        words += value_text(best.value, best.standard_error)
        if pca and best.value is not None:
            words += f", PCA {value_text(pca)} ({against(best.value, pca)})"
        lines.append(f"{words}, trial {best.number} ({row.n_trials} tried)")
    if found.winner is not None:
        lines.append(
            f"  another size than the winner's: aesearch train {shlex.quote(found.study)} "
            "--encoding-dim <size>"
        )
    return lines


def _front_lines(found: Summary) -> list[str]:
    """Tell the Pareto front; nothing where there is one objective."""
    front = found.front
    if front is None:
        return []
    n_trials = counted(len(front.trials), "trial")
    lines = [f"Pareto front of {', '.join(front.objectives)}, {n_trials}, the smallest first:"]
    for row in front.trials[:FRONT_SHOWN]:
        sizes = [f"{name} {getattr(row, name):,}" for name in front.objectives if name != "mse"]
        marks = ", the winner" * (found.winner is not None and found.winner.number == row.number)
        marks += ", its knee" * (front.knee == row.number)
        lines.append(f"  trial {row.number}: {value_text(row.mse)}, {', '.join(sizes)}{marks}")
    others = ", ".join(str(row.number) for row in front.trials[FRONT_SHOWN:])
    if others:
        lines.append(f"  and trials {others}")
    if found.selection == "knee" and front.knee is None:
        lines.append(f"  {NO_KNEE}")
    return lines


def _so_far(found: Summary) -> str:
    return "." if found.finished else ": the search is not finished."


def _near_tie_lines(found: Summary) -> list[str]:
    if found.winner is None:
        return []
    ties = found.indistinguishable
    if ties is None:
        return ["Whether other trials can be told apart from it was not tested."]
    how = f"({ties.test}, p >= {ties.alpha:g})"
    if not ties.n_compared:
        return ["There is no other eligible trial to compare it with."]
    if not ties.trials:
        return [f"Every other eligible trial can be told apart from it {how.replace('>=', '<')}."]
    numbers = ", ".join(str(tie.number) for tie in ties.trials)
    others = counted(len(ties.trials), "other trial")
    return [f"{others} cannot be told apart from it {how}: {numbers}"]


def _set_aside(what: str, rows: Sequence[SetAside], *, verb: bool = True) -> list[str]:
    if not rows:
        return []
    were = ("was " if len(rows) == 1 else "were ") if verb else ""
    lines = [
        f"  trial {row.number}: {row.reason or 'no reason was stored'}"
        for row in rows[:REASONS_SHOWN]
    ]
    others = ", ".join(str(row.number) for row in rows[REASONS_SHOWN:])
    if others:
        lines.append(f"  and trials {others}")
    return [f"{counted(len(rows), 'trial')} {were}{what}:", *lines]


def _retrain_lines(found: Summary) -> list[str]:
    if found.winner is None:
        return []
    retrain = found.retrain
    if retrain is None:
        return ["It has not been retrained yet."]
    seeds = retrain.seeds
    more = "; more are under way" if found.retraining else ""
    lines = [f"Retrained with {counted(len(seeds), 'seed')}{more}:"]
    for seed in seeds:
        tested = "" if seed.test_mse is None else f", test MSE {value_text(seed.test_mse)}"
        lines.append(
            f"  seed {seed.seed_index}: {kept_text(seed.best_epoch, seed.epochs)}, "
            f"validation MSE {value_text(seed.validation_loss)}{tested}"
        )
    if retrain.n_cut_off:
        lines.append(
            f"  {retrain.n_cut_off} of {counted(len(seeds), 'seed')} still got better at the "
            f"limit of {retrain.max_epochs} epochs; {longer_training(retrain)}"
        )
    if retrain.seeds_apart:
        lines.append(
            f"  the seeds lie far apart: {seeds_apart_text(retrain)}; run again with "
            f"--set retrain.seeds={2 * len(seeds)} to see how often that happens"
        )
    test = retrain.test_mse
    if test is None:
        return [*lines, "The test set has not been looked at yet."]
    looks = found.test_looks
    over = "1 seed" if test.sd is None else f"mean ± standard deviation over {test.n_seeds} seeds"
    clean = "" if found.denoising is None else " of clean images"
    clean = ", noisy images against clean ones" if found.has_noisy else clean
    lines.append(f"Test MSE per pixel{clean}: {value_text(test.mean, test.sd)} ({over})")
    if retrain.score_over_test is not None:
        why = (
            "a fold's network trains as the delivered one does, on the other folds only"
            if retrain.longer_is_another_study
            else "a fold's network trains for a fixed number of epochs, on the other folds only"
        )
        lines.append(
            f"  the mean over the folds is {retrain.score_over_test:.2f} times that: {why}"
        )
    if looks > 1:
        lines.append(
            f"The test set was looked at {looks} times; only the first look is free of bias."
        )
    if found.evaluation is None:
        lines.append(
            "The model was not evaluated further: 'aesearch evaluate' does it, or says why not."
        )
    return lines
