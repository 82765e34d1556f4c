"""OUTPUT of a command, written as it comes and named when it is whole: arrays or pictures."""

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Literal, cast

import numpy as np
from numpy.lib import format as npy_format

from aesearch.artifacts.table_file import FORMATS, check_format, table_bytes
from aesearch.inference.pictures import png, sheet
from aesearch.studies.errors import AesearchError
from aesearch.studies.files import whole_file
from aesearch.studies.results.output_files import OutputError

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["npy", "npz", "png", "folder", "csv", "json", "parquet"]
Holds = Literal["codes", "pictures", "scores"]
Add = Callable[[np.ndarray], object]

# One sheet of more images than this is not to be looked at.
LARGEST_SHEET = 1024


class OutputKindError(AesearchError, ValueError):
    """An output whose name does not say what it is to be, or that cannot be that."""


_ENDINGS: dict[Holds, tuple[str, ...]] = {
    "codes": (".npy", ".npz", *(f".{name}" for name in FORMATS)),
    "pictures": (".npy", ".npz", ".png"),
    "scores": tuple(f".{name}" for name in FORMATS),
}


def kind_of(path: Path, *, is_folder: bool, holds: Holds, name: str = "OUTPUT") -> Kind:
    """Tell from its name what an output is to be.

    Parameters
    ----------
    is_folder : bool
        Whether the user wrote a separator at its end.
    holds : {"codes", "pictures", "scores"}
        Images can be a PNG or a folder of such; numbers can be tables.
    name : str
        What the output is called in messages.

    Raises
    ------
    OutputKindError
        Another ending.
    TableFormatError
        The package for such tables is missing.
    """
    suffix, endings = path.suffix.lower(), _ENDINGS[holds]
    folder = is_folder or path.is_dir()
    if not folder and suffix in endings:
        if suffix[1:] in FORMATS:
            check_format(suffix[1:])
        return cast("Kind", suffix[1:])
    listed = f"{', '.join(endings[:-1])} or {endings[-1]}"
    if holds != "pictures":
        raise OutputKindError(
            f"{name} must end in {listed} to hold {holds}, got {str(path)!r}; pictures are what "
            "'reconstruct' and 'interpolate' write"
        )
    if folder or not suffix:
        return "folder"
    raise OutputKindError(
        f"{name} must end in {listed}, or be a folder of PNG files, got {str(path)!r}; "
        f"write '{path}{os.sep}' if it is to be a folder"
    )


@contextmanager
def npy_output(path: Path, shape: tuple[int, ...]) -> Iterator[Add]:
    """Write one float32 array, block by block along its first axis, as a ``.npy`` file.

    Yields
    ------
    callable
        Takes the next block. A file that is whole gets its name at the end; one that is not
        leaves nothing behind.
    """
    with _whole(path) as stream:
        _npy_header(stream, np.dtype(np.float32), shape)
        yield lambda block: _append(stream, block)


@contextmanager
def npz_output(
    path: Path, name: str, shape: tuple[int, ...], beside: Mapping[str, np.ndarray]
) -> Iterator[Add]:
    """Write one float32 array block by block into a ``.npz`` archive, whole arrays beside it.

    The same arrays give the same bytes: the archive holds no times.
    """
    with _whole(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
            _npy_header(member, np.dtype(np.float32), shape)
            yield lambda block: _append(member, block)
        for key, values in beside.items():
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w") as member:
                _npy_header(member, values.dtype, values.shape)
                member.write(np.ascontiguousarray(values).tobytes())


@contextmanager
def table_output(
    path: Path, kind: Kind, table_of: Callable[[np.ndarray], "pd.DataFrame"]
) -> Iterator[Add]:
    """Write arrays, given block by block along their first axis, as one table.

    Parameters
    ----------
    table_of : callable
        Makes the table of the whole array.
    """
    blocks: list[np.ndarray] = []
    with _whole(path) as stream:
        yield blocks.append
        stream.write(table_bytes(table_of(np.concatenate(blocks)), kind))


@contextmanager
def png_output(path: Path, n_samples: int, n_columns: int | None = None) -> Iterator[Add]:
    """Write images (sample, channel, height, width) as one PNG: one alone, or a sheet of them.

    Raises
    ------
    OutputKindError
        More images than anybody looks at on one sheet.
    """
    if n_samples > LARGEST_SHEET:
        raise OutputKindError(
            f"OUTPUT must be .npy, .npz or a folder for more than {LARGEST_SHEET} images, got "
            f"{str(path)!r} for {n_samples}"
        )
    blocks: list[np.ndarray] = []
    with _whole(path) as stream:
        yield blocks.append
        stream.write(sheet(np.concatenate(blocks), n_columns))


@contextmanager
def folder_output(path: Path, names: Sequence[str]) -> Iterator[Add]:
    """Write images (sample, channel, height, width) as a folder of PNG files.

    A new folder gets its name when it is whole. Into one that exists each file is moved at
    the end; other files in it stay.

    Parameters
    ----------
    names : sequence of str
        One for each image, without its ending, below ``path``; distinct.
    """
    waiting = iter(names)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")

    def add(block: np.ndarray) -> None:
        for image in block:
            target = temporary / f"{next(waiting)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(png(image))

    try:
        temporary.mkdir()
        yield add
        if not path.exists():
            temporary.replace(path)
        else:
            for name in names:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / f"{name}.png").replace(path / f"{name}.png")
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    try:
        with whole_file(path) as stream:
            yield stream
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> AesearchError:
    if isinstance(error, AesearchError):
        return error
    return OutputError(f"{path} cannot be written: {error.strerror or error}")


def _npy_header(stream: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    header = {
        "descr": npy_format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": tuple(int(n) for n in shape),
    }
    npy_format.write_array_header_1_0(stream, header)


def _append(stream: IO[bytes], block: np.ndarray) -> None:
    # Written, not mapped: a full disk is an error here, and would be a crash in a map.
    stream.write(np.ascontiguousarray(block, dtype=np.float32).data)
