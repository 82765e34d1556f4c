"""Image sets in tables (CSV, TSV): one image a row; what its columns are is ``table_columns``."""

import csv
import gzip
import zlib
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from aesearch.data.notes import Notes, shown
from aesearch.data.readers.table_columns import (
    LABEL_NAMES,
    Columns,
    Dialect,
    channel_first,
    columns_of,
    dialect_of,
)
from aesearch.data.stored import Stored
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

# Rows converted at a time: a parsed table takes eight bytes a pixel.
_CHUNK_ROWS = 2048
_SUFFIXES = (".gz", ".csv", ".tsv")


@dataclass
class _Rows:
    """Rows read so far: blocks of pixels, uint8 or float32, and of labels and row numbers."""

    pixels: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    groups: list[np.ndarray] = field(default_factory=list)
    n_rows: int = 0


def table_parts(path: Path, how: DataSpec, notes: Notes) -> Stored:
    """Read a table such as Kaggle's ``label,pixel0,...``.

    The label column is the one called 'label', 'class', 'target' or 'y', or else, where no
    column has a name, the first if the others make a square image and its values are no row
    numbers. Pixels are integers in 0..255 or floats in [0, 1], in the order of their columns or,
    where their names number them, of their names. Plain or gzipped.

    Raises
    ------
    DataError
        Columns that make no image, cells that are missing or no numbers, rows of
        different lengths, or a damaged file.
    """
    import pandas as pd  # noqa: PLC0415 - only tables need it

    rows = _Rows()
    try:
        lines, n_before = _first_lines(path, how, notes)
        dialect = dialect_of(lines, how)
        columns = columns_of(lines, dialect, str(path), how, notes)
        chunks = pd.read_csv(
            path,
            header=None,
            sep=dialect.delimiter,
            decimal=dialect.decimal,
            skiprows=n_before + columns.has_header,
            chunksize=_CHUNK_ROWS,
            low_memory=False,
            skip_blank_lines=True,
            encoding="utf-8-sig",
        )
        with chunks:
            for chunk in chunks:
                _add(_restored(chunk, columns, rows), columns, rows, path, how)
    except DataError:
        raise
    except pd.errors.EmptyDataError:
        rows.n_rows = 0
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} must be a complete table in UTF-8, got {error}; save it as CSV UTF-8"
        ) from error
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        # pandas' ParserError is a ValueError and names the line.
        raise DataError(
            f"{path} must be a complete table, got {str(error).strip()}; write it again"
        ) from error
    if not rows.n_rows:
        raise DataError(f"{path} must hold rows of pixels, got no rows; write it again")
    pixels = _joined(rows.pixels, how)
    labels = np.concatenate(rows.labels) if rows.labels else None
    if labels is not None and columns.is_guess:
        labels = _checked_guess(labels, pixels[:, -1], columns, path, notes)
    images = pixels.reshape(-1, *columns.image_shape)
    return Stored(
        name=_name(path),
        source=shown(path),
        images=images if how.image_shape else channel_first(pixels, columns.image_shape),
        labels=labels,
        groups=np.concatenate(rows.groups) if rows.groups else None,
    )


def _name(path: Path) -> str:
    name = shown(path.name.lower())
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _first_lines(path: Path, how: DataSpec, notes: Notes) -> tuple[list[str], int]:
    """Read the first two lines of the table, and tell how many lines are before them.

    Lines that begin with # are comments, but for a last one that names the columns.
    """
    _refuse_packed(path)
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline=None) as file:
        told = ((number, line) for number, line in enumerate(file) if line.strip())
        found = list(islice(told, 2))
        comments = []
        while len(found) == 2 and found[0][1].startswith("#"):
            dialect = dialect_of([found[1][1]], how)
            names, cells = (dialect.cells(line.removeprefix("#")) for _, line in found)
            if not found[1][1].startswith("#") and len(names) == len(cells):
                break
            comments.append(found[0][1])
            found = [found[1], *islice(told, 1)]
    notes.leave_out("comment line|", len(comments))
    return [line for _, line in found], found[0][0] if found else 0


def _refuse_packed(path: Path) -> None:
    """Say what a file is that is no text, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(b"\x1f\x8b") and path.suffix.lower() != ".gz":
        raise DataError(
            f"{path} must end in .gz where it is packed, got gzip; rename it to {path.name}.gz"
        )
    kinds = {
        b"PK\3\4": ("a zip file or a workbook of Excel", "export it as CSV"),
        b"\xff\xfe": ("UTF-16", "save it as CSV UTF-8"),
        b"\xfe\xff": ("UTF-16", "save it as CSV UTF-8"),
    }
    for start, (what, remedy) in kinds.items():
        if head.startswith(start):
            raise DataError(f"{path} must be text in UTF-8, got {what}; {remedy}")


def _checked_guess(
    first: np.ndarray, last: np.ndarray, columns: Columns, path: Path, notes: Notes
) -> np.ndarray | None:
    """Tell whether a first column is labels or numbers the rows; None for the latter.

    Raises
    ------
    DataError
        A column with another name that is neither, or one that is no class beside a last one
        that is.
    """
    if len(first) > 1 and len(np.unique(first)) == len(first):
        notes.remark("the first column has no value twice: an index, not read")
        return None
    if columns.unknown:
        names = ", ".join(LABEL_NAMES[:-1]) + f" or {LABEL_NAMES[-1]}"
        raise DataError(
            f"{path} must call its label column {names}, got {columns.n_columns} "
            f"columns, the first of them {columns.unknown[:40]!r}; rename it, or take it away"
        )
    if _are_classes(last) and not _are_classes(first):
        raise DataError(
            f"{path} must tell which column is the label, got a last column that looks like one "
            "and a first that does not; add a header with 'label', or put the labels first"
        )
    return first


def _are_classes(values: np.ndarray) -> bool:
    """Whether values are texts, or all whole numbers from 0 or 1 on without a gap."""
    kinds = np.unique(values)
    counted = np.arange(len(kinds))
    return kinds.dtype.kind == "U" or (
        len(kinds) > 1 and any(np.array_equal(kinds, counted + start) for start in (0, 1))
    )


def _restored(chunk: Any, columns: Columns, rows: _Rows) -> Any:
    """Give the first row the values that a program changed when it took them for names."""
    if columns.first_row is None or rows.n_rows:
        return chunk
    chunk = chunk.copy()
    for column, cell in enumerate(columns.first_row):
        if column == columns.index:
            continue
        given = chunk[column].to_numpy(dtype=object, copy=True)
        given[0] = cell
        values = given.astype(float)
        whole = (np.floor(values) == values).all()
        chunk[column] = values.astype(np.int64) if whole else values
    return chunk


def _add(chunk: Any, columns: Columns, rows: _Rows, path: Path, how: DataSpec) -> None:
    """Check one chunk of rows and keep it in as few bytes as it needs."""
    if chunk.shape[1] == columns.n_columns + 1 and chunk.iloc[:, -1].isna().all():
        chunk = chunk.iloc[:, :-1]  # a delimiter at the end of each line
    if chunk.shape[1] != columns.n_columns:
        raise DataError(
            f"{path} must have {columns.n_columns} columns, as its first line has, got "
            f"{chunk.shape[1]} in the rows; write it again"
        )
    first_row = rows.n_rows + 1
    missing = chunk.isna().to_numpy()
    used = np.zeros(columns.n_columns, dtype=bool)
    used[[*columns.pixels, *([] if columns.label is None else [columns.label])]] = True
    missing &= used
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise DataError(
            f"{path} must have a value in every cell, got {int(missing.sum())} missing or NaN "
            f"pixels, the first in row {first_row + row}, column {column + 1}; fill them, or "
            "drop those rows"
        )
    if columns.label is not None:
        rows.labels.append(_plain(chunk.iloc[:, columns.label]))
    if columns.groups is not None:
        rows.groups.append(np.array([str(group) for group in chunk.iloc[:, columns.groups]]))
    pixels = chunk.iloc[:, list(columns.pixels)]
    _refuse_text(pixels, columns, path)
    values = pixels.to_numpy()
    if values.dtype.kind == "f" or how.white is not None:
        rows.pixels.append(values.astype(np.float32))
    else:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 255:
            raise DataError(
                f"{path} must hold intensities in 0..255, got values from {low} to {high} in rows "
                f"{first_row} to {rows.n_rows + len(values)}; rescale them, or say what is white "
                "with --set data.white=VALUE"
            )
        rows.pixels.append(values.astype(np.uint8))
    rows.n_rows += len(values)


def _refuse_text(pixels: Any, columns: Columns, path: Path) -> None:
    plain = Dialect(",")
    for column, dtype in pixels.dtypes.items():
        if dtype.kind in "iuf":
            continue
        texts = [cell for cell in pixels[column] if not plain.is_number(str(cell))]
        text = str(texts[0] if texts else dtype)[:40]
        is_last = column == columns.n_columns - 1
        if is_last and (columns.label is None or columns.is_guess) and len(texts) == len(pixels):
            raise DataError(
                f"{path} must name its labels, got {text!r} in the last column; add a header with "
                "'label', or put the labels first"
            )
        raise DataError(
            f"{path} must hold numbers as pixels, got {text!r} in column {column + 1}; write "
            "pixels as integers in 0..255"
        )


def _plain(labels: Any) -> np.ndarray:
    """Labels as numbers, or as text."""
    if labels.dtype.kind in "iufb":
        return np.asarray(labels.to_numpy())
    return np.array([str(label) for label in labels])


def _joined(blocks: list[np.ndarray], how: DataSpec) -> np.ndarray:
    """Join the blocks; whole floats up to 255 are integers, as np.savetxt writes them."""
    pixels = np.concatenate(blocks)
    blocks.clear()
    if how.white is None and pixels.dtype.kind == "f" and 1 < pixels.max() <= 255:
        is_whole = pixels.min() >= 0 and (np.floor(pixels) == pixels).all()
        return pixels.astype(np.uint8) if is_whole else pixels
    return pixels
