"""The evaluation as files: two of JSON, two CSV tables and a folder of pictures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from aesearch.studies.results.evaluation_text import METRICS
from aesearch.studies.results.output_files import make_folder, write_whole
from aesearch.studies.results.records import Picture

BOUNDS = ("mean", "low", "high")
CALIBRATION = "calibration.json"  # errors of ordinary images, beside the model that made them


def write_evaluation(
    folder: Path, document: Mapping[str, Any], pictures: Sequence[Picture]
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
    calibration = document.get("calibration")
    contents: dict[str, bytes | str] = {
        "evaluation.json": json.dumps(to_be_read(document), indent=1, allow_nan=False) + "\n",
        "evaluation.csv": metric_rows(document).to_csv(index=False),
        "robustness.csv": robustness_rows(document).to_csv(index=False),
    }
    if calibration is not None:
        contents[CALIBRATION] = json.dumps(calibration, allow_nan=False) + "\n"
    contents |= {f"pictures/{picture.name}.png": picture.png for picture in pictures}
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def to_be_read(document: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the thousands of errors of the calibration, which only scores are made of."""
    calibration = document.get("calibration")
    if calibration is None:
        return dict(document)
    kept = {name: calibration[name] for name in calibration if name not in ("errors", "images")}
    return {**document, "calibration": kept}


def metric_rows(document: Mapping[str, Any]) -> pd.DataFrame:
    """One row for all test images, one per class, and one for the PCA baseline.

    Returns
    -------
    DataFrame
        ``images`` (all, class, pca); ``label``; ``n``; for each metric ``<metric>`` (mean over
        images), ``<metric>_low`` and ``<metric>_high`` (95% bootstrap interval).
    """
    metrics, pca = document["metrics"], document["pca"]
    rows = [_metric_row("all", None, metrics["overall"])]
    rows += [_metric_row("class", row["label"], row) for row in metrics["per_class"] or ()]
    baseline: dict[str, Any] = {"images": "pca", "label": None, "n": document["n_test"]}
    return pd.DataFrame([*rows, baseline | {metric: pca[metric] for metric in METRICS}])


def _metric_row(images: str, label: str | None, row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"images": images, "label": label, "n": row["n"]}
    for metric in METRICS:
        of_metric = row[metric] or dict.fromkeys(BOUNDS)
        found[metric] = of_metric["mean"]
        found |= {f"{metric}_{bound}": of_metric[bound] for bound in BOUNDS[1:]}
    return found


def robustness_rows(document: Mapping[str, Any]) -> pd.DataFrame:
    """One row per corruption, level and convention.

    Returns
    -------
    DataFrame
        ``corruption``, ``level``, ``clamped``; ``mse``, ``psnr`` of the reconstruction of the
        corrupted input, ``input_mse``, ``input_psnr`` of that input, against the clean image.
    """
    columns = ["corruption", "level", "clamped", "mse", "psnr", "input_mse", "input_psnr"]
    return pd.DataFrame(document["robustness"], columns=columns)
