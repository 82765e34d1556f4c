"""The command ``init``: the tables of a store, made once before anybody uses it."""

from typing import Annotated

import typer

from aesearch.commands.arguments import Debug, Storage
from aesearch.commands.ending import ending
from aesearch.options import storage_or_default


def init(
    storage: Storage = None,
    wait: Annotated[
        float,
        typer.Option(
            "--retry",
            min=0,
            metavar="SECONDS",
            help="Wait so long for a server that does not answer yet.",
        ),
    ] = 0.0,
    *,
    debug: Debug = False,
) -> None:
    """Make the tables of a store, or bring those of an older aesearch up to date.

    'aesearch run' does this by itself. Do it beforehand where workers are started before there is
    a study, or where only the owner of a database may make tables. Once more changes nothing.

    \b
    Example:
      aesearch init --storage postgresql://me@host/studies --retry 60
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        from aesearch.studies.store import study_rows  # noqa: PLC0415 - imports SQLAlchemy

        where, schema = study_rows.make_store(storage_or_default(storage), wait)
        typer.echo(f"The store {where} has its tables (schema {schema}).")
