"""Which axes an array of images has, and its intensities as a network takes them; no torch.

=====================================  ===============================================
layout                                 axes
=====================================  ===============================================
``grey``                               (sample, height, width); one channel only
``channel_first``                      (sample, channel, height, width)
``channel_last``                       (sample, height, width, channel)
``flat``                               (sample, pixel): channel, height, width in order
=====================================  ===============================================
"""

from collections.abc import Iterable
from math import prod
from typing import Literal

import numpy as np

from aesearch.data.arrays.pixels import ROUNDING
from aesearch.studies.errors import DataError

Layout = Literal["grey", "channel_first", "channel_last", "flat"]
ImageShape = tuple[int, int, int]


class ImageShapeError(DataError):
    """Images of another shape than the model was trained on.

    Attributes
    ----------
    expected : tuple of int
        (channel, height, width) of the model.
    found : tuple of int
        Shape of the array that was given.
    """

    def __init__(self, where: str, expected: ImageShape, found: tuple[int, ...]) -> None:
        self.expected, self.found = expected, found
        channel, height, width = expected
        accepted = [expected, (height, width, channel), (prod(expected),)]
        if channel == 1:
            accepted.insert(0, (height, width))
        listed = ", ".join(f"(sample, {', '.join(map(str, shape))})" for shape in accepted)
        super().__init__(
            f"{where} must have the model's image shape, channel x height x width = "
            f"{channel} x {height} x {width}, in one of the layouts {listed}, got shape {found}; "
            f"{_remedy(expected, found)}"
        )


def _remedy(expected: ImageShape, found: tuple[int, ...]) -> str:
    channel, height, width = expected
    if found in (expected, (height, width, channel), (height, width)):
        return "for one image alone, add the sample axis: images[None]"
    return "resize or convert the images, or give the model that was trained on such ones"


def layout_of(shape: tuple[int, ...], image_shape: ImageShape, where: str) -> Layout:
    """Tell the axes of an array of images from its shape and the model's.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    image_shape : (channel, height, width)
        Of the model.
    where : str
        What the array is called in the error.

    Raises
    ------
    ImageShapeError
        Images of another size or number of channels; names both shapes.
    """
    channel, height, width = image_shape
    one = tuple(shape[1:])
    if one == image_shape:
        return "channel_first"
    if one == (height, width) and channel == 1:
        return "grey"
    if one == (height, width, channel):
        return "channel_last"
    if one == (prod(image_shape),):
        return "flat"
    raise ImageShapeError(where, image_shape, tuple(shape))


def to_channel_first(block: np.ndarray, layout: Layout, image_shape: ImageShape) -> np.ndarray:
    """Bring images to (sample, channel, height, width); a view where that is possible."""
    if layout == "channel_last":
        return np.moveaxis(block, 3, 1)
    return block.reshape(len(block), *image_shape)


def from_channel_first(block: np.ndarray, layout: Layout) -> np.ndarray:
    """Undo ``to_channel_first``."""
    if layout == "channel_last":
        return np.moveaxis(block, 1, 3)
    if layout == "grey":
        return block[:, 0]
    return block.reshape(len(block), -1) if layout == "flat" else block


def shape_in(layout: Layout, n_samples: int, image_shape: ImageShape) -> tuple[int, ...]:
    """Shape of so many images in a layout."""
    channel, height, width = image_shape
    one: dict[Layout, tuple[int, ...]] = {
        "grey": (height, width),
        "channel_first": image_shape,
        "channel_last": (height, width, channel),
        "flat": (prod(image_shape),),
    }
    return (n_samples, *one[layout])


def intensities(block: np.ndarray, where: str, *, unclamped: bool = False) -> np.ndarray:
    """Intensities in [0, 1] as float32, as in training: integers are divided by 255.

    Parameters
    ----------
    block : ndarray
        Integers in 0..255, floats in [0, 1] or bool (False is 0, True is 1).
    where : str
        What the array is called in an error.
    unclamped : bool
        Accept finite floats outside [0, 1]: noise that was added and not cut off.

    Raises
    ------
    DataError
        Another dtype, NaN or infinite values, or values out of range.
    """
    kind = block.dtype.kind
    if kind == "b":
        return block.astype(np.float32)
    if kind in "iu":
        if block.dtype != np.uint8 and block.size:
            _check_range(block, 0, 255, where, "rescale them, or give floats in [0, 1]")
        return block.astype(np.float32) / np.float32(255)
    if kind != "f":
        raise DataError(
            f"{where} must be integers in 0..255, floats in [0, 1] or bool, got dtype "
            f"{block.dtype}; convert them"
        )
    if not np.isfinite(block).all():
        n_bad = int(block.size - np.count_nonzero(np.isfinite(block)))
        raise DataError(
            f"{where} must hold finite intensities, got {n_bad} NaN or infinite ones; "
            "replace them or drop those images"
        )
    if block.size and not unclamped:
        remedy = "divide by 255, or rescale them to [0, 1]"
        if block.min() >= -10 and block.max() <= 10:  # a few deviations around an intensity
            remedy = "rescale them, or say --unclamped (unclamped=True) for noise not cut off"
        _check_range(block, 0, 1, where, remedy)
        # Arithmetic that ended a little outside of [0, 1] is black or white, as in training.
        block = np.clip(block, 0, 1)
    return block.astype(np.float32)


def check_integer_range(blocks: Iterable[np.ndarray], where: str) -> None:
    """Refuse images whose integers are only 0 and 1: all of them together, since one may be dark.

    Parameters
    ----------
    blocks : iterable of ndarray
        All images, a range at a time; no more of them are read than it takes.

    Raises
    ------
    DataError
        With what to give instead.
    """
    largest = 0
    for block in blocks:
        if block.dtype.kind not in "iu":
            return
        largest = max(largest, int(block.max(initial=0)))
        if largest > 1:
            return
    if largest == 1:
        raise DataError(
            f"{where} must use the range 0..255, got integers that are only 0 and 1; give "
            "binary images as bool, as floats in [0, 1], or times 255"
        )


def _check_range(block: np.ndarray, lowest: int, highest: int, where: str, remedy: str) -> None:
    low, high = block.min(), block.max()
    if low < lowest - ROUNDING or high > highest + ROUNDING:
        raise DataError(
            f"{where} must hold {'float ' if highest == 1 else ''}intensities in "
            f"[{lowest}, {highest}], got [{low:g}, {high:g}]; {remedy}"
        )
