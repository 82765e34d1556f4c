"""Arrays in HDF5 files (``.h5``, ``.hdf5``), by h5py, an extra; which are read is ``archive``'s."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from aesearch.data.notes import shown
from aesearch.studies.errors import DataError

SUFFIXES = (".h5", ".hdf5")


class Hdf5Arrays:
    """The datasets of a file, in groups too; a name is the path to it without the first slash.

    Attributes
    ----------
    keys, shapes, others
        As those of ``archive.Arrays``. Links to other files are not followed.
    """

    def __init__(self, h5py: Any, file: Any) -> None:
        self._h5py = h5py
        self._file = file
        self.keys: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.others: dict[str, str] = {}
        self._add(file, "", set())

    def _add(self, group: Any, path: str, seen: set[int]) -> None:
        h5py = self._h5py
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:  # a link back
            return
        for name in group:
            key = f"{path}{name}"
            link = group.get(name, getlink=True)
            found = None if isinstance(link, h5py.ExternalLink) else _reached(group, name)
            if isinstance(found, h5py.Group):
                self._add(found, f"{key}/", seen | {address})
                continue
            self.keys[key.lower()] = key
            if not isinstance(found, h5py.Dataset):
                self.others[key] = "a link that leads nowhere here"
            elif found.shape is None or found.dtype.names or self._is_opaque(found):
                self.others[key] = "no array of numbers or text"
            else:
                self.shapes[key] = tuple(found.shape)

    def _is_opaque(self, dataset: Any) -> bool:
        """Whether values are neither numbers nor text: references, rows of unequal lengths."""
        is_text = self._h5py.check_string_dtype(dataset.dtype) is not None
        return dataset.dtype.kind in "OV" and not is_text

    def read(self, key: str, path: Path) -> np.ndarray:
        """Read one array; raises DataError for what is none."""
        name = self.keys[key]
        if name in self.others:
            raise DataError(
                f"{path} must hold numbers in {name!r}, got {self.others[name]}; store images as "
                "one uint8 array"
            )
        dataset = self._file[name]
        if dataset.dtype.kind == "O":  # text of any length
            return np.asarray(dataset.asstr()[()]).astype(str)
        return np.asarray(dataset[()])


def _reached(group: Any, name: str) -> Any:
    """What a link leads to; None for one that leads nowhere, or round and round."""
    try:
        return group.get(name)
    except (KeyError, OSError, RuntimeError):
        return None


@contextmanager
def hdf5_arrays(path: Path) -> Iterator[Hdf5Arrays]:
    """Open a file.

    Raises
    ------
    DataError
        h5py is not installed.
    OSError
        It is no HDF5 file, or a damaged one.
    """
    try:
        import h5py  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise DataError(
            f"{shown(path)} must be read by h5py, got none installed; install the extra: pip "
            "install 'aesearch[hdf5]'"
        ) from error
    with h5py.File(path, "r") as file:
        yield Hdf5Arrays(h5py, file)
