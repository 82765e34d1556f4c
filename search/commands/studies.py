"""The commands ``list``, ``status``, ``show``, ``trials`` and ``export``: what is in a store."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import aesearch
from aesearch.artifacts.model_path import find_model
from aesearch.commands.arguments import Debug, Json, Storage, Study
from aesearch.commands.ending import ending
from aesearch.options import OptionError, storage_or_default
from aesearch.studies.results.output_files import check_output, write_whole
from aesearch.studies.results.text import trial_table


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


BEST_SHOWN = 10


def show(
    study: Study,
    storage: Storage = None,
    *,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a study found so far, with its best trials.

    \b
    Example:
      aesearch show digits
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        found = aesearch.open_study(study, storage)
        if as_json:
            typer.echo(json.dumps(found.printed(BEST_SHOWN).to_dict()))
            return
        typer.echo(repr(found))
        best = found.best_trials(BEST_SHOWN)
        if best:
            typer.echo("Best trials:\n" + trial_table(best))


def export(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="Its name; with --format also the path of a model.safetensors, run folder (with "
            "a separator: ./digits) or best.yaml.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write. Default: runs/<study>, or where the model lies."),
    ] = None,
    storage: Storage = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Also write the model, its encoder and its decoder as onnx (needs the extra of "
            "that name) or pt2 (torch.export); may be given twice.",
        ),
    ] = None,
    *,
    debug: Debug = False,
) -> None:
    """Write the run folder of a study again: best.yaml, model, tables, pictures.

    With --format also model, encoder and decoder for other programs, with any number of
    images at once; each file is compared with the model before it is announced.

    \b
    Example:
      aesearch export digits --out digits-results
      aesearch export digits --format onnx
      aesearch export runs/digits/model.safetensors --format pt2
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        if formats:
            from aesearch.artifacts import export_formats  # noqa: PLC0415 - imports torch

            export_formats.check_formats(formats)
        if formats and _is_model(study):
            model = find_model(study)
            folder = out or model.parent
        else:
            folder = aesearch.open_study(study, storage).export(out)
            model = folder / "model.safetensors"
            typer.echo(str(folder))
        if formats:
            for done in export_formats.export_formats(aesearch.load(model), folder, formats):
                typer.echo(
                    f"{done.path}: checked on 1 and 7 random images, largest difference "
                    f"{done.largest_difference:.1g}"
                )


def _is_model(study: str) -> bool:
    # A bare word is always a study: a folder of that name may well lie beside the store.
    path = Path(study).expanduser()
    looks = "/" in study or os.sep in study or path.suffix in (".safetensors", ".yaml", ".yml")
    return looks and path.exists()


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
        from aesearch.artifacts import table_file  # noqa: PLC0415 - imports pandas

        chosen = table_format or (out.suffix[1:].lower() if out is not None else "") or "csv"
        table_file.check_format(chosen)
        if out is None and chosen == "parquet":
            raise OptionError("parquet must be written to a file, got none; name one with --out")
        if out is not None:
            check_output(out, is_folder=False, force=force, name="--out")
        content = table_file.table_bytes(aesearch.frames.trials(study, storage=storage), chosen)
        if out is None:
            sys.stdout.write(content.decode())
        else:
            write_whole(out, content)
            typer.echo(str(out))
