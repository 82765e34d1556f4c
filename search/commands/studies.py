"""The commands ``list``, ``show`` and ``export``: what a store knows; none of them makes one."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from aesearch.commands.arguments import Debug, Json, Storage, Study
from aesearch.commands.ending import ending
from aesearch.options import storage_or_default

BEST_SHOWN = 10


def list_studies(storage: Storage = None, *, as_json: Json = False, debug: Debug = False) -> None:
    """List the studies in a store.

    \b
    Example:
      aesearch list --storage aesearch.db
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        from aesearch.commands.stored import described_studies, open_existing, table_text  # noqa: PLC0415

        engine = open_existing(storage_or_default(storage))
        try:
            rows = described_studies(engine)
        finally:
            engine.dispose()
        if as_json:
            typer.echo(json.dumps(rows))
        else:
            typer.echo(table_text(rows) if rows else "There is no study in this store.")


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
        from aesearch.commands.stored import open_existing  # noqa: PLC0415
        from aesearch.studies.results.selection import eligible_trials  # noqa: PLC0415
        from aesearch.studies.results.summary import summary, summary_text  # noqa: PLC0415
        from aesearch.studies.store import study_rows  # noqa: PLC0415
        from aesearch.studies.store.evaluation_results import read_evaluation  # noqa: PLC0415

        engine = open_existing(storage_or_default(storage))
        try:
            snapshot = study_rows.snapshot(engine, study)
            evaluation = read_evaluation(engine, study_rows.find_study(engine, study))
        finally:
            engine.dispose()
        facts = summary(snapshot, evaluation)
        best = eligible_trials(snapshot.trials)[:BEST_SHOWN]
        if as_json:
            rows: list[dict[str, Any]] = [
                {
                    "number": trial.number,
                    "value": trial.value,
                    "standard_error": trial.standard_error,
                    "params": trial.params,
                }
                for trial in best
            ]
            typer.echo(json.dumps(facts | {"best_trials": rows}))
            return
        typer.echo(summary_text(facts))
        if best:
            typer.echo("Best trials:\n" + _trial_table(best))


def _trial_table(trials: list[Any]) -> str:
    from aesearch.studies.results.summary import value_text  # noqa: PLC0415
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
            folder = _export_study(study, out, storage)
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


def _export_study(study: str, out: Path | None, storage: str | None) -> Path:
    from aesearch.artifacts.run_folder import default_folder, write_run_folder  # noqa: PLC0415
    from aesearch.commands.stored import open_existing  # noqa: PLC0415
    from aesearch.studies.store import study_rows  # noqa: PLC0415

    engine = open_existing(storage_or_default(storage))
    try:
        study_rows.find_study(engine, study)
        folder = out or default_folder(study)
        write_run_folder(engine, study, folder)
    finally:
        engine.dispose()
    return folder
