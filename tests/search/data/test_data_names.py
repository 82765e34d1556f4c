"""Names of data sets: every spelling finds its set, every other word gets help."""

import pytest

from aesearch.data.load import NAMES, fetch_named, load
from aesearch.studies.errors import DataError, DataMissingError


@pytest.mark.parametrize("spelling", ["DIGITS", "Digits", "dig-its", "_digits"])
def test_names_are_found_in_any_spelling(spelling):
    """Case, hyphens and underscores do not matter; the set has the name as we spell it."""
    assert load(spelling).name == "digits"


@pytest.mark.parametrize("name", ["Fashion_MNIST", "FashionMNIST", "EMNIST_byclass", "CIFAR-10"])
def test_names_with_parts_are_known(tmp_path, name):
    """The spellings of torchvision are known too: missing on disk, but no unknown name."""
    with pytest.raises(DataMissingError, match="must be on disk or downloadable"):
        load(name, tmp_path, download=False)


@pytest.mark.parametrize(
    ("dataset", "hint"),
    [
        ("mnits", "got 'mnits'; did you mean 'mnist'?"),
        ("fashon mnist", "did you mean 'fashion-mnist'?"),
        ("emnist", "did you mean 'emnist-"),
        ("zzz", "got 'zzz'; give one of them"),
        ("", "got ''; give one of them"),
    ],
)
def test_an_unknown_name_gets_the_nearest_and_the_list(dataset, hint):
    """The error lists every name and offers the nearest."""
    with pytest.raises(DataError) as raised:
        load(dataset)
    message = str(raised.value)
    assert hint in message
    assert [name for name in NAMES if name not in message] == []
    with pytest.raises(DataError, match="dataset must be one of"):
        fetch_named(dataset)


def test_a_name_wins_over_a_file_of_that_name(tmp_path, monkeypatch):
    """`digits` is the data set, `./digits` the folder."""
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("digits").n_samples == 1797
    with pytest.raises(DataError, match="digits must hold images"):
        load("./digits")
