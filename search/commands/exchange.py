"""The commands ``import`` and ``track``: from and to programs of others."""

from pathlib import Path
from typing import Annotated

import typer

import aesearch
from aesearch.commands.arguments import Debug, Storage, Study
from aesearch.commands.ending import ending
from aesearch.options import OptionError
from aesearch.studies.results.output_files import check_output, write_whole

_SHOWN = 5


def import_trials(  # noqa: PLR0917 - Typer calls it by name
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URL",
            help="Where that study is: a database URL, an SQLite file, or a journal file of "
            "Optuna. It is only read.",
            show_default=False,
        ),
    ],
    study: Annotated[
        str | None,
        typer.Option(help="Its name. Default: the only one that is there.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(help="How many configurations, the best first.")] = 10,
    renamed: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="THEIRS=OURS",
            help="What a parameter is called here: lr=learning_rate; lr= leaves it out. Repeat for "
            "more.",
            show_default=False,
        ),
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A specification: trials outside of its space are left out.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: standard output.")
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    debug: Debug = False,
) -> None:
    """Write the best configurations of a plain Optuna study, for 'aesearch run --enqueue'.

    They are the first trials of the run, trained and scored there like all others. The scores
    that the other study has of them are not taken over: they were measured in another way.

    \b
    Example:
      aesearch import --from sqlite:///old.db --study old --map lr=learning_rate --out known.yaml
      aesearch run mnist --enqueue known.yaml
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        if out is not None:
            check_output(out, is_folder=False, force=force, name="--out")
        found = aesearch.import_trials(source, study, top=top, map=_map(renamed or []), spec=spec)
        for line in found.left_out[:_SHOWN]:
            typer.echo(f"left out {line}", err=True)
        if len(found.left_out) > _SHOWN:
            typer.echo(f"and {len(found.left_out) - _SHOWN} more that are left out", err=True)
        if out is None:
            typer.echo(found.to_yaml(), nl=False)
        else:
            write_whole(out, found.to_yaml())
            typer.echo(f"{out}: {len(found.configurations)} configurations of {found.study!r}")


def _map(words: list[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for theirs, equals, _ in pairs:
        if not equals or not theirs:
            raise OptionError(
                f"--map must be THEIRS=OURS, got {theirs + equals!r}; for example "
                "--map lr=learning_rate"
            )
    return {theirs.strip(): ours.strip() for theirs, _, ours in pairs}


_TRACKERS = ("mlflow", "wandb")


def track(
    study: Study,
    to: Annotated[str, typer.Option(help="mlflow or wandb; each is an extra.", show_default=False)],
    project: Annotated[
        str | None,
        typer.Option(
            help="Experiment of MLflow, project of W&B. Default: the study's name.",
            show_default=False,
        ),
    ] = None,
    storage: Storage = None,
    *,
    debug: Debug = False,
) -> None:
    """Write a study to MLflow or Weights & Biases: a run for each trial, one for the model.

    Where that is, they are told by their own variables: MLFLOW_TRACKING_URI, WANDB_MODE,
    WANDB_DIR. Runs that are there already are not written again.

    \b
    Example:
      aesearch track mnist --to mlflow
      WANDB_MODE=offline aesearch track mnist --to wandb --project digits
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug, interrupted="interrupted; the same command goes on"):
        if to not in _TRACKERS:
            raise OptionError(f"--to must be one of {', '.join(_TRACKERS)}, got {to!r}")
        tracker = getattr(aesearch.trackers, to)
        done = tracker.log_study(aesearch.open_study(study, storage), project=project)
        typer.echo(f"{done.project}: {done.written} runs written, {done.there} were there")
