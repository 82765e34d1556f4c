"""Image sets in folders of image files, flat or one sub-folder per class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aesearch.studies.errors import DataError, DataMissingError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_GREY_MODES = ("1", "L", "LA", "La")
_WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112  # of Exif
# What brings its values upright, as members of PIL's Image.Transpose.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Which files of a folder are its images.

    Attributes
    ----------
    files, test_files : list of Path
        Of the training pool, and of the set's own test set; the latter empty where it has none.
    labels, test_labels : ndarray of int64, (file,), or None
    class_names : tuple of str or None
        The folders that label 0, 1, ... stands for; None in a flat folder.
    """

    files: list[Path]
    labels: np.ndarray | None
    test_files: list[Path]
    test_labels: np.ndarray | None
    class_names: tuple[str, ...] | None


def folder_parts(path: Path) -> dict[str, Any]:
    """Read a folder of images: the arguments of ``make_image_set``.

    The first image decides between greyscale and colour. Alpha is dropped, grey images
    among coloured ones become coloured, and of an animation the first frame is read.

    Raises
    ------
    DataError
        As ``find_images`` does, and for sizes that differ, an unreadable image, or a
        coloured image among grey ones; names the files.
    """
    found = find_images(path)
    images = read_images(found.files + found.test_files)
    n_train = len(found.files)
    return {
        "name": path.resolve().name,
        "source": str(path),
        "images": images[:n_train],
        "labels": found.labels,
        "test_images": images[n_train:] if found.test_files else None,
        "test_labels": found.test_labels,
        "class_names": found.class_names,
    }


def find_images(path: Path) -> ImageFiles:
    """List the images of a folder, in the sorted order of their names, without opening any.

    Sub-folders are classes, numbered in sorted order; ``train/`` and ``test/`` side by
    side are the training pool and the set's own test set, each flat or with classes.

    Raises
    ------
    DataError
        No images, images beside class folders, or other classes in ``test/``.
    """
    subfolders = {entry.name.lower(): entry for entry in _subfolders(path)}
    if "train" not in subfolders or "test" not in subfolders:
        files, labels, names = _listing(path)
        return ImageFiles(files, labels, [], None, names)
    others = [folder for name, folder in subfolders.items() if name not in ("train", "test")]
    extra = next((other for other in others + _images_in(path) if _found(other)), None)
    if extra is not None:
        raise DataError(
            f"{path} must hold only train/ and test/, got {extra.name!r} as well; "
            "move its images into train/ (cross-validation makes its own validation parts)"
        )
    files, labels, names = _listing(subfolders["train"])
    test_files, test_labels, test_names = _listing(subfolders["test"])
    if names != test_names:
        raise DataError(
            f"{path} must have the same classes in train/ and test/, got {names} and "
            f"{test_names}; rename the folders"
        )
    return ImageFiles(files, labels, test_files, test_labels, names)


def _subfolders(path: Path) -> list[Path]:
    """Sub-folders in sorted order, without hidden ones and what macOS leaves in archives."""
    return sorted(
        entry
        for entry in _entries(path)
        if entry.is_dir() and not entry.name.startswith((".", "__"))
    )


def _entries(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError as error:
        raise DataError(
            f"{path} must be readable, got {error.strerror}; let this user read it, or move the "
            "images into a folder of their own"
        ) from error


def _images_in(path: Path) -> list[Path]:
    """Image files directly in a folder, in sorted order."""
    return sorted(
        entry
        for entry in _entries(path)
        if entry.suffix.lower() in IMAGE_SUFFIXES
        and not entry.name.startswith(".")
        and entry.is_file()
    )


def _found(path: Path) -> list[Path]:
    """Image files in a folder and below it, in sorted order; a file is itself."""
    if path.is_file():
        return [path]
    below = [file for folder in _subfolders(path) for file in _found(folder)]
    return _images_in(path) + below


def _listing(path: Path) -> tuple[list[Path], np.ndarray | None, tuple[str, ...] | None]:
    """List the image files of a folder with labels and class names, None where it is flat."""
    flat = _images_in(path)
    classes = [(folder, files) for folder in _subfolders(path) if (files := _found(folder))]
    if flat and classes:
        raise DataError(
            f"{path} must hold images or class sub-folders, got both ({flat[0].name!r} beside "
            f"{classes[0][0].name + '/'!r}); move the images into a sub-folder"
        )
    if not flat and not classes:
        raise DataError(
            f"{path} must hold images ({', '.join(IMAGE_SUFFIXES)}) or sub-folders with images, "
            "got none; for a known data set give its name, and this folder as --data-dir"
        )
    if flat:
        return flat, None, None
    labels = np.repeat(np.arange(len(classes)), [len(files) for _, files in classes])
    names = tuple(folder.name for folder, _ in classes)
    return [file for _, files in classes for file in files], labels, names


def read_images(files: Sequence[Path], first: Path | None = None) -> np.ndarray:
    """Read image files of one size into ``(sample, height, width, channel)`` uint8.

    ``first`` is the image whose size and channels all must have: the first of ``files``,
    where these are not a part of more.
    """
    first = files[0] if first is None else first
    # The mode of the first image, not its content: the first photograph of a coloured
    # set may happen to be grey.
    shape = _decoded(first).shape
    is_grey = shape[2] == 1
    try:
        images = np.empty((len(files), *shape), dtype=np.uint8)
    except MemoryError as error:
        height, width, channel = shape
        raise DataError(
            f"{len(files)} images of {width}x{height} must fit in memory, got "
            f"{len(files) * height * width * channel / 2**30:.1f} GiB of them; make them smaller"
        ) from error
    for row, file in enumerate(files):
        image = _decoded(file)
        if image.shape[:2] != shape[:2]:
            raise DataError(
                f"{file} must have the size of {first}, {shape[1]}x{shape[0]} "
                f"(width x height), got {image.shape[1]}x{image.shape[0]}; resize the images"
            )
        if is_grey and (image != image[..., :1]).any():
            raise DataError(
                f"{file} must be greyscale like the first image {first}, got colours; "
                "convert all images to greyscale, or all to RGB"
            )
        # Into a coloured set, a grey image is broadcast over the three channels.
        images[row] = image[..., :1] if is_grey else image
    return images


def _decoded(file: Path) -> np.ndarray:
    """Read one file as ``(height, width, channel)`` uint8, one channel or three."""
    from PIL import Image  # noqa: PLC0415 - only folders need it

    if not file.is_file():
        raise DataMissingError(f"{file} must stay where it was found, got nothing there")
    if file.stat().st_size == 0:
        raise DataError(
            f"{file} must be an image, got an empty file (0 bytes); delete or replace it"
        )
    try:
        with Image.open(file) as image:
            # A camera stores a portrait as a landscape and a note that it is to be turned. PIL's
            # own exif_transpose writes all notes anew, and fails where one of them is odd.
            turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
            return _channels(
                image if turn is None else image.transpose(Image.Transpose[turn]), file
            )
    except DataError:
        raise
    # What PIL raises for a damaged file depends on the format; SyntaxError is its own.
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file} must be a readable image, got {error} ({file.stat().st_size} bytes); "
            "delete or replace it"
        ) from error


def _channels(image: Any, file: Path) -> np.ndarray:
    """Bring any mode of PIL to one or three 8-bit channels."""
    if image.mode in _GREY_MODES:
        return np.asarray(image.convert("L"))[..., np.newaxis]
    if image.mode in _WIDE_MODES:
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 255:
            raise DataError(
                f"{file} must hold 8-bit intensities in 0..255, got values from {low} to {high} "
                f"(mode {image.mode}); convert it to 8 bits"
            )
        return values.astype(np.uint8)[..., np.newaxis]
    if image.mode == "F":
        raise DataError(f"{file} must hold 8-bit intensities, got floats; convert it to 8 bits")
    if image.mode in ("P", "PA"):
        # By way of RGBA: PIL warns when a transparent palette goes straight to RGB.
        colours = np.asarray(image.convert("RGBA"))[..., :3]
        # A palette of greys is how GIF and small PNG store greyscale.
        is_grey = (colours == colours[..., :1]).all()
        return colours[..., :1] if is_grey else colours
    return np.asarray(image.convert("RGB"))
