"""INPUT of a command as images that are read a range at a time, whatever holds them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np

from aesearch.data.download import Progress
from aesearch.data.files import file_parts
from aesearch.data.folder import IMAGE_SUFFIXES, find_images, read_images
from aesearch.data.load import known_name, load
from aesearch.data.pixels import coded, labels_of
from aesearch.inference.layouts import (
    ImageShape,
    check_integer_range,
    intensities,
    layout_of,
    to_channel_first,
)
from aesearch.studies.errors import DataError

_CHECKED_AT_ONCE = 16  # the first few images are enough but for dark ones
PARTS = ("all", "train", "test")


class Rows(Protocol):
    """What images are read from: an array, a map of one, or the files of a folder."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples first."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Read a range of samples."""
        ...


@final
class FileRows:
    """Image files that are opened when their range is asked for."""

    def __init__(self, files: Sequence[Path], first: Path) -> None:
        self._files, self._first = list(files), first
        self._one = read_images([first]).shape[1:]

    @property
    def shape(self) -> tuple[int, ...]:
        """(sample, height, width, channel)."""
        return (len(self._files), *self._one)

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        return read_images(self._files[rows], self._first)


@dataclass(frozen=True, eq=False)
class Input:
    """Images to be put through a model.

    Attributes
    ----------
    source : str
        What they are called in messages.
    parts : tuple of Rows
        One after another; of the same shape but for the number of samples.
    labels : ndarray of int64, (sample,), or None
    class_names : tuple of str or None
    files : tuple of Path
        The image file of each sample; empty where they do not come from such files.
    described : str
        How many images there are, and from which parts.
    """

    source: str
    parts: tuple[Rows, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    files: tuple[Path, ...]
    described: str

    @property
    def n_samples(self) -> int:
        """Number of images."""
        return sum(part.shape[0] for part in self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all images as one array, as they are stored."""
        return (self.n_samples, *self.parts[0].shape[1:])

    def read(self, rows: slice, image_shape: ImageShape, *, unclamped: bool = False) -> np.ndarray:
        """Read a range of samples as a network takes them.

        Returns
        -------
        ndarray of float32, (sample, channel, height, width)
            Intensities in [0, 1].
        """
        layout = layout_of(self.shape, image_shape, self.source)
        found, start = [], 0
        for part in self.parts:
            stop = start + part.shape[0]
            if rows.start < stop and rows.stop > start:
                within = slice(max(rows.start - start, 0), min(rows.stop, stop) - start)
                block = intensities(part[within], self.source, unclamped=unclamped)
                found.append(to_channel_first(block, layout, image_shape))
            start = stop
        return found[0] if len(found) == 1 else np.concatenate(found)


def open_input(
    source: str,
    *,
    part: str = "all",
    data_dir: Path | None = None,
    progress: Progress | None = None,
) -> Input:
    """Open what a user named: a file of images, a folder, one image, or a known data set.

    Arrays in ``.npy`` files are mapped and the images of a folder opened batch by batch;
    other formats are read whole, in as few bytes as they are stored in.

    Parameters
    ----------
    source : str
        As ``--dataset`` of ``aesearch run``, or one image file.
    part : {"all", "train", "test"}
        Of images with a test set of their own: the training images, then the test images.
    data_dir, progress
        As in ``aesearch.data.load.load``.

    Raises
    ------
    DataError
        It cannot be read, holds no image, or has no such part.
    """
    # A name wins over a file of that name, as in ``load``.
    path = None if known_name(source) else Path(source).expanduser()
    files: tuple[Path, ...] = ()
    if path is None or not source.strip() or not path.exists():
        known = load(source, data_dir, progress=progress)
        names = ("images", "labels", "test_images", "test_labels", "class_names")
        parts: dict[str, Any] = {name: getattr(known, name) for name in names}
    elif path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        files = (path,)
        parts = {"images": FileRows(files, path)}
    elif path.is_dir():
        found = find_images(path)
        chosen = {"all": found.files + found.test_files}
        chosen |= {"train": found.files, "test": found.test_files}
        files, first = tuple(chosen[part]), (found.files + found.test_files)[0]
        parts = {
            "images": FileRows(found.files, first),
            "labels": found.labels,
            "test_images": FileRows(found.test_files, first) if found.test_files else None,
            "test_labels": found.test_labels,
            "class_names": found.class_names,
        }
    else:
        parts = file_parts(path)
    return _chosen(source, parts, part, files)


def _chosen(source: str, parts: dict[str, Any], part: str, files: tuple[Path, ...]) -> Input:
    train, test = parts["images"], parts.get("test_images")
    labels, test_labels, names = _labels(source, parts)
    if part == "test" and test is None:
        raise DataError(
            f"{source} must have a test set of its own for the part 'test', got images without; "
            "leave --part out"
        )
    pieces = {"train": [(train, labels)], "test": [(test, test_labels)]}
    pieces["all"] = pieces["train"] + (pieces["test"] if test is not None else [])
    rows = tuple(piece[0] for piece in pieces[part])
    known = [piece[1] for piece in pieces[part] if piece[1] is not None]
    counts = [len(row) if isinstance(row, np.ndarray) else row.shape[0] for row in rows]
    if not sum(counts):
        raise DataError(f"{source} must hold images, got none")
    check_integer_range(_ranges(rows), source)
    described = f"{sum(counts)} images" if sum(counts) > 1 else "1 image"
    if len(counts) == 2:
        described += f" ({counts[0]} for training, then {counts[1]} for testing)"
    elif test is not None:
        described += f" (part {part})"
    return Input(
        source=source,
        parts=rows,
        labels=np.concatenate(known) if len(known) == len(rows) else None,
        class_names=names or parts.get("class_names"),
        files=files,
        described=described,
    )


def _ranges(parts: Sequence[Rows]) -> Iterator[np.ndarray]:
    for part in parts:
        for start in range(0, part.shape[0], _CHECKED_AT_ONCE):
            yield part[start : start + _CHECKED_AT_ONCE]


def _labels(
    source: str, parts: dict[str, Any]
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...] | None]:
    found: list[np.ndarray | None] = []
    for name, images in (("labels", "images"), ("test_labels", "test_images")):
        values, rows = parts.get(name), parts.get(images)
        if values is None or rows is None:
            found.append(None)
        else:
            found.append(labels_of(values, rows.shape[0], f"{source}: {name}"))
    return coded(found[0], found[1])
