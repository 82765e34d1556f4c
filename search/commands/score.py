"""The command ``score``: which images a trained model does not know."""

from pathlib import Path
from typing import Annotated, Any

import typer

from aesearch.artifacts.model_path import find_model
from aesearch.commands.arguments import Debug, Quiet
from aesearch.commands.ending import ending
from aesearch.commands.use import (
    INTERRUPTED,
    BatchSize,
    DataDir,
    Device,
    Force,
    Input,
    Model,
    Part,
)
from aesearch.options import OptionError


def score(
    model: Model,
    images: Input,
    output: Annotated[
        str,
        typer.Argument(metavar="OUTPUT", help="A .csv or .parquet file.", show_default=False),
    ],
    *,
    maps: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE", help="A .npy for the squared error of each pixel."),
    ] = None,
    part: Part = "all",
    data_dir: DataDir = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the reconstruction error of each image: the largest are those that are odd.

    Beside each error stands p, how rarely an ordinary image that the network never saw has such an
    error or a larger one: 'p <= 0.01' raises a false alarm on one ordinary image in a hundred.
    Where a class is called good, normal or ok, the AUROC of telling the others by their error is
    said as well.

    \b
    Example:
      aesearch score runs/photos new-photos/ scores.csv --map maps.npy
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug, interrupted=INTERRUPTED):
        from aesearch.inference import stream  # noqa: PLC0415
        from aesearch.inference.scores import calibration_of, odd_classes  # noqa: PLC0415
        from aesearch.studies.results.output_files import check_output  # noqa: PLC0415

        if not output.lower().endswith((".csv", ".parquet")):
            raise OptionError(f"OUTPUT must end in .csv or .parquet, got {output!r}")
        if maps is not None:
            if maps.suffix.lower() != ".npy":
                raise OptionError(f"--map must end in .npy, got {str(maps)!r}")
            check_output(maps, is_folder=False, force=force, name="--map")
        how: dict[str, Any] = {"part": part, "data_dir": data_dir, "device": device, "force": force}
        with stream.open_job(
            model, images, output, pictures=False, batch_size=batch_size, quiet=quiet, **how
        ) as job:
            calibration, sentence = calibration_of(find_model(model), job.model, device)
            errors = stream.score_to(job, calibration, maps)
        typer.echo(f"{job.path}: errors of {job.images.described}; {sentence}")
        is_odd = odd_classes(job.images.labels, job.images.class_names)
        if is_odd is not None:
            from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - a second of import time

            found = roc_auc_score(is_odd, errors)
            typer.echo(f"AUROC {found:.4f} for {int(is_odd.sum())} of them that are not ordinary")
