"""Reading data sets that are known by name, through torchvision; fetching is ``published``."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aesearch.data.arrays.images import ImageSet, make_image_set
from aesearch.data.known.download import Progress, md5_of
from aesearch.data.known.idx import check_idx
from aesearch.data.known.published import PublishedFile, class_of, fetch, files_of
from aesearch.data.stored import Stored
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec


def read_named(
    name: str,
    root: Path,
    *,
    progress: Progress | None,
    may_download: bool,
    timeout_s: float,
    how: DataSpec | None = None,
) -> ImageSet:
    """Read a known data set, after fetching what is missing on disk.

    Parameters
    ----------
    name : str
        One of ``NAMES``.
    root : Path
        Folder in torchvision's layout (``<root>/MNIST/raw/...``).
    progress, may_download, timeout_s
        As in ``aesearch.data.load.load``.
    how : DataSpec, optional
        Size and colour; the range of a published set is known.

    Raises
    ------
    DataMissingError
        Not on disk and not to be had.
    DataError
        Damaged files, or a torchvision that does not work.
    """
    how = (
        None
        if how is None
        else how.model_copy(update={"white": None, "image_shape": None, "pages": "first"})
    )
    if name == "digits":
        return _read_digits(how)
    files = fetch(name, root, progress=progress, may_download=may_download, timeout_s=timeout_s)
    for path in files:
        if path.name.endswith(("-ubyte", "-int")):
            check_idx(path)
    with _files_named(name, files_of(name, root)):
        parts = _READERS.get(name.partition("-")[0], _read_mnist_like)(name, root)
    parts = replace(parts, name=name, source=f"{name} in {root}")
    return make_image_set(**vars(parts), how=how)


# What torchvision, and what it reads with, raises for a damaged file.
_UNREADABLE = (
    AssertionError,
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextmanager
def _files_named(name: str, files: list[PublishedFile]) -> Iterator[None]:
    """Turn whatever torchvision raises for a damaged file into an error that names it."""
    try:
        # CIFAR-10's pickles are older than NumPy's warnings about them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            yield
    except DataError:
        raise
    except _UNREADABLE as error:
        raise _damaged(name, files, error) from error


def _damaged(name: str, files: list[PublishedFile], error: Exception) -> DataError:
    """Find out which file is not as published."""
    for file in files:
        if file.md5 is not None and file.path.is_file() and md5_of(file.path) != file.md5:
            return DataError(
                f"{file.path} must be the published file (md5 {file.md5}), got md5 "
                f"{md5_of(file.path)}, {file.path.stat().st_size} bytes; delete it and run "
                f"`aesearch data fetch {name}`"
            )
    return DataError(
        f"{name} must be readable by torchvision, got {type(error).__name__}: {error}; delete "
        f"{', '.join(str(file.path) for file in files)} and run `aesearch data fetch {name}`"
    )


def _read_digits(how: DataSpec | None) -> ImageSet:
    """Read scikit-learn's 8x8 digits, 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second of import time

    bunch = load_digits()
    return make_image_set(
        name="digits",
        source="scikit-learn's bundled digits",
        images=np.rint(bunch.images * (255 / 16)).astype(np.uint8),
        labels=bunch.target,
        class_names=tuple(str(name) for name in bunch.target_names),
        how=how,
    )


def _read_mnist_like(name: str, root: Path) -> Stored:
    """Read MNIST, Fashion-MNIST or KMNIST."""
    known = class_of(name)
    train, test = known(root, train=True), known(root, train=False)
    return _parts(train.data, train.targets, test.data, test.targets, known.classes)


def _read_emnist(name: str, root: Path) -> Stored:
    """Read an EMNIST split; its images are stored transposed."""
    known, split = class_of(name), name.removeprefix("emnist-")
    train, test = known(root, split, train=True), known(root, split, train=False)
    upright = [part.data.numpy().swapaxes(1, 2) for part in (train, test)]
    return _parts(upright[0], train.targets, upright[1], test.targets, train.classes)


def _read_qmnist(name: str, root: Path) -> Stored:
    """Read QMNIST; the class is the first of the eight label columns."""
    known = class_of(name)
    train, test = known(root, train=True), known(root, train=False)
    return _parts(train.data, train.targets[:, 0], test.data, test.targets[:, 0], known.classes)


def _read_usps(name: str, root: Path) -> Stored:
    """Read USPS."""
    known = class_of(name)
    train, test = known(root, train=True), known(root, train=False)
    names = [str(digit) for digit in range(10)]
    return _parts(train.data, train.targets, test.data, test.targets, names)


def _read_cifar10(name: str, root: Path) -> Stored:
    """Read CIFAR-10.

    Its files are pickles. torchvision compares their md5 with the published one before
    it opens any (``_check_integrity``), and that check stays on: nothing else is unpickled.
    """
    known = class_of(name)
    train, test = known(root, train=True), known(root, train=False)
    return _parts(train.data, train.targets, test.data, test.targets, train.classes)


def _read_svhn(name: str, root: Path) -> Stored:
    """Read SVHN's cropped digits, without the extra training images."""
    known = class_of(name)
    train, test = known(root, split="train"), known(root, split="test")
    names = [str(digit) for digit in range(10)]
    return _parts(train.data, train.labels, test.data, test.labels, names)


_READERS: dict[str, Callable[[str, Path], Stored]] = {
    "emnist": _read_emnist,
    "qmnist": _read_qmnist,
    "usps": _read_usps,
    "cifar10": _read_cifar10,
    "svhn": _read_svhn,
}


def _parts(
    images: Any, labels: Any, test_images: Any, test_labels: Any, class_names: Any
) -> Stored:
    return Stored(
        images=images,
        labels=labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple(class_names),
    )
