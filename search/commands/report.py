"""The command ``report``: the page of a study, at any moment of its life."""

from pathlib import Path
from typing import Annotated

import typer

from aesearch.commands.arguments import Debug, Storage, Study
from aesearch.commands.ending import ending
from aesearch.options import storage_or_default

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
        from aesearch.commands.stored import open_existing  # noqa: PLC0415
        from aesearch.studies.results.output_files import OutputError, make_folder, write_whole  # noqa: PLC0415
        from aesearch.studies.store import study_rows  # noqa: PLC0415

        engine = open_existing(storage_or_default(storage))
        try:
            study_rows.find_study(engine, study)
            path = out or default_folder(study) / NAME
            if path.is_dir():
                raise OutputError(
                    f"out must be a file, got the folder {str(path)!r}; "
                    f"name {str(path / NAME)!r} for one in it"
                )
            # The page of a run folder is ours: it is made anew.
            if out is not None and path.exists() and not force:
                raise OutputError(
                    f"out must not be there already, got {str(path)!r}; replace it with --force"
                )
            from aesearch.studies.report.stored import stored_report  # noqa: PLC0415

            html = stored_report(engine, study)
            make_folder(path.parent)
            write_whole(path, html)
        finally:
            engine.dispose()
        typer.echo(str(path))
        if open_it:
            import webbrowser  # noqa: PLC0415 - beside its only use

            if not webbrowser.open(path.absolute().as_uri()):
                typer.echo("no browser could be opened; open the file yourself", err=True)
