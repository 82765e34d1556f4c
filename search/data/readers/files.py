"""Which reader a path gets; each is a module of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aesearch.data.arrays.images import ImageSet, make_image_set
from aesearch.data.notes import Notes, shown
from aesearch.data.readers.archive import ARCHIVES, archive_parts, header_of, names_array
from aesearch.data.readers.folder import folder_parts
from aesearch.data.readers.table import table_parts
from aesearch.data.stored import Stored
from aesearch.studies.errors import DataError, DataMissingError
from aesearch.studies.spec.sections import DataSpec

SUFFIXES = (*ARCHIVES, ".npy", ".csv", ".csv.gz", ".tsv", ".tsv.gz")


def read_path(path: Path, how: DataSpec | None = None) -> ImageSet:
    """Read an image set from a file or a folder; the suffix says how.

    Raises
    ------
    DataMissingError
        Nothing there.
    DataError
        Another suffix, or content that cannot be used.
    """
    how, notes = DataSpec() if how is None else how, Notes()
    # The images of files have their size and colour already.
    to_do = _done(how) if path.is_dir() else how
    parts = _parts(path, how, notes)
    if how.test is not None:
        parts = _with_test(Path(how.test).expanduser(), parts, how, notes)
    elif how.noisy_test is not None:
        parts = _with_noisy_test(path, parts, how, notes)
    return make_image_set(**vars(parts), notes=notes, how=to_do)


def _parts(
    path: Path,
    how: DataSpec,
    notes: Notes,
    *,
    n_channels: int | None = None,
    noisy_setting: str = "data.noisy",
) -> Stored:
    if path.is_dir():
        return folder_parts(path, how, notes, n_channels=n_channels, noisy_setting=noisy_setting)
    parts = file_parts(path, how, notes)
    if how.noisy is None or names_array(path, how.noisy):
        return parts
    noisy = _read_noisy(path, Path(how.noisy).expanduser(), how, notes, noisy_setting)
    return replace(parts, noisy=noisy.images, test_noisy=noisy.test_images)


def _read_noisy(path: Path, noisy: Path, how: DataSpec, notes: Notes, setting: str) -> Stored:
    """Read the noisy images of a file's from another one, as the file itself is read."""
    if not noisy.exists():
        raise DataMissingError(
            f"{setting} must exist, got nothing at {shown(noisy)} (looked at "
            f"{shown(noisy.absolute())}); check the path"
        )
    if noisy.is_dir():
        raise DataError(
            f"{setting} must be a file of images, as {path} is, got the folder "
            f"{shown(noisy)}; give the noisy images in their order, or the clean ones as a folder "
            "too"
        )
    changes = dict.fromkeys(("groups", "labels", "noisy", "noisy_test"))
    own = how.model_copy(update=changes)
    theirs = Notes()
    found = file_parts(noisy, own, theirs)
    for line in theirs.lines():
        notes.remark(f"noisy images: {line}")
    return found


def _with_noisy_test(path: Path, parts: Stored, how: DataSpec, notes: Notes) -> Stored:
    """Read the noisy images of an archive's own test set where another file has them."""
    assert how.noisy_test is not None, "the caller looked"
    if path.is_dir() or parts.test_images is None:
        test = "is in data.noisy as well" if path.is_dir() else "is drawn, as there is none"
        raise DataError(
            "data.noisy_test must come with data.test or the test set of an archive, got "
            f"{shown(how.noisy_test)!r} beside {shown(path)}, whose test set {test}; leave it out"
        )
    if names_array(path, how.noisy_test):
        return parts
    found = _read_noisy(path, Path(how.noisy_test).expanduser(), how, notes, "data.noisy_test")
    return replace(parts, test_noisy=found.images)


def _with_test(path: Path, parts: Stored, how: DataSpec, notes: Notes) -> Stored:
    """Read the test set from a file or folder of its own."""
    if parts.test_images is not None:
        raise DataError(
            "data.test must be left out for images with a test set of their own, got "
            f"{str(path)!r} beside that of {parts.source}"
        )
    changes = {"groups": None, "labels": None, "noisy": how.noisy_test, "noisy_test": None}
    own, theirs, images = how.model_copy(update=changes), Notes(), parts.images
    n_channels = images.shape[3] if np.ndim(images) == 4 and images.shape[3] in (1, 3) else None
    found = _parts(path, own, theirs, n_channels=n_channels, noisy_setting="data.noisy_test")
    for line in theirs.lines():
        notes.remark(f"test set: {line}")
    images, labels, noisy = found.images, found.labels, found.noisy
    if found.test_images is not None:
        # A split of its own: what is called its test set is meant.
        images, labels, noisy = found.test_images, found.test_labels, found.test_noisy
    return replace(
        parts,
        labels=_named(parts.labels, parts.class_names),
        test_images=images,
        test_labels=_named(labels, found.class_names),
        test_noisy=noisy,
        class_names=None,
    )


def _named(labels: Any, names: tuple[str, ...] | None) -> Any:
    """Give labels their names, since two sets may number them differently."""
    return labels if labels is None or names is None else np.array(names)[np.asarray(labels)]


def _done(how: DataSpec) -> DataSpec:
    """What is left to do with the images of files: nothing but checks."""
    return how.model_copy(
        update={"resize": None, "colour": "auto", "white": how.white and 255, "image_shape": None}
    )


def file_parts(path: Path, how: DataSpec, notes: Notes) -> Stored:
    """Read what a file holds, as it is stored.

    The array of a ``.npy`` file is mapped, not read. Raises as ``read_path`` does.
    """
    if not path.exists():
        raise DataMissingError(
            f"{path} must exist, got nothing there (looked at {path.absolute()}); check the path"
        )
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise DataError(
            f"{path} must be a folder of images or end in {', '.join(SUFFIXES)}, got "
            f"{path.suffix or path.name!r}; convert it, or give the folder that it is in"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} must hold images, got an empty file (0 bytes); write it again")
    if name.endswith(ARCHIVES):
        return archive_parts(path, how, notes)
    if name.endswith(".npy"):
        return _read_npy(path)
    return table_parts(path, how, notes)


def _read_npy(path: Path) -> Stored:
    """Read one array, mapped so that a conversion needs no second copy in memory."""
    _check_npy(path)
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} must be a NumPy array file, got {error}; write it again with np.save"
        ) from error
    return Stored(values, shown(path.stem), shown(path))


def _check_npy(path: Path) -> None:
    """Compare the length of the file with what its header says."""
    with path.open("rb") as file:
        try:
            shape, dtype = header_of(file)
        except (ValueError, EOFError) as error:
            raise DataError(
                f"{path} must start with a NumPy header, got {error}; write it again with np.save"
            ) from error
        header_bytes = file.tell()
    if dtype.hasobject:
        raise DataError(
            f"{path} must hold numbers, got Python objects (a pickle), which are never opened; "
            "make all images the same size and store them as uint8"
        )
    expected = header_bytes + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    size = path.stat().st_size
    if size < expected:
        raise DataError(
            f"{path} must be {expected} bytes long for its array of shape {shape}, got {size}: "
            "truncated; copy or write it again"
        )
