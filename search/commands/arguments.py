"""Arguments and options that several commands share, each declared once."""

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
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
