"""Which files a known data set consists of, where they are published, and fetching them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aesearch.data.known.download import DownloadError, Progress, download, md5_of, unpack
from aesearch.studies.errors import DataError, DataMissingError

# Listed here, not asked of torchvision: names must be known without importing it.
EMNIST_SPLITS = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
MNIST_LIKE = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
NAMES = (
    "digits",
    *MNIST_LIKE,
    *(f"emnist-{split}" for split in EMNIST_SPLITS),
    "qmnist",
    "usps",
    "cifar10",
    "svhn",
)


@dataclass(frozen=True)
class PublishedFile:
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


def fetch(
    name: str, root: Path, *, progress: Progress | None, may_download: bool, timeout_s: float
) -> list[Path]:
    """Make sure that the files of a known data set are on disk.

    Parameters are those of ``aesearch.data.known.named.read_named``.

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
    files = files_of(name, root)
    missing = [file for file in files if not file.path.is_file()]
    fetched = set()
    try:
        for file in missing:
            if _obtain(file, progress=progress, may_download=may_download, timeout_s=timeout_s):
                fetched.add(file.archive)
    except DownloadError as error:
        looked = "".join(f"\n  - {file.path}" for file in missing)
        failed = "".join(f"\n  - {failure}" for failure in error.failures)
        raise DataMissingError(
            f"{name} must be on disk or downloadable, got neither; not found:{looked}\n"
            f"download failed:{failed or ' it was not allowed'}\n"
            f"run `aesearch data fetch {name} --data-dir DIR` on a machine with network, copy DIR "
            "here, and give it with --data-dir DIR"
        ) from error
    for archive in fetched:  # one that was there is the user's
        # A zip stays: the other EMNIST splits come out of the same one.
        if archive.suffix == ".gz" and archive not in {file.path for file in files}:
            archive.unlink(missing_ok=True)
    return [file.path for file in files]


def _obtain(
    file: PublishedFile, *, progress: Progress | None, may_download: bool, timeout_s: float
) -> bool:
    """Bring one file to disk, from an archive that is there or else from the network: if so."""
    whole = file.archive.is_file() and file.archive_md5 in (None, md5_of(file.archive))
    if not whole:
        if not may_download:
            raise DownloadError(file.archive.name, [])
        download(
            file.urls, file.archive, md5=file.archive_md5, timeout_s=timeout_s, progress=progress
        )
    if file.archive != file.path:
        unpack(file.archive, file.member, file.path)
    return not whole


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


def class_of(name: str) -> Any:
    """Return the torchvision class of a name, made to read the published files only."""
    datasets = torchvision_datasets()
    family = name.partition("-")[0]
    other = {"emnist": "EMNIST", "qmnist": "QMNIST", "usps": "USPS", "cifar10": "CIFAR10"}
    class_name = MNIST_LIKE.get(name) or other.get(family, "SVHN")
    known = getattr(datasets, class_name)
    # torchvision prefers files that its old versions left in processed/ and reads them
    # with torch.load; we read what was published. The name of the class is that of the folder.
    return type(class_name, (known,), {"_check_legacy_exist": lambda _: False})


def files_of(name: str, root: Path) -> list[PublishedFile]:
    """List the files of a data set; addresses and checksums are torchvision's."""
    known = class_of(name)
    raw = root / known.__name__ / "raw"
    if name in MNIST_LIKE:
        return [
            _gz_file(raw, tuple(mirror + gz for mirror in known.mirrors), md5)
            for gz, md5 in known.resources
        ]
    if name == "qmnist":
        resources = [*known.resources["train"], *known.resources["test"]]
        return [_gz_file(raw, (url,), md5) for url, md5 in resources]
    if name in ("usps", "svhn"):
        return [
            PublishedFile(root / path, (url,), root / path, md5, md5=md5)
            for url, path, md5 in (known.split_list["train"], known.split_list["test"])
        ]
    if name == "cifar10":
        parts = [*known.train_list, *known.test_list, (known.meta["filename"], known.meta["md5"])]
        return [
            PublishedFile(
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
        PublishedFile(raw / path, (known.url,), archive, known.md5, member=f"gzip/{path}.gz")
        for path in idx
    ]


def _gz_file(raw: Path, urls: tuple[str, ...], md5: str) -> PublishedFile:
    """Describe a file that is published as a ``.gz`` of itself."""
    archive = raw / urls[0].rpartition("/")[2]
    return PublishedFile(archive.with_suffix(""), urls, archive, md5)
