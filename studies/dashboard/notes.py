"""The notes of the dashboard, in Markdown: one for a finished trial, one for the study."""

import math
import re
from collections.abc import Sequence

from aesearch.studies.dashboard.finished import CurvePoint, FinishedTrial
from aesearch.studies.results.summary import Denoising, SetAside, Summary
from aesearch.studies.results.summary_text import seeds_apart_text, validation_words
from aesearch.studies.results.text import counted, one_line, parameter_text, value_text

_REASON_SHOWN = 400  # characters
_SET_ASIDE_SHOWN = 5  # trials
# Optuna's own plot, on the dashboard's page of the study; the report has another.
_IMPORTANCE = (
    "*Hyperparameter Importance* on this page says what sets the best tenth of the trials apart "
    "from all (PED-ANOVA), scaled to add up to 1. In the report it is the share of the variation "
    "of the loss over the whole space (fANOVA). The two may well differ: a size of the code can "
    "explain nearly all of the loss, and the best tenth, all of one size, differ in the rate."
)
_SPACE = 3 * "\u00a0"  # the dashboard's tables have none between their columns


def trial_note(
    trial: FinishedTrial,
    pictures: Sequence[tuple[str, str]] = (),
    *,
    score_epochs: int,
    as_delivered: bool = False,
    noise: Denoising | None = None,
    has_noisy: bool = False,
) -> str:
    """Tell how a trial ended, with one row per fold.

    Parameters
    ----------
    pictures : sequence of (alt, path)
        Shown below; where the dashboard has no files, the words of ``alt`` stand for them.
    score_epochs : int
        Over how many of the last epochs a fold's score is a mean.
    as_delivered : bool
        Whether a fold's score is measured once instead, as what the retraining would deliver.
    noise : Denoising or None
        Of the validation images.
    has_noisy : bool
        Whether these are noisy by themselves.
    """
    parts = [_ending(trial, validation_words(noise, has_noisy=has_noisy))]
    if trial.curve:
        parts.append(_fold_table(trial))
        words = (
            "Losses are mean squared errors per pixel at the last epoch that was trained: "
            f"{_last_epochs(trial)}."
        )
        if as_delivered:
            words += (
                " The validation loss is that of images that a fold keeps aside to stop its "
                "training; the score is measured with the weights of the best epoch, on the images "
                "that the fold holds out."
            )
        elif trial.record.fold_scores and score_epochs > 1:
            words += f" The score is the mean validation loss of the last {score_epochs} epochs."
        parts.append(words)
    parts += [f"![{_escaped(alt)}]({path})" for alt, path in pictures]
    return "\n\n".join(parts) + "\n"


def _last_epochs(trial: FinishedTrial) -> str:
    last = {point.fold: point.epoch for point in trial.curve}
    if len(set(last.values())) == 1:
        return str(max(last.values()))
    return ", ".join(f"{epoch} on fold {fold}" for fold, epoch in sorted(last.items()))


def _ending(trial: FinishedTrial, score: str) -> str:
    record = trial.record
    if record.state != "complete":
        words = "Pruned" if record.state == "pruned" else "Failed"
        return f"**{words}:** {_escaped(record.reason or 'no reason was stored')}"
    folds = len(record.fold_scores)
    value = value_text(record.value, record.standard_error)
    text = (
        f"**{value}** {score} (mean ± standard error over {folds} folds), "
        f"after {counted(record.epochs, 'epoch')}"
    )
    if record.unstable is None:
        return text
    return f"**Unstable, never chosen:** {_escaped(record.unstable)}\n\n{text}"


def _fold_table(trial: FinishedTrial) -> str:
    record = trial.record
    last: dict[int, CurvePoint] = {point.fold: point for point in trial.curve}
    scores = dict(enumerate(record.fold_scores))
    table = [["fold", "score", "validation loss", "training loss"]]
    for fold, point in sorted(last.items()):
        score = value_text(scores[fold]) if fold in scores else ""
        table.append([str(fold), score, _loss(point.validation), _loss(point.train)])
    table.append(
        [
            "mean",
            f"**{value_text(record.value, record.standard_error)}**",
            _loss(sum(point.validation for point in last.values()) / len(last)),
            _loss(sum(point.train for point in last.values()) / len(last)),
        ]
    )
    return _table([row if scores else [row[0], *row[2:]] for row in table], numbers=True)


def _table(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    rule = ":--" + ("|--:" if numbers else "|:--") * (len(rows[0]) - 1)
    head, *body = ("|".join([row[0], *(_SPACE + cell for cell in row[1:])]) for row in rows)
    return "\n".join(f"|{line}|" for line in (head, rule, *body))


def study_note(found: Summary, *, study_id: int, folds: int) -> str:
    """Tell what a study found and how sure that is.

    Parameters
    ----------
    study_id : int
        Optuna's, for the links to trials.
    folds : int
        Of the cross-validation.
    """
    parts = [_progress(found), *_winner(found, study_id, folds), *_certainty(found, study_id)]
    parts += _tested(found)
    parts += _set_aside("unstable and set aside", found.unstable, study_id)
    parts += _set_aside("failed", found.failed, study_id)
    if found.trials.complete > 1:
        parts.append(_IMPORTANCE)
    return "\n\n".join(parts) + "\n"


def _progress(found: Summary) -> str:
    done, ended = found.trials.finished, found.trials.text()
    images = "" if found.dataset is None else f" on {_escaped(found.dataset)}"
    if found.image_shape:
        images += f" ({' x '.join(map(str, found.image_shape))} images)"
    return f"{done} of {counted(found.n_trials, 'trial')} finished{images}: {ended}."


def _winner(found: Summary, study_id: int, folds: int) -> list[str]:
    winner, best = found.winner, found.best
    trial = winner or best
    if trial is None:
        return ["**No winner:** no trial has completed and is stable so far."]
    name = "Winner" if winner else "Best so far"
    value = value_text(trial.value, trial.standard_error)
    score = validation_words(found.denoising, has_noisy=found.has_noisy)
    parts = [
        f"### {name}: {_link(trial.number, study_id)}",
        f"**{value}** {score} (mean ± standard error over {folds} folds)",
    ]
    rows = {"architecture": trial.architecture} | trial.params
    cells = [(_escaped(name), _escaped(parameter_text(value))) for name, value in rows.items()]
    parts.append(_table([("hyperparameter", "value"), *cells]))
    if winner and best and best.number != winner.number:
        parts.append(
            f"Chosen by the rule {found.selection}, although {_link(best.number, study_id)} "
            f"has the lowest mean, {value_text(best.value, best.standard_error)}."
        )
    return parts


def _certainty(found: Summary, study_id: int) -> list[str]:
    ties = found.indistinguishable
    if found.winner is None or ties is None:
        return []
    how = f"({ties.test}, p ≥ {ties.alpha:g})"
    if not ties.n_compared:
        text = "There is no other eligible trial to compare it with."
    elif not ties.trials:
        text = (
            f"All {ties.n_compared} other eligible trials can be told apart from it "
            f"{how.replace('≥', '<')}."
        )
    else:
        shown = ", ".join(
            f"{_link(tie.number, study_id)} (p = {tie.p:.2f})" for tie in ties.trials[:10]
        )
        more = len(ties.trials) - 10
        text = (
            f"{len(ties.trials)} of {ties.n_compared} other eligible trials cannot be told "
            f"apart from it {how}: {shown}" + (f" and {more} more." if more > 0 else ".")
        )
    return ["### How sure", text]


def _tested(found: Summary) -> list[str]:
    if found.winner is None:
        return []
    retrain = found.retrain
    if retrain is None:
        return ["It has not been retrained yet."]
    test, seeds = retrain.test_mse, counted(len(retrain.seeds), "seed")
    if test is None:
        return [f"Retrained with {seeds}; the test set has not been looked at yet."]
    spread = "" if test.sd is None else "mean ± standard deviation over "
    images = "the test set" if found.denoising is None else "the clean images of the test set"
    text = (
        f"Retrained: **{value_text(test.mean, test.sd)}** MSE per pixel on {images} "
        f"({spread}{counted(test.n_seeds, 'seed')})."
    )
    if retrain.seeds_apart:
        text += f" **Its seeds lie far apart:** {seeds_apart_text(retrain)}."
    if found.test_looks > 1:
        text += (
            f" The test set was looked at {found.test_looks} times; only the first look is "
            "free of bias."
        )
    return [text]


def _set_aside(what: str, rows: Sequence[SetAside], study_id: int) -> list[str]:
    if not rows:
        return []
    lines = [
        f"- {_link(row.number, study_id)}: {_escaped(row.reason or 'no reason was stored')}"
        for row in rows[:_SET_ASIDE_SHOWN]
    ]
    more = len(rows) - _SET_ASIDE_SHOWN
    if more > 0:
        lines.append(f"- and {more} more")
    return [f"{counted(len(rows), 'trial')} {what}:", "\n".join(lines)]


def _link(number: int, study_id: int) -> str:
    return f"[trial {number}](/dashboard/studies/{study_id}/trials?numbers={number})"


def _escaped(text: str) -> str:
    """Text as text: nothing in it is read as Markdown, HTML or a link."""
    short = one_line(text)
    if len(short) > _REASON_SHOWN:
        short = short[: _REASON_SHOWN - 1] + "…"
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", short)


def _loss(value: float) -> str:
    return value_text(value) if math.isfinite(value) else "not finite"
