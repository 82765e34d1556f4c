"""How odd images are: the error of each reconstruction, and how rarely ordinary images err so."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from aesearch.evaluation.metrics import squared_errors
from aesearch.inference.functions import GivenImages, Model
from aesearch.inference.known_oddities import Masks, RocAreas
from aesearch.inference.network import array, batches, check_batch_size, ready, the_model
from aesearch.inference.outputs import Add, table_output
from aesearch.inference.stream import Columns, Job, array_output, picture_output, sample_columns
from aesearch.studies.results.calibration import THRESHOLDS, Calibration, image_fingerprints

NOT_CALIBRATED = (
    "this model comes without errors of ordinary images (calibration.json beside it): no p-values; "
    "'aesearch evaluate STUDY --save', then 'aesearch export STUDY', or 'aesearch train best.yaml' "
    "write them"
)


def score_samples(
    model: Model,
    images: Any,
    *,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> pd.DataFrame:
    """Say how odd each image is.

    Parameters
    ----------
    model, images, batch_size, device
        As in ``aesearch.encode``.

    Returns
    -------
    DataFrame
        One row per image, in their order. ``error``: mean squared error per pixel of its
        reconstruction, for intensities in [0, 1]; of an image that the model was trained on, that
        of a network which was not (but from 20,000 training images on, where both are about the
        same). ``p_value``: the share of ordinary images that
        err as much or more, in (0, 1]; NaN, with a warning, where the model comes without
        calibration. Of ordinary images about 1% have at most 0.01, and 5% at most 0.05.

    Raises
    ------
    ImageShapeError, DataError, ModelFileError
        As ``encode``.

    References
    ----------
    Bates, Candès, Lei, Romano and Sesia: Testing for outliers with conformal p-values, Annals of
    Statistics 51, 2023; how the errors of ordinary images are found is in
    ``aesearch.studies.results.calibration``.

    Examples
    --------
    >>> scores = aesearch.score_samples("runs/mnist", images)    # doctest: +SKIP
    >>> scores[scores.p_value <= 0.01].sort_values("error")      # doctest: +SKIP
    """
    network = the_model(model)
    given = GivenImages(network, images, batch_size)
    errors, prints = np.empty(len(given)), np.empty(len(given), np.uint32)
    with ready(network, device) as tensor:
        for rows in given.ranges():
            block = given.block(rows)
            batch, prints[rows] = tensor(block), image_fingerprints(block)
            errors[rows] = array(squared_errors(network(batch), batch))
    calibration = network.find_calibration()
    if calibration is None:
        warnings.warn(NOT_CALIBRATED, stacklevel=2)
    return _table(*_judged(calibration, errors, prints)[:2], {})


@dataclass(frozen=True, eq=False)
class Scores:
    """How odd the images of an INPUT are.

    Attributes
    ----------
    table : DataFrame
        One row per image: ``file`` or ``index``, ``label`` where it is known, ``error``,
        ``p_value``.
    n_ordinary : int
        Ordinary images that the p-values are counted against; 0 where there are no p-values.
    n_known : int
        Images that are among these.
    areas : RocAreas
        How well errors tell the odd from the ordinary, where INPUT says which is which.
    """

    table: pd.DataFrame
    n_ordinary: int
    n_known: int
    areas: RocAreas

    @property
    def at_most(self) -> dict[str, int]:
        """How many images have a p-value of at most 0.01 and so on; empty without p-values."""
        if not self.n_ordinary:
            return {}
        return {f"{level:g}": int((self.table.p_value <= level).sum()) for level in THRESHOLDS}

    @property
    def smallest(self) -> float:
        """The smallest p-value that so many ordinary images can give."""
        return 1 / (self.n_ordinary + 1)

    @property
    def warning(self) -> str | None:
        """Why there are no p-values."""
        return None if self.n_ordinary else NOT_CALIBRATED


def score_to(
    job: Job, *, ordinary: tuple[str, ...], masks: Masks | None, maps: Job | None = None
) -> Scores:
    """Write the score of each image as a table.

    Parameters
    ----------
    ordinary : tuple of str
        Classes that are not odd; empty for those called good, normal or ok, if any.
    masks : Masks or None
        Which pixels of the images are odd, where INPUT says so.
    maps : Job, optional
        The same with another output: squared errors per pixel, mean over the channels, as arrays
        (sample, height, width); as pictures their square roots, black is 0 and white 1.
    """
    calibration: Calibration | None = job.model.find_calibration()
    blocks: list[tuple[np.ndarray, np.ndarray]] = []
    is_picture = maps is not None and maps.kind in ("png", "folder")
    with _map_output(maps) as add:
        for rows, prints, errors, squares in _errors(job):
            blocks.append((errors, prints))
            add(np.sqrt(squares)[:, None] if is_picture else squares)
            if masks is not None:
                masks.add(rows, squares)
    measured = (np.concatenate(column) for column in zip(*blocks, strict=True))
    errors, p_values, is_known = _judged(calibration, *measured)
    table = _table(errors, p_values, sample_columns(job.images))
    areas = RocAreas.of(job.images, errors, ordinary, masks)
    with table_output(job.path, job.kind, lambda _errors: table) as add:
        add(errors)
    n_ordinary = 0 if calibration is None else len(calibration.errors)
    return Scores(table, n_ordinary, int(is_known.sum()), areas)


def _errors(job: Job) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Give a range of images: their fingerprints, their errors, and those of their pixels."""
    model, n_samples = job.model, job.images.n_samples
    with ready(model, job.device) as tensor:
        for rows in batches(n_samples, check_batch_size(job.batch_size, model.image_shape)):
            block = job.images.read(rows, model.image_shape)
            batch = tensor(block)
            found = model(batch)
            squares = array((found - batch).square().mean(1))
            yield rows, image_fingerprints(block), array(squared_errors(found, batch)), squares
            job.tell(rows.stop, n_samples)


def _judged(
    calibration: Calibration | None, errors: np.ndarray, prints: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As ``Calibration.judged``; without calibration there are no p-values."""
    if calibration is None:
        return errors, np.full(len(errors), np.nan), np.zeros(len(errors), bool)
    return calibration.judged(errors, prints)


def _table(errors: np.ndarray, p_values: np.ndarray, columns: Columns) -> pd.DataFrame:
    return pd.DataFrame(columns | {"error": errors, "p_value": p_values})


def _map_output(maps: Job | None) -> AbstractContextManager[Add]:
    if maps is None:
        return nullcontext(lambda _block: None)
    if maps.kind in ("png", "folder"):
        return picture_output(maps)
    _, height, width = maps.model.image_shape
    return array_output(maps, "maps", (maps.images.n_samples, height, width))
