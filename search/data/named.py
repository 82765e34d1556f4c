"""Data sets known by name: where their files are, fetching and reading them; no user files."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aesearch.data.download import DownloadError, Progress, download, md5_of, unpack
from aesearch.data.idx import check_idx
from aesearch.data.images import ImageSet, make_image_set
from aesearch.studies.errors import DataError, DataMissingError

# Listed here, not asked of torchvision: names must be known without importing it.
EMNIST_SPLITS = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
_MNIST_LIKE = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
NAMES = (
    "digits",
    *_MNIST_LIKE,
    *(f"emnist-{split}" for split in EMNIST_SPLITS),
    "qmnist",
    "usps",
    "cifar10",
    "svhn",
)


@dataclass(frozen=True)
class _File:
    """A file that torchvision reads, and the archive that it comes in.

    Attributes
    ----------
    path : Path
        In torchvision's layout.
    urls : tuple of str
        Mirrors of the archive.
    archive : Path
        Where the archive is put; ``path`` itself where the archive is what is read.
    archive_md5 : str or None
    member : str or None
        Name inside a zip or tar.
    md5 : str or None
        Of ``path``, where torchvision publishes it.
    """

    path: Path
    urls: tuple[str, ...]
    archive: Path
    archive_md5: str | None
    member: str | None = None
    md5: str | None = None


def read_named(
    name: str, root: Path, *, progress: Progress | None, may_download: bool, timeout_s: float
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

    Raises
    ------
    DataMissingError
        Not on disk and not to be had.
    DataError
        Damaged files, or a torchvision that does not work.
    """
    if name == "digits":
        return _read_digits()
    files = fetch(name, root, progress=progress, may_download=may_download, timeout_s=timeout_s)
    for path in files:
        if path.name.endswith(("-ubyte", "-int")):
            check_idx(path)
    with _files_named(name, _files(name, root)):
        parts = _READERS.get(name.partition("-")[0], _read_mnist_like)(name, root)
    return make_image_set(name=name, source=f"{name} in {root}", **parts)


def fetch(
    name: str, root: Path, *, progress: Progress | None, may_download: bool, timeout_s: float
) -> list[Path]:
    """Make sure that the files of a known data set are on disk.

    Parameters are those of ``read_named``.

    Returns
    -------
    list of Path
        The files, in torchvision's layout; none for 'digits', which is installed with
        scikit-learn.

    Raises
    ------
    DataMissingError
        Not on disk and not to be had: says where it looked and what to do.
    """
    if name == "digits":
        return []
    files = _files(name, root)
    missing = [file for file in files if not file.path.is_file()]
    try:
        for file in missing:
            _obtain(file, progress=progress, may_download=may_download, timeout_s=timeout_s)
    except DownloadError as error:
        looked = "".join(f"\n  - {file.path}" for file in missing)
        failed = "".join(f"\n  - {failure}" for failure in error.failures)
        raise DataMissingError(
            f"{name} must be on disk or downloadable, got neither; not found:{looked}\n"
            f"download failed:{failed or ' it was not allowed'}\n"
            f"run `aesearch data fetch {name} --data-dir DIR` on a machine with network, copy DIR "
            "here, and give it with --data-dir DIR"
        ) from error
    for archive in {file.archive for file in missing if file.archive.suffix == ".gz"}:
        # A zip stays: the other EMNIST splits come out of the same one.
        if archive not in {file.path for file in files}:
            archive.unlink(missing_ok=True)
    return [file.path for file in files]


def _obtain(
    file: _File, *, progress: Progress | None, may_download: bool, timeout_s: float
) -> None:
    """Bring one file to disk, from an archive that is there or from the network."""
    whole = file.archive.is_file() and file.archive_md5 in (None, md5_of(file.archive))
    if not whole:
        if not may_download:
            raise DownloadError(file.archive.name, [])
        download(
            file.urls, file.archive, md5=file.archive_md5, timeout_s=timeout_s, progress=progress
        )
    if file.archive != file.path:
        unpack(file.archive, file.member, file.path)


def torchvision_datasets() -> Any:
    """Import ``torchvision.datasets``.

    Raises
    ------
    DataError
        torchvision is missing or does not fit the installed torch.
    """
    try:
        import torchvision.datasets  # noqa: PLC0415 - two seconds of import time
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        # A CPU-only torch beside PyPI's torchvision fails with "operator torchvision::nms
        # does not exist", a RuntimeError.
        raise DataError(
            f"torchvision must fit the installed torch, got {error}; reinstall both from one "
            "place: `pip install --force-reinstall torch torchvision`"
        ) from error
    return torchvision.datasets


def _class_of(name: str) -> Any:
    """Return the torchvision class of a name, made to read the published files only."""
    datasets = torchvision_datasets()
    family = name.partition("-")[0]
    other = {"emnist": "EMNIST", "qmnist": "QMNIST", "usps": "USPS", "cifar10": "CIFAR10"}
    class_name = _MNIST_LIKE.get(name) or other.get(family, "SVHN")
    known = getattr(datasets, class_name)
    # torchvision prefers files that its old versions left in processed/ and reads them
    # with torch.load; we read what was published. The name of the class is that of the folder.
    return type(class_name, (known,), {"_check_legacy_exist": lambda _: False})


def _files(name: str, root: Path) -> list[_File]:
    """List the files of a data set; addresses and checksums are torchvision's."""
    known = _class_of(name)
    raw = root / known.__name__ / "raw"
    if name in _MNIST_LIKE:
        return [
            _gz_file(raw, tuple(mirror + gz for mirror in known.mirrors), md5)
            for gz, md5 in known.resources
        ]
    if name == "qmnist":
        resources = [*known.resources["train"], *known.resources["test"]]
        return [_gz_file(raw, (url,), md5) for url, md5 in resources]
    if name in ("usps", "svhn"):
        return [
            _File(root / path, (url,), root / path, md5, md5=md5)
            for url, path, md5 in (known.split_list["train"], known.split_list["test"])
        ]
    if name == "cifar10":
        parts = [*known.train_list, *known.test_list, (known.meta["filename"], known.meta["md5"])]
        return [
            _File(
                root / known.base_folder / path,
                (known.url,),
                root / known.filename,
                known.tgz_md5,
                member=f"{known.base_folder}/{path}",
                md5=md5,
            )
            for path, md5 in parts
        ]
    split = name.removeprefix("emnist-")
    idx = [
        f"emnist-{split}-{part}-{kind}-ubyte"
        for part in ("train", "test")
        for kind in ("images-idx3", "labels-idx1")
    ]
    archive = raw / known.url.rpartition("/")[2]
    return [
        _File(raw / path, (known.url,), archive, known.md5, member=f"gzip/{path}.gz")
        for path in idx
    ]


def _gz_file(raw: Path, urls: tuple[str, ...], md5: str) -> _File:
    """Describe a file that is published as a ``.gz`` of itself."""
    archive = raw / urls[0].rpartition("/")[2]
    return _File(archive.with_suffix(""), urls, archive, md5)


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
def _files_named(name: str, files: list[_File]) -> Iterator[None]:
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


def _damaged(name: str, files: list[_File], error: Exception) -> DataError:
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


def _read_digits() -> ImageSet:
    """Read scikit-learn's 8x8 digits, 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second of import time

    bunch = load_digits()
    return make_image_set(
        name="digits",
        source="scikit-learn's bundled digits",
        images=np.rint(bunch.images * (255 / 16)).astype(np.uint8),
        labels=bunch.target,
        class_names=tuple(str(name) for name in bunch.target_names),
    )


def _read_mnist_like(name: str, root: Path) -> dict[str, Any]:
    """Read MNIST, Fashion-MNIST or KMNIST."""
    known = _class_of(name)
    train, test = known(root, train=True), known(root, train=False)
    return _parts(train.data, train.targets, test.data, test.targets, known.classes)


def _read_emnist(name: str, root: Path) -> dict[str, Any]:
    """Read an EMNIST split; its images are stored transposed."""
    known, split = _class_of(name), name.removeprefix("emnist-")
    train, test = known(root, split, train=True), known(root, split, train=False)
    upright = [part.data.numpy().swapaxes(1, 2) for part in (train, test)]
    return _parts(upright[0], train.targets, upright[1], test.targets, train.classes)


def _read_qmnist(name: str, root: Path) -> dict[str, Any]:
    """Read QMNIST; the class is the first of the eight label columns."""
    known = _class_of(name)
    train, test = known(root, train=True), known(root, train=False)
    return _parts(train.data, train.targets[:, 0], test.data, test.targets[:, 0], known.classes)


def _read_usps(name: str, root: Path) -> dict[str, Any]:
    """Read USPS."""
    known = _class_of(name)
    train, test = known(root, train=True), known(root, train=False)
    names = [str(digit) for digit in range(10)]
    return _parts(train.data, train.targets, test.data, test.targets, names)


def _read_cifar10(name: str, root: Path) -> dict[str, Any]:
    """Read CIFAR-10.

    Its files are pickles. torchvision compares their md5 with the published one before
    it opens any (``_check_integrity``), and that check stays on: nothing else is unpickled.
    """
    known = _class_of(name)
    train, test = known(root, train=True), known(root, train=False)
    return _parts(train.data, train.targets, test.data, test.targets, train.classes)


def _read_svhn(name: str, root: Path) -> dict[str, Any]:
    """Read SVHN's cropped digits, without the extra training images."""
    known = _class_of(name)
    train, test = known(root, split="train"), known(root, split="test")
    names = [str(digit) for digit in range(10)]
    return _parts(train.data, train.labels, test.data, test.labels, names)


_READERS: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "emnist": _read_emnist,
    "qmnist": _read_qmnist,
    "usps": _read_usps,
    "cifar10": _read_cifar10,
    "svhn": _read_svhn,
}


def _parts(
    images: Any, labels: Any, test_images: Any, test_labels: Any, class_names: Any
) -> dict[str, Any]:
    """Name the parts as ``make_image_set`` takes them."""
    return {
        "images": images,
        "labels": labels,
        "test_images": test_images,
        "test_labels": test_labels,
        "class_names": tuple(class_names),
    }
