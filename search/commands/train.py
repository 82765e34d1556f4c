"""The commands ``train`` and ``verify``: a best.yaml retrained, and held against its number."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import aesearch
from aesearch.commands.arguments import (
    DataDir,
    Dataset,
    Debug,
    Json,
    MovedGroups,
    MovedLabels,
    MovedNoisy,
    MovedNoisyTest,
    MovedTest,
    Quiet,
    Storage,
)
from aesearch.commands.ending import ending

BestFile = Annotated[
    Path, typer.Argument(metavar="BEST.yaml", help="The file that a run wrote.", show_default=False)
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or mps. Default: as the file says.")
]


def train(
    best: Annotated[
        Path,
        typer.Argument(
            metavar="BEST.yaml",
            help="The file that a run wrote; with --encoding-dim or --trial the name of a study.",
            show_default=False,
        ),
    ],
    encoding_dim: Annotated[
        int | None,
        typer.Option(min=1, help="Train the best network of this code size of a study."),
    ] = None,
    trial: Annotated[
        int | None,
        typer.Option(min=0, help="Train the network of this trial of a study, beside the winner."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: runs/<study>-retrained.")
    ] = None,
    dataset: Dataset = None,
    *,
    data_dir: DataDir = None,
    test: MovedTest = None,
    labels: MovedLabels = None,
    groups: MovedGroups = None,
    noisy: MovedNoisy = None,
    noisy_test: MovedNoisyTest = None,
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

    Or deliver another network of a study in the store: the best of a code size, or a trial.

    The seed with the lowest validation loss is exported and measured; the test set is looked at
    once more.

    \b
    Example:
      aesearch train runs/digits/best.yaml --out again
      aesearch train digits --encoding-dim 8
      aesearch train digits --trial 17
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug, interrupted="interrupted"):
        trained = aesearch.train(
            best,
            encoding_dim=encoding_dim,
            trial=trial,
            out=out,
            dataset=dataset,
            data_dir=data_dir,
            test=test,
            labels=labels,
            groups=groups,
            noisy=noisy,
            noisy_test=noisy_test,
            device=device,
            storage=storage,
            force=force,
            quiet=quiet,
        )
        printed = trained.printed()
        if as_json:
            typer.echo(json.dumps(printed.to_dict()))
            return
        tested, n_seeds = trained.result.test, len(trained.result.retrained)
        typer.echo(
            f"test MSE {tested.mse:.7g} (seed {tested.seed_index}, the lowest validation loss "
            f"of {n_seeds}; look {tested.looks} at the test set)\n"
            f"Files: {printed.files.best}, {printed.files.model}"
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
    test: MovedTest = None,
    labels: MovedLabels = None,
    groups: MovedGroups = None,
    noisy: MovedNoisy = None,
    noisy_test: MovedNoisyTest = None,
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
        comparison = aesearch.verify(
            best,
            tolerance=tolerance,
            dataset=dataset,
            data_dir=data_dir,
            test=test,
            labels=labels,
            groups=groups,
            noisy=noisy,
            noisy_test=noisy_test,
            device=device,
            quiet=quiet,
        )
        typer.echo(json.dumps(asdict(comparison)) if as_json else comparison.text())
        if comparison.verdict == "differs":
            raise typer.Exit(1)
