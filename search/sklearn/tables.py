"""X of scikit-learn as images and back: (sample, pixel) on any scale, bytes for training.

======  ===========================================================
symbol  meaning
======  ===========================================================
x       a value of X
a, b    the data range: the smallest and the largest value in X
u       (x - a) / (b - a), an intensity; in [0, 1] for training
======  ===========================================================

One range for all columns, because the pixels of an image share their scale; columns of
different units want a ``MinMaxScaler`` before.
"""

import hashlib
from dataclasses import dataclass
from math import prod

import numpy as np

from aesearch.data.arrays.axes import full_shape, is_channel_last
from aesearch.data.split import folds, split_hash
from aesearch.data.study_data import Problem
from aesearch.studies.errors import DataError
from aesearch.studies.spec.resolved import resolve
from aesearch.studies.spec.study import StudySpec

ImageShape = tuple[int, int, int]
DataRange = tuple[float, float]


@dataclass(frozen=True)
class RowLayout:
    """How a row of X holds an image.

    Attributes
    ----------
    shape : (channel, height, width)
    channel_last : bool
        Whether the values of one pixel are neighbours in a row, or else those of one channel.
    """

    shape: ImageShape
    channel_last: bool

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Rows (sample, value) as images (sample, channel, height, width)."""
        channel, height, width = self.shape
        if self.channel_last:
            return np.moveaxis(rows.reshape(len(rows), height, width, channel), 3, 1)
        return rows.reshape(len(rows), *self.shape)

    def rows(self, images: np.ndarray) -> np.ndarray:
        """Undo ``images``."""
        in_order = np.moveaxis(images, 1, 3) if self.channel_last else images
        return in_order.reshape(len(images), -1)


def layout_of(image_shape: tuple[int, ...] | None, n_features: int) -> RowLayout:
    """Say what a row of X is: None is one row of pixels, two sizes are one channel.

    Of three sizes the channels are the first or the last, as everywhere: see ``axes``.

    Raises
    ------
    DataError
        Not two or three sizes, or another number of pixels than X has columns.
    """
    if image_shape is None:
        return RowLayout((1, 1, n_features), channel_last=False)
    sizes = np.atleast_1d(image_shape)
    # Another kind of value, such as "8x8", has no sizes.
    is_numbers = sizes.ndim == 1 and sizes.dtype.kind in "iuf"
    shape = tuple(int(size) for size in sizes) if is_numbers else ()
    if len(shape) not in (2, 3) or min(shape) < 1 or prod(shape) != n_features:
        raise DataError(
            "image_shape must be (height, width), (channel, height, width) or (height, width, "
            f"channel) with as many values as X has columns ({n_features}), got {image_shape!r}"
        )
    return RowLayout(full_shape(shape), channel_last=len(shape) == 3 and is_channel_last(shape))


def range_of(values: np.ndarray, data_range: tuple[float, float] | None) -> DataRange:
    """Give the data range: the one that is given, or that of X.

    Raises
    ------
    DataError
        A range that is none, or does not hold all of X.
    """
    low, high = float(values.min()), float(values.max())
    if data_range is None:
        # A constant X has no scale; any will do.
        return (low, high) if high > low else (low, low + 1.0)
    if np.shape(data_range) != (2,) or not data_range[0] < data_range[1]:
        raise DataError(f"data_range must be (low, high) with low < high, got {data_range!r}")
    if low < data_range[0] or high > data_range[1]:
        raise DataError(
            f"X must lie in data_range {data_range!r}, got values from {low:g} to {high:g}; "
            "widen it, or leave it out to learn it from X"
        )
    return float(data_range[0]), float(data_range[1])


def to_unit(values: np.ndarray, data_range: DataRange) -> np.ndarray:
    """Intensities of values of X; outside [0, 1] for values outside the range."""
    low, high = data_range
    return (values - low) / (high - low)


def from_unit(intensities: np.ndarray, data_range: DataRange) -> np.ndarray:
    """Undo ``to_unit``."""
    low, high = data_range
    return intensities * (high - low) + low


def problem_of(
    values: np.ndarray,
    layout: RowLayout,
    data_range: DataRange,
    spec: StudySpec,
    device: str,
    *,
    fast_bfloat16: bool = False,
) -> Problem:
    """Make X what a study trains on, without a test set: that is the caller's own business.

    Intensities are rounded to 8 bits, as all images here are. ``fast_bfloat16`` is that of
    ``resolve``.
    """
    n_samples = len(values)
    pixels = np.rint(to_unit(values, data_range) * 255).astype(np.uint8)
    images = np.ascontiguousarray(layout.images(pixels))
    fold_of_sample = folds(n_samples, spec.search.folds, spec.seed)
    nothing = np.empty(0, dtype=np.int64)
    return Problem(
        spec=resolve(
            spec,
            image_shape=layout.shape,
            n_train=n_samples,
            device=device,
            fast_bfloat16=fast_bfloat16,
        ),
        asked=spec,
        name="X",
        images=images,
        labels=None,
        test_images=images[:0],
        test_labels=None,
        test_description="none",
        fold_of_sample=fold_of_sample,
        fingerprint=hashlib.sha256(images.tobytes()).hexdigest(),
        split_sha256=split_hash(fold_of_sample, nothing),
    )
