"""The commands ``encode``, ``reconstruct``, ``denoise``, ``interpolate``: the model in use."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aesearch.commands.arguments import Debug, Quiet
from aesearch.commands.ending import ending
from aesearch.options import OptionError

if TYPE_CHECKING:
    from aesearch.inference.stream import Job

_INTERRUPTED = "interrupted; OUTPUT was not written"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model.safetensors, the run folder or the best.yaml that it lies beside.",
        show_default=False,
    ),
]
Input = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="Images: .npz, .npy, HDF5, CSV, a folder, one image file, or the name of a data set.",
        show_default=False,
    ),
]
Codes = Annotated[
    str,
    typer.Argument(
        metavar="OUTPUT", help="A .npz, .npy, .csv, .json or .parquet file.", show_default=False
    ),
]
Pictures = Annotated[
    str,
    typer.Argument(
        metavar="OUTPUT",
        help="A .npy, .npz or .png file, or a folder of PNG files.",
        show_default=False,
    ),
]
Part = Annotated[
    str,
    typer.Option(help="Of images with a test set of their own: all (training, test), train, test."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where named data sets are kept. Default: the user's cache folder."),
]
BatchSize = Annotated[
    int | None, typer.Option(help="Images at once. Default: by their size.", min=1)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:NUMBER or mps.")]
BadFiles = Annotated[
    str | None,
    typer.Option(
        help="Image files that cannot be read: stop, or skip and list them. Default: as the "
        "model's were read.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an OUTPUT that exists.")]


@contextmanager
def open_job(model: str, images: str, output: str, **how: Any) -> Iterator["Job"]:
    """Open what goes through which model, and where to: see ``aesearch.inference.stream``."""
    from aesearch.inference import stream  # noqa: PLC0415 - imports torch

    with stream.open_job(model, images, output, **how) as job:
        yield job


def encode(
    model: Model,
    images: Input,
    output: Codes,
    *,
    part: Part = "all",
    data_dir: DataDir = None,
    batch_size: BatchSize = None,
    bad_files: BadFiles = None,
    device: Device = "auto",
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the codes of images: one row of encoding_dim numbers per image.

    A .csv, .json or .parquet has the file name of each image beside its code, or its number, and
    its class where it has one; an .npz holds codes, files and labels.

    \b
    Example:
      aesearch encode runs/mnist mnist codes.npz --part test
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug, interrupted=_INTERRUPTED):
        how: dict[str, Any] = {"part": part, "data_dir": data_dir, "device": device, "force": force}
        how["bad_files"] = bad_files
        with open_job(
            model, images, output, holds="codes", batch_size=batch_size, quiet=quiet, **how
        ) as job:
            shape = job.encode()
        _announce(job, f"codes of {job.images.described}", shape)


def reconstruct(
    model: Model,
    images: Input,
    output: Pictures,
    *,
    part: Part = "all",
    data_dir: DataDir = None,
    batch_size: BatchSize = None,
    bad_files: BadFiles = None,
    device: Device = "auto",
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write images as they come back from their codes.

    Arrays keep the layout of INPUT and hold floats in [0, 1]. One image as PNG keeps its
    size; several are laid out on a sheet; in a folder each has the name of its file.

    \b
    Example:
      aesearch reconstruct runs/mnist digits.npy reconstructed.npy
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug, interrupted=_INTERRUPTED):
        how: dict[str, Any] = {"part": part, "data_dir": data_dir, "device": device, "force": force}
        how["bad_files"] = bad_files
        with open_job(
            model, images, output, holds="pictures", batch_size=batch_size, quiet=quiet, **how
        ) as job:
            shape = job.reconstruct()
        _announce(job, f"reconstructions of {job.images.described}", shape)


def denoise(
    model: Model,
    images: Input,
    output: Pictures,
    *,
    part: Part = "all",
    data_dir: DataDir = None,
    batch_size: BatchSize = None,
    bad_files: BadFiles = None,
    device: Device = "auto",
    unclamped: Annotated[
        bool,
        typer.Option("--unclamped", help="INPUT may leave [0, 1]: noise that was not cut off."),
    ] = False,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write noisy images as a model gives them back that was trained to denoise.

    It is 'reconstruct', and says so where the model was not trained on noise.

    \b
    Example:
      aesearch denoise runs/mnist noisy/ clean/
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug, interrupted=_INTERRUPTED):
        how: dict[str, Any] = {"part": part, "data_dir": data_dir, "device": device, "force": force}
        how["bad_files"] = bad_files
        with open_job(
            model, images, output, holds="pictures", batch_size=batch_size, quiet=quiet, **how
        ) as job:
            answer, sentence = job.trained_to_denoise()
            if answer != "yes" or not quiet:
                typer.echo(sentence if answer == "yes" else f"warning: {sentence}", err=True)
            shape = job.reconstruct(unclamped=unclamped)
        _announce(job, f"{job.images.described} denoised", shape)


def interpolate(
    model: Model,
    images: Input,
    output: Pictures,
    more_pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[I,J]...", help="More pairs after --pairs.", show_default=False),
    ] = None,
    *,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="I,J",
            help="Numbers of the two images, from 0; several with spaces. Default: 0,1.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Images on a line, both ends included.", min=2)] = 9,
    part: Part = "all",
    data_dir: DataDir = None,
    device: Device = "auto",
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the images on the line between the codes of two images, a row for each pair.

    Arrays are (pair, step, channel, height, width), floats in [0, 1].

    \b
    Example:
      aesearch interpolate runs/mnist mnist line.png --pairs 3,7 10,12 --steps 9
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug, interrupted=_INTERRUPTED):
        wanted = parse_pairs([*(pairs or []), *(more_pairs or [])])
        how: dict[str, Any] = {"part": part, "data_dir": data_dir, "device": device, "force": force}
        how["bad_files"] = "stop"  # numbers are of all images
        with open_job(model, images, output, holds="pictures", quiet=quiet, **how) as job:
            shape = job.interpolate(wanted, steps)
        _announce(job, f"{shape[0]} x {shape[1]} interpolated images", shape)


def parse_pairs(words: list[str]) -> list[tuple[int, int]]:
    """Read ``3,7`` or ``"3,7 10,12"``; no word at all is the first two images.

    Raises
    ------
    OptionError
        A word that is not two numbers with a comma.
    """
    found = []
    for pair in " ".join(words).split():
        numbers = pair.split(",")
        if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
            raise OptionError(
                f"pairs must be two image numbers with a comma, got {pair!r}; "
                "write for example --pairs 3,7 10,12"
            )
        found.append((int(numbers[0]), int(numbers[1])))
    return found or [(0, 1)]


def _announce(job: "Job", what: str, shape: tuple[int, ...]) -> None:
    size = " x ".join(map(str, shape))
    array = f", float32 {size}" if job.kind in ("npy", "npz") else ""
    typer.echo(f"{job.path}: {what}{array}")
