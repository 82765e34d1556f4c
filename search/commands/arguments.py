"""Arguments and options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated, get_args

import typer

import aesearch
from aesearch.options import STORAGE_VARIABLE
from aesearch.studies.errors import AesearchError
from aesearch.studies.presets import preset_names


def complete_study(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the studies in the store that the command line names so far; for Tab."""
    try:
        found = aesearch.list_studies(context.params.get("storage"))
    except AesearchError:
        return []
    return [study.name for study in found if study.name.startswith(incomplete)]


def complete_preset(incomplete: str) -> list[str]:
    """Names of presets; for Tab."""
    return [name for name in preset_names() if name.startswith(incomplete)]


def complete_sampler(incomplete: str) -> list[str]:
    """Names of samplers; for Tab."""
    from aesearch.studies.spec.sections import SearchSpec  # noqa: PLC0415 - imports pydantic

    names = get_args(SearchSpec.model_fields["sampler"].annotation)
    return [name for name in names if name.startswith(incomplete)]


Study = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="Its name.", show_default=False, autocompletion=complete_study
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        envvar=STORAGE_VARIABLE,
        help="Database URL or SQLite file. Default: aesearch.db in this folder.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Dataset = Annotated[
    str | None, typer.Option(help="Where the same images are now. Default: as the file says.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where named data sets are kept. Default: as the file says.")
]
_MOVED = "{} now. Default: as the file says."
MovedTest = Annotated[Path | None, typer.Option("--test", help=_MOVED.format("Where data.test is"))]
MovedLabels = Annotated[
    Path | None, typer.Option("--labels", help=_MOVED.format("Where the table of labels is"))
]
MovedGroups = Annotated[
    Path | None, typer.Option("--groups", help=_MOVED.format("Where the table of groups is"))
]
MovedNoisy = Annotated[
    Path | None, typer.Option("--noisy", help=_MOVED.format("Where the noisy images are"))
]
MovedNoisyTest = Annotated[
    Path | None,
    typer.Option("--noisy-test", help=_MOVED.format("Where those of the test set are")),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
