"""The evaluation as files: ``evaluation.json``, two CSV tables and a folder of pictures."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from aesearch.studies.results.evaluation import METRICS, ClassMetrics, Evaluation, Metrics
from aesearch.studies.results.output_files import make_folder, write_whole
from aesearch.studies.results.records import Picture

CALIBRATION = "calibration.json"  # errors of ordinary images, beside the model that made them


def write_evaluation(
    folder: Path, evaluation: Evaluation, pictures: Sequence[Picture]
) -> list[Path]:
    """Write an evaluation; equal evaluations give equal bytes.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    make_folder(folder / "pictures")
    contents: dict[str, bytes | str] = {
        "evaluation.json": evaluation.without_errors().to_json(indent=1) + "\n",
        "evaluation.csv": metric_rows(evaluation).to_csv(index=False),
        "robustness.csv": robustness_rows(evaluation).to_csv(index=False),
    }
    if evaluation.calibration is not None:
        calibration = evaluation.calibration.to_dict()
        contents[CALIBRATION] = json.dumps(calibration, allow_nan=False) + "\n"
    contents |= {f"pictures/{picture.name}.png": picture.png for picture in pictures}
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def metric_rows(evaluation: Evaluation) -> pd.DataFrame:
    """One row for all test images, one per class, and one for the PCA baseline.

    Returns
    -------
    DataFrame
        ``images`` (all, class, pca); ``label``; ``n``; for each metric ``<metric>`` (mean over
        images), ``<metric>_low`` and ``<metric>_high`` (95% bootstrap interval).
    """
    metrics, pca = evaluation.metrics, evaluation.pca
    rows = [_metric_row("all", None, metrics.overall)]
    rows += [_metric_row("class", row.label, row) for row in metrics.per_class or ()]
    baseline: dict[str, float | str | None] = {"images": "pca", "label": None}
    baseline |= {"n": evaluation.n_test} | {metric: getattr(pca, metric) for metric in METRICS}
    return pd.DataFrame([*rows, baseline])


def _metric_row(
    images: str, label: str | None, row: Metrics | ClassMetrics
) -> dict[str, float | str | None]:
    found: dict[str, float | str | None] = {"images": images, "label": label, "n": row.n}
    for metric in METRICS:
        interval = getattr(row, metric)
        for bound, ending in (("mean", ""), ("low", "_low"), ("high", "_high")):
            found[metric + ending] = None if interval is None else getattr(interval, bound)
    return found


def robustness_rows(evaluation: Evaluation) -> pd.DataFrame:
    """One row per corruption, level and convention.

    Returns
    -------
    DataFrame
        ``corruption``, ``level``, ``clamped``; ``mse``, ``psnr`` of the reconstruction of the
        corrupted input, ``input_mse``, ``input_psnr`` of that input, against the clean image.
    """
    columns = ["corruption", "level", "clamped", "mse", "psnr", "input_mse", "input_psnr"]
    return pd.DataFrame([asdict(row) for row in evaluation.robustness], columns=columns)
