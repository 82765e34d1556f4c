"""The command ``evaluate``: the retrained model measured on the test set once more."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from aesearch.commands.arguments import Debug, Json, Storage
from aesearch.commands.ending import ending
from aesearch.commands.train import DataDir, Dataset
from aesearch.options import OptionError, storage_or_default


def evaluate(  # noqa: PLR0917 - Typer calls it by name
    what: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="Name of a study, or its run folder (or the best.yaml or model in it).",
            show_default=False,
        ),
    ],
    noise: Annotated[
        list[str] | None,
        typer.Option(
            "--noise",
            metavar="KIND=LEVELS",
            help="Corrupt by gaussian, uniform, salt-and-pepper or occlusion at these levels only; "
            "repeat for more kinds. Default: as the study says.",
            show_default=False,
        ),
    ] = None,
    bootstrap: Annotated[
        int | None,
        typer.Option(help="Resamples behind every interval. Default: as the study says."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for tables and pictures. Default: none.")
    ] = None,
    storage: Storage = None,
    dataset: Dataset = None,
    data_dir: DataDir = None,
    *,
    save: Annotated[
        bool,
        typer.Option("--save", help="Keep this evaluation in the store, in place of the last."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write over an evaluation that is in --out.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure the retrained model on the test set: metrics, noise, latent space, pictures.

    Every run does this once by itself; each time again is one more look at the test set.

    \b
    Examples:
      aesearch evaluate digits --noise gaussian=0.5,1 --noise occlusion=0.25
      aesearch evaluate runs/digits --out digits-test
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug, interrupted="interrupted; nothing was measured"):
        from aesearch.evaluation.looks import evaluate_folder, evaluate_study  # noqa: PLC0415
        from aesearch.studies.results.evaluation_files import write_evaluation  # noqa: PLC0415
        from aesearch.studies.results.output_files import OverwriteError, make_folder  # noqa: PLC0415
        from aesearch.studies.store.study_rows import existing_store  # noqa: PLC0415

        flags = _evaluation_flags(noise or (), bootstrap)
        flags |= {
            f"data.{name}": str(value)
            for name, value in (("dataset", dataset), ("data_dir", data_dir))
            if value is not None
        }
        if out is not None:
            if (out / "evaluation.json").exists() and not force:
                raise OverwriteError(
                    f"out must hold no evaluation yet, got {str(out)!r} with evaluation.json; "
                    "name another folder, or --force to write over it"
                )
            make_folder(out)
        best = _best_file(what)
        if best is not None:
            if save:
                raise OptionError(
                    f"--save must be given with the name of a study, got {what!r}; "
                    "a run folder is no store"
                )
            found = evaluate_folder(best.parent, flags)
            said = (
                f"This was look {found.looks} at the test set; a run folder does not count it, a "
                "store does."
            )
        else:
            with existing_store(storage_or_default(storage)) as engine:
                found = evaluate_study(engine, what, flags, save=save)
            kept = "is in the store now" if found.saved else "is not kept in the store: --save does"
            said = (
                f"This was look {found.looks} at the test set, counted in the store; only the "
                f"first is free of bias. This evaluation {kept}{' that' * (not found.saved)}."
            )
        evaluation = found.evaluation
        files = []
        if out is not None:
            files = write_evaluation(out, evaluation.document, evaluation.pictures)
        if as_json:
            from aesearch.outputs import EvaluatedModel  # noqa: PLC0415

            printed = EvaluatedModel(
                **vars(evaluation.document.without_errors()),
                test_looks=found.looks,
                saved=found.saved,
                files=[str(path) for path in files],
            )
            typer.echo(json.dumps(printed.to_dict()))
            return
        from aesearch.terminal.evaluation_tables import print_evaluation  # noqa: PLC0415

        print_evaluation(evaluation.document)
        typer.echo(said)
        if out is not None:
            typer.echo(f"Files: {out}")


def _evaluation_flags(noise: Any, bootstrap: int | None) -> dict[str, Any]:
    """Values by dotted path of the specification; kinds that are not named are left out."""
    flags: dict[str, Any] = {}
    if bootstrap is not None:
        flags["evaluation.bootstrap"] = bootstrap
    if not noise:
        return flags
    from aesearch.studies.spec.sections import RobustnessSpec  # noqa: PLC0415 - imports pydantic

    kinds = {name.replace("_", "-"): name for name in RobustnessSpec.model_fields}
    levels: dict[str, list[float]] = {name: [] for name in kinds.values()}
    for each in noise:
        kind, _, listed = each.partition("=")
        name = kinds.get(kind.strip().replace("_", "-"))
        try:
            found = [float(level) for level in listed.split(",")]
        except ValueError:
            found = []
        if name is None or not found:
            raise OptionError(
                f"--noise must be KIND=LEVEL,LEVEL with a kind of {', '.join(kinds)}, got "
                f"{each!r}; for example --noise gaussian=0.5,1"
            )
        levels[name] += found
    return flags | {f"evaluation.robustness.{name}": found for name, found in levels.items()}


def _best_file(what: str) -> Path | None:
    """The ``best.yaml`` that a path means; None where it is no path but a name."""
    path = Path(what).expanduser()
    # A bare word is always a study, as for export: a folder of its name may lie beside the store.
    if not any(mark in what for mark in "/\\.~"):
        return None
    if path.is_dir() and (path / "best.yaml").is_file():
        return path / "best.yaml"
    if path.is_file():
        beside = path if path.suffix in {".yaml", ".yml"} else path.parent / "best.yaml"
        if not beside.is_file():
            raise OptionError(
                f"{what} must lie beside its best.yaml, which names the test images, got a "
                "folder without one; give the name of the study instead"
            )
        return beside
    return None
