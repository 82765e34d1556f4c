"""The command ``score``: which images are odd."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aesearch.commands.arguments import Debug, Json, Quiet
from aesearch.commands.ending import ending
from aesearch.commands.use import (
    BadFiles,
    BatchSize,
    DataDir,
    Device,
    Force,
    Input,
    Model,
    Part,
)
from aesearch.options import OptionError

if TYPE_CHECKING:
    from aesearch.inference.scores import Scores

_SHOWN = 10

Table = Annotated[
    str,
    typer.Argument(metavar="OUTPUT", help="A .csv, .json or .parquet file.", show_default=False),
]


def score(
    model: Model,
    images: Input,
    output: Table,
    *,
    maps: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="PATH",
            help="Write where each image errs too: a .npy, .npz or .png file, or a folder of PNG "
            "files.",
            show_default=False,
        ),
    ] = None,
    ordinary: Annotated[
        list[str] | None,
        typer.Option(
            "--ordinary",
            metavar="CLASS",
            help="Class that is not odd, repeat for more: says how well errors find the others. "
            "Default: good, normal or ok, if there is one.",
            show_default=False,
        ),
    ] = None,
    part: Part = "all",
    data_dir: DataDir = None,
    batch_size: BatchSize = None,
    bad_files: BadFiles = None,
    device: Device = "auto",
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say how odd each image is: the error of its reconstruction, and a p-value.

    Of ordinary images 1% have a p-value of at most 0.01, and 5% one of at most 0.05. INPUT may
    be a folder as MVTec's: test/good, test/<defect> and ground_truth/ say what is odd.

    \b
    Examples:
      aesearch score runs/photos new-photos/ scores.csv --map errors/
      aesearch score runs/bottle bottle/ scores.csv
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug, interrupted="interrupted; OUTPUT was not written"):
        from aesearch.inference import known_oddities, scores, stream  # noqa: PLC0415 - imports torch

        source, folder = images, None
        if part != "train":
            source, folder = known_oddities.test_folder(images)
            part = "all" if folder is not None else part
        how: dict[str, Any] = {"part": part, "data_dir": data_dir, "device": device, "quiet": quiet}
        how["bad_files"] = bad_files
        map_path, map_kind = None, None
        if maps is not None:
            map_path, map_kind = stream.output_of(
                maps, source, holds="pictures", force=force, name="--map"
            )
            if map_path.absolute() == Path(output).expanduser().absolute():
                raise OptionError(f"--map must not be OUTPUT, got {maps!r} for both; name another")
        classes = tuple(ordinary or ())
        with stream.open_job(
            model, source, output, holds="scores", force=force, batch_size=batch_size, **how
        ) as job:
            known_oddities.check_ordinary(job.images, classes)
            masks = None if folder is None else known_oddities.Masks(folder, job.images, classes)
            of_maps = None
            if map_path is not None and map_kind is not None:
                of_maps = replace(job, path=map_path, kind=map_kind)
            found = scores.score_to(job, ordinary=classes, masks=masks, maps=of_maps)
        _say(found, job.path, map_path, as_json=as_json)


def _say(found: "Scores", path: Path, maps: Path | None, *, as_json: bool) -> None:
    table, areas, below = found.table, found.areas, found.at_most
    if as_json:
        document: dict[str, Any] = {
            "output": str(path),
            "map": None if maps is None else str(maps),
            "n_images": len(table),
            "n_ordinary": found.n_ordinary,
            "n_trained_on": found.n_known,
            "at_most": below or None,
            "auroc": areas.images,
            "auroc_of_pixels": areas.pixels,
            "ordinary": list(areas.ordinary),
        }
        typer.echo(json.dumps(document))
        return
    typer.echo(f"{path}: scores of {len(table)} image{'s' * (len(table) > 1)}")
    if maps is not None:
        typer.echo(f"{maps}: where each of them errs")
    if found.warning is not None:
        typer.echo(f"warning: {found.warning}", err=True)
    for level, count in below.items():
        typer.echo(
            f"  p <= {level}: {count} ({count / len(table):.1%}); of ordinary images about "
            f"{float(level):.0%}"
        )
    if found.n_known:
        typer.echo(
            f"  {found.n_known} of them are training images: judged by networks that did not see "
            "them"
        )
    if below and found.smallest > min(map(float, below)):
        typer.echo(
            f"  the smallest p-value that {found.n_ordinary} ordinary images can give is "
            f"{found.smallest:.2g}"
        )
    typer.echo("The oddest:")
    oddest = table.nlargest(_SHOWN, "error")
    names = oddest["file" if "file" in table else "index"]
    for name, error, p_value in zip(names, oddest.error, oddest.p_value, strict=True):
        odd = f", p {p_value:.2g}" if found.n_ordinary else ""
        typer.echo(f"  {name}: error {error:.4g}{odd}")
    if areas.images is not None:
        typer.echo(
            f"AUROC {areas.images:.3f}: {areas.n_ordinary} ordinary "
            f"({', '.join(areas.ordinary)}), {areas.n_odd} odd"
        )
    if areas.pixels is not None:
        left_out = f"; {areas.n_left_out} images without a mask of their size are left out"
        typer.echo(
            f"AUROC of the pixels {areas.pixels:.3f}, by the masks in ground_truth/"
            + left_out * (areas.n_left_out > 0)
        )
