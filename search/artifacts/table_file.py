"""A table as the bytes of a CSV, JSON or Parquet file; every float is read back as it was."""

import csv
import importlib.util
import io
import json
import math
from typing import Any

import pandas as pd

from aesearch.studies.errors import AesearchError

FORMATS = ("csv", "json", "parquet")


class TableFormatError(AesearchError, ValueError):
    """A format of tables that is not known, cannot be printed, or whose package is missing."""


def check_format(name: str) -> None:
    """Refuse a format before anything is read.

    Raises
    ------
    TableFormatError
        It is unknown, or its package is missing; says what installs it.
    """
    if name not in FORMATS:
        raise TableFormatError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    if name == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise TableFormatError(
            "format parquet must have the package pyarrow, got none; "
            "install it with: pip install 'aesearch[parquet]'"
        )


def table_bytes(frame: pd.DataFrame, name: str) -> bytes:
    """Write a table in one of ``FORMATS``.

    Parameters
    ----------
    frame : DataFrame
        Of numbers and text, without an index of its own.
    name : str
        ``csv``: a header and one line per row, missing values empty. ``json``: one list of
        objects, missing values and numbers that JSON lacks (NaN, infinity) null. Both hold
        floats in the fewest digits that give the same float back. ``parquet``: with the
        columns' types.

    Raises
    ------
    TableFormatError
        As ``check_format``.
    """
    check_format(name)
    if name == "csv":
        # The writer quotes a text with the line end that it uses itself, but not with another.
        texts: pd.DataFrame = frame.select_dtypes("string")
        has_returns = any(texts[column].str.contains("\r", regex=False).any() for column in texts)
        quoting = csv.QUOTE_NONNUMERIC if has_returns else csv.QUOTE_MINIMAL
        return frame.to_csv(index=False, lineterminator="\n", quoting=quoting).encode()
    if name == "parquet":
        content = io.BytesIO()
        frame.to_parquet(content, engine="pyarrow", index=False)
        return content.getvalue()
    columns = {column: [_plain(value) for value in frame[column]] for column in frame}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return (json.dumps(rows, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _plain(value: Any) -> Any:
    # pandas' own to_json rounds floats to 15 digits at most.
    if value is pd.NA or value is None:
        return None
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
