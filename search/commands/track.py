"""The command ``track``: a study to an experiment tracker."""

from typing import Annotated

import typer

import aesearch
from aesearch.commands.arguments import Debug, Storage, Study
from aesearch.commands.ending import ending
from aesearch.options import OptionError

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
        from importlib import import_module  # noqa: PLC0415 - imports pandas, and then the tracker

        tracker = import_module(f"aesearch.trackers.{to}")
        done = tracker.log_study(aesearch.open_study(study, storage), project=project)
        typer.echo(f"{done.project}: {done.written} runs written, {done.there} were there")
