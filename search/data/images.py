"""What an image set is, and how arrays become one; reading files and names lives elsewhere."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from aesearch.data.pixels import coded, images_of, labels_of
from aesearch.studies.errors import DataError

MIN_SAMPLES = 10


# Compared by identity: field-wise == of arrays has no single truth value; whether
# two sets are the same images is what ``fingerprint`` answers.
@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in memory with what is known about them.

    Attributes
    ----------
    name : str
        Name of a known data set ('mnist', 'digits'), or the stem of a file.
    source : str
        Where the images were read, for people.
    images : ndarray of uint8, (sample, channel, height, width)
        The training pool, C-contiguous, intensities in 0..255.
    labels : ndarray of int64, (sample,), or None
    test_images : ndarray of uint8, (sample, channel, height, width), or None
        The data set's own test set; None where it has none.
    test_labels : ndarray of int64, (sample,), or None
    class_names : tuple of str or None
        What label 0, 1, ... is called.
    fingerprint : str
        sha256 over shapes and bytes of images and labels, training and test: equal
        for equal content, whatever the name and the file format.
    """

    name: str
    source: str
    images: np.ndarray
    labels: np.ndarray | None
    test_images: np.ndarray | None
    test_labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    fingerprint: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(channel, height, width)`` of every image."""
        channel, height, width = self.images.shape[1:]
        return channel, height, width

    @property
    def n_samples(self) -> int:
        """Number of images in the training pool."""
        return len(self.images)


def as_image_set(array_like: Any, labels: Any = None, *, name: str = "array") -> ImageSet:
    """Make an image set of an array, a tensor or nested lists.

    Parameters
    ----------
    array_like : array or Tensor
        ``(sample, height, width)``, ``(sample, height, width, channel)`` where the
        last axis is 1 or 3, or ``(sample, channel, height, width)``; uint8 or other
        integers in 0..255, floats in [0, 1], or bool. Where nothing has to be
        converted the memory is shared: do not change it afterwards.
    labels : array, (sample,), or None
        Class numbers, or names.
    name : str
        What the set is called.

    Returns
    -------
    ImageSet
        Without a test set of its own.

    Raises
    ------
    DataError
        Images or labels that cannot be used; says what was expected and found.
    """
    return make_image_set(name=name, source="an array in memory", images=array_like, labels=labels)


def make_image_set(
    *,
    name: str,
    source: str,
    images: Any,
    labels: Any = None,
    test_images: Any = None,
    test_labels: Any = None,
    class_names: tuple[str, ...] | None = None,
) -> ImageSet:
    """Convert, check and fingerprint the parts of an image set.

    Parameters are those of ``ImageSet``, the arrays in any form that ``as_image_set``
    accepts; ``source`` names them in every error.

    Raises
    ------
    DataError
        Parts that cannot be used, fewer than 10 images, constant images, or a test
        set of another shape.
    """
    where = f"{name} images" if source == "an array in memory" else source
    pool = images_of(images, where)
    _check_pool(pool, where)
    _check_range(pool, where)
    pool_labels = None if labels is None else labels_of(labels, len(pool), f"{where}: labels")
    test, own_labels = None, None
    if test_images is not None:
        test = images_of(test_images, f"{where}: test images")
        if test.shape[1:] != pool.shape[1:] or not len(test):
            raise DataError(
                f"{where}: test images must have the shape of the training images, "
                f"(sample, {', '.join(map(str, pool.shape[1:]))}), got {test.shape}; "
                "resize them, or leave the test set out"
            )
        _check_range(test, f"{where}: test images")
        if test_labels is not None:
            own_labels = labels_of(test_labels, len(test), f"{where}: test labels")
    pool_labels, own_labels, names = coded(pool_labels, own_labels)
    return ImageSet(
        name=name,
        source=source,
        images=pool,
        labels=pool_labels,
        test_images=test,
        test_labels=own_labels,
        class_names=names or class_names,
        fingerprint=_fingerprint(pool, pool_labels, test, own_labels),
    )


def _check_pool(pool: np.ndarray, where: str) -> None:
    """Refuse a training pool from which nothing can be learned."""
    if len(pool) < MIN_SAMPLES:
        raise DataError(
            f"{where} must hold at least {MIN_SAMPLES} images, got {len(pool)}; "
            "cross-validation needs images to hold out, add more"
        )
    low, high = int(pool.min()), int(pool.max())
    if low == high:
        raise DataError(
            f"{where} must hold images that differ, got {len(pool)} constant ones, every pixel "
            f"{low} of 255; check how they were written"
        )


def _check_range(images: np.ndarray, where: str) -> None:
    if int(images.max()) == 1:
        # Masks saved as 0 and 1: as intensities they would all be black, and every
        # autoencoder would score perfectly.
        raise DataError(
            f"{where} must use the range 0..255, got pixels that are only 0 and 1 of 255; "
            "give binary images as bool, as floats in [0, 1], or times 255"
        )


def _fingerprint(*parts: np.ndarray | None) -> str:
    """Hash dtype, shape and bytes of each part, and which parts there are."""
    digest = hashlib.sha256()
    for part in parts:
        if part is None:
            digest.update(b"none;")
            continue
        values = part.astype(part.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{values.dtype.str}{values.shape};".encode())
        digest.update(values.data)
    return digest.hexdigest()
