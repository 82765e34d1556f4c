"""Which images are odd: reconstruction errors, and how rarely ordinary images have such ones.

=======  ==================================================================================
symbol   meaning
=======  ==================================================================================
e        mean squared error per pixel of an image and its reconstruction
c_i      the same of n ordinary images that the network never saw: the calibration
p        ``(1 + #{i: c_i >= e}) / (n + 1)``
=======  ==================================================================================

For an ordinary image, one that could as well be among the n, ``p <= alpha`` happens with a
probability of at most alpha, and of at least ``alpha - 1 / (n + 1)`` where no errors are equal.

References
----------
Bates, Candès, Lei, Romano, Sesia: Testing for outliers with conformal p-values. Annals of
Statistics 51(1), 2023, eq. (1).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aesearch.artifacts.best_file import BEST, check_same_images, load_best
from aesearch.artifacts.model_path import find_model
from aesearch.data.folder import ORDINARY
from aesearch.data.study_data import load_problem
from aesearch.evaluation.metrics import squared_errors
from aesearch.inference.functions import images_array
from aesearch.inference.layouts import (
    check_integer_range,
    intensities,
    layout_of,
    to_channel_first,
)
from aesearch.inference.network import array, batches, check_batch_size, ready, the_model
from aesearch.models.autoencoder import Autoencoder
from aesearch.studies.errors import AesearchError, DataError

if TYPE_CHECKING:
    import pandas as pd


def p_values(errors: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Conformal p-value of each error; see the module.

    Parameters
    ----------
    errors : ndarray, (sample,)
    calibration : ndarray, (image,)
        Errors of ordinary images that the network never saw; not empty.

    Returns
    -------
    ndarray of float64, (sample,)
        In [1 / (n + 1), 1].
    """
    ordered = np.sort(calibration)
    n_as_large = len(ordered) - np.searchsorted(ordered, errors, side="left")
    p: np.ndarray = (1 + n_as_large) / (len(ordered) + 1)
    return p


def score_samples(
    model: Autoencoder | str | Path,
    images: Any,
    *,
    calibration: Any = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> "pd.DataFrame":
    """Score images by how badly the model reconstructs them: the odd ones have large errors.

    Parameters
    ----------
    model, images, batch_size, device
        As in ``aesearch.encode``.
    calibration : array, (image,), optional
        Errors of ordinary images that the network never saw; None for those of the study's test
        images, where ``model`` is a path with a best.yaml beside it and its images are there.

    Returns
    -------
    DataFrame
        One row per image, in their order. ``error``: mean squared error per pixel, for
        intensities in [0, 1]. ``p``: how rarely an ordinary image has such an error or a larger
        one; without a calibration there is no such column.

    Raises
    ------
    ImageShapeError, DataError, ModelFileError
        As ``encode``.

    Examples
    --------
    >>> aesearch.score_samples("runs/photos", images).query("p <= 0.01")    # doctest: +SKIP
    """
    import pandas as pd  # noqa: PLC0415 - beside its only use, and a while to import

    network = the_model(model)
    frame = pd.DataFrame({"error": errors_of(network, images, batch_size, device)})
    if calibration is None and not isinstance(model, Autoencoder):
        calibration, _ = calibration_of(find_model(model), network, device)
    if calibration is None:
        return frame
    known = np.asarray(calibration, dtype=np.float64).reshape(-1)
    if not len(known) or not np.isfinite(known).all():
        raise DataError(
            f"calibration must hold errors of images, got {len(known)} values, not all finite or "
            "none; give the column error of what score_samples says of ordinary images"
        )
    return frame.assign(p=p_values(frame["error"].to_numpy(), known))


def errors_of(
    network: Autoencoder,
    images: Any,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Mean squared error per pixel of each image: (sample,), float64."""
    values = images_array(images, network.image_shape)
    layout = layout_of(values.shape, network.image_shape, "images")
    size = check_batch_size(batch_size, network.image_shape)
    check_integer_range((values[rows] for rows in batches(len(values), size)), "images")
    found = np.empty(len(values))
    with ready(network, device) as tensor:
        for rows in batches(len(values), size):
            block = intensities(values[rows], "images")
            batch = tensor(to_channel_first(block, layout, network.image_shape))
            found[rows] = array(squared_errors(network(batch), batch))
    return found


def calibration_of(
    model: Path, network: Autoencoder, device: str | torch.device | None
) -> tuple[np.ndarray | None, str]:
    """Errors of the test images of the study that a model comes from, and what they are.

    Where classes say which images are ordinary (good, normal, ok), only those count.

    Returns
    -------
    errors : ndarray, (image,), or None
        None where the study or its images are not to be had.
    sentence : str
        For the user.
    """
    best = model.with_name(BEST)
    try:
        spec, result = load_best(best)
        problem = load_problem(spec, device="cpu")
        check_same_images(problem, result.data, str(best))
    except AesearchError as error:
        return None, f"no p-values: the study's test images are not to be had ({error})"
    images, what = problem.test_images, "test images"
    ordinary = [name for name in problem.class_names or () if name.lower() in ORDINARY]
    if ordinary and problem.test_labels is not None and problem.class_names is not None:
        number = problem.class_names.index(ordinary[0])
        images, what = images[problem.test_labels == number], f"test images of {ordinary[0]!r}"
    if not len(images):
        return None, "no p-values: the study has no ordinary test images"
    errors = errors_of(network, images, None, device)
    return errors, f"p-values by the errors of {len(images):,} {what} of the study"


def odd_classes(labels: np.ndarray | None, names: tuple[str, ...] | None) -> np.ndarray | None:
    """Tell which images are odd by their classes, where one is called good, normal or ok."""
    ordinary = [n for n, name in enumerate(names or ()) if name.lower() in ORDINARY]
    if labels is None or not ordinary:
        return None
    is_odd: np.ndarray = labels != ordinary[0]
    return is_odd if is_odd.any() and not is_odd.all() else None
