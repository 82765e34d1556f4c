"""Many image files as one array: one size, one number of channels; bad ones listed or left out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aesearch.data.arrays.image_file import (
    BadFileError,
    Decoded,
    Header,
    decoded,
    header_of,
    problems_text,
)
from aesearch.data.arrays.transform import in_channels, is_grey, resized
from aesearch.data.notes import Notes, counted, listed, shown
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec


@dataclass(frozen=True, eq=False)
class FileImages:
    """What was read from image files.

    Attributes
    ----------
    images : ndarray of uint8, (sample, height, width, channel)
    file_of_sample : ndarray of int64, (sample,)
        Number of the file that each is from, ascending: a file of several pages gives several,
        one that was left out none.
    """

    images: np.ndarray
    file_of_sample: np.ndarray


def read_images(
    files: Sequence[Path],
    how: DataSpec,
    notes: Notes,
    *,
    where: str,
    n_channels: int | None = None,
) -> FileImages:
    """Read image files.

    Parameters
    ----------
    files : sequence of Path
    how : DataSpec
        Size, colour, background, white, pages, and what happens to bad files.
    notes : Notes
        Told about what is left out.
    where : str
        What the files are called together.
    n_channels : int, optional
        Channels that a network takes; None for what the files have: three where any of them
        shows colours or all are stored in colours, else one.

    Raises
    ------
    DataError
        Files that cannot be read, all of them listed, or sizes that differ.
    """
    bad: list[BadFileError] = []
    headers = _headers(files, how, bad)
    if bad and how.bad_files == "stop":
        raise DataError(problems_text(where, bad))
    height, width = _size(files, headers, how)
    counts = [0 if header is None else _n_images(header, how) for header in headers]
    kinds = {header.kind for header in headers if header is not None}
    channels = n_channels or _channels(files, headers, how)
    images = _room(sum(counts), height, width, channels)
    file_of_sample = np.repeat(np.arange(len(files)), counts)
    read = np.zeros(len(images), dtype=bool)
    n_further, n_composed, shows_colours = 0, 0, False
    for number, file in enumerate(files):
        start, stop = np.searchsorted(file_of_sample, [number, number + 1])
        if start == stop:
            continue
        try:
            found = decoded(file, how)
            images[start:stop] = _fitted(found, file, channels, (height, width), how)
        except BadFileError as error:
            bad.append(error)
            continue
        read[start:stop] = True
        n_further += found.n_further
        n_composed += found.is_composed
        shows_colours = shows_colours or not all(is_grey(page) for page in found.images)
    if bad and how.bad_files == "stop":
        raise DataError(problems_text(where, bad))
    if bad:
        images, file_of_sample = images[read], file_of_sample[read]
        _tell_bad(bad, notes)
    notes.leave_out("further page|", n_further)
    if n_composed:
        notes.remark(f"{counted(n_composed, 'transparent image|')} laid on {how.background}")
    decides = n_channels is None and how.colour == "auto" and kinds != {"colour"}
    if channels == 3 and decides and not shows_colours:
        images = np.ascontiguousarray(images[..., :1])
    return FileImages(images, file_of_sample)


def readable(
    files: Sequence[Path], how: DataSpec, notes: Notes, *, where: str
) -> tuple[list[Path], np.ndarray]:
    """Decode files to see which of them can be read, and tell ``notes`` of the others.

    Returns
    -------
    files : list of Path
        Those that can.
    rows : ndarray of int64
        Their places among all.

    Raises
    ------
    DataError
        None can; all are listed.
    """
    rows, bad = [], []
    for row, file in enumerate(files):
        try:
            decoded(file, how)
        except BadFileError as error:
            bad.append(error)
        else:
            rows.append(row)
    if bad and not rows:
        raise DataError(problems_text(where, bad))
    _tell_bad(bad, notes)
    return [files[row] for row in rows], np.array(rows, dtype=np.int64)


def _tell_bad(bad: Sequence[BadFileError], notes: Notes) -> None:
    notes.leave_out("bad file|", len(bad))
    if bad:
        notes.remark(f"bad files: {listed(_short(error) for error in bad)}")


def _short(error: BadFileError) -> str:
    name = shown(error.file.name) if isinstance(error.file, Path) else error.file
    return f"{name} ({error.found})"


def _headers(files: Sequence[Path], how: DataSpec, bad: list[BadFileError]) -> list[Header | None]:
    found: list[Header | None] = []
    for file in files:
        try:
            found.append(header_of(file, how))
        except BadFileError as error:
            bad.append(error)
            found.append(None)
    return found


def _n_images(header: Header, how: DataSpec) -> int:
    return header.n_pages if how.pages == "images" else 1


def _channels(files: Sequence[Path], headers: Sequence[Header | None], how: DataSpec) -> int:
    """How many channels make room for all."""
    kinds = {header.kind for header in headers if header is not None}
    if how.colour != "auto":
        return 1 if how.colour == "grey" else 3
    if "many" in kinds:  # those of one file: all must be alike
        first = next(row for row, header in enumerate(headers) if header is not None)
        return int(decoded(files[first], how).images[0].shape[2])
    return 1 if kinds <= {"grey"} else 3


def _size(
    files: Sequence[Path], headers: Sequence[Header | None], how: DataSpec
) -> tuple[int, int]:
    """Give the height and width of all images.

    Raises
    ------
    DataError
        Sizes that differ, with how many files have which.
    """
    if how.resize is not None:
        return how.resize.side, how.resize.side
    of_size: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for file, header in zip(files, headers, strict=True):
        if header is not None:
            of_size[header.height, header.width].append(file)
    if len(of_size) == 1:
        return next(iter(of_size))
    if not of_size:
        return 0, 0
    common, *others = sorted(of_size, key=lambda size: -len(of_size[size]))
    odd = of_size[others[0]][0]
    raise DataError(
        f"{odd} must have the size of {of_size[common][0]}, {common[1]}x{common[0]} "
        f"(width x height), got {others[0][1]}x{others[0][0]}; of {sum(map(len, of_size.values()))}"
        f" files {listed(_sized(size, of_size[size]) for size in (common, *others))}; bring them "
        "to one size with --resize SIDE, such as --resize 64 (also 64-fit, 64-stretch)"
    )


def _sized(size: tuple[int, int], files: Sequence[Path]) -> str:
    return f"{len(files):,} are {size[1]}x{size[0]}"


def _room(n_samples: int, height: int, width: int, n_channels: int) -> np.ndarray:
    try:
        return np.empty((n_samples, height, width, n_channels), dtype=np.uint8)
    except MemoryError as error:
        raise DataError(
            f"{n_samples} images of {width}x{height} must fit in memory, got "
            f"{n_samples * height * width * n_channels / 2**30:.1f} GiB of them; make them smaller "
            "with --resize SIDE"
        ) from error


def _fitted(
    found: Decoded, file: Path, n_channels: int, size: tuple[int, int], how: DataSpec
) -> list[np.ndarray]:
    """Bring the pages of a file to the size and channels of all."""
    pages = []
    for page in found.images:
        image = in_channels(page, n_channels, how.colour)
        if image is None:
            colours = page.shape[2] == 3 and n_channels == 1
            raise BadFileError(
                file,
                "be greyscale" if colours else f"have {counted(n_channels, 'channel|')}",
                "colours" if colours else str(page.shape[2]),
                "make it greyscale (--set data.colour=grey)" if colours else "leave it out",
            )
        if how.resize is not None:
            image = resized(image, how.resize, how.background)
        if image.shape[:2] != size:
            raise BadFileError(
                file,
                f"have pages of {size[1]}x{size[0]}",
                f"{image.shape[1]}x{image.shape[0]}",
                "bring them to one size with --resize SIDE",
            )
        pages.append(image)
    return pages
