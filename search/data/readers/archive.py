"""Image sets in archives (``.npz``, HDF5): which arrays are read; pickles never are."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy_format

from aesearch.data.notes import Notes, listed, shown
from aesearch.data.readers import hdf5
from aesearch.data.stored import Stored
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

# Names of (images, labels, test images, test labels) that archives in the field use,
# Keras' mnist.npz first. Only the images are required.
_LAYOUTS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("images", "labels", "test_images", "test_labels"),
    ("data", "labels", "test_data", "test_labels"),
    ("x", "y", "x_test", "y_test"),
    ("train/images", "train/labels", "test/images", "test/labels"),
)
# MedMNIST brings a validation part as well. It joins the training pool, because
# cross-validation makes its own validation parts.
_VALIDATION = {
    "train_images": ("val_images", "val_labels"),
    "x_train": ("x_val", "y_val"),
    "train/images": ("val/images", "val/labels"),
}
_CLASS_NAMES = "class_names"
ARCHIVES = (".npz", *hdf5.SUFFIXES)


class Arrays(Protocol):
    """The members of an archive, read one at a time; what they are is known beforehand.

    Attributes
    ----------
    keys : dict of str to str
        Names in small letters to those in the archive.
    shapes : dict of str to tuple of int
        Of the members that are arrays of numbers or text.
    others : dict of str to str
        What the rest is: Python objects, which are never opened, or no array.
    """

    keys: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    others: dict[str, str]

    def read(self, key: str, path: Path) -> np.ndarray:
        """Read the array with a name in small letters; raises DataError for no array."""
        ...


class _NumpyArrays:
    """Those of a ``.npz``."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.keys: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.others: dict[str, str] = {}
        for member in archive.namelist():
            key = member.removesuffix(".npy")
            try:
                with archive.open(member) as stream:
                    shape, dtype = header_of(stream)
            except ValueError:
                self.others[key] = "no array"
                continue
            self.keys[key.lower()] = key
            if dtype.hasobject:
                self.others[key] = "Python objects"
            else:
                self.shapes[key] = shape

    def read(self, key: str, path: Path) -> np.ndarray:
        """Read one array; raises DataError for Python objects."""
        name = self.keys[key]
        if name in self.others:
            raise DataError(
                f"{path} must hold numbers in {name!r}, got {self.others[name]}: Python objects "
                "are never opened; store images as one uint8 array"
            )
        member = name if name in self._archive.namelist() else f"{name}.npy"
        with self._archive.open(member) as stream:
            return np.asarray(npy_format.read_array(stream, allow_pickle=False))


@contextmanager
def _numpy_arrays(path: Path) -> Iterator[_NumpyArrays]:
    with zipfile.ZipFile(path) as stream:
        yield _NumpyArrays(stream)


def header_of(stream: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Read shape and type of an array from the head of its file; raises ValueError for none."""
    version = npy_format.read_magic(stream)
    read = (
        npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    )
    shape, _, dtype = read(stream)
    return shape, dtype


def archive_parts(path: Path, how: DataSpec, notes: Notes) -> Stored:
    """Read the arrays of an archive by the names that are used in the field.

    Raises
    ------
    DataError
        A damaged archive, or none or several arrays that can be the images.
    """
    is_numpy = path.name.lower().endswith(".npz")
    opened: AbstractContextManager[Arrays]
    opened = _numpy_arrays(path) if is_numpy else hdf5.hdf5_arrays(path)
    try:
        with opened as archive:
            parts, used = _parts(path, archive)
            if how.groups is not None:
                parts.groups = _named_array(path, archive, how.groups, "data.groups")
                used.add(archive.keys[how.groups.lower()])
            for part, setting in (("noisy", "noisy"), ("test_noisy", "noisy_test")):
                key = getattr(how, setting)
                if key is not None and names_array(path, key):
                    setattr(parts, part, _named_array(path, archive, key, f"data.{setting}"))
                    used.add(archive.keys[key.lower()])
    except DataError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        RuntimeError,  # a member that is encrypted, or packed in a way that zipfile does not know
    ) as error:
        kind, how_written = ("NumPy archive", "np.savez") if is_numpy else ("HDF5 file", "h5py")
        raise DataError(
            f"{path} must be a complete {kind} of numbers, got {error} "
            f"({path.stat().st_size} bytes); write it again with {how_written}"
        ) from error
    unused = [key for key in archive.shapes if key not in used]
    told = [f"{shown(key)} {archive.shapes[key]}" for key in unused]
    told += [f"{shown(key)} ({what})" for key, what in archive.others.items()]
    if told:
        notes.leave_out(f"array| ({listed(told)})", len(told))
    return replace(parts, name=shown(path.stem), source=shown(path))


def _parts(path: Path, archive: Arrays) -> tuple[Stored, set[str]]:
    """Choose the arrays; gives the parts and the names that were used."""
    keys = archive.keys
    used: set[str] = set()

    def read(key: str) -> np.ndarray:
        used.add(keys[key])
        return archive.read(key, path)

    for images, labels, test_images, test_labels in _LAYOUTS:
        if images not in keys:
            continue
        chosen = {
            "images": images,
            "labels": labels,
            "test_images": test_images,
            "test_labels": test_labels,
        }
        parts = {
            part: read(key)
            for part, key in chosen.items()
            if key in keys and (part == "images" or keys[key] not in archive.others)
        }
        names, class_names = archive.shapes.get(keys.get(_CLASS_NAMES, "")), None
        if names is not None and len(names) == 1:
            called = read(_CLASS_NAMES)
            if called.dtype.kind == "U":
                class_names = tuple(called.tolist())
        _add_validation(path, parts, _VALIDATION.get(images), keys, read)
        found = Stored(
            images=parts["images"],
            labels=parts.get("labels"),
            test_images=parts.get("test_images"),
            test_labels=parts.get("test_labels"),
            class_names=class_names,
        )
        return found, used
    found_keys = [key for key, shape in archive.shapes.items() if len(shape) in (3, 4)]
    if len(found_keys) != 1:
        remedy = "rename the arrays"
        if not path.name.lower().endswith(".npz") and found_keys:
            remedy = (
                "give the one that is meant a second name: h5py.File(path, 'a')['images'] = "
                f"h5py.SoftLink('/{found_keys[0]}')"
            )
        raise DataError(
            f"{path} must name its images 'x_train', 'train_images' or 'images', or hold only one "
            f"array of 3 or 4 axes, got {_content(archive)}; {remedy}"
        )
    return Stored(read(found_keys[0].lower())), used


def names_array(path: Path, word: str) -> bool:
    """Whether a word that a setting gives names an array of an archive, or is a path."""
    # In an HDF5 file it may lie in a group; a file of images has an ending.
    return path.name.lower().endswith(ARCHIVES) and "." not in word


def _named_array(path: Path, archive: Arrays, key: str, setting: str) -> np.ndarray:
    if key.lower() not in archive.keys:
        raise DataError(
            f"{path} must hold an array {key!r} ({setting}), got {_content(archive)}; name the "
            "array that is meant"
        )
    return archive.read(key.lower(), path)


def _content(archive: Arrays) -> str:
    content = [f"{key} {shape}" for key, shape in archive.shapes.items()]
    content += [f"{key} ({what})" for key, what in archive.others.items()]
    return listed(content, 10) or "no array"


def _add_validation(
    path: Path,
    parts: dict[str, np.ndarray],
    names: tuple[str, str] | None,
    keys: Mapping[str, str],
    read: Any,
) -> None:
    """Append the archive's validation part to the training pool."""
    if names is None or names[0] not in keys:
        return
    for part, name in zip(("images", "labels"), names, strict=True):
        if part not in parts:
            continue
        if name not in keys:
            raise DataError(
                f"{path} must hold {name!r} beside {names[0]!r}, got no such array; "
                "add it, or leave the validation part out"
            )
        more = read(name)
        if more.shape[1:] != parts[part].shape[1:] or more.dtype != parts[part].dtype:
            raise DataError(
                f"{path}: {name} must match the training part, {parts[part].dtype} "
                f"{parts[part].shape}, got {more.dtype} {more.shape}; leave it out, or convert it"
            )
        parts[part] = np.concatenate([parts[part], more])
