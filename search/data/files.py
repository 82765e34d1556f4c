"""Image sets in array files (``.npz``, ``.npy``), and which reader a path gets."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from aesearch.data.folder import folder_parts
from aesearch.data.images import ImageSet, make_image_set
from aesearch.data.table import table_parts
from aesearch.studies.errors import DataError, DataMissingError

SUFFIXES = (".npz", ".npy", ".csv", ".csv.gz")

# Names of (images, labels, test images, test labels) that archives in the field use,
# Keras' mnist.npz first. Only the images are required.
_LAYOUTS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("images", "labels", "test_images", "test_labels"),
    ("data", "labels", "test_data", "test_labels"),
    ("x", "y", "x_test", "y_test"),
)
# MedMNIST brings a validation part as well. It joins the training pool, because
# cross-validation makes its own validation parts.
_VALIDATION = {"train_images": ("val_images", "val_labels"), "x_train": ("x_val", "y_val")}


def read_path(path: Path) -> ImageSet:
    """Read an image set from a file or a folder; the suffix says how.

    Raises
    ------
    DataMissingError
        Nothing there.
    DataError
        Another suffix, or content that cannot be used.
    """
    return make_image_set(**(folder_parts(path) if path.is_dir() else file_parts(path)))


def file_parts(path: Path) -> dict[str, Any]:
    """Read what a file holds, as it is stored: the arguments of ``make_image_set``.

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
    if name.endswith(".npz"):
        return _read_npz(path)
    if name.endswith(".npy"):
        return _read_npy(path)
    return table_parts(path)


def _read_npy(path: Path) -> dict[str, Any]:
    """Read one array, mapped so that a conversion needs no second copy in memory."""
    _check_npy(path)
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} must be a NumPy array file, got {error}; write it again with np.save"
        ) from error
    return {"name": path.stem, "source": str(path), "images": values}


def _check_npy(path: Path) -> None:
    """Compare the length of the file with what its header says."""
    with path.open("rb") as file:
        try:
            version = npy_format.read_magic(file)
            read_header = (
                npy_format.read_array_header_1_0
                if version == (1, 0)
                else npy_format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
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


def _read_npz(path: Path) -> dict[str, Any]:
    """Read the arrays of an archive by the names that are used in the field."""
    try:
        # Opened here, because np.load leaves a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            parts = _npz_parts(path, {key.lower(): key for key in archive.files}, archive)
    except DataError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError) as error:
        hint = "write it again with np.savez"
        if "allow_pickle" in str(error):
            hint = "Python objects are never opened: store images as one uint8 array"
        raise DataError(
            f"{path} must be a complete NumPy archive of numbers, got {error} "
            f"({path.stat().st_size} bytes); {hint}"
        ) from error
    return {"name": path.stem, "source": str(path), **parts}


def _npz_parts(path: Path, keys: dict[str, str], archive: Any) -> dict[str, Any]:
    """Choose the arrays; ``keys`` maps lower-case names to those in the file."""
    for images, labels, test_images, test_labels in _LAYOUTS:
        if images not in keys:
            continue
        chosen = {
            "images": images,
            "labels": labels,
            "test_images": test_images,
            "test_labels": test_labels,
        }
        parts = {part: archive[keys[key]] for part, key in chosen.items() if key in keys}
        names = archive[keys["class_names"]] if "class_names" in keys else None
        if names is not None and names.ndim == 1 and names.dtype.kind == "U":
            parts["class_names"] = tuple(names.tolist())
        return _with_validation(path, parts, _VALIDATION.get(images), keys, archive)
    arrays = {key: archive[key] for key in archive.files}
    found = [key for key, values in arrays.items() if values.ndim in (3, 4)]
    if len(found) != 1:
        content = ", ".join(f"{key} {values.shape}" for key, values in arrays.items())
        raise DataError(
            f"{path} must name its images 'x_train', 'train_images' or 'images', or hold only one "
            f"array of 3 or 4 axes, got {content or 'no array'}; rename the arrays"
        )
    return {"images": arrays[found[0]]}


def _with_validation(
    path: Path,
    parts: dict[str, Any],
    names: tuple[str, str] | None,
    keys: dict[str, str],
    archive: Any,
) -> dict[str, Any]:
    """Append the archive's validation part to the training pool."""
    if names is None or names[0] not in keys:
        return parts
    for part, name in zip(("images", "labels"), names, strict=True):
        if part not in parts:
            continue
        if name not in keys:
            raise DataError(
                f"{path} must hold {name!r} beside {names[0]!r}, got no such array; "
                "add it, or leave the validation part out"
            )
        more = archive[keys[name]]
        if more.shape[1:] != parts[part].shape[1:] or more.dtype != parts[part].dtype:
            raise DataError(
                f"{path}: {name} must match the training part, {parts[part].dtype} "
                f"{parts[part].shape}, got {more.dtype} {more.shape}; leave it out, or convert it"
            )
        parts[part] = np.concatenate([parts[part], more])
    return parts
