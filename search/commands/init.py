"""The command ``init``: the tables of a store, made once before anybody uses it."""

from typing import Annotated

import typer

from aesearch.commands.arguments import Debug, Storage
from aesearch.commands.ending import ending
from aesearch.options import storage_or_default


def init(
    storage: Storage = None,
    retry: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Wait so long for a server that does not answer yet."
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
        from aesearch.studies.store.driver_errors import describe  # noqa: PLC0415
        from aesearch.studies.store.retry import Patience  # noqa: PLC0415
        from aesearch.studies.store.study_rows import open_store  # noqa: PLC0415 - imports SQLAlchemy
        from aesearch.studies.store.tables import SCHEMA_VERSION  # noqa: PLC0415

        engine = open_store(storage_or_default(storage), Patience(retry))
        engine.dispose()
        typer.echo(f"The store {describe(engine.url)} has its tables (schema {SCHEMA_VERSION}).")
