"""The commands ``encode``, ``reconstruct``, ``denoise``, ``interpolate``: the model in use."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from aesearch.commands.arguments import Debug
from aesearch.commands.ending import ending
from aesearch.options import OptionError

if TYPE_CHECKING:
    from aesearch.inference import inputs
    from aesearch.inference.outputs import Holds, Kind
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
        help="Images: .npz, .npy, CSV, a folder, one image file, or the name of a data set.",
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
Force = Annotated[bool, typer.Option("--force", help="Replace an OUTPUT that exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


def encode(
    model: Model,
    images: Input,
    output: Codes,
    *,
    part: Part = "all",
    data_dir: DataDir = None,
    batch_size: BatchSize = None,
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
        from aesearch.inference.stream import encode_to  # noqa: PLC0415 - imports torch

        asked = asked_for(
            model, images, output, part=part, data_dir=data_dir, holds="codes", force=force
        )
        with open_job(asked, batch_size=batch_size, device=device, quiet=quiet) as job:
            shape = encode_to(job)
        _announce(job, f"codes of {job.images.described}", shape)


def reconstruct(
    model: Model,
    images: Input,
    output: Pictures,
    *,
    part: Part = "all",
    data_dir: DataDir = None,
    batch_size: BatchSize = None,
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
        from aesearch.inference.stream import reconstruct_to  # noqa: PLC0415 - imports torch

        asked = asked_for(
            model, images, output, part=part, data_dir=data_dir, holds="pictures", force=force
        )
        with open_job(asked, batch_size=batch_size, device=device, quiet=quiet) as job:
            shape = reconstruct_to(job)
        _announce(job, f"reconstructions of {job.images.described}", shape)


def denoise(
    model: Model,
    images: Input,
    output: Pictures,
    *,
    part: Part = "all",
    data_dir: DataDir = None,
    batch_size: BatchSize = None,
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
        from aesearch.artifacts.model_file import find_model  # noqa: PLC0415 - imports torch
        from aesearch.inference.denoiser import trained_to_denoise  # noqa: PLC0415
        from aesearch.inference.stream import reconstruct_to  # noqa: PLC0415 - imports torch

        asked = asked_for(
            model, images, output, part=part, data_dir=data_dir, holds="pictures", force=force
        )
        answer, sentence = trained_to_denoise(find_model(model))
        if answer != "yes" or not quiet:
            typer.echo(sentence if answer == "yes" else f"warning: {sentence}", err=True)
        with open_job(asked, batch_size=batch_size, device=device, quiet=quiet) as job:
            shape = reconstruct_to(job, unclamped=unclamped)
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

        from aesearch.inference.stream import interpolate_to  # noqa: PLC0415 - imports torch

        asked = asked_for(
            model, images, output, part=part, data_dir=data_dir, holds="pictures", force=force
        )
        with open_job(asked, batch_size=None, device=device, quiet=quiet) as job:
            shape = interpolate_to(job, wanted, steps)
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


class Asked(NamedTuple):
    """What a model is used on, and where that is written."""

    model: str
    images: str
    part: "inputs.Part"
    data_dir: Path | None
    path: Path
    kind: "Kind"


def asked_for(
    model: str,
    images: str,
    output: str,
    *,
    part: str,
    data_dir: Path | None,
    holds: "Holds",
    force: bool,
    name: str = "OUTPUT",
) -> Asked:
    """Check what can be checked before anything is read; ``output`` is called ``name``."""
    from aesearch.inference.inputs import PARTS  # noqa: PLC0415 - imports numpy
    from aesearch.inference.outputs import check_output, kind_of  # noqa: PLC0415

    chosen = next((each for each in PARTS if each == part), None)
    if chosen is None:
        raise OptionError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    path = Path(output).expanduser()
    if not path.name:
        path = path.resolve()
    source = Path(images).expanduser()
    if path.exists() and source.exists() and path.samefile(source):
        raise OptionError(f"{name} must not be INPUT, got {output!r} for both; name another")
    is_folder = output.endswith(("/", os.sep))
    kind = kind_of(path, is_folder=is_folder, holds=holds, name=name)
    check_output(path, is_folder=kind == "folder", force=force, name=name)
    return Asked(model, images, chosen, data_dir, path, kind)


@contextmanager
def open_job(asked: Asked, *, batch_size: int | None, device: str, quiet: bool) -> Iterator["Job"]:
    """Load the model, and open INPUT: what is to be put through it, and where to."""
    from aesearch.artifacts.model_file import load_model  # noqa: PLC0415
    from aesearch.inference.inputs import open_input  # noqa: PLC0415
    from aesearch.inference.layouts import layout_of  # noqa: PLC0415
    from aesearch.inference.network import denormals_flushed  # noqa: PLC0415
    from aesearch.inference.stream import Job  # noqa: PLC0415
    from aesearch.terminal.display import make_display  # noqa: PLC0415 - --help must not pay for it

    network = load_model(asked.model)
    with make_display(quiet=quiet) as display:
        images = open_input(
            asked.images,
            part=asked.part,
            data_dir=asked.data_dir,
            progress=display.download,
        )
    layout_of(images.shape, network.image_shape, images.source)
    with denormals_flushed(), _progress(quiet=quiet) as tell:
        yield Job(network, images, asked.path, asked.kind, batch_size, device, tell)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; elsewhere nothing but what is said at the end."""
    from rich.console import Console  # noqa: PLC0415 - --help must not pay for it
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr)
    if quiet or not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda _done, _total: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _announce(job: "Job", what: str, shape: tuple[int, ...]) -> None:
    size = " x ".join(map(str, shape))
    array = f", float32 {size}" if job.kind in ("npy", "npz") else ""
    typer.echo(f"{job.path}: {what}{array}")
