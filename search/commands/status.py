"""The commands ``list`` and ``status``: the studies of a store, and who works on them."""

from typing import Annotated

import typer

import aesearch
from aesearch.commands.arguments import Debug, Json, Storage
from aesearch.commands.ending import ending
from aesearch.options import OptionError, storage_or_default


def list_studies(storage: Storage = None, *, as_json: Json = False, debug: Debug = False) -> None:
    """List the studies in a store.

    \b
    Example:
      aesearch list --storage aesearch.db
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        _show(storage, as_json=as_json, brief=True)


def status(
    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", help="Its name. Default: all.", show_default=False),
    ] = None,
    storage: Storage = None,
    *,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Look again every two seconds, until all is finished."),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show studies, their workers and leases, throughput, and the time left.

    \b
    Examples:
      aesearch status
      aesearch status mnist --watch
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        if watch and as_json:
            raise OptionError("--watch must not be given beside --json, got both; drop one")
        _show(storage, study, as_json=as_json, watch=watch)


def _show(
    storage: str | None,
    study: str | None = None,
    *,
    as_json: bool,
    brief: bool = False,
    watch: bool = False,
) -> None:
    from aesearch.terminal import status_view  # noqa: PLC0415 - imports SQLAlchemy

    if watch:
        status_view.watch(storage_or_default(storage), study)
        return
    show = status_view.show_list if brief else status_view.show_status
    show(aesearch.list_studies(storage, study), as_json=as_json)
