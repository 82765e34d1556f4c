"""The command ``trials``: a study's trials as a table for other programs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

import aesearch
from aesearch.commands.arguments import Debug, Storage, Study
from aesearch.commands.ending import ending
from aesearch.options import OptionError


def trials(
    study: Study,
    table_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="csv, json or parquet. Default: by the ending of --out, else csv."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: standard output.")
    ] = None,
    storage: Storage = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    debug: Debug = False,
) -> None:
    """Write the trials of a study as a table, one row each; also while it runs.

    Columns: number, state, value (mean over folds, MSE per pixel), standard_error, fold_0 …,
    epochs, unstable, reason, and one per searched name. Floats are exact.

    \b
    Example:
      aesearch trials digits > trials.csv
      aesearch trials digits --out trials.parquet
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        from aesearch.studies.results import frame_files, output_files  # noqa: PLC0415 - pandas

        chosen = table_format or (out.suffix[1:].lower() if out is not None else "") or "csv"
        frame_files.check_format(chosen)
        if out is None and chosen == "parquet":
            raise OptionError("parquet must be written to a file, got none; name one with --out")
        if out is not None:
            output_files.check_output(out, is_folder=False, force=force, name="--out")
        content = frame_files.table_bytes(aesearch.frames.trials(study, storage=storage), chosen)
        if out is None:
            sys.stdout.write(content.decode())
        else:
            output_files.write_whole(out, content)
            typer.echo(str(out))
