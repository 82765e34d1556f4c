"""Any array becomes uint8 images here, or a refusal that names it; no files, no labels."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from aesearch.data.arrays.axes import channel_last_of, is_channel_last
from aesearch.data.arrays.containers import array_of, pictures_of
from aesearch.data.arrays.transform import in_channels, resized
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

# Values converted at a time: a float copy of a whole image set would be four or
# eight times its size, a block of this many values is a few megabytes.
_BLOCK_VALUES = 1 << 20
# Arithmetic in float32 may end a little outside of [0, 1]; that is white, or black.
ROUNDING = 1e-6
# Floats up to here were scaled to [0, 1] and then changed; larger ones never were.
_FEW_SHADES = 2.0
# A range below this would leave so few of 256 levels that it was hardly meant.
FEW_LEVELS = 32


def images_of(array_like: Any, where: str, how: DataSpec | None = None) -> np.ndarray:
    """Convert images of any accepted layout and dtype to one uint8 array.

    Parameters
    ----------
    array_like : array, Tensor, Dataset or list
        ``(sample, height, width)``, ``(sample, height, width, channel)``, ``(sample, channel,
        height, width)``, or ``(sample, pixel)`` with ``how.image_shape``; 1 to 64 channels.
        Intensities: uint8 or other integers in 0..255, floats in [0, 1] (times 255, rounded),
        or bool (False is 0, True is 255); all in 0..``how.white`` where that is given. A list of
        PIL images of any mode, or a ``torch.utils.data.Dataset``.
    where : str
        What the array is called in an error: a file, or an argument.
    how : DataSpec, optional
        Size, colour, white and axes; None for what the specification says where nothing is set.

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
    how = DataSpec() if how is None else how
    pictures = pictures_of(array_like, where, how)
    if pictures is not None:
        return np.ascontiguousarray(np.moveaxis(pictures, 3, 1))
    values = unrolled(array_of(array_like, where), where, how)
    channel_last = channel_last_of(values.shape, where, how.image_shape)
    pixels = _intensities(values, where, how.white)
    if pixels.ndim == 3:
        pixels = pixels[:, np.newaxis]
    elif channel_last:
        pixels = np.moveaxis(pixels, 3, 1)
    pixels = _transformed(pixels, where, how)
    if isinstance(array_like, np.memmap) and pixels.dtype == values.dtype:
        # A map of the file would change, or fail, when the file does.
        return np.array(pixels, order="C", subok=False)
    return np.ascontiguousarray(pixels)


def unrolled(values: np.ndarray, where: str, how: DataSpec) -> np.ndarray:
    """Give rows of pixels the axes of ``how.image_shape``; arrays of images stay.

    Raises
    ------
    DataError
        Rows of another length.
    """
    if values.ndim != 2 or how.image_shape is None:
        return values
    if values.shape[1] != math.prod(how.image_shape):
        raise DataError(
            f"{where} must have rows of {math.prod(how.image_shape)} pixels for data.image_shape "
            f"{'x'.join(map(str, how.image_shape))}, got shape {values.shape}; give another shape"
        )
    images = values.reshape(len(values), *how.image_shape)
    if images.ndim == 4 and is_channel_last(how.image_shape):
        return np.moveaxis(images, 3, 1)
    return images


def _transformed(pixels: np.ndarray, where: str, how: DataSpec) -> np.ndarray:
    """Bring images (sample, channel, height, width) to the colour and size that are asked for."""
    n_channels = pixels.shape[1]
    if how.colour != "auto":
        n_channels = 1 if how.colour == "grey" else 3
    if n_channels == pixels.shape[1] and how.resize is None:
        return pixels
    height, width = pixels.shape[2:]
    if how.resize is not None:
        height = width = how.resize.side
    found = np.empty((len(pixels), n_channels, height, width), dtype=np.uint8)
    for row, image in enumerate(np.moveaxis(pixels, 1, 3)):
        coloured = in_channels(image, n_channels, how.colour)
        if coloured is None:
            raise DataError(
                f"{where} must have one channel or three for data.colour={how.colour}, got "
                f"{image.shape[2]}; leave the setting out"
            )
        if how.resize is not None:
            coloured = resized(coloured, how.resize, how.background)
        found[row] = np.moveaxis(coloured, 2, 0)
    return found


def _intensities(values: np.ndarray, where: str, white: float | None) -> np.ndarray:
    """Convert intensities to uint8, keeping the shape."""
    kind = values.dtype.kind
    if kind == "b":
        return np.asarray(values, dtype=np.uint8) * np.uint8(255)
    if kind in "iu" and white in (None, 255):
        return values if values.dtype == np.uint8 else _from_integers(values, where)
    if kind in "iuf":
        return _from_floats(values, where, white)
    raise DataError(
        f"{where} must be uint8, another integer type, float or bool, got dtype {values.dtype}; "
        "convert to uint8 in 0..255"
    )


def _from_integers(values: np.ndarray, where: str) -> np.ndarray:
    """Narrow wide integers that lie in 0..255."""
    if values.size:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 255:
            remedy = "shift and rescale them" if low < 0 else f"say what is white: {_white(high)}"
            raise DataError(
                f"{where} must hold intensities in 0..255, got {values.dtype} values from {low} "
                f"to {high}; {remedy}, or give floats in [0, 1]"
            )
    return values.astype(np.uint8)


def _white(high: float) -> str:
    """Name the setting for a range that ends here, with the value that was most likely meant."""
    usual = next((depth for depth in (1, 255, 1023, 4095, 16383, 65535) if high <= depth), high)
    meant = high if high < 32 else usual
    shown = f"{meant:g}"
    if float(shown) < high:  # rounded down, it would be refused as well
        shown = str(meant)
    return f"--set data.white={shown} (white={shown})"


def _from_floats(values: np.ndarray, where: str, white: float | None) -> np.ndarray:
    """Scale numbers in 0..white to 0..255, block by block."""
    pixels = np.empty(values.shape, dtype=np.uint8)
    unit = 1.0 if white is None else white
    low, high, off_level = math.inf, -math.inf, 0.0
    n_bad, first_bad = 0, None
    for start, stop in _blocks(values.shape):
        block = np.asarray(values[start:stop])
        if block.dtype == np.float16:
            block = block.astype(np.float32)
        finite = np.isfinite(block)
        if not finite.all():
            n_bad += int(finite.size - np.count_nonzero(finite))
            first_bad = first_bad or _first_bad(finite, start)
            continue
        if unit != 1:
            block = block / np.float64(unit)
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        if low >= -ROUNDING and high <= 1 + ROUNDING:
            scaled = block * 255
            pixels[start:stop] = levels = np.rint(scaled)
            if high * 255 < FEW_LEVELS:
                off_level = max(off_level, float(np.abs(scaled - levels).max()))
    if n_bad:
        raise DataError(
            f"{where} must hold finite pixels, got {n_bad} NaN or infinite of {values.size}, the "
            f"first at index {first_bad}; replace them or drop those images"
        )
    if values.size and (low < -ROUNDING or high > 1 + ROUNDING):
        kind = f"intensities in 0..{unit:g}" if white else "float intensities in [0, 1]"
        raise DataError(
            f"{where} must hold {kind}, got [{low * unit:g}, {high * unit:g}]; "
            f"{_rescaling(low * unit, high * unit, white)}"
        )
    if white is None and off_level > 1 / 16 and high * 255 < FEW_LEVELS:
        raise DataError(
            f"{where} must use the range [0, 1], got floats up to {high:g}, of which "
            f"{round(high * 255) + 1} of 256 levels would be left; say what is white: "
            f"{_white(high)}"
        )
    return pixels


def _first_bad(finite: np.ndarray, start: int) -> tuple[int, ...]:
    """Index of the first pixel that is not finite, in a block that begins at a sample."""
    sample, *rest = np.unravel_index(int(np.argmin(finite)), finite.shape)
    return (start + int(sample), *(int(index) for index in rest))


def _rescaling(low: float, high: float, white: float | None) -> str:
    if low < 0:
        return "rescale them to [0, 1]" + (
            ", leave their normalization out, or cut noise off: np.clip(images, 0, 1)"
            if high <= 10 and low >= -10
            else ""
        )
    if white is not None:
        return "give another white, --set data.white=VALUE (white=VALUE)"
    if high <= _FEW_SHADES:
        return "rescale them to [0, 1]"
    if high <= 255 and high > 32:
        return "divide by 255, or store as uint8"
    return f"say what is white: {_white(high)}"


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Cut the sample axis into ranges of about ``_BLOCK_VALUES`` values."""
    step = max(1, _BLOCK_VALUES // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])
