"""One entrance for images by name or by path; reading itself is ``named`` and ``files``."""

import difflib
import os
from pathlib import Path

from aesearch.data.arrays.images import ImageSet
from aesearch.data.cache import user_cache
from aesearch.data.known.download import Progress
from aesearch.data.known.named import read_named
from aesearch.data.known.published import NAMES, fetch
from aesearch.data.readers.archive import names_array
from aesearch.data.readers.files import SUFFIXES, read_path
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

DATA_VARIABLE = "AESEARCH_DATA_DIR"


def default_data_dir() -> Path:
    """Folder for fetched data sets: ``AESEARCH_DATA_DIR``, or the user's cache."""
    chosen = os.environ.get(DATA_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return user_cache() / "data"


def load(
    dataset: str | Path,
    data_dir: str | Path | None = None,
    *,
    progress: Progress | None = None,
    download: bool = True,
    timeout_s: float = 60.0,
    how: DataSpec | None = None,
) -> ImageSet:
    """Load images by the name of a known data set or by path.

    Parameters
    ----------
    dataset : str or Path
        A name, in any case, with hyphens or underscores; or the path of a ``.npz``, HDF5,
        ``.npy``, ``.csv`` or ``.tsv`` file (also ``.gz``) or of a folder of images. A name
        wins over a file of that name: write ``./digits`` for the file.
    data_dir : str, Path or None
        Folder that holds known data sets, in torchvision's layout; None for
        ``default_data_dir()``.
    progress : callable or None
        Called during a download with the file name, the bytes so far and the bytes
        in all (None where the server does not say).
    download : bool
        Whether a known data set that is not on disk may be fetched.
    timeout_s : float
        Seconds that a server may take to connect, or may stay silent.
    how : DataSpec, optional
        How files are read: their size, colours, pages and the like. What names the images there
        is not looked at.

    Returns
    -------
    ImageSet

    Raises
    ------
    DataMissingError
        A known data set that is neither on disk nor to be had.
    DataError
        An unknown name, or files that cannot be used.
    """
    name = known_name(str(dataset))
    if name is not None:
        _refuse_beside_name(name, how)
        root = _root(data_dir)
        return read_named(
            name,
            root,
            progress=progress,
            may_download=download,
            timeout_s=timeout_s,
            how=how,
        )
    path = Path(dataset).expanduser()
    if len(path.name) > 255:  # more than a file's name may have: pathlib would raise
        raise DataError(f"dataset must be {_choices(path.name[:60] + '…')}")
    # An empty name is the path of the current folder to pathlib.
    if not str(dataset).strip() or not (path.exists() or _looks_like_path(str(dataset))):
        raise DataError(f"dataset must be {_choices(str(dataset))}")
    return read_path(path, how)


def missing_paths(data: DataSpec) -> list[str]:
    """Name the settings of a specification whose file or folder is not there."""
    found = []
    for name in ("dataset", "test", "labels", "groups", "noisy", "noisy_test"):
        value = getattr(data, name)
        is_path = value is not None and {
            "dataset": known_name(str(value)) is None,
            "groups": str(value).lower().endswith((".csv", ".tsv")),
            "noisy": not names_array(Path(data.dataset), str(value)),
            "noisy_test": not names_array(Path(data.test or data.dataset), str(value)),
        }.get(name, True)
        if is_path and not Path(value).expanduser().exists():
            found.append(name)
    return found


def fetch_named(
    dataset: str,
    data_dir: str | Path | None = None,
    *,
    progress: Progress | None = None,
    timeout_s: float = 60.0,
) -> list[Path]:
    """Bring the files of a known data set to disk, without reading them.

    Parameters are those of ``load``.

    Returns
    -------
    list of Path
        The files; none for 'digits', which is installed with scikit-learn.

    Raises
    ------
    DataMissingError
        The network did not deliver them.
    DataError
        An unknown name.
    """
    name = known_name(dataset)
    if name is None:
        raise DataError(f"dataset must be {_choices(dataset)}")
    return fetch(name, _root(data_dir), progress=progress, may_download=True, timeout_s=timeout_s)


def _refuse_beside_name(name: str, how: DataSpec | None) -> None:
    """A published set has its labels and has, or lacks, its test set: nothing comes beside."""
    for setting in ("test", "labels", "groups", "noisy", "noisy_test"):
        given = None if how is None else getattr(how, setting)
        if given is not None:
            raise DataError(
                f"data.{setting} must be left out for the data set {name}, got {given!r}; it goes "
                "with images of your own"
            )


def _root(data_dir: str | Path | None) -> Path:
    """Folder of the known data sets."""
    return default_data_dir() if data_dir is None else Path(data_dir).expanduser()


def _squeezed(name: str) -> str:
    """Fold spelling: 'Fashion_MNIST', 'fashion-mnist' and 'FashionMNIST' are one name."""
    return name.lower().replace("-", "").replace("_", "")


def known_name(dataset: str) -> str | None:
    """Return the name as ``NAMES`` spells it; None where it is not one."""
    return {_squeezed(name): name for name in NAMES}.get(_squeezed(dataset))


def _looks_like_path(dataset: str) -> bool:
    """Whether someone who wrote this meant a file."""
    separators = {"/", os.sep}
    return any(mark in dataset for mark in separators) or dataset.lower().endswith(SUFFIXES)


def _choices(dataset: str) -> str:
    """Finish the error for an unknown name, with the nearest one first."""
    spellings = {_squeezed(name): name for name in NAMES}
    wanted = _squeezed(dataset)
    near = [name for name in spellings if wanted and name.startswith(wanted)]
    near = near or difflib.get_close_matches(wanted, spellings, n=1, cutoff=0.5)
    hint = f"did you mean {spellings[near[0]]!r}?" if near else "give one of them"
    return (
        f"one of {', '.join(NAMES)}, or a path (a folder of images, {', '.join(SUFFIXES)}), got "
        f"{dataset!r}; {hint}"
    )
