"""Folds, test sets and held-out parts: complete, balanced, and a function of the seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from aesearch.data.arrays.images import as_image_set, make_image_set
from aesearch.data.split import folds, holdout, limited, split_hash, split_test
from aesearch.studies.errors import DataError

SEEDS = st.integers(0, 2**64)


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    n_folds = draw(st.integers(2, 12))
    return draw(st.integers(n_folds, 300)), n_folds


@given(sizes(), SEEDS)
def test_folds_cover_each_sample_once_in_even_parts(size, seed):
    """Every sample validates in exactly one fold; sizes differ by at most one."""
    n_samples, n_folds = size
    fold_of_sample = folds(n_samples, n_folds, seed)
    counts = np.bincount(fold_of_sample, minlength=n_folds)
    assert fold_of_sample.shape == (n_samples,)
    assert len(counts) == n_folds
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("labels", "limit", "kept"),
    [
        (None, 3, [0, 1, 2]),
        ([1, 0, 1, 0, 1, 0], 3, [0, 1, 2]),
        ([0, 0, 0, 0, 0, 0], 3, [0, 1, 2]),
        ([0, 0, 1, 1, 2, 2], 3, [0, 2, 4]),  # a folder with one for each class
        ([0, 0, 0, 0, 0, 1], 2, [0, 3]),
        ([2, 2, 0, 0, 1, 1], 3, [0, 2, 4]),  # named classes: their numbers ascend by name
        ([1, 1, 0, 0, 0, 1], 3, [0, 1, 2]),
        ([0, 0, 1, 1, 2, 2], 6, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_limit_takes_from_every_class(labels, limit, kept):
    """The first images, but not the first class alone."""
    labels = None if labels is None else np.array(labels)
    assert limited(6, labels, limit).tolist() == kept


def test_folds_are_those_of_sklearn():
    """The parts are sklearn's own for the seed that the stream gives."""
    state = int(np.random.SeedSequence(5, spawn_key=(1,)).generate_state(1)[0])
    expected = KFold(3, shuffle=True, random_state=state).split(np.zeros(50))
    found = folds(50, 3, 5)
    for_each = [np.flatnonzero(found == fold) for fold in range(3)]
    assert [part.tolist() for part in for_each] == [part.tolist() for _, part in expected]


@given(st.integers(2, 300), st.floats(0.001, 0.999), SEEDS)
def test_holdout_parts_are_sorted_disjoint_and_never_empty(n_samples, fraction, seed):
    """Together the two parts are every sample once, each ascending."""
    train, validation = holdout(n_samples, fraction, seed)
    assert sorted([*train, *validation]) == list(range(n_samples))
    assert len(train) >= 1
    assert abs(len(validation) - n_samples * fraction) <= 1
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()


def images(n_samples: int = 40) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n_samples, 8, 8), dtype=np.uint8)


def test_split_test_draws_a_part_where_there_is_no_test_set():
    """A fifth is set aside; images and labels stay together, in order."""
    image_set = as_image_set(images(), np.arange(40))
    split = split_test(image_set, test_fraction=0.2, seed=3)
    assert len(split.test_images) == 8
    np.testing.assert_array_equal(split.test_labels, split.test_indices)
    np.testing.assert_array_equal(split.test_images, image_set.images[split.test_indices])
    np.testing.assert_array_equal(split.train_images, image_set.images[split.train_labels])
    assert sorted([*split.train_labels, *split.test_labels]) == list(range(40))
    assert "8 of 40" in split.description


def test_split_test_takes_the_sets_own_test_set():
    """A published test set is used whole, whatever the fraction."""
    image_set = make_image_set(
        name="own", source="memory", images=images(), test_images=images(7), test_labels=[1] * 7
    )
    split = split_test(image_set, test_fraction=0.5, seed=3)
    assert split.train_images is image_set.images
    assert split.test_images is image_set.test_images
    assert split.test_labels.tolist() == [1] * 7
    assert split.test_indices.tolist() == []


def whole_split(seed: int) -> str:
    image_set = as_image_set(images())
    split = split_test(image_set, test_fraction=0.2, seed=seed)
    return split_hash(folds(len(split.train_images), 3, seed), split.test_indices)


def test_splits_depend_on_the_seed_only():
    """The same seed gives the same hash, another seed another."""
    assert whole_split(7) == whole_split(7)
    assert len({whole_split(seed) for seed in range(20)}) == 20


def test_holdout_depends_on_the_seed():
    """The same seed holds out the same samples, another seed others."""
    assert holdout(100, 0.2, 1)[1].tolist() == holdout(100, 0.2, 1)[1].tolist()
    assert holdout(100, 0.2, 1)[1].tolist() != holdout(100, 0.2, 2)[1].tolist()


def test_streams_of_one_seed_are_independent():
    """The held-out part is not the test part of the same seed in other words."""
    test = split_test(as_image_set(images()), test_fraction=0.2, seed=0).test_indices
    assert test.tolist() != holdout(40, 0.2, 0)[1].tolist()


def test_split_hash_is_stable():
    """Stored hashes stay valid: this one was written down with the first version."""
    found = split_hash(np.array([0, 1, 2]), np.array([], dtype=np.int64))
    assert found == "05dc6bd56da927e91ad9710dd982e62dfd8225c855e4c78c6ac8748711706c5c"
    assert found != split_hash(np.array([0, 1]), np.array([2]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: folds(10, 1, 0),
            "n_folds must be between 2 and the number of samples (10), got 1",
        ),
        (lambda: folds(3, 4, 0), "got 4"),
        (lambda: folds(10, 2, -1), "seed must be >= 0, got -1"),
        (lambda: holdout(10, 0.0, 0), "fraction must be between 0 and 1, got 0.0"),
        (lambda: holdout(10, 1.0, 0), "got 1.0"),
        (lambda: holdout(10, float("nan"), 0), "got nan"),
        (lambda: holdout(1, 0.5, 0), "at least 2 to be split, got 1"),
        (
            lambda: split_test(as_image_set(images()), test_fraction=2, seed=0),
            "test_fraction must be between 0 and 1, got 2",
        ),
    ],
)
def test_impossible_splits_are_refused(call, words):
    """Counts, fractions and seeds out of range are named."""
    with pytest.raises(DataError) as raised:
        call()
    assert words in str(raised.value)
