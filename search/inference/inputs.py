"""INPUT of a command as images that are read a range at a time, whatever holds them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, final

import numpy as np

from aesearch.data.arrays.image_file import header_of
from aesearch.data.arrays.labels import coded, labels_of
from aesearch.data.arrays.pixels import images_of, unrolled
from aesearch.data.known.download import Progress
from aesearch.data.load import known_name, load
from aesearch.data.notes import Notes
from aesearch.data.readers.files import file_parts
from aesearch.data.readers.folder import ImageFiles, find_images
from aesearch.data.readers.image_files import read_images, readable
from aesearch.data.readers.tree import IMAGE_SUFFIXES, RARE_SUFFIXES
from aesearch.data.stored import Stored
from aesearch.inference.layouts import (
    ImageShape,
    ImageShapeError,
    check_integer_range,
    intensities,
    layout_of,
    to_channel_first,
)
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

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
    """Image files that are opened when their range is asked for, as a network takes them.

    Parameters
    ----------
    files : sequence of Path
    how : DataSpec
        Size, colour and the like; a file of several pages is its first one.
    where : str
        What they are called together.
    """

    def __init__(self, files: Sequence[Path], how: DataSpec, where: str) -> None:
        self._files, self._where = list(files), where
        self._how = how.model_copy(update={"bad_files": "stop"})
        if how.pages == "images":
            self._how = self._how.model_copy(update={"pages": "first"})

    @property
    def shape(self) -> tuple[int, ...]:
        """(sample, height, width), of the first file as all must be; its channels fit any model."""
        if self._how.resize is not None:
            return (len(self._files), self._how.resize.side, self._how.resize.side)
        first = header_of(self._files[0], self._how)
        return (len(self._files), first.height, first.width)

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Read files in the channels that they have themselves."""
        return read_images(self._files[rows], self._how, Notes(), where=self._where).images

    def read(self, rows: slice, image_shape: ImageShape) -> np.ndarray:
        """Read files as (sample, channel, height, width) uint8.

        Raises
        ------
        DataError
            A file that cannot be read, or has another size, or colours for a grey network.
        """
        n_channels, height, width = image_shape
        files = self._files[rows]
        found = read_images(files, self._how, Notes(), where=self._where, n_channels=n_channels)
        if found.images.shape[1:3] != (height, width):
            raise ImageShapeError(str(files[0]), image_shape, found.images.shape)
        return np.moveaxis(found.images, 3, 1)


@dataclass(frozen=True, eq=False)
class Input:
    """Images to be put through a model.

    Attributes
    ----------
    source : str
        What they are called in messages.
    parts : tuple of Rows
        One after another; of the same shape but for the number of samples. Either arrays, or
        image files.
    labels : ndarray of int64, (sample,), or None
    class_names : tuple of str or None
    files : tuple of Path
        The image file of each sample; empty where they do not come from such files.
    described : str
        How many images there are, and from which parts.
    how : DataSpec
        How the model's own images were read: their size, colour and white.
    notes : tuple of str
        What was left out, and what was decided in reading.
    """

    source: str
    parts: tuple[Rows, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    files: tuple[Path, ...]
    described: str
    how: DataSpec
    notes: tuple[str, ...] = ()

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
        found, start = [], 0
        for part in self.parts:
            stop = start + part.shape[0]
            if rows.start < stop and rows.stop > start:
                within = slice(max(rows.start - start, 0), min(rows.stop, stop) - start)
                found.append(self._block(part, within, image_shape, unclamped=unclamped))
            start = stop
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _block(
        self, part: Rows | FileRows, rows: slice, image_shape: ImageShape, *, unclamped: bool
    ) -> np.ndarray:
        if isinstance(part, FileRows):
            return intensities(part.read(rows, image_shape), self.source)
        block = part[rows]
        if _changes_pixels(self.how):
            block = images_of(block, self.source, self.how)
        layout = layout_of(block.shape, image_shape, self.source)
        block = intensities(block, self.source, unclamped=unclamped)
        return to_channel_first(block, layout, image_shape)

    def check(self, image_shape: ImageShape) -> None:
        """Refuse images of another size than a network takes.

        Raises
        ------
        ImageShapeError
            With both.
        """
        if self.files:
            if self.shape[1:3] != tuple(image_shape[1:]):
                raise ImageShapeError(self.source, image_shape, self.shape)
            return
        if not _changes_pixels(self.how):
            layout_of(self.shape, image_shape, self.source)


def _changes_pixels(how: DataSpec) -> bool:
    return how.resize is not None or how.colour != "auto" or how.white is not None


def open_input(
    source: str,
    *,
    part: str = "all",
    data_dir: Path | None = None,
    progress: Progress | None = None,
    how: DataSpec | None = None,
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
    how : DataSpec, optional
        How the model's own images were read; None for images as they are. Of a folder, bad
        files are left out where it says so; that decodes all files once more.

    Raises
    ------
    DataError
        It cannot be read, holds no image, or has no such part.
    """
    how, notes = DataSpec() if how is None else how, Notes()
    # A name wins over a file of that name, as in ``load``.
    path = None if known_name(source) else Path(source).expanduser()
    files: tuple[Path, ...] = ()
    if path is None or not source.strip() or not path.exists():
        how = how.model_copy(update={"white": None})
        known = load(source, data_dir, progress=progress)
        parts = Stored(
            images=known.images,
            labels=known.labels,
            test_images=known.test_images,
            test_labels=known.test_labels,
            class_names=known.class_names,
        )
    elif path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES + RARE_SUFFIXES:
        files = (path,)
        parts = Stored(FileRows(files, how, source))
    elif path.is_dir():
        found = find_images(path, notes)
        if how.bad_files == "skip":
            found = _readable(found, how, notes, source)
        chosen = {"all": found.files + found.test_files}
        chosen |= {"train": found.files, "test": found.test_files}
        files = tuple(chosen[part])
        parts = Stored(
            images=FileRows(found.files, how, source),
            labels=found.labels,
            test_images=FileRows(found.test_files, how, source) if found.test_files else None,
            test_labels=found.test_labels,
            class_names=found.class_names,
        )
    else:
        parts = file_parts(path, how, notes)
        parts.images = unrolled(parts.images, source, how)
    return replace(_chosen(source, parts, part, how), files=files, notes=notes.lines())


def _readable(found: ImageFiles, how: DataSpec, notes: Notes, source: str) -> ImageFiles:
    """Leave out the files that cannot be read, which are decoded once for it."""
    files, rows = readable([*found.files, *found.test_files], how, notes, where=source)
    of_pool, n_pool = rows < len(found.files), len(found.files)
    rows, test_rows = rows[of_pool], rows[~of_pool] - n_pool
    return replace(
        found,
        files=files[: len(rows)],
        test_files=files[len(rows) :],
        labels=None if found.labels is None else found.labels[rows],
        test_labels=None if found.test_labels is None else found.test_labels[test_rows],
    )


def _chosen(source: str, parts: Stored, part: str, how: DataSpec) -> Input:
    train, test = parts.images, parts.test_images
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
    counts = [row.shape[0] for row in rows]
    if not sum(counts):
        raise DataError(f"{source} must hold images, got none")
    if how.white is None:
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
        class_names=names or parts.class_names,
        files=(),
        described=described,
        how=how,
    )


def _ranges(parts: Sequence[Rows]) -> Iterator[np.ndarray]:
    for part in parts:
        for start in range(0, part.shape[0], _CHECKED_AT_ONCE):
            yield part[start : start + _CHECKED_AT_ONCE]


def _labels(
    source: str, parts: Stored
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...] | None]:
    found: list[np.ndarray | None] = []
    for name, values, rows in (
        ("labels", parts.labels, parts.images),
        ("test_labels", parts.test_labels, parts.test_images),
    ):
        if values is None or rows is None:
            found.append(None)
        else:
            found.append(labels_of(values, rows.shape[0], f"{source}: {name}"))
    return coded(found[0], found[1])
