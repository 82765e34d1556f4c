"""What the columns of a table are, from its first lines: labels, an index, pixels in an order."""

import csv
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from aesearch.data.arrays.axes import MIN_SIDE, is_channel_last
from aesearch.data.notes import Notes, listed
from aesearch.data.readers.tree import IMAGE_SUFFIXES
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

LABEL_NAMES = ("label", "labels", "class", "target", "y")
_DELIMITERS = {"tab": "\t", "space": r"\s+"}
_FEWEST_PIXELS = MIN_SIDE * MIN_SIDE
_NUMBER = re.compile(r"\d+")
_UNSIGNED = re.compile(r"\d+(\.\d+)?")
_DECIMAL_COMMA = re.compile(r"\s*-?\d*,\d+(e[+-]?\d+)?\s*", re.IGNORECASE)
_COLOURS = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}


@dataclass(frozen=True)
class Dialect:
    """How the cells of a table are written.

    Attributes
    ----------
    delimiter : str
        As pandas takes it; a regular expression for spaces.
    decimal : str
    """

    delimiter: str
    decimal: str = "."

    def cells(self, line: str) -> list[str]:
        """Cut one line."""
        if self.delimiter == _DELIMITERS["space"]:
            return line.split()
        return next(csv.reader([line], delimiter=self.delimiter), [])

    def is_number(self, cell: str) -> bool:
        """Whether a cell is a number."""
        try:
            float(cell.replace(self.decimal, ".") if self.decimal != "." else cell)
        except ValueError:
            return False
        return True


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Attributes
    ----------
    n_columns : int
    label, index : int or None
        Column of the labels; column that numbers the rows, which is not read.
    is_guess : bool
        Whether nothing says that there are labels but the number of columns.
    unknown : str
        Name of the first column where that is none of a label: it must number the rows.
    pixels : tuple of int
        Columns in the order of the axes.
    image_shape : tuple of int
        Axes in which they are unrolled.
    has_header : bool
    first_row : tuple of str or None
        Cells of the first row of data, where a program took them for names and changed them.
    groups : int or None
        Column that tells what belongs together.
    """

    n_columns: int
    label: int | None
    index: int | None
    is_guess: bool
    unknown: str
    pixels: tuple[int, ...]
    image_shape: tuple[int, ...]
    has_header: bool
    first_row: tuple[str, ...] | None = None
    groups: int | None = None


def dialect_of(lines: Sequence[str], how: DataSpec) -> Dialect:
    """Find out what stands between the cells, from the first lines.

    The one of ``, ; tab |`` that gives the most cells, in the same number on both lines where
    there is such a one; else spaces. Commas within numbers are none between cells.
    """
    if how.delimiter != "auto":
        delimiter = _DELIMITERS.get(how.delimiter, how.delimiter)
    else:
        counts = {
            delimiter: [len(Dialect(delimiter).cells(line)) for line in lines if line.strip()]
            for delimiter in (",", ";", "\t", "|")
        }
        even = {key: found for key, found in counts.items() if len(set(found)) == 1}
        best = max(even or counts, key=lambda key: max(counts[key], default=0))
        wide = max(counts[best], default=0) > 1
        spaces = [len(line.split()) for line in lines]
        delimiter = best if wide or max(spaces, default=0) < 2 else _DELIMITERS["space"]
        if delimiter == "," and lines:
            others = (";", "\t", "|", _DELIMITERS["space"])
            delimiter = next((d for d in others if _has_decimal_commas(lines[-1], d)), ",")
    decimal = "."
    if delimiter != ",":
        cells = [cell for line in lines for cell in Dialect(delimiter).cells(line)]
        if any(map(_DECIMAL_COMMA.fullmatch, cells)):
            decimal = ","
    return Dialect(delimiter, decimal)


def _has_decimal_commas(line: str, delimiter: str) -> bool:
    """Whether a line is of numbers with decimal commas, perhaps behind a label."""
    plain, cells = Dialect(","), Dialect(delimiter).cells(line)
    numbers = cells[1:]
    return (
        any(map(_DECIMAL_COMMA.fullmatch, numbers))
        and all(_DECIMAL_COMMA.fullmatch(cell) or plain.is_number(cell) for cell in numbers)
        and not all(map(plain.is_number, plain.cells(line)))
    )


def columns_of(
    lines: Sequence[str], dialect: Dialect, where: str, how: DataSpec, notes: Notes
) -> Columns:
    """Understand the columns from the first line.

    Raises
    ------
    DataError
        Columns that make no image, or that can be read in two ways.
    """
    cells = _first_cells(lines, dialect)
    first_row = _first_row(cells)
    has_header = first_row is None and (
        _is_header(cells, dialect) or bool(lines and lines[0].startswith("#"))
    )
    names = [_name(cell, dialect) for cell in cells] if has_header else []
    index = 0 if _is_nameless([*names, *(first_row or ()), "0"][0]) else None
    label = next((names.index(name) for name in LABEL_NAMES if name in names), None)
    if index is not None:
        notes.remark("the first column has no name: an index, not read")
    groups = None if how.groups is None else _named_groups(how.groups, names, where)
    others = [column for column in range(len(cells)) if column not in (label, index, groups)]
    found = _Pixels(label, index, tuple(others), None, "", is_guess=False)
    if names:
        found = _by_name(found, names, how, notes)
    if found.image_shape is None and found.pixels == tuple(others) and label is None:
        if index is None:
            found = _guessed(found, names, where, how)
        if found.label is not None and names and not dialect.is_number(names[found.label]):
            found = replace(found, unknown=names[found.label])
    image_shape = found.image_shape or _shape_of(len(found.pixels), how)
    if image_shape is None:
        raise DataError(_no_image(lines, len(cells), found, where, how, dialect))
    if found.image_shape is None and how.image_shape is None:
        _tell_colours(image_shape, notes)
    for is_so, remark in (
        (list(found.pixels) != sorted(found.pixels), "pixels put in the order of their names"),
        (
            first_row is not None,
            "the first image was taken for names by another program: its values restored",
        ),
        (found.index != index, "the first column is taken for an index, the second for the labels"),
    ):
        if is_so:
            notes.remark(remark)
    return Columns(
        len(cells),
        found.label,
        found.index,
        found.is_guess,
        found.unknown,
        found.pixels,
        image_shape,
        has_header,
        first_row,
        groups,
    )


def _is_nameless(name: str) -> bool:
    """Whether this stands above the index that pandas writes, in small letters."""
    return not name or name.startswith("unnamed")


def _named_groups(column: str, names: Sequence[str], where: str) -> int:
    if column.lower() not in names:
        raise DataError(
            f"{where} must have the column {column!r} (data.groups), got "
            f"{listed(names) or 'no header'}; name the column that has them"
        )
    return names.index(column.lower())


def _first_cells(lines: Sequence[str], dialect: Dialect) -> list[str]:
    cells = dialect.cells(lines[0].removeprefix("#").strip("\r\n")) if lines else []
    # A delimiter at the end of each line is followed by nothing.
    return cells[:-1] if len(cells) > 2 and not cells[-1].strip() else cells


def _tell_colours(image_shape: tuple[int, ...], notes: Notes) -> None:
    if len(image_shape) == 3:
        height, width, _ = image_shape
        notes.remark(
            f"rows are {height} × {width} × 3, a pixel's colours side by side "
            f"(data.image_shape=3x{height}x{width} for one colour after the other)"
        )


@dataclass(frozen=True)
class _Pixels:
    """Columns so far: ``image_shape`` is None where only the number of pixels tells it."""

    label: int | None
    index: int | None
    pixels: tuple[int, ...]
    image_shape: tuple[int, ...] | None
    unknown: str
    is_guess: bool


def _by_name(found: _Pixels, names: Sequence[str], how: DataSpec, notes: Notes) -> _Pixels:
    """Take the columns whose names number pixels, and leave the others out."""
    named = _named_pixels(names, found.pixels)
    if named is None or not (named[1] or _shape_of(len(named[0]), how)):
        return found  # no numbers, or all columns have one, the labels too
    pixels, image_shape = named
    left = [names[column] for column in found.pixels if column not in set(pixels)]
    if found.label is None and found.index is None and left == list(names[:1]):
        return _Pixels(0, None, pixels, image_shape, names[0], is_guess=True)
    if left:
        notes.leave_out(f"column| ({listed(left)})", len(left))
    return replace(found, pixels=pixels, image_shape=image_shape or _shape_of(len(pixels), how))


def _name(cell: str, dialect: Dialect) -> str:
    """Name of a column; numbers as whole ones, also where a program wrote them as floats."""
    text = cell.strip().lower()
    return f"{float(text):g}" if "e+" in text and dialect.is_number(text) else text


def _guessed(found: _Pixels, names: Sequence[str], where: str, how: DataSpec) -> _Pixels:
    """Guess labels and index from the number of columns."""
    n = len(found.pixels)
    without, with_label = _shape_of(n, how), _shape_of(n - 1, how)
    if without and with_label:
        raise DataError(
            f"{where} must tell whether its first column is a label, got {n} columns, "
            "which allow both; add a header with 'label' or 'pixel0' and more, or say "
            "--set data.image_shape=28x28"
        )
    found = replace(found, is_guess=True)
    if with_label:
        return replace(found, label=0, pixels=found.pixels[1:])
    if not without and _shape_of(n - 2, how) and not names:
        return replace(found, label=1, index=0, pixels=found.pixels[2:])
    return found


def _no_image(  # noqa: PLR0917 - what the columns were found from
    lines: Sequence[str],
    n_columns: int,
    found: _Pixels,
    where: str,
    how: DataSpec,
    dialect: Dialect,
) -> str:
    if n_columns < _FEWEST_PIXELS:
        cells = dialect.cells(lines[-1].strip())
        whole = next((c for c in cells if len(_NUMBER.findall(c)) >= _FEWEST_PIXELS), None)
        if whole is not None and n_columns > 1:
            return (
                f"{where} must have a column for each pixel, got all pixels of an image in one "
                f"cell, {whole[:20]!r}…; write them into columns of their own"
            )
        file = next((c for c in cells if c.strip().lower().endswith(IMAGE_SUFFIXES)), None)
        if file is not None:
            return (
                f"{where} must hold pixels, got names of files, {file.strip()[:40]!r}; give their "
                "folder as the data set, and this table beside it with --labels"
            )
        shown = {"\t": "tab", r"\s+": "space"}.get(dialect.delimiter, dialect.delimiter)
        return (
            f"{where} must have a column for each pixel, at least {_FEWEST_PIXELS}, got "
            f"{n_columns} columns with {shown!r} between them; name another delimiter: "
            "--set 'data.delimiter=;' (or tab, space, |)"
        )
    rule = "a square image has values (height x height, or 3 x height x height)"
    if how.image_shape is not None:
        rule = f"data.image_shape {'x'.join(map(str, how.image_shape))} has values"
    labels = "" if found.label is None else f" with the labels in column {found.label + 1}"
    labels += "" if found.index is None else f" and an index in column {found.index + 1}"
    return (
        f"{where} must have as many pixel columns as {rule}, got {n_columns} columns{labels}; "
        "give the shape of the images: --set data.image_shape=20x30"
    )


def _named_pixels(
    names: Sequence[str], columns: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...] | None] | None:
    """Find the columns whose names number pixels, and the order and axes that these give.

    Returns
    -------
    columns : tuple of int
    image_shape : tuple of int or None
        Where the names have a number for each axis.
    """
    by_template = defaultdict(list)
    for column in columns:
        by_template[_NUMBER.sub("#", names[column])].append(column)
    colours = {t: c for t in by_template if (c := _colour_of(t)) is not None}
    if sorted(colours.values()) == [0, 1, 2]:
        chosen = [column for template in colours for column in by_template[template]]
    else:
        template = max(by_template, key=lambda key: len(by_template[key]), default="")
        colours, chosen = {}, by_template.get(template, [])
    if len(chosen) < _FEWEST_PIXELS:
        return None
    keys = {}
    for column in chosen:
        numbers = tuple(map(int, _NUMBER.findall(names[column])))
        colour = colours.get(_NUMBER.sub("#", names[column]))
        keys[column] = numbers if colour is None else (*numbers, colour)
    if Counter(keys.values()).most_common(1)[0][1] > 1 or not all(keys.values()):
        return None
    ordered = tuple(sorted(chosen, key=lambda column: keys[column]))
    axes = [sorted(set(axis)) for axis in zip(*keys.values(), strict=True)]
    said = [place for place, axis in enumerate(axes) if len(axis) > 1]
    axes = [axes[place] for place in said]  # a number that all have says nothing
    keys = {column: tuple(key[place] for place in said) for column, key in keys.items()}
    sizes = tuple(len(axis) for axis in axes)
    is_grid = len(sizes) in (2, 3) and set(keys.values()) == set(product(*axes))
    if len(sizes) == 2 and colours:  # the pixel's number, and its colour
        side = math.isqrt(sizes[0])
        return (ordered, (side, side, 3)) if side * side == sizes[0] and is_grid else None
    return ordered, sizes if is_grid else None


def _colour_of(template: str) -> int | None:
    """Tell the colour from what a name has beside its numbers."""
    words = [word for word in re.split(r"[^a-z]+", template) if word in _COLOURS]
    return _COLOURS[words[0]] if len(words) == 1 else None


def _is_header(cells: Sequence[str], dialect: Dialect) -> bool:
    """Whether the first line names the columns; a row of data may start with a text label."""
    texts = [cell.strip().lower() for cell in cells]
    if any(text in LABEL_NAMES for text in texts):
        return True
    if not any(dialect.is_number(text) for text in texts):
        return True
    # pandas names columns by number, perhaps behind a name of its own.
    return any(_counts(part, dialect) for part in (texts, texts[1:]) if len(part) > 1)


def _counts(texts: Sequence[str], dialect: Dialect) -> bool:
    """Whether cells are 0, 1, 2, ... or 1, 2, 3, ..., also as floats."""
    if not all(dialect.is_number(text) for text in texts):
        return False
    numbers = np.array([float(text.replace(dialect.decimal, ".")) for text in texts])
    return any(np.array_equal(numbers, np.arange(len(texts)) + start) for start in (0, 1))


def _first_row(cells: Sequence[str]) -> tuple[str, ...] | None:
    """As ``_unmangled``, also behind the empty name of an index, which stays empty."""
    if cells and _is_nameless(cells[0].strip().lower()):
        found = _unmangled(cells[1:])
        return None if found is None else ("", *found)
    return _unmangled(cells)


def _unmangled(cells: Sequence[str]) -> tuple[str, ...] | None:
    """Undo what pandas makes of a row of numbers that it takes for names: 0, 0.1, 0.2, 7, 0.3.

    Of 0.5, 0.5 it makes 0.5, 0.5.1.

    Returns
    -------
    tuple of str or None
        The numbers; None where the cells are not such names.
    """
    seen: Counter[str] = Counter()
    found, n_again = [], 0
    is_fraction = bool(cells) and "." in cells[0]
    for cell in map(str.strip, cells):
        base, _, count = cell.rpartition(".")
        if seen[base] and count.isdecimal():
            if int(count) != seen[base] or ("." in base) != is_fraction:
                return None
            n_again += 1
        else:
            base = cell
            if seen[base] or not _UNSIGNED.fullmatch(base) or ("." in base) != is_fraction:
                return None
        seen[base] += 1
        found.append(base)
    return tuple(found) if n_again >= 3 else None


def _shape_of(n_values: int, how: DataSpec) -> tuple[int, ...] | None:
    """Return the axes of so many values: those that are asked for, or a square; None for none."""
    if how.image_shape is not None:
        return how.image_shape if math.prod(how.image_shape) == n_values else None
    for shape in ((), (3,)):
        n_pixels, rest = divmod(n_values, math.prod(shape))
        side = math.isqrt(max(0, n_pixels))
        if side >= MIN_SIDE and rest == 0 and side * side == n_pixels:
            return (side, side, *shape)
    return None


def channel_first(images: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """Give rows the axes (sample, height, width) or (sample, channel, height, width)."""
    found = images.reshape(-1, *image_shape)
    if len(image_shape) == 3 and is_channel_last(image_shape):
        return np.moveaxis(found, 3, 1)
    return found
