"""``aesearch.encode``, ``reconstruct``, ``decode``, ``interpolate``: arrays in, arrays out.

Samples go through the network in batches. A sample's result does not depend on the batch that
it is in but for rounding: less than 1e-6 in an intensity (float32, sums in another order).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from aesearch.data.arrays.containers import (
    array_of,
    is_dataset,
    items_of,
    pictures_of,
    refuse_loader,
)
from aesearch.evaluation.metrics import image_metrics
from aesearch.inference.layouts import (
    check_integer_range,
    from_channel_first,
    intensities,
    layout_of,
    shape_in,
    to_channel_first,
)
from aesearch.inference.network import (
    ArgumentError,
    array,
    batches,
    check_batch_size,
    ready,
    the_model,
)
from aesearch.models.autoencoder import Autoencoder
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

Model = Autoencoder | str | Path


def images_array(images: Any, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Bring images of any kind into one array; PIL images get the channels of a network.

    Raises
    ------
    DataError
        As ``containers`` says.
    """
    refuse_loader(images, "images")
    if is_dataset(images):
        images, _ = items_of(images, "images")
    how = DataSpec(colour="rgb") if image_shape[0] == 3 else DataSpec()
    pictures = pictures_of(images, "images", how)
    return array_of(images, "images") if pictures is None else pictures


class GivenImages:
    """Images that somebody gives to a network, as ``encode`` is told them, a range at a time."""

    def __init__(self, network: Autoencoder, images: Any, batch_size: int | None) -> None:
        self._image_shape = network.image_shape
        self._values = images_array(images, network.image_shape)
        self.layout = layout_of(self._values.shape, network.image_shape, "images")
        self._size = check_batch_size(batch_size, network.image_shape)
        check_integer_range((self._values[rows] for rows in self.ranges()), "images")

    def __len__(self) -> int:
        return len(self._values)

    def ranges(self) -> Iterator[slice]:
        """Cut them into batches."""
        return batches(len(self._values), self._size)

    def block(self, rows: slice, *, unclamped: bool = False) -> np.ndarray:
        """Intensities of a range: float32, (sample, channel, height, width)."""
        block = intensities(self._values[rows], "images", unclamped=unclamped)
        return to_channel_first(block, self.layout, self._image_shape)


def encode(
    model: Model,
    images: Any,
    *,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Codes of images.

    Parameters
    ----------
    model : Autoencoder or path
        What ``aesearch.load`` gives, or its file, run folder or best.yaml.
    images : array, Tensor, list of PIL images or Dataset
        ``(sample, height, width)``, ``(sample, channel, height, width)``, ``(sample, height,
        width, channel)`` or ``(sample, pixel)``; uint8 (or other integers in 0..255), floats
        in [0, 1], or bool.
    batch_size : int, optional
        Samples that go through the network at once; None for what a few dozen megabytes hold.
    device : str or torch.device, optional
        ``auto``, ``cpu`` or ``cuda``; None for where the model is.

    Returns
    -------
    ndarray of float32, (sample, encoding_dim)

    Raises
    ------
    ImageShapeError
        Images of another size or number of channels than the model's; both are named.
    DataError
        Intensities that are not finite or out of range.
    ModelFileError
        The model file is missing, damaged, or not ours.

    Examples
    --------
    >>> codes = aesearch.encode("runs/mnist/model.safetensors", images)    # doctest: +SKIP
    """
    network = the_model(model)
    given = GivenImages(network, images, batch_size)
    codes = np.empty((len(given), network.encoding_dim), np.float32)
    with ready(network, device) as tensor:
        for rows in given.ranges():
            codes[rows] = array(network.encode(tensor(given.block(rows))))
    return codes


def reconstruct(
    model: Model,
    images: Any,
    *,
    unclamped: bool = False,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Images after the bottleneck: ``decode(encode(images))``, in the layout that they came in.

    Parameters
    ----------
    model, images, batch_size, device
        As in ``encode``.
    unclamped : bool
        Accept floats outside [0, 1]: images with noise that was not cut off.

    Returns
    -------
    ndarray of float32, of the shape of ``images``
        Intensities in [0, 1].

    Raises
    ------
    ImageShapeError, DataError, ModelFileError
        As ``encode``.

    Examples
    --------
    >>> error = ((aesearch.reconstruct(model, x) - x) ** 2).mean()    # doctest: +SKIP
    """
    network = the_model(model)
    given = GivenImages(network, images, batch_size)
    found = np.empty(shape_in(given.layout, len(given), network.image_shape), np.float32)
    with ready(network, device) as tensor:
        for rows in given.ranges():
            batch = tensor(given.block(rows, unclamped=unclamped))
            found[rows] = from_channel_first(array(network(batch)), given.layout)
    return found


def evaluate(
    model: Model,
    images: Any,
    *,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> pd.DataFrame:
    """Measure the reconstruction of each image: the worst are those that the model does not know.

    Parameters
    ----------
    model, images, batch_size, device
        As in ``encode``.

    Returns
    -------
    DataFrame
        One row per image, in their order, all float64. ``mse``: mean squared error per pixel, for
        intensities in [0, 1]. ``psnr``: peak signal-to-noise ratio in dB. ``binary_accuracy``:
        share of pixels on the right side of 0.5. ``ssim``: structural similarity, where images
        have at least three pixels a side.

    Raises
    ------
    ImageShapeError, DataError, ModelFileError
        As ``encode``.

    Examples
    --------
    >>> aesearch.evaluate(model, images).mse.nlargest(10)    # doctest: +SKIP
    """
    network = the_model(model)
    given = GivenImages(network, images, batch_size)
    found: list[pd.DataFrame] = []
    with ready(network, device) as tensor:
        # No images at all are one empty batch.
        for rows in list(given.ranges()) or [slice(0, 0)]:
            batch = tensor(given.block(rows))
            measured = image_metrics(network(batch), batch)
            found.append(pd.DataFrame({name: array(column) for name, column in measured.items()}))
    return pd.concat(found, ignore_index=True)


def decode(
    model: Model,
    codes: Any,
    *,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Images of codes.

    Parameters
    ----------
    model, batch_size, device
        As in ``encode``.
    codes : array or Tensor, (sample, encoding_dim)
        Finite numbers.

    Returns
    -------
    ndarray of float32, (sample, channel, height, width)
        Intensities in [0, 1].

    Raises
    ------
    DataError
        Another width than the model's code, or values that are not finite.
    ModelFileError
        As ``encode``.
    """
    network = the_model(model)
    values = array_of(codes, "codes")
    width = network.encoding_dim
    if values.ndim != 2 or values.shape[1] != width or values.dtype.kind not in "iuf":
        raise DataError(
            f"codes must be numbers of shape (sample, {width}), the model's encoding_dim, got "
            f"{values.dtype} of shape {values.shape}; aesearch.encode gives such codes"
        )
    size = check_batch_size(batch_size, network.image_shape)
    images = np.empty((len(values), *network.image_shape), np.float32)
    with ready(network, device) as tensor:
        for rows in batches(len(values), size):
            block = values[rows].astype(np.float32)
            if not np.isfinite(block).all():
                raise DataError("codes must be finite, got NaN or infinite values; drop those")
            images[rows] = array(network.decode(tensor(block)))
    return images


def interpolate(
    model: Model,
    images: Any,
    pairs: Sequence[tuple[int, int]] | np.ndarray,
    *,
    steps: int = 9,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Images on the straight lines between the codes of pairs of images.

    Parameters
    ----------
    model, images, batch_size, device
        As in ``encode``; of the images only those of the pairs are used.
    pairs : sequence of (int, int), or array of integers, (pair, 2)
        Sample numbers of both ends, from 0.
    steps : int
        Images on a line, both ends included; >= 2. The ends are reconstructions.

    Returns
    -------
    ndarray of float32, (pair, step, channel, height, width)
        Intensities in [0, 1]; step ``s`` decodes ``(1 - t) a + t b`` with
        ``t = s / (steps - 1)`` and a, b the codes of the pair.

    Raises
    ------
    ArgumentError
        A pair that is none or names a sample that is not there, or fewer than two steps.
    ImageShapeError, DataError, ModelFileError
        As ``encode``.
    """
    network = the_model(model)
    values = images_array(images, network.image_shape)
    ends = check_pairs(pairs, len(values))
    codes = encode(network, values[ends.reshape(-1)], batch_size=batch_size, device=device)
    points = between(codes.reshape(len(ends), 2, -1), steps)
    found = decode(network, points.reshape(-1, network.encoding_dim), device=device)
    return found.reshape(*points.shape[:2], *network.image_shape)


def check_pairs(pairs: Sequence[tuple[int, int]] | np.ndarray, n_samples: int) -> np.ndarray:
    """Give pairs of sample numbers as an array (pair, end), or raise ArgumentError."""
    given = pairs.tolist() if hasattr(pairs, "tolist") else pairs
    try:
        # As objects nothing is rounded, and no number is too large to be named.
        ends = np.asarray(given, dtype=object)
    except ValueError as error:
        raise _no_pairs(given) from error
    if not ends.size:
        raise ArgumentError("pairs must not be empty, got none; give for example [(0, 1)]")
    if ends.ndim != 2 or ends.shape[1] != 2:
        raise _no_pairs(given)
    for pair in map(tuple, ends):
        for index in pair:
            if isinstance(index, bool) or not isinstance(index, int | np.integer):
                raise _no_pairs(pair)
            if not 0 <= index < n_samples:
                raise ArgumentError(
                    f"pairs must name samples in 0..{n_samples - 1}, got {int(index)} in "
                    f"{pair!r}; there are {n_samples} images"
                )
    return ends.astype(np.int64)


def _no_pairs(found: Any) -> ArgumentError:
    return ArgumentError(
        f"pairs must be of two sample numbers each, whole ones, got {found!r:.60}; "
        "give for example [(0, 1)]"
    )


def between(ends: np.ndarray, steps: int) -> np.ndarray:
    """Points on the lines between codes: (pair, end, encoding_dim) to (pair, step, encoding_dim).

    Raises
    ------
    ArgumentError
        Fewer than two steps.
    """
    if steps < 2:
        raise ArgumentError(f"steps must be >= 2, both ends included, got {steps!r}")
    t = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    points: np.ndarray = (1 - t) * ends[:, None, 0] + t * ends[:, None, 1]
    return points
