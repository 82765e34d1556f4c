"""The tables of the report as headings and cells; how they are drawn is the template's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aesearch.studies.report.figures_dimension import DimensionRow
from aesearch.studies.report.figures_evaluation import corruption_name
from aesearch.studies.report.look import spelled
from aesearch.studies.results.evaluation import Corrupted, Evaluation
from aesearch.studies.results.records import RetrainRecord, StudySnapshot, TrialRecord
from aesearch.studies.results.text import parameter_text, value_text
from aesearch.studies.spec.resolved import ResolvedSpec

ABSENT = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    key : str
        What the column is sorted by; empty cells come last.
    kind : str
        Class for the style sheet: number, state-complete, …
    note : str
        Said below the text, in small letters.
    """

    text: str
    key: str = ""
    kind: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Headings and rows; ``marked`` is the index of the row to point out, or None."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: int | None = None


def number_cell(value: float | None, text: str | None = None, *, form: str = ".4g") -> Cell:
    """Show a number, sorted by its value; nothing where there is none."""
    if value is None or not math.isfinite(value):
        return Cell(ABSENT, "", "number")
    return Cell(format(value, form) if text is None else text, repr(float(value)), "number")


def trials(snapshot: StudySnapshot, names: Sequence[str]) -> Table:
    """All trials, in number order; reasons stand in lists of their own, where they have room."""
    headings = ("trial", "state", "MSE", "± SE", "folds", "epochs", *map(spelled, names))
    rows = tuple(_trial_row(trial, names, snapshot.spec) for trial in snapshot.trials)
    numbers = [trial.number for trial in snapshot.trials]
    marked = numbers.index(snapshot.chosen) if snapshot.chosen in numbers else None
    return Table("Every trial of the study", headings, rows, marked)


def _trial_row(trial: TrialRecord, names: Sequence[str], spec: ResolvedSpec) -> tuple[Cell, ...]:
    state = "unstable" if trial.unstable else trial.state
    # Where folds are bought last, a trial that does not get there has trained on the first one.
    n_folds = 1 if spec.scores_delivery and trial.state != "complete" else spec.search.folds
    n_folds = n_folds if trial.epochs else 0
    cells = [
        Cell(str(trial.number), str(trial.number), "number"),
        Cell(state, state, f"state state-{state}"),
        number_cell(trial.value),
        number_cell(trial.standard_error, form=".2g"),
        number_cell(n_folds, f"{n_folds} of {spec.search.folds}"),
        number_cell(trial.epochs, str(trial.epochs)),
    ]
    for name in names:
        value = trial.params.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            cells.append(number_cell(float(value), parameter_text(value)))
        else:
            text = ABSENT if value is None else parameter_text(value)
            cells.append(Cell(text, "" if value is None else text))
    return tuple(cells)


def dimensions(rows: Sequence[DimensionRow]) -> Table:
    """The best stable trial of each encoding dimension, beside PCA of that size."""
    return Table(
        "The best stable trial of each encoding dimension",
        ("encoding dimension", "MSE ± SE", "PCA", "trial", "stable trials", "on the front"),
        tuple(
            (
                number_cell(row.encoding_dim, str(row.encoding_dim)),
                number_cell(row.trial.value, value_text(row.trial.value, row.trial.standard_error)),
                number_cell(row.pca_mse),
                number_cell(row.trial.number, str(row.trial.number)),
                number_cell(row.n_trials, str(row.n_trials)),
                Cell("yes" if row.on_front else "no", "1" if row.on_front else "0"),
            )
            for row in rows
        ),
    )


_METRICS = (
    ("mse", "MSE per pixel", "lower is better", ".4g"),
    ("psnr", "PSNR in dB", "higher is better", ".2f"),
    ("binary_accuracy", "binary accuracy", "rounded pixels that agree", ".4f"),
    ("ssim", "SSIM", "structural similarity, at most 1", ".4f"),
)


def metrics(evaluation: Evaluation) -> Table:
    """The retrained model on the test set, beside PCA of the same size."""
    overall, pca = evaluation.metrics.overall, evaluation.pca
    rows = []
    for key, name, meaning, form in _METRICS:
        found, baseline = getattr(overall, key), getattr(pca, key)
        if found is None:
            continue
        rows.append(
            (
                Cell(name, note=meaning),
                Cell(format(found.mean, form), "", "number strong"),
                Cell(f"{found.low:{form}} to {found.high:{form}}", "", "number"),
                Cell(ABSENT if baseline is None else format(baseline, form), "", "number"),
            )
        )
    headings = ("", "autoencoder", "95% interval", "PCA")
    return Table("The retrained model on the test set", headings, tuple(rows))


def robustness(rows: Sequence[Corrupted]) -> Table:
    """Every corruption with the error of the input and of its reconstruction."""
    headings = ("corruption", "input MSE", "MSE", "input PSNR in dB", "PSNR in dB")
    return Table(
        "Corrupted inputs and their reconstructions, against the clean images",
        headings,
        tuple(
            (
                Cell(corruption_name(row)),
                number_cell(row.input_mse),
                number_cell(row.mse),
                number_cell(row.input_psnr, form=".1f"),
                number_cell(row.psnr, form=".1f"),
            )
            for row in rows
        ),
    )


def retrained(records: Sequence[RetrainRecord], *, denoises: bool) -> Table:
    """The retrained seeds; a denoiser's held-out images are corrupted, its test images clean."""
    held_out = "held-out MSE" + ", corrupted images" * denoises
    test = "test MSE" + ", clean images" * denoises
    headings = ("seed", "its number", "best epoch", "epochs", held_out, test, "weights")
    return Table(
        "The retrained seeds",
        headings,
        tuple(
            (
                number_cell(record.seed_index, str(record.seed_index)),
                Cell(str(record.seed), str(record.seed), "number"),
                number_cell(record.best_epoch, str(record.best_epoch or "none: it is PCA")),
                number_cell(record.epochs, str(record.epochs)),
                number_cell(record.validation_loss),
                number_cell(record.test_mse),
                Cell(f"{record.weights_sha256[:12]}…", record.weights_sha256, "code"),
            )
            for record in records
        ),
    )
