"""An evaluation on a terminal: that it goes on, and its tables."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aesearch.studies.results.evaluation_text import (
    baseline_text,
    evaluation_numbers,
    interval_text,
)

if TYPE_CHECKING:
    from aesearch.data.study_data import Problem
    from aesearch.evaluation.evaluate import Evaluation
    from aesearch.models.autoencoder import Autoencoder
    from aesearch.studies.results.calibration import Calibration
    from aesearch.studies.spec.study import Configuration

# Where no terminal says how wide it is: nothing is cut off.
_WIDTH = 160
_METRICS = (
    ("mse", "MSE", "#.4g"),
    ("psnr", "PSNR [dB]", ".2f"),
    ("ssim", "SSIM", ".3f"),
    ("binary_accuracy", "binary accuracy", ".4f"),
)


def measured(
    model: "Autoencoder",
    problem: "Problem",
    seed_index: int,
    configuration: "Configuration",
    *,
    calibration: "Calibration | None" = None,
    quiet: bool = False,
) -> "Evaluation":
    """Evaluate a model in this process, to the last bit as a worker would, and say so.

    It is calibrated where no calibration of it is given.
    """
    import torch  # noqa: PLC0415 - --help must not pay for it

    from aesearch.evaluation.evaluate import evaluate  # noqa: PLC0415 - imports torch
    from aesearch.models.runtime import prepare_process  # noqa: PLC0415
    from aesearch.training.out_of_fold import calibrate  # noqa: PLC0415

    threads = problem.spec.compute.threads
    prepare_process(threads)
    console = Console(stderr=True, quiet=quiet)
    try:
        with console.status(f"Measuring {len(problem.test_images)} test images…"):
            calibration = calibration or calibrate(model, problem, configuration)
            return evaluate(model, problem, seed_index=seed_index, calibration=calibration)
    finally:
        # A worker's process ends; this one may go on, with numbers that it expects whole.
        torch.set_flush_denormal(False)


def print_evaluation(document: Mapping[str, Any]) -> None:
    """Print an evaluation on standard output: metrics, corruptions, latent space, omissions."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    n_live, n_units = document["n_live_units"], document["encoding_dim"]
    words = f"{document['n_test']} test images, seed {document['seed_index']}, encoding dimension "
    console.print(Text(f"{words}{n_units} ({n_live} units in use)"))
    console.print(metric_table(document))
    console.print(Text(baseline_text(evaluation_numbers(document))))
    if document["robustness"]:
        console.print(robustness_table(document))
    for line in latent_lines(document["latent"]):
        console.print(Text(line))
    calibration = document.get("calibration")
    if calibration:
        shares = [f"{row['share']:.1%} have p <= {row['p_value']:g}" for row in calibration["test"]]
        console.print(Text(f"As 'aesearch score' judges the test images: {', '.join(shares)}"))
    for omitted in document["omitted"]:
        console.print(Text(f"Left out: {omitted}"))


def metric_table(document: Mapping[str, Any]) -> Table:
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
    metrics, pca = document["metrics"], document["pca"]
    rows = [("all", metrics["overall"])]
    rows += [(f"class {row['label']}", row) for row in metrics["per_class"] or ()]
    for name, row in rows:
        cells = [
            interval_text(row[key], digits) if row[key] else "-" for key, _, digits in _METRICS
        ]
        table.add_row(Text(name), str(row["n"]), *cells)
    cells = ["-" if pca[key] is None else f"{pca[key]:{digits}}" for key, _, digits in _METRICS]
    table.add_row(f"all, by PCA of {pca['encoding_dim']}", str(document["n_test"]), *cells)
    return table


def robustness_table(document: Mapping[str, Any]) -> Table:
    """One row per corruption, level and convention."""
    table = Table(
        title="Corrupted inputs, against the clean originals", title_justify="left", box=box.SIMPLE
    )
    table.add_column("corruption")
    for title in ("level", "MSE", "input's own MSE", "PSNR [dB]", "input's own PSNR"):
        table.add_column(title, justify="right")
    for row in document["robustness"]:
        name = row["corruption"] + ("" if row["clamped"] else ", not clamped")
        table.add_row(
            name,
            f"{row['level']:g}",
            f"{row['mse']:#.4g}",
            f"{row['input_mse']:#.4g}",
            f"{row['psnr']:.2f}",
            f"{row['input_psnr']:.2f}",
        )
    return table


def latent_lines(latent: Mapping[str, Any]) -> list[str]:
    """What is known of the codes, in words."""
    shares = " and ".join(f"{100 * share:.0f}%" for share in latent["explained_variance"])
    lines = [f"Codes: the first two principal axes hold {shares} of their variance"]
    if latent["silhouette"] is not None:
        lines.append(f"  silhouette of the classes {latent['silhouette']:.3f} (-1 to 1)")
    if latent["knn_accuracy"] is not None:
        lines.append(
            f"  {100 * latent['knn_accuracy']:.1f}% of the test codes have the class of their "
            f"{latent['k']} nearest training codes"
        )
    return lines
