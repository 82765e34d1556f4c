"""Any array becomes uint8 images or int64 labels here, or a refusal that names it; no files."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from aesearch.studies.errors import DataError

MIN_SIDE = 8
CHANNELS = (1, 3)

# Values converted at a time: a float copy of a whole image set would be four or
# eight times its size, a block of this many values is a few megabytes.
_BLOCK_VALUES = 1 << 20
# Arithmetic in float32 may end a little above 1; that is white.
_ONE = 1 + 1e-6
# Floats up to here were scaled to [0, 1] and then changed; larger ones never were.
_FEW_SHADES = 2.0


def images_of(array_like: Any, where: str) -> np.ndarray:
    """Convert images of any accepted layout and dtype to one uint8 array.

    Parameters
    ----------
    array_like : array or Tensor
        ``(sample, height, width)``, ``(sample, height, width, channel)`` where the
        last axis is 1 or 3, or ``(sample, channel, height, width)``. Intensities:
        uint8 or other integers in 0..255, floats in [0, 1] (times 255, rounded),
        or bool (False is 0, True is 255).
    where : str
        What the array is called in an error: a file, or an argument.

    Returns
    -------
    ndarray, (sample, channel, height, width)
        uint8, C-contiguous, in memory. Shares memory with ``array_like`` where
        nothing had to be converted.

    Raises
    ------
    DataError
        Another shape or dtype, fewer than 8 pixels a side, NaN or infinite pixels,
        or intensities out of range.
    """
    values = array_of(array_like, where)
    channel_last = _is_channel_last(values.shape, where)
    pixels = _intensities(values, where)
    if pixels.ndim == 3:
        pixels = pixels[:, np.newaxis]
    elif channel_last:
        pixels = np.moveaxis(pixels, 3, 1)
    if isinstance(array_like, np.memmap) and pixels.dtype == values.dtype:
        # A map of the file would change, or fail, when the file does.
        return np.array(pixels, order="C", subok=False)
    return np.ascontiguousarray(pixels)


def array_of(array_like: Any, where: str) -> np.ndarray:
    """Bring an array, a tensor on any device or nested lists into NumPy; object arrays never.

    Raises
    ------
    DataError
        Ragged lists, or anything that NumPy can only hold as Python objects.
    """
    values: np.ndarray
    if hasattr(array_like, "detach"):
        # A torch tensor, recognised without importing torch.
        tensor = array_like.detach().cpu()
        try:
            values = tensor.numpy()
        except TypeError:  # bfloat16 has no NumPy type
            values = tensor.float().numpy()
    else:
        try:
            values = np.asarray(array_like)
        except ValueError as error:
            raise DataError(
                f"{where} must be one array with a single shape, got {error}; "
                "make all images the same size"
            ) from error
    if values.dtype == object:
        raise DataError(
            f"{where} must hold numbers, got an array of Python objects of shape {values.shape}; "
            "make all images the same size and store them as uint8"
        )
    return values


def labels_of(labels: Any, n_samples: int, where: str) -> np.ndarray:
    """Check that there is one label per sample.

    Parameters
    ----------
    labels : array
        ``(sample,)`` or ``(sample, 1)``: integers, whole floats, bool or text.
    n_samples : int
        How many images there are.
    where : str
        What the labels are called in an error.

    Returns
    -------
    ndarray, (sample,)
        int64, or text (``coded`` turns text into numbers).

    Raises
    ------
    DataError
        Another shape, another length, missing or fractional labels.
    """
    values = array_of(labels, where)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(
            f"{where} must have shape (sample,), got {values.shape}; "
            "give one class number per image"
        )
    if len(values) != n_samples:
        raise DataError(
            f"{where} must hold one label per image ({n_samples}), got {len(values)}; "
            "check that images and labels belong together"
        )
    if values.dtype.kind in "SU":
        return values.astype(str)
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (np.floor(values) == values)
        if not whole.all():
            first = int(np.argmin(whole))
            raise DataError(
                f"{where} must be whole numbers, got {values[first]!s} at sample {first}; "
                "give class numbers, or no labels"
            )
    elif values.dtype.kind not in "iub":
        raise DataError(
            f"{where} must be class numbers or names, got dtype {values.dtype}; convert to int64"
        )
    return np.ascontiguousarray(values, dtype=np.int64)


def coded(
    labels: np.ndarray | None, test_labels: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...] | None]:
    """Replace textual labels by their rank, the same in both parts; numbers stay.

    Returns
    -------
    labels, test_labels : ndarray of int64, (sample,), or None
    class_names : tuple of str or None
        The names in the order of their numbers; None where the labels were numbers.
    """
    parts = [part for part in (labels, test_labels) if part is not None]
    if not any(part.dtype.kind == "U" for part in parts):
        return labels, test_labels, None
    texts = [part.astype(str) for part in parts]
    names = np.unique(np.concatenate(texts))
    numbers = iter([np.searchsorted(names, text).astype(np.int64) for text in texts])
    return (
        None if labels is None else next(numbers),
        None if test_labels is None else next(numbers),
        tuple(str(name) for name in names),
    )


def _is_channel_last(shape: tuple[int, ...], where: str) -> bool:
    """Check the shape; tell whether the channels are its last axis."""
    layouts = "(sample, height, width), (sample, height, width, channel) or "
    layouts += "(sample, channel, height, width)"
    if len(shape) not in (3, 4):
        raise DataError(
            f"{where} must have shape {layouts}, got {shape}; "
            "reshape flattened images to their height and width"
        )
    # A last axis of 1 or 3 can only be channels: no image is that narrow.
    channel_last = len(shape) == 4 and shape[3] in CHANNELS
    if len(shape) == 4 and not channel_last and shape[1] not in CHANNELS:
        raise DataError(
            f"{where} must have 1 or 3 channels as axis 1 or 3, got shape {shape}; "
            "keep one channel, or three"
        )
    height, width = shape[1:3] if len(shape) == 3 or channel_last else shape[2:4]
    if min(height, width) < MIN_SIDE:
        raise DataError(
            f"{where} must hold images of at least {MIN_SIDE}x{MIN_SIDE} pixels, "
            f"got {height}x{width} (shape {shape}, read as {layouts}); enlarge or pad them"
        )
    return channel_last


def _intensities(values: np.ndarray, where: str) -> np.ndarray:
    """Convert intensities to uint8, keeping the shape."""
    kind = values.dtype.kind
    if kind == "b":
        return np.asarray(values, dtype=np.uint8) * np.uint8(255)
    if values.dtype == np.uint8:
        return values
    if kind in "iu":
        return _from_integers(values, where)
    if kind == "f":
        return _from_floats(values, where)
    raise DataError(
        f"{where} must be uint8, another integer type, float or bool, got dtype {values.dtype}; "
        "convert to uint8 in 0..255"
    )


def _from_integers(values: np.ndarray, where: str) -> np.ndarray:
    """Narrow wide integers that lie in 0..255."""
    if values.size:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 255:
            raise DataError(
                f"{where} must hold intensities in 0..255, got {values.dtype} values from {low} "
                f"to {high}; rescale them, or give floats in [0, 1]"
            )
    return values.astype(np.uint8)


def _from_floats(values: np.ndarray, where: str) -> np.ndarray:
    """Scale floats in [0, 1] to 0..255, block by block."""
    pixels = np.empty(values.shape, dtype=np.uint8)
    low, high = math.inf, -math.inf
    n_bad, first_bad = 0, None
    for start, stop in _blocks(values.shape):
        block = np.asarray(values[start:stop])
        if block.dtype == np.float16:
            block = block.astype(np.float32)
        finite = np.isfinite(block)
        if not finite.all():
            n_bad += int(finite.size - np.count_nonzero(finite))
            if first_bad is None:
                sample, *rest = np.unravel_index(int(np.argmin(finite)), block.shape)
                first_bad = (start + int(sample), *(int(index) for index in rest))
            continue
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        if low >= 0 and high <= _ONE:
            pixels[start:stop] = np.rint(block * 255)
    if n_bad:
        raise DataError(
            f"{where} must hold finite pixels, got {n_bad} NaN or infinite of {values.size}, the "
            f"first at index {first_bad}; replace them or drop those images"
        )
    if low < 0 or high > _ONE:
        large = low >= 0 and high > _FEW_SHADES
        remedy = "divide by 255, or store as uint8" if large else "rescale them to [0, 1]"
        if values.size:
            raise DataError(
                f"{where} must hold float intensities in [0, 1], got [{low:g}, {high:g}]; {remedy}"
            )
    return pixels


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Cut the sample axis into ranges of about ``_BLOCK_VALUES`` values."""
    step = max(1, _BLOCK_VALUES // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])
