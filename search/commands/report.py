"""The command ``report``: the page of a study, at any moment of its life."""

from pathlib import Path
from typing import Annotated

import typer

from aesearch.commands.arguments import Debug, Storage, Study
from aesearch.commands.ending import ending

NAME = "report.html"


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
        from aesearch.artifacts.run_folder import default_folder  # noqa: PLC0415
        from aesearch.studies.results.output_files import OutputError  # noqa: PLC0415
        from aesearch.study import open_study  # noqa: PLC0415 - imports SQLAlchemy, pandas

        found = open_study(study, storage)
        path = out or default_folder(study) / NAME
        # The page of a run folder is ours: it is made anew.
        if out is not None and path.is_file() and not force:
            raise OutputError(
                f"out must not be there already, got {str(path)!r}; replace it with --force"
            )
        found.report(path)
        typer.echo(str(path))
        if open_it:
            import webbrowser  # noqa: PLC0415 - beside its only use

            if not webbrowser.open(path.absolute().as_uri()):
                typer.echo("no browser could be opened; open the file yourself", err=True)
