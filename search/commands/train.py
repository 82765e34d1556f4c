"""The commands ``train`` and ``verify``: a best.yaml retrained, and held against its number."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from aesearch.commands.arguments import Debug, Storage
from aesearch.commands.ending import ending

BestFile = Annotated[
    Path, typer.Argument(metavar="BEST.yaml", help="The file that a run wrote.", show_default=False)
]
Dataset = Annotated[
    str | None, typer.Option(help="Where the same images are now. Default: as the file says.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where named data sets are kept. Default: as the file says.")
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or mps. Default: as the file says.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


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
        from aesearch import retraining  # noqa: PLC0415 - imports torch
        from aesearch.outputs import TrainedFiles, TrainedModel  # noqa: PLC0415

        trained = retraining.train(
            best,
            encoding_dim=encoding_dim,
            out=out,
            dataset=dataset,
            data_dir=data_dir,
            device=device,
            storage=storage,
            force=force,
            quiet=quiet,
        )
        files = TrainedFiles(
            str(trained.folder / "best.yaml"), str(trained.folder / "model.safetensors")
        )
        if as_json:
            typer.echo(json.dumps(TrainedModel(trained.result, files).to_dict()))
            return
        test, n_seeds = trained.result.test, len(trained.result.retrained)
        typer.echo(
            f"test MSE {test.mse:.7g} (seed {test.seed_index}, the lowest validation loss "
            f"of {n_seeds}; look {test.looks} at the test set)\n"
            f"Files: {files.best}, {files.model}"
        )


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
        from aesearch import retraining  # noqa: PLC0415 - imports torch

        comparison = retraining.verify(
            best,
            tolerance=tolerance,
            dataset=dataset,
            data_dir=data_dir,
            device=device,
            quiet=quiet,
        )
        typer.echo(json.dumps(asdict(comparison)) if as_json else comparison.text())
        if comparison.verdict == "differs":
            raise typer.Exit(1)
