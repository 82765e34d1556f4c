"""Image sets in CSV tables: one image a row, flattened, with or without a label column."""

import csv
import gzip
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aesearch.studies.errors import DataError

_LABEL_NAMES = ("label", "labels", "class", "target", "y")
# Rows converted at a time: a parsed table takes eight bytes a pixel.
_CHUNK_ROWS = 2048


@dataclass(frozen=True)
class _Columns:
    """What the columns of a table are.

    Attributes
    ----------
    n_columns : int
    label : int or None
        Column of the labels.
    is_guess : bool
        Whether nothing says so but the number of columns.
    image_shape : tuple of int
        ``(height, width)``, or ``(height, width, 3)``: a pixel's three values are neighbours.
    has_header : bool
    """

    n_columns: int
    label: int | None
    is_guess: bool
    image_shape: tuple[int, ...]
    has_header: bool


@dataclass
class _Rows:
    """Rows read so far: blocks of pixels, uint8 or float32, and of labels."""

    pixels: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    n_rows: int = 0


def table_parts(path: Path) -> dict[str, Any]:
    """Read a table such as Kaggle's ``label,pixel0,...``: the arguments of ``make_image_set``.

    The label column is the one called 'label', 'class', 'target' or 'y', or else, where no
    column has a name, the first if the others make a square image. Pixels are integers in
    0..255 or floats in [0, 1]; one channel, or three with a pixel's values side by side. Plain
    or gzipped.

    Raises
    ------
    DataError
        Columns that make no square image, cells that are missing or no numbers, rows of
        different lengths, or a damaged file.
    """
    import pandas as pd  # noqa: PLC0415 - only tables need it

    rows = _Rows()
    try:
        columns = _columns_of(path)
        chunks = pd.read_csv(
            path,
            header=None,
            skiprows=int(columns.has_header),
            chunksize=_CHUNK_ROWS,
            low_memory=False,
            skip_blank_lines=True,
        )
        with chunks:
            for chunk in chunks:
                _add(chunk, columns, rows, path)
    except DataError:
        raise
    except pd.errors.EmptyDataError:
        rows.n_rows = 0
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        # pandas' ParserError is a ValueError and names the line.
        raise DataError(
            f"{path} must be a complete table, got {str(error).strip()}; write it again"
        ) from error
    if not rows.n_rows:
        raise DataError(f"{path} must hold rows of pixels, got no rows; write it again")
    images = _joined(rows.pixels).reshape(-1, *columns.image_shape)
    labels = np.concatenate(rows.labels) if rows.labels else None
    if labels is not None and columns.is_guess:
        _check_guess(labels, images.reshape(len(images), -1)[:, -1], path)
    return {
        "name": path.name.lower().removesuffix(".gz").removesuffix(".csv"),
        "source": str(path),
        "images": images,
        "labels": labels,
    }


def _check_guess(first: np.ndarray, last: np.ndarray, path: Path) -> None:
    """Refuse a first column that is no class beside a last one that is."""
    if _are_classes(last) and not _are_classes(first):
        raise DataError(
            f"{path} must tell which column is the label, got a last column that looks like one "
            "and a first that does not; add a header with 'label', or put the labels first"
        )


def _are_classes(values: np.ndarray) -> bool:
    """Whether values are texts, or all whole numbers from 0 or 1 on without a gap."""
    kinds = np.unique(values)
    counted = np.arange(len(kinds))
    return kinds.dtype.kind == "U" or (
        len(kinds) > 1 and any(np.array_equal(kinds, counted + start) for start in (0, 1))
    )


def _columns_of(path: Path) -> _Columns:
    """Understand the columns from the first line."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        cells = next(csv.reader(file), [])
    has_header = _is_header(cells)
    names = [cell.strip().lower() for cell in cells] if has_header else []
    if names and (not names[0] or names[0].startswith("unnamed")):
        raise DataError(
            f"{path} must hold labels and pixels only, got a first column without a name: "
            "a row index, which would be taken for a label; write it again with index=False"
        )
    label = next((names.index(name) for name in _LABEL_NAMES if name in names), None)
    n_columns = len(cells)
    is_guess = label is None
    if is_guess:
        without, with_label = _shape_of(n_columns), _shape_of(n_columns - 1)
        if without and with_label:
            raise DataError(
                f"{path} must tell whether its first column is a label, got {n_columns} columns, "
                "which allow both; add a header with 'label' or 'pixel0' and more"
            )
        if with_label and names and not _is_number(names[0]):
            raise DataError(
                f"{path} must call its label column {_listed(_LABEL_NAMES)}, got {n_columns} "
                f"columns, the first of them {names[0][:40]!r}; rename it, or take it away"
            )
        label = 0 if with_label else None
        shape = with_label or without
    else:
        shape = _shape_of(n_columns - 1)
    if shape is None:
        raise DataError(
            f"{path} must have as many pixel columns as a square image has values (height x "
            f"height, or 3 x height x height), got {n_columns} columns"
            f"{'' if label is None else f' with the labels in column {label + 1}'}; "
            "store images of another shape as .npz"
        )
    return _Columns(n_columns, label, is_guess, shape, has_header)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"


def _is_header(cells: list[str]) -> bool:
    """Whether the first line names the columns; a row of data may start with a text label."""
    texts = [cell.strip().lower() for cell in cells]
    counted = [[str(start + column) for column in range(len(texts))] for start in (0, 1)]
    return (
        any(text in _LABEL_NAMES for text in texts)
        or not any(_is_number(text) for text in texts)
        or texts in counted  # pandas names columns by number
    )


def _is_number(cell: str) -> bool:
    """Whether a cell of the first line is data."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _shape_of(n_values: int) -> tuple[int, ...] | None:
    """Return the shape of a square image of so many values; None where there is none."""
    for shape in ((), (3,)):
        n_pixels, rest = divmod(n_values, math.prod(shape))
        side = math.isqrt(max(0, n_pixels))
        if side > 0 and rest == 0 and side * side == n_pixels:
            return (side, side, *shape)
    return None


def _add(chunk: Any, columns: _Columns, rows: _Rows, path: Path) -> None:
    """Check one chunk of rows and keep it in as few bytes as it needs."""
    if chunk.shape[1] != columns.n_columns:
        raise DataError(
            f"{path} must have {columns.n_columns} columns, as its first line has, got "
            f"{chunk.shape[1]} in the rows; write it again"
        )
    first_row = rows.n_rows + 1
    missing = chunk.isna().to_numpy()
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise DataError(
            f"{path} must have a value in every cell, got {int(missing.sum())} missing or NaN "
            f"pixels, the first in row {first_row + row}, column {column + 1}; fill them, or "
            "drop those rows"
        )
    if columns.label is not None:
        labels = chunk.iloc[:, columns.label]
        is_number = labels.dtype.kind in "iufb"
        rows.labels.append(labels.to_numpy() if is_number else np.array([str(x) for x in labels]))
        chunk = chunk.drop(columns=columns.label)
    for column, dtype in chunk.dtypes.items():
        if dtype.kind not in "iuf":
            text = next((cell for cell in chunk[column] if not _is_number(str(cell))), dtype)
            raise DataError(
                f"{path} must hold numbers as pixels, got {str(text)[:40]!r} in column "
                f"{column + 1}; write pixels as integers in 0..255"
            )
    values = chunk.to_numpy()
    if values.dtype.kind == "f":
        rows.pixels.append(values.astype(np.float32))
    else:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 255:
            raise DataError(
                f"{path} must hold intensities in 0..255, got values from {low} to {high} in rows "
                f"{first_row} to {rows.n_rows + len(values)}; rescale them"
            )
        rows.pixels.append(values.astype(np.uint8))
    rows.n_rows += len(values)


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    """Join the blocks; whole floats up to 255 are integers, as np.savetxt writes them."""
    pixels = np.concatenate(blocks)
    blocks.clear()
    if pixels.dtype.kind == "f" and 1 < pixels.max() <= 255 and pixels.min() >= 0:
        is_whole = (np.floor(pixels) == pixels).all()
        return pixels.astype(np.uint8) if is_whole else pixels
    return pixels
