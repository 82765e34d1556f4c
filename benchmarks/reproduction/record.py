"""What docs/reports.md needs of one finished study, as a file that outlives its store."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, ValidationError

from aesearch.studies.errors import AesearchError
from aesearch.studies.spec.dimensions import Section
from aesearch.studies.spec.former import with_former_settings
from reproduction.reported import Measure

# None where there is none: a network that diverged, a seed that stopped before the others.
Number = float | None
Curves = tuple[tuple[Number, ...], ...]


class RecordError(AesearchError, ValueError):
    """A file that is no record of a study."""


class RecordedTrial(Section):
    """One trial; losses are mean squared errors per pixel, curves are (fold, epoch)."""

    params: dict[str, Any]
    value: Number
    standard_error: Number
    fold_scores: tuple[Number, ...]
    train: Curves
    validation: Curves


class RecordedSeed(Section):
    """One seed of the retraining; its curves end where it stopped."""

    test_mse: float
    train: tuple[Number, ...]
    validation: tuple[Number, ...]
    accuracy: tuple[Number, ...]


class Evaluated(Section):
    """What stands beside a test error: the size of the code, and PCA of as many components."""

    encoding_dim: int
    n_live_units: int
    pca_mse: float


class RecordedMeasure(Section):
    """One measurement that needs the networks or the images, one value per seed or one in all."""

    asked: Measure
    values: tuple[Number, ...]


class RecordedPicture(Section):
    """A picture beside the record: see ``picture_file``."""

    name: str
    alt: str


class StudyRecord(Section):
    """One finished study.

    Attributes
    ----------
    spec : dict
        Its resolved specification.
    chosen : int
        Number of the winning trial.
    evaluated : Evaluated or None
        None where the evaluation failed.
    measured : tuple of RecordedMeasure
        What can be asked of it that its curves do not say.
    """

    study: str
    spec: Annotated[dict[str, Any], BeforeValidator(with_former_settings)]
    versions: dict[str, str]
    dataset: str
    image_shape: tuple[int, int, int]
    n_images: int
    chosen: int
    evaluated: Evaluated | None
    pictures: tuple[RecordedPicture, ...]
    measured: tuple[RecordedMeasure, ...]
    trials: tuple[RecordedTrial, ...]
    seeds: tuple[RecordedSeed, ...]


def picture_file(study: str, picture: str) -> str:
    """Name the file of a picture of a recorded study."""
    return f"{study}-{picture}.png"


def numbers(values: Iterable[float]) -> tuple[Number, ...]:
    """Write what is not finite as None."""
    return tuple(float(value) if math.isfinite(value) else None for value in values)


def array(values: Any) -> np.ndarray:
    """Read numbers, also nested ones, as floats: None as NaN."""
    return np.array(values, dtype=np.float64)


def record_text(record: StudyRecord) -> str:
    """Write a record as JSON, a line for each trial, seed and measurement; the same, the same."""
    lines = []
    for key, value in record.model_dump(mode="json").items():
        written = json.dumps(value, allow_nan=False)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join(json.dumps(row, allow_nan=False) for row in value)
            written = f"[\n{rows}\n]"
        lines.append(f"{json.dumps(key)}: {written}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_record(path: Path) -> StudyRecord:
    """Read a record.

    Raises
    ------
    RecordError
        It cannot be read, or holds something else.
    """
    try:
        return StudyRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        cause = error.strerror if isinstance(error, OSError) else _first_problem(error)
        raise RecordError(
            f"{path} must be the record of a study, got {cause}; remove it, and run "
            "'python benchmarks/reproduction' on a store with its study"
        ) from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])
