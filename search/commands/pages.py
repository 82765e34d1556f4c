"""The commands ``report`` and ``dashboard``: a study as pages for a browser."""

import logging
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

import aesearch
from aesearch.commands.arguments import Debug, Storage, Study
from aesearch.commands.ending import ending
from aesearch.options import OptionError, storage_or_default


def report(
    study: Study,
    storage: Storage = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: runs/<study>/report.html.")
    ] = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file of --out if it is there already.")
    ] = False,
    open_it: Annotated[
        bool, typer.Option("--open", help="Open it in the browser of this machine.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write one self-contained HTML page of a study: figures, tables, pictures.

    At any time, also in mid-search: the page says how far the study is.

    \b
    Example:
      aesearch report digits --out digits.html --open
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        found = aesearch.open_study(study, storage)
        # The page of a run folder is ours: it is made anew.
        if out is not None and out.is_file() and not force:
            raise OptionError(
                f"out must not be there already, got {str(out)!r}; replace it with --force"
            )
        path = found.report(out)
        typer.echo(str(path))
        if open_it and not webbrowser.open(path.absolute().as_uri()):
            typer.echo("no browser could be opened; open the file yourself", err=True)


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
            server.serve(
                storage_or_default(storage),
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
