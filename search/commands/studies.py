"""The commands ``show`` and ``export``: what a store knows of one study."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

import aesearch
from aesearch.artifacts.model_path import find_model
from aesearch.commands.arguments import Debug, Json, Storage, Study
from aesearch.commands.ending import ending
from aesearch.studies.results.text import trial_table

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
        best = found.best_trials(BEST_SHOWN)
        if as_json:
            from aesearch.outputs import ShownStudy  # noqa: PLC0415

            typer.echo(json.dumps(ShownStudy.of(found.summary(), best).to_dict()))
            return
        typer.echo(repr(found))
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
            from aesearch.artifacts import export_formats, model_file  # noqa: PLC0415 - torch

            export_formats.check_formats(formats)
        if formats and _is_model(study):
            model = find_model(study)
            folder = out or model.parent
        else:
            folder = aesearch.open_study(study, storage).export(out)
            model = folder / "model.safetensors"
            typer.echo(str(folder))
        if formats:
            for done in export_formats.export_formats(model_file.load(model), folder, formats):
                typer.echo(
                    f"{done.path}: checked on 1 and 7 random images, largest difference "
                    f"{done.largest_difference:.1g}"
                )


def _is_model(study: str) -> bool:
    # A bare word is always a study: a folder of that name may well lie beside the store.
    path = Path(study).expanduser()
    looks = "/" in study or os.sep in study or path.suffix in (".safetensors", ".yaml", ".yml")
    return looks and path.exists()
