"""The command ``evaluate``: the retrained model measured on the test set once more."""

import json
from pathlib import Path
from typing import Annotated

import typer

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
    Storage,
)
from aesearch.commands.ending import ending
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
    test: MovedTest = None,
    labels: MovedLabels = None,
    groups: MovedGroups = None,
    noisy: MovedNoisy = None,
    noisy_test: MovedNoisyTest = None,
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
        from aesearch.evaluation import looks  # noqa: PLC0415 - imports torch

        levels = _levels(noise) if noise else None
        found, files = looks.evaluate_named(
            what,
            storage_or_default(storage),
            looks.changes_of(
                levels,
                bootstrap=bootstrap,
                dataset=dataset,
                data_dir=data_dir,
                test=test,
                labels=labels,
                groups=groups,
                noisy=noisy,
                noisy_test=noisy_test,
            ),
            save=save,
            out=out,
            force=force,
        )
        if as_json:
            typer.echo(json.dumps(found.printed(files).to_dict()))
            return
        found.show()
        if out is not None:
            typer.echo(f"Files: {out}")


def _levels(noise: list[str]) -> dict[str, list[float]]:
    """Read ``KIND=LEVEL,LEVEL`` words; a kind may be named again."""
    levels: dict[str, list[float]] = {}
    for each in noise:
        kind, _, listed = each.partition("=")
        try:
            levels.setdefault(kind.strip(), []).extend(map(float, listed.split(",")))
        except ValueError:
            raise OptionError(
                f"--noise must be KIND=LEVEL,LEVEL, got {each!r}; "
                "for example --noise gaussian=0.5,1"
            ) from None
    return levels
