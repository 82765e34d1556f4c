"""The command ``trials``: a study's trials as a table for other programs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

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
        from aesearch import frames  # noqa: PLC0415 - for the one reader of stores
        from aesearch.inference.outputs import check_output  # noqa: PLC0415 - imports numpy
        from aesearch.studies.results.frame_files import check_format, table_bytes  # noqa: PLC0415
        from aesearch.studies.results.output_files import write_whole  # noqa: PLC0415 - imports yaml

        chosen = table_format or (out.suffix[1:].lower() if out is not None else "") or "csv"
        check_format(chosen)
        if out is None and chosen == "parquet":
            raise OptionError("parquet must be written to a file, got none; name one with --out")
        if out is not None:
            check_output(out, is_folder=False, force=force, name="--out")
        content = table_bytes(frames.trials(study, storage=storage), chosen)
        if out is None:
            sys.stdout.write(content.decode())
        else:
            write_whole(out, content)
            typer.echo(str(out))
