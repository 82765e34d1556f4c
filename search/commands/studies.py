"""The commands ``list``, ``show`` and ``export``: what a store knows; none of them makes one."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from aesearch.commands.arguments import Debug, Json, Storage, Study
from aesearch.commands.ending import ending

BEST_SHOWN = 10


def list_studies(storage: Storage = None, *, as_json: Json = False, debug: Debug = False) -> None:
    """List the studies in a store.

    \b
    Example:
      aesearch list --storage aesearch.db
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        from aesearch.study import list_studies  # noqa: PLC0415 - imports SQLAlchemy, pandas
        from aesearch.terminal.status_view import list_view, wide_console  # noqa: PLC0415

        found = list_studies(storage)
        if as_json:
            from aesearch.outputs import ListedStudy  # noqa: PLC0415

            typer.echo(json.dumps([ListedStudy.of(study).to_dict() for study in found]))
        else:
            wide_console().print(list_view(found))


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
        from aesearch.study import open_study  # noqa: PLC0415 - imports SQLAlchemy, pandas

        found = open_study(study, storage)
        best = found.best_trials(BEST_SHOWN)
        if as_json:
            from aesearch.outputs import ShownStudy  # noqa: PLC0415

            typer.echo(json.dumps(ShownStudy.of(found.summary(), best).to_dict()))
            return
        typer.echo(repr(found))
        if best:
            typer.echo("Best trials:\n" + _trial_table(best))


def _trial_table(trials: list[Any]) -> str:
    from aesearch.studies.results.text import value_text  # noqa: PLC0415
    from aesearch.terminal.display import parameters_text  # noqa: PLC0415 - imports rich

    values = [value_text(trial.value, trial.standard_error) for trial in trials]
    numbers = [str(trial.number) for trial in trials]
    wide, wider = max(map(len, numbers)), max(map(len, values))
    return "\n".join(
        f"  {number:>{wide}}  {value:{wider}}  {parameters_text(trial)}"
        for number, value, trial in zip(numbers, values, trials, strict=True)
    )


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
            from aesearch.artifacts.export_formats import check_formats  # noqa: PLC0415 - imports torch

            check_formats(formats)
        if formats and _is_model(study):
            from aesearch.artifacts.model_file import find_model  # noqa: PLC0415 - imports torch

            model = find_model(study)
            folder = out or model.parent
        else:
            from aesearch.study import open_study  # noqa: PLC0415 - imports SQLAlchemy, pandas

            folder = open_study(study, storage).export(out)
            model = folder / "model.safetensors"
            typer.echo(str(folder))
        if formats:
            from aesearch.artifacts.export_formats import export_formats  # noqa: PLC0415
            from aesearch.artifacts.model_file import load_model  # noqa: PLC0415

            for done in export_formats(load_model(model), folder, formats):
                typer.echo(
                    f"{done.path}: checked on 1 and 7 random images, largest difference "
                    f"{done.largest_difference:.1g}"
                )


def _is_model(study: str) -> bool:
    # A bare word is always a study: a folder of that name may well lie beside the store.
    path = Path(study).expanduser()
    looks = "/" in study or os.sep in study or path.suffix in (".safetensors", ".yaml", ".yml")
    return looks and path.exists()
