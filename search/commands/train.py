"""The commands ``train`` and ``verify``: a best.yaml retrained, and held against its number."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aesearch.commands.arguments import Debug, Storage
from aesearch.commands.ending import ending
from aesearch.studies.errors import AesearchError

if TYPE_CHECKING:
    from aesearch.data.study_data import Problem
    from aesearch.studies.spec.study import StudySpec
    from aesearch.training.retrain_pool import TrainedSeed

BestFile = Annotated[
    Path, typer.Argument(metavar="BEST.yaml", help="The file that a run wrote.", show_default=False)
]
Dataset = Annotated[
    str | None, typer.Option(help="Where the same images are now. Default: as the file says.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where named data sets are kept. Default: as the file says.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda. Default: as the file says.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


class OverwriteError(AesearchError, ValueError):
    """An output folder whose files would replace what was asked to be retrained."""


def train(
    best: Annotated[
        Path,
        typer.Argument(
            metavar="BEST.yaml",
            help="The file that a run wrote; with --encoding-dim the name of a study.",
            show_default=False,
        ),
    ],
    encoding_dim: Annotated[
        int | None,
        typer.Option(min=1, help="Train the best network of this code size of a study."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: runs/<study>-retrained.")
    ] = None,
    dataset: Dataset = None,
    *,
    data_dir: DataDir = None,
    device: Device = None,
    storage: Storage = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a model that is in the folder.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Retrain a best.yaml (or the defaults of any specification) from the file alone.

    Or deliver the best network of another code size of a study in the store.

    The seed with the lowest validation loss is exported and measured; the test set is looked at
    once more.

    \b
    Example:
      aesearch train runs/digits/best.yaml --out again
      aesearch train digits --encoding-dim 8
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug, interrupted="interrupted"):
        from aesearch.artifacts.best_file import BEST, load_trainable  # noqa: PLC0415
        from aesearch.artifacts.model_file import MODEL_NAME, is_ours  # noqa: PLC0415
        from aesearch.artifacts.run_folder import (  # noqa: PLC0415
            best_seed,
            data_result,
            default_folder,
            remove_made_of_model,
            retrained_result,
        )
        from aesearch.studies.results.output_files import best_yaml, make_folder, write_whole  # noqa: PLC0415
        from aesearch.studies.spec.load import to_yaml  # noqa: PLC0415
        from aesearch.terminal.training_display import make_training_display  # noqa: PLC0415
        from aesearch.training.retrain_pool import train_seeds  # noqa: PLC0415 - imports pydantic, torch

        if encoding_dim is None:
            spec, before = load_trainable(best)
        else:
            spec, before = _of_size(str(best), encoding_dim, storage)
        problem = _problem(
            best, spec, before, dataset=dataset, data_dir=data_dir, device=device, quiet=quiet
        )
        ending_of_name = "retrained" if encoding_dim is None else str(encoding_dim)
        folder = out or default_folder(f"{problem.spec.name}-{ending_of_name}")
        read = best / BEST if best.is_dir() else best
        if (folder / BEST).absolute().resolve() == read.expanduser().absolute().resolve():
            raise OverwriteError(
                f"out must be another folder than that of the file to retrain, got {str(folder)!r}"
            )
        taken = [name for name in (BEST, MODEL_NAME) if (folder / name).exists()]
        if taken and not force:
            raise OverwriteError(
                f"out must hold no model yet, got {str(folder)!r} with {' and '.join(taken)}; "
                "name another folder with --out, or --force to write over it"
            )
        make_folder(folder)
        with make_training_display(quiet=quiet) as display:
            seeds = train_seeds(problem, progress=display)
        exported = best_seed(seeds)
        looks = 1 + (before["test"]["looks"] if before else 0)
        result: dict[str, Any] = {**(before or {"study": str(problem.spec.name)})}
        result |= retrained_result(seeds, exported.seed_index, looks)
        result |= data_result(problem.facts())
        # A folder with a best.yaml is whole: another one's goes first. The model and its own come
        # before it is measured, which takes a while and may fail: it is what took hours.
        (folder / BEST).unlink(missing_ok=True)
        if is_ours(folder / MODEL_NAME):
            remove_made_of_model(folder)
        write_whole(folder / MODEL_NAME, exported.weights)
        write_whole(folder / BEST, best_yaml(to_yaml(problem.spec), result))
        numbers = _evaluated(folder, exported, problem, quiet=quiet)
        if numbers:
            result["test"] |= numbers
            write_whole(folder / BEST, best_yaml(to_yaml(problem.spec), result))
        files = {"best": str(folder / BEST), "model": str(folder / MODEL_NAME)}
        if as_json:
            typer.echo(json.dumps({"result": result, "files": files}))
            return
        test = result["test"]
        typer.echo(
            f"test MSE {test['mse']:.7g} (seed {test['seed_index']}, the lowest validation loss "
            f"of {len(seeds)}; look {looks} at the test set)\n"
            f"Files: {files['best']}, {files['model']}"
        )


def _of_size(
    study: str, encoding_dim: int, storage: str | None
) -> "tuple[StudySpec, dict[str, Any]]":
    from aesearch.artifacts.sizes import best_of_size  # noqa: PLC0415
    from aesearch.commands.stored import open_existing  # noqa: PLC0415
    from aesearch.options import storage_or_default  # noqa: PLC0415 - imports pydantic

    engine = open_existing(storage_or_default(storage))
    try:
        return best_of_size(engine, study, encoding_dim)
    finally:
        engine.dispose()


def _evaluated(
    folder: Path, exported: "TrainedSeed", problem: "Problem", *, quiet: bool
) -> dict[str, Any]:
    """Measure the model that was written; its main numbers, none where that fails."""
    from aesearch.artifacts.model_file import MODEL_NAME, from_bytes  # noqa: PLC0415
    from aesearch.studies.results.evaluation_files import write_evaluation  # noqa: PLC0415
    from aesearch.studies.store.evaluation_results import main_numbers  # noqa: PLC0415
    from aesearch.terminal.evaluation_tables import measured  # noqa: PLC0415 - imports torch

    try:
        evaluation = measured(
            from_bytes(exported.weights), problem, exported.seed_index, quiet=quiet
        )
    except KeyboardInterrupt:
        typer.echo(f"the model is written: {folder / MODEL_NAME}", err=True)
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it costs no model
        typer.echo(f"the model could not be evaluated: {error}", err=True)
        return {}
    write_evaluation(folder, evaluation.document, evaluation.pictures)
    return main_numbers(evaluation.document)


def verify(
    best: BestFile,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest relative difference of the test MSE.")
    ] = 0.02,
    dataset: Dataset = None,
    data_dir: DataDir = None,
    device: Device = None,
    *,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Retrain the exported seed of a best.yaml and say whether the test number is the same.

    Exit code 0 for identical weights or a number within the tolerance, 1 for another number.

    \b
    Example:
      aesearch verify runs/digits/best.yaml
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        from aesearch.artifacts.best_file import compare, load_best  # noqa: PLC0415
        from aesearch.data.study_data import versions  # noqa: PLC0415
        from aesearch.terminal.training_display import make_training_display  # noqa: PLC0415
        from aesearch.training.retrain_pool import train_seeds  # noqa: PLC0415 - imports pydantic, torch

        spec, result = load_best(best)
        problem = _problem(
            best, spec, result, dataset=dataset, data_dir=data_dir, device=device, quiet=quiet
        )
        index = result["test"]["seed_index"]
        with make_training_display(quiet=quiet) as display:
            # The seeds that trained beside it train beside it again; the others are not needed.
            seeds = train_seeds(problem, only=index, progress=display)
        seed = next(seed for seed in seeds if seed.seed_index == index)
        comparison = compare(
            result,
            mse=seed.test_mse,
            sha256=seed.weights_sha256,
            tolerance=tolerance,
            versions=versions(),
            devices=(spec.compute.device, problem.spec.compute.device),
        )
        typer.echo(json.dumps(asdict(comparison)) if as_json else comparison.text())
        if comparison.verdict == "differs":
            raise typer.Exit(1)


def _problem(
    best: Path,
    spec: Any,
    result: dict[str, Any] | None,
    *,
    dataset: str | None,
    data_dir: Path | None,
    device: str | None,
    quiet: bool,
) -> "Problem":
    """Load what a best.yaml was made of, from where it is now, and check that it is the same."""
    from aesearch.artifacts.best_file import check_same_images  # noqa: PLC0415 - imports pydantic, numpy
    from aesearch.data.load import known_name  # noqa: PLC0415
    from aesearch.data.study_data import load_problem  # noqa: PLC0415
    from aesearch.device import present_device  # noqa: PLC0415
    from aesearch.options import spec_values  # noqa: PLC0415
    from aesearch.studies.errors import DataError, DataMissingError  # noqa: PLC0415
    from aesearch.studies.spec.load import load_spec, to_yaml  # noqa: PLC0415
    from aesearch.terminal.display import make_display  # noqa: PLC0415

    flags = spec_values({"dataset": dataset, "data_dir": data_dir, "device": device})
    asked = load_spec(text=to_yaml(spec), flags=flags)
    here = present_device(asked)
    try:
        with make_display(quiet=quiet) as display:
            problem = load_problem(asked, device=here, progress=display.download)
    except DataError as error:
        gone = not Path(asked.data.dataset).expanduser().exists()
        if gone and dataset is None and known_name(asked.data.dataset) is None:
            raise DataMissingError(
                f"{error}; {str(best)!r} names its images as the run did, in the folder that it "
                "was started in: start this there, or say where they are with --dataset"
            ) from error
        raise
    if result is not None:
        check_same_images(problem, result, str(best))
    return problem
