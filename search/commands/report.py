"""The command ``report``: the page of a study, at any moment of its life."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

import aesearch
from aesearch.commands.arguments import Debug, Storage, Study
from aesearch.commands.ending import ending
from aesearch.options import OptionError


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
