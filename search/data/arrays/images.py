"""What an image set is, and how arrays become one; reading files and names lives elsewhere."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aesearch.data.arrays.containers import (
    as_list,
    is_dataset,
    is_pairs,
    items_of,
    refuse_loader,
)
from aesearch.data.arrays.labels import coded, groups_of, labels_of
from aesearch.data.arrays.pixels import FEW_LEVELS, images_of
from aesearch.data.notes import Notes, listed
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

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
    notes : tuple of str
        What was left out of the files, and what was decided in reading them.
    groups : ndarray of int64, (sample,), or None
        Which images of the training pool belong together.
    noisy, test_noisy : ndarray of uint8, or None
        The noisy partner of each of ``images`` and ``test_images``, of their shapes; both or
        none where there is a test set.
    """

    name: str
    source: str
    images: np.ndarray
    labels: np.ndarray | None
    test_images: np.ndarray | None
    test_labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    fingerprint: str
    notes: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    noisy: np.ndarray | None = None
    test_noisy: np.ndarray | None = None

    @property
    def described(self) -> str:
        """One line: how many images of what shape and classes, and what was left out."""
        channel, height, width = self.image_shape
        parts = [
            f"{_images(self.n_samples)}, {channel} × {height} × {width}",
            *_classes(self.labels, self.class_names),
        ]
        if self.groups is not None:
            parts.append(f"{len(np.unique(self.groups)):,} groups")
        if self.test_images is not None:
            parts.append(f"{_images(len(self.test_images))} of its own for the test")
        if self.noisy is not None:
            parts.append("each beside its noisy one")
        return "; ".join([", ".join(parts), *self.notes])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(channel, height, width)`` of every image."""
        channel, height, width = self.images.shape[1:]
        return channel, height, width

    @property
    def n_samples(self) -> int:
        """Number of images in the training pool."""
        return len(self.images)


def _images(n: int) -> str:
    return f"{n:,} image" + "s" * (n != 1)


def _classes(labels: np.ndarray | None, names: Sequence[str] | None) -> list[str]:
    if labels is None:
        return []
    numbers, counts = np.unique(labels, return_counts=True)
    known = names or ()
    called = [known[n] if 0 <= n < len(known) else f"{n}" for n in numbers.tolist()]
    kinds = listed(f"{name} {count:,}" for name, count in zip(called, counts, strict=True))
    return [f"{len(numbers):,} class{'es' * (len(numbers) != 1)} ({kinds})"]


def as_image_set(
    array_like: Any,
    labels: Any = None,
    *,
    groups: Any = None,
    noisy: Any = None,
    name: str = "array",
    how: DataSpec | None = None,
) -> ImageSet:
    """Make an image set of an array, a tensor, nested lists, PIL images or a dataset.

    Parameters
    ----------
    array_like : array, Tensor, list or Dataset
        What ``pixels.images_of`` takes, or a ``torch.utils.data.Dataset`` of images or of
        (image, label). Where nothing has to be converted the memory is shared: do not change
        it afterwards.
    labels : array, (sample,), or None
        Class numbers, or names; None takes those of a dataset.
    groups : array, (sample,), or None
        What belongs together, as numbers or names.
    noisy : array, Tensor, list or Dataset, optional
        The noisy partner of each image, in their order.
    how : DataSpec, optional
        Size, colour, white and axes; None where nothing is set.
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
    refuse_loader(array_like, name)
    array_like = as_list(array_like)
    if is_dataset(array_like) or is_pairs(array_like):
        array_like, own_labels = items_of(array_like, name)
        labels = own_labels if labels is None else labels
    refuse_loader(noisy, f"{name}: noisy")
    noisy = as_list(noisy)
    if is_dataset(noisy):
        noisy, _ = items_of(noisy, f"{name}: noisy")
    return make_image_set(
        name=name,
        source="an array in memory",
        images=array_like,
        labels=labels,
        groups=groups,
        noisy=noisy,
        how=how,
    )


def make_image_set(
    *,
    name: str,
    source: str,
    images: Any,
    labels: Any = None,
    test_images: Any = None,
    test_labels: Any = None,
    class_names: tuple[str, ...] | None = None,
    groups: Any = None,
    noisy: Any = None,
    test_noisy: Any = None,
    how: DataSpec | None = None,
    notes: Notes | None = None,
) -> ImageSet:
    """Convert, check and fingerprint the parts of an image set.

    Parameters are those of ``ImageSet``, the arrays in any form that ``as_image_set``
    accepts, ``groups`` numbers or names; ``source`` names them in every error. ``how`` says what
    happens to the images, ``notes`` what their reader had to tell.

    Raises
    ------
    DataError
        Parts that cannot be used, fewer than 10 images, images that are all the same, a test
        set of another shape, or noisy images that are not one for each.
    """
    where = f"{name} images" if source == "an array in memory" else source
    notes = Notes() if notes is None else notes
    pool = images_of(images, where, how)
    _check_pool(pool, where, notes)
    _check_range(pool, where)
    if how is None or how.white is None:
        _check_levels(pool, where)
    pool_labels = None if labels is None else labels_of(labels, len(pool), f"{where}: labels")
    test, own_labels = None, None
    if test_images is not None:
        test = images_of(test_images, f"{where}: test images", how)
        if test.shape[1:] != pool.shape[1:] or not len(test):
            raise DataError(
                f"{where}: test images must have the shape of the training images, "
                f"(sample, {', '.join(map(str, pool.shape[1:]))}), got {test.shape}; "
                "resize them, or leave the test set out"
            )
        _check_range(test, f"{where}: test images")
        if test_labels is not None:
            own_labels = labels_of(test_labels, len(test), f"{where}: test labels")
        _tell_shared(pool, test, notes)
    noisy = _partners(noisy, pool, f"{where}: noisy images", how)
    test_noisy = _partners(test_noisy, test, f"{where}: noisy test images", how)
    if noisy is not None and test is not None and test_noisy is None:
        raise DataError(
            f"{where} must have a noisy image for each of its {len(test)} test images, got none; "
            "give them as it gives its test set, or with --noisy-test"
        )
    paired = [] if noisy is None else [noisy, test_noisy]
    pool_labels, own_labels, names = coded(pool_labels, own_labels)
    return ImageSet(
        name=name,
        source=source,
        images=pool,
        labels=pool_labels,
        test_images=test,
        test_labels=own_labels,
        class_names=names or class_names,
        fingerprint=_fingerprint(pool, pool_labels, test, own_labels, *paired),
        notes=notes.lines(),
        groups=None if groups is None else groups_of(groups, len(pool), f"{where}: groups"),
        noisy=noisy,
        test_noisy=test_noisy,
    )


def _partners(
    given: Any, clean: np.ndarray | None, where: str, how: DataSpec | None
) -> np.ndarray | None:
    """Bring noisy images to the form of their clean ones; None where there are none.

    Raises
    ------
    DataError
        Not one for each image, another size, other channels, or the clean images again.
    """
    if given is None or clean is None:
        return None
    noisy = images_of(given, where, how)
    if noisy.shape != clean.shape:
        raise DataError(
            f"{where} must have the shape of the clean ones (sample, channel, height, width), "
            f"{clean.shape}, got {noisy.shape}; give one noisy image for each, of its size and "
            "channels"
        )
    if np.array_equal(noisy, clean):
        raise DataError(
            f"{where} must differ from the clean ones, got the same images; check which are given"
        )
    _check_range(noisy, where)
    return noisy


def _check_pool(pool: np.ndarray, where: str, notes: Notes) -> None:
    """Refuse a training pool from which nothing can be learned."""
    if len(pool) < MIN_SAMPLES:
        n_pages = notes.left_out["further page|"]
        pages = f", or read the {n_pages} further pages too: --set data.pages=images"
        raise DataError(
            f"{where} must hold at least {MIN_SAMPLES} images, got {len(pool)}; "
            f"cross-validation needs images to hold out, add more{pages if n_pages else ''}"
        )
    low, high = int(pool.min()), int(pool.max())
    if low == high:
        raise DataError(
            f"{where} must hold images that differ, got {len(pool)} constant ones, every pixel "
            f"{low} of 255; check how they were written"
        )
    if all(np.array_equal(image, pool[0]) for image in pool[1:]):
        raise DataError(
            f"{where} must hold images that differ, got the same image {len(pool)} times; check "
            "how they were written"
        )


def _check_levels(pool: np.ndarray, where: str) -> None:
    """Refuse a range that is so low that it was hardly meant to be 0..255."""
    high = int(pool.max())
    if 1 < high < FEW_LEVELS:
        raise DataError(
            f"{where} must use the range 0..255, got pixels from 0 to {high}, nearly black; say "
            f"what is white: --set data.white={high} (white={high}), or 255 where they are that "
            "dark"
        )


def _tell_shared(pool: np.ndarray, test: np.ndarray, notes: Notes) -> None:
    """Remark how many test images are training images as well."""
    known = {hash(image.tobytes()) for image in pool}
    shared = sum(hash(image.tobytes()) in known for image in test)
    if shared:
        notes.remark(f"{shared:,} of {len(test):,} test images are training images as well")


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
