"""The command ``dashboard``: options to the server in ``aesearch.dashboard``."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from aesearch.commands.arguments import Debug, Storage
from aesearch.commands.ending import ending
from aesearch.options import storage_or_default


def dashboard(  # noqa: PLR0917 - Typer calls it by name
    storage: Storage = None,
    study: Annotated[
        str | None, typer.Option(help="Open this study and keep only it up to date.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every machine around.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8080,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name under which browsers may reach it, besides localhost, addresses and "
            "this machine's name; repeat for more.",
            show_default=False,
        ),
    ] = None,
    artifact_dir: Annotated[
        Path | None,
        typer.Option(
            help="Also write pictures and tables here, for 'optuna-dashboard --artifact-dir'."
        ),
    ] = None,
    *,
    writable: Annotated[
        bool, typer.Option("--writable", help="Let the pages change and delete studies.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Show a store in Optuna's dashboard, with notes, curves and reconstructions; Ctrl-C ends it.

    It looks at running studies too. Read-only and for this machine alone unless told otherwise.

    \b
    Example:
      aesearch dashboard --storage aesearch.db
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        from aesearch.dashboard import server  # noqa: PLC0415 - imports pandas, plotly, Optuna
        from aesearch.studies.store.study_rows import existing_store  # noqa: PLC0415

        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")

        def on_listening(url: str) -> None:
            if not server.is_loopback(host):
                what = "look at and change" if writable else "look at"
                typer.echo(
                    f"warning: there is no password: whoever reaches {host}:{port} can {what} "
                    "every study in this store",
                    err=True,
                )
            typer.echo(f"dashboard on {url} (Ctrl-C ends it)", err=True)

        try:
            with existing_store(storage_or_default(storage)) as engine:
                server.serve(
                    engine,
                    study=study,
                    host=host,
                    port=port,
                    allowed_hosts=allow_host or (),
                    writable=writable,
                    artifact_folder=artifact_dir,
                    on_listening=on_listening,
                )
        except KeyboardInterrupt:  # SIGTERM too: both are how a server is meant to end
            typer.echo("dashboard ended", err=True)
