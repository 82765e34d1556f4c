"""The tables of an evaluation on a terminal."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aesearch.studies.results.evaluation import (
    ClassMetrics,
    Corrupted,
    Evaluation,
    Latent,
    Metrics,
)
from aesearch.studies.results.evaluation_text import baseline_text
from aesearch.terminal.notebook import NotebookLive, in_notebook

# Where no terminal says how wide it is: nothing is cut off.
_WIDTH = 160
_METRICS = (
    ("mse", "MSE", "#.4g"),
    ("psnr", "PSNR [dB]", ".2f"),
    ("ssim", "SSIM", ".3f"),
    ("binary_accuracy", "binary accuracy", ".4f"),
)


def waiting(text: str, *, quiet: bool) -> AbstractContextManager[object]:
    """Say that something is computed, on a terminal or in a notebook, until it is there."""
    if quiet:
        return nullcontext()
    return NotebookLive(Text(text)) if in_notebook() else Console(stderr=True).status(text)


def print_evaluation(evaluation: Evaluation) -> None:
    """Print an evaluation on standard output: metrics, corruptions, latent space, omissions."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    n_live, n_units = evaluation.n_live_units, evaluation.encoding_dim
    words = f"{evaluation.n_test} test images, seed {evaluation.seed_index}, encoding dimension "
    console.print(Text(f"{words}{n_units} ({n_live} units in use)"))
    console.print(metric_table(evaluation))
    mse = evaluation.metrics.overall.mse.mean
    console.print(Text(baseline_text(evaluation.pca, mse=mse, encoding_dim=n_units)))
    if evaluation.robustness:
        console.print(robustness_table(evaluation.robustness))
    for line in latent_lines(evaluation.latent):
        console.print(Text(line))
    if evaluation.calibration is not None:
        shares = [
            f"{row.share:.1%} have p <= {row.p_value:g}" for row in evaluation.calibration.test
        ]
        console.print(Text(f"As 'aesearch score' judges the test images: {', '.join(shares)}"))
    for omitted in evaluation.omitted:
        console.print(Text(f"Left out: {omitted}"))


def metric_table(evaluation: Evaluation) -> Table:
    """One row for all images, one per class, one for the PCA baseline."""
    table = Table(
        title="Reconstruction, mean over images with 95% bootstrap intervals",
        title_justify="left",
        box=box.SIMPLE,
    )
    table.add_column("images")
    table.add_column("n", justify="right")
    for _, title, _ in _METRICS:
        table.add_column(title)
    metrics, pca = evaluation.metrics, evaluation.pca
    rows: list[tuple[str, Metrics | ClassMetrics]] = [("all", metrics.overall)]
    rows += [(f"class {row.label}", row) for row in metrics.per_class or ()]
    for name, row in rows:
        found = [(getattr(row, key), digits) for key, _, digits in _METRICS]
        cells = [interval.text(digits) if interval else "-" for interval, digits in found]
        table.add_row(Text(name), str(row.n), *cells)
    means = [(getattr(pca, key), digits) for key, _, digits in _METRICS]
    cells = ["-" if mean is None else f"{mean:{digits}}" for mean, digits in means]
    table.add_row(f"all, by PCA of {pca.encoding_dim}", str(evaluation.n_test), *cells)
    return table


def robustness_table(rows: Sequence[Corrupted]) -> Table:
    """One row per corruption, level and convention."""
    table = Table(
        title="Corrupted inputs, against the clean originals", title_justify="left", box=box.SIMPLE
    )
    table.add_column("corruption")
    for title in ("level", "MSE", "input's own MSE", "PSNR [dB]", "input's own PSNR"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row.corruption + ("" if row.clamped else ", not clamped"),
            f"{row.level:g}",
            f"{row.mse:#.4g}",
            f"{row.input_mse:#.4g}",
            f"{row.psnr:.2f}",
            f"{row.input_psnr:.2f}",
        )
    return table


def latent_lines(latent: Latent) -> list[str]:
    """What is known of the codes, in words."""
    shares = " and ".join(f"{100 * share:.0f}%" for share in latent.explained_variance)
    lines = [f"Codes: the first two principal axes hold {shares} of their variance"]
    if latent.silhouette is not None:
        lines.append(f"  silhouette of the classes {latent.silhouette:.3f} (-1 to 1)")
    if latent.knn_accuracy is not None:
        lines.append(
            f"  {100 * latent.knn_accuracy:.1f}% of the test codes have the class of their "
            f"{latent.k} nearest training codes"
        )
    return lines
