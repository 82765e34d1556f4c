"""Which samples test, validate and train, each a function of a seed; no image is read here.

Every split draws from its own stream of the seed, so that changing one (a test
fraction, say) leaves the others as they were.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from aesearch.data.arrays.images import ImageSet
from aesearch.studies.errors import DataError

# The streams of a seed, by position in SeedSequence.spawn_key. Their order is part of
# every stored split hash: append, never renumber.
_TEST, _FOLDS, _HOLDOUT = range(3)


@dataclass(frozen=True, eq=False)
class TrainTest:
    """An image set with its test images set aside.

    Attributes
    ----------
    train_images, test_images : ndarray of uint8, (sample, channel, height, width)
    train_labels, test_labels : ndarray of int64, (sample,), or None
    test_indices : ndarray of int64, (test sample,)
        Rows of ``ImageSet.images`` that became the test set, ascending; empty where
        the data set has a test set of its own.
    description : str
        Where the test set comes from, for people.
    train_groups : ndarray of int64, (sample,), or None
    train_noisy, test_noisy : ndarray of uint8, or None
        Of the shapes of ``train_images`` and ``test_images``.
    """

    train_images: np.ndarray
    train_labels: np.ndarray | None
    test_images: np.ndarray
    test_labels: np.ndarray | None
    test_indices: np.ndarray
    description: str
    train_groups: np.ndarray | None = None
    train_noisy: np.ndarray | None = None
    test_noisy: np.ndarray | None = None


def limited(n_samples: int, labels: np.ndarray | None, limit: int) -> np.ndarray:
    """Choose which training images a limit leaves.

    The first ones. Where images lie class by class, as in a folder with one for each class, only
    the first class would be left: there they are taken at equal distances.

    Parameters
    ----------
    n_samples : int
    labels : ndarray of int64, (sample,), or None
    limit : int
        From 1 to ``n_samples``.

    Returns
    -------
    ndarray of int64, (limit,)
        Ascending.
    """
    if labels is not None and 1 < len(np.unique(labels)) == np.count_nonzero(np.diff(labels)) + 1:
        return np.arange(limit) * n_samples // limit
    return np.arange(limit)


def split_test(
    image_set: ImageSet, *, test_fraction: float, seed: int, stratify: bool = False
) -> TrainTest:
    """Set the test images aside: the set's own, or a seeded random part.

    Parameters
    ----------
    image_set : ImageSet
    test_fraction : float
        Part of the images that becomes the test set where there is none; in (0, 1).
    seed : int
        >= 0; the same seed gives the same test set.
    stratify : bool
        Whether a drawn test set has the classes in the shares that they have in all images.

    Returns
    -------
    TrainTest
        Both parts in the order of the image set.

    Raises
    ------
    DataError
        A fraction out of range or a negative seed.
    """
    if image_set.test_images is not None:
        return TrainTest(
            train_images=image_set.images,
            train_labels=image_set.labels,
            test_images=image_set.test_images,
            test_labels=image_set.test_labels,
            test_indices=np.empty(0, dtype=np.int64),
            train_groups=image_set.groups,
            train_noisy=image_set.noisy,
            test_noisy=image_set.test_noisy,
            description=f"the data set's own {len(image_set.test_images)} test images",
        )
    labels, groups, noisy = image_set.labels, image_set.groups, image_set.noisy
    if groups is None and not stratify:
        train, test = _part(image_set.n_samples, test_fraction, seed, _TEST, name="test_fraction")
    else:
        # The first of as many folds as the test set fits into: its groups and shares are theirs.
        n_parts = max(2, round(1 / test_fraction))
        part = _parts(image_set.n_samples, n_parts, (seed, _TEST), labels, groups, stratify)
        train, test = np.flatnonzero(part != 0), np.flatnonzero(part == 0)
    return TrainTest(
        train_images=image_set.images[train],
        train_labels=None if labels is None else labels[train],
        test_images=image_set.images[test],
        test_labels=None if labels is None else labels[test],
        test_indices=test,
        description=f"{len(test)} of {image_set.n_samples} images, drawn with seed {seed}",
        train_groups=None if groups is None else groups[train],
        train_noisy=None if noisy is None else noisy[train],
        test_noisy=None if noisy is None else noisy[test],
    )


def folds(
    n_samples: int,
    n_folds: int,
    seed: int,
    *,
    labels: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    stratify: bool = False,
) -> np.ndarray:
    """Give every sample its fold: sklearn's shuffled ``KFold``, seeded.

    Fold ``f`` validates on ``fold_of_sample == f``, in ascending order, and trains on
    the rest. Sizes differ by one sample at most.

    Parameters
    ----------
    n_samples, n_folds : int
        2 <= n_folds <= n_samples.
    seed : int
        >= 0.
    labels, groups : ndarray of int64, (sample,), or None
    stratify : bool
        Whether each fold has the classes in the same shares: sklearn's ``StratifiedKFold``. With
        groups, which are never in two folds: its ``StratifiedGroupKFold``, else ``GroupKFold``.

    Returns
    -------
    ndarray of int64, (sample,)
        Fold of each sample, in 0..n_folds - 1.

    Raises
    ------
    DataError
        Fewer than two folds, more folds than samples or groups, no labels to stratify by, or a
        negative seed.
    """
    if not 2 <= n_folds <= n_samples:
        raise DataError(
            f"n_folds must be between 2 and the number of samples ({n_samples}), got {n_folds!r}; "
            "change --folds"
        )
    return _parts(n_samples, n_folds, (seed, _FOLDS), labels, groups, stratify)


def _parts(  # noqa: PLR0917 - what sklearn's splitters are given
    n_samples: int,
    n_parts: int,
    stream: tuple[int, int],
    labels: np.ndarray | None,
    groups: np.ndarray | None,
    stratify: bool,
) -> np.ndarray:
    """Give every sample its part by sklearn's splitter for what is known of the samples."""
    from sklearn.model_selection import (  # noqa: PLC0415 - a second of import time
        GroupKFold,
        KFold,
        StratifiedGroupKFold,
        StratifiedKFold,
    )

    if stratify and labels is None:
        raise DataError(
            "data.stratify must be false for images without labels, got true; give labels, or "
            "leave it out"
        )
    if groups is not None and (n_groups := len(np.unique(groups))) < n_parts:
        raise DataError(
            f"data.groups must make at least {n_parts} groups, one for each part, got {n_groups}; "
            "use fewer folds, or a larger data.test_fraction"
        )
    rarest = n_parts
    if stratify and labels is not None:
        rarest = int(np.unique(labels, return_counts=True)[1].min())
    if rarest < n_parts:
        raise DataError(
            f"data.stratify must have {n_parts} images of each class, one for each part, got a "
            f"class of {rarest}; add images, use fewer folds, or leave it out"
        )
    splitters = {
        (False, False): KFold,
        (False, True): StratifiedKFold,
        (True, False): GroupKFold,
        (True, True): StratifiedGroupKFold,
    }
    random_state = int(_stream(*stream).generate_state(1)[0])
    splitter = splitters[groups is not None, stratify](
        n_splits=n_parts, shuffle=True, random_state=random_state
    )
    part_of_sample = np.empty(n_samples, dtype=np.int64)
    split = splitter.split(np.empty((n_samples, 0)), labels, groups)
    for number, (_, held_out) in enumerate(split):
        part_of_sample[held_out] = number
    return part_of_sample


def holdout(
    n_samples: int, fraction: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Hold a seeded random part of the training samples out, for early stopping.

    Parameters
    ----------
    n_samples : int
        >= 2.
    fraction : float
        Part that is held out, in (0, 1); at least one sample, and never all.
    seed : int
        >= 0.
    groups : ndarray of int64, (sample,), or None
        Which are held out as a whole, as many as come nearest to the fraction; where there is
        but one group, samples are held out alone.

    Returns
    -------
    train_indices, validation_indices : ndarray of int64
        Ascending; together every sample once.

    Raises
    ------
    DataError
        A fraction out of range, fewer than two samples or a negative seed.
    """
    kinds = np.unique(groups) if groups is not None else np.empty(0)
    if groups is None or len(kinds) < 2:
        return _part(n_samples, fraction, seed, _HOLDOUT, name="fraction")
    order = np.random.default_rng(_stream(seed, _HOLDOUT)).permutation(kinds)
    sizes = np.cumsum([np.count_nonzero(groups == kind) for kind in order[:-1]])
    n_held = 1 + int(np.argmin(np.abs(sizes - fraction * n_samples)))
    is_held = np.isin(groups, order[:n_held])
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def split_hash(fold_of_sample: np.ndarray, test_indices: np.ndarray) -> str:
    """Identify a split: stored with a study, which refuses to resume with another.

    Parameters
    ----------
    fold_of_sample : ndarray of int, (sample,)
        As ``folds`` returns it.
    test_indices : ndarray of int, (test sample,)
        As ``TrainTest`` has them; empty for a data set's own test set.

    Returns
    -------
    str
        sha256, 64 hexadecimal digits, the same on every platform.
    """
    digest = hashlib.sha256()
    for part in (fold_of_sample, test_indices):
        values = np.ascontiguousarray(part, dtype="<i8")
        digest.update(f"{values.shape};".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _stream(seed: int, stream: int) -> np.random.SeedSequence:
    """Derive an independent stream of random numbers from the seed."""
    if seed < 0:
        raise DataError(f"seed must be >= 0, got {seed!r}; change --seed")
    return np.random.SeedSequence(seed, spawn_key=(stream,))


def _part(
    n_samples: int, fraction: float, seed: int, stream: int, *, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a part of the samples; return the rest and the part, both ascending."""
    if not 0 < fraction < 1:
        raise DataError(f"{name} must be between 0 and 1, got {fraction!r}; 0.2 is usual")
    if n_samples < 2:
        raise DataError(f"n_samples must be at least 2 to be split, got {n_samples!r}; add images")
    n_part = min(max(1, round(n_samples * fraction)), n_samples - 1)
    order = np.random.default_rng(_stream(seed, stream)).permutation(n_samples)
    return np.sort(order[n_part:]), np.sort(order[:n_part])
