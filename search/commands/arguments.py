"""Arguments and options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

from aesearch.options import STORAGE_VARIABLE

Study = Annotated[str, typer.Argument(metavar="STUDY", help="Its name.", show_default=False)]
Storage = Annotated[
    str | None,
    typer.Option(
        envvar=STORAGE_VARIABLE,
        help="Database URL or SQLite file. Default: aesearch.db in this folder.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Dataset = Annotated[
    str | None, typer.Option(help="Where the same images are now. Default: as the file says.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where named data sets are kept. Default: as the file says.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
