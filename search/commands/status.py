"""The command ``status``: how far studies are, and who works on them."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from aesearch.commands.arguments import Debug, Storage
from aesearch.commands.ending import ending
from aesearch.options import OptionError, storage_or_default
from aesearch.terminal.interruption import check_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from aesearch.studies.store.status import StudyStatus

WATCH_S = 2.0


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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout.")
    ] = False,
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
        from aesearch.studies.store.retry import Patience, retry_s  # noqa: PLC0415
        from aesearch.studies.store.status import statuses  # noqa: PLC0415 - imports SQLAlchemy
        from aesearch.studies.store.study_rows import existing_store  # noqa: PLC0415
        from aesearch.terminal.status_view import view, wide_console  # noqa: PLC0415

        patience = Patience(retry_s()) if watch else None
        with existing_store(storage_or_default(storage), patience) as engine:
            if watch:
                _watch(lambda: statuses(engine, study))
                return
            found = statuses(engine, study)
        if as_json:
            from aesearch.outputs import StudyState, StudyStates  # noqa: PLC0415

            typer.echo(json.dumps(StudyStates(list(map(StudyState.of, found))).to_dict()))
        else:
            wide_console().print(view(found))


def _watch(look: "Callable[[], list[StudyStatus]]") -> None:
    """Show studies until all of them are finished: in place on a terminal, else what changed."""
    from aesearch.terminal.status_view import line, view, wide_console  # noqa: PLC0415

    console = wide_console()
    if console.is_terminal and not console.is_dumb_terminal:
        from rich.live import Live  # noqa: PLC0415

        with Live(console=console, auto_refresh=False) as live:
            while True:
                check_interrupted()
                found = look()
                live.update(view(found), refresh=True)
                if all(item.over for item in found):
                    return
                time.sleep(WATCH_S)
    told: set[str] = set()
    while True:
        check_interrupted()
        found = look()
        for item in found:
            text = line(item)
            if text not in told:
                told.add(text)
                typer.echo(text)
        if all(item.over for item in found):
            return
        time.sleep(WATCH_S)
