"""A table beside a folder: what it says of each image file, such as its label or its group."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aesearch.data.notes import Notes, listed, shown
from aesearch.data.readers.table_columns import LABEL_NAMES, dialect_of
from aesearch.studies.errors import DataError, DataMissingError
from aesearch.studies.spec.sections import DataSpec


def told_of_files(
    path: Path,
    files: Sequence[Path],
    root: Path,
    how: DataSpec,
    notes: Notes,
    *,
    column: str | None = None,
) -> np.ndarray:
    """Read what a table says of image files.

    The column of the files is the one whose values name the most of them: by their path below
    ``root``, by their name, or by their name without its ending.

    Parameters
    ----------
    column : str, optional
        Name of the column that is wanted; None for the labels: the one called so, or the only
        other one.

    Returns
    -------
    ndarray of str, (file,)

    Raises
    ------
    DataMissingError
        There is no such file.
    DataError
        No column of files, no such column, files without a row, or two rows for one file.
    """
    rows = _rows(path, how)
    keys = _keys(files, root)
    hits = [sum(cell in keys for cell in cells) for cells in zip(*rows, strict=True)]
    if not hits or not max(hits):
        raise DataError(
            f"{path} must have a column with the names of the images, got none that names one of "
            f"{len(files):,} files such as {files[0].relative_to(root).as_posix()!r}; write their "
            "paths as they are below the folder"
        )
    of_files = hits.index(max(hits))
    header = [] if rows[0][of_files] in keys else [cell.strip().lower() for cell in rows[0]]
    wanted = _wanted(path, header, of_files, len(rows[0]), column)
    found: dict[Path, str] = {}
    n_strange = 0
    for row in rows[bool(header) :]:
        file = keys.get(row[of_files])
        if file is None:
            n_strange += 1
        elif found.setdefault(file, row[wanted]) != row[wanted]:
            raise DataError(
                f"{path} must say one thing of an image, got {found[file]!r} and {row[wanted]!r} "
                f"of {row[of_files]!r}; keep one row"
            )
    missing = [file for file in files if file not in found]
    if missing:
        names = listed((shown(file.name) for file in missing), 3)
        raise DataError(
            f"{path} must have a row for each image, got none for {len(missing):,} of "
            f"{len(files):,} ({names}); add them, or take those images away"
        )
    notes.leave_out(f"row| of {shown(path.name)} without an image", n_strange)
    return np.array([found[file] for file in files])


def _rows(path: Path, how: DataSpec) -> list[list[str]]:
    """Read all cells as text."""
    if not path.is_file():
        raise DataMissingError(f"{path} must be a table, got no such file; check the path")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in file if line.strip()]
        dialect = dialect_of(lines[:2], how)
        rows = [[cell.strip() for cell in dialect.cells(line.rstrip("\r\n"))] for line in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} must be a table, got {error}; write it again") from error
    lengths = Counter(map(len, rows))
    if not rows or len(lengths) > 1 or min(lengths) < 2:
        raise DataError(
            f"{path} must have two or more columns, the same number in each row, got rows of "
            f"{listed(sorted(lengths))} columns; write it again"
        )
    return rows


def _keys(files: Sequence[Path], root: Path) -> dict[str, Path]:
    """Everything that names exactly one of the files."""
    named: list[tuple[str, Path]] = []
    for file in files:
        inside = file.relative_to(root)
        for part in (inside, Path(file.name)):
            named += [(part.as_posix(), file), (part.with_suffix("").as_posix(), file)]
    owners: dict[str, set[Path]] = {}
    for name, file in named:
        owners.setdefault(name, set()).add(file)
    return {name: next(iter(owner)) for name, owner in owners.items() if len(owner) == 1}


def _wanted(
    path: Path, header: Sequence[str], of_files: int, n_columns: int, column: str | None
) -> int:
    """Find the column that is asked for."""
    if column is not None:
        if column.lower() not in header:
            raise DataError(
                f"{path} must have a column {column!r}, got {listed(header) or 'no header'}; "
                "rename it, or name another"
            )
        return header.index(column.lower())
    named = next((header.index(name) for name in LABEL_NAMES if name in header), None)
    if named is not None:
        return named
    others = [number for number in range(n_columns) if number != of_files]
    if len(others) != 1:
        raise DataError(
            f"{path} must call its label column {', '.join(LABEL_NAMES)}, got "
            f"{listed(header) or f'{n_columns} columns without a header'}; rename it"
        )
    return others[0]
