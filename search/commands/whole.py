"""The commands ``rename``, ``delete``, ``copy``, ``exclude``: a study that is there is changed."""

from typing import Annotated

import typer

import aesearch
from aesearch.commands.arguments import Debug, Storage, Study
from aesearch.commands.ending import ending
from aesearch.options import OptionError

_NewName = Annotated[str, typer.Argument(metavar="NEW", help="Its new name.", show_default=False)]


def rename(study: Study, new: _NewName, storage: Storage = None, *, debug: Debug = False) -> None:
    """Give a study another name; its run folder keeps the one that it has.

    \b
    Example:
      aesearch rename digits digits-first
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        aesearch.rename_study(study, new, storage)
        typer.echo(f"study {study!r} is {new!r} now")


def delete(
    study: Study,
    storage: Storage = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    debug: Debug = False,
) -> None:
    """Delete a study with its trials, curves and models for good; files stay.

    \b
    Example:
      aesearch export digits
      aesearch delete digits
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        found = aesearch.open_study(study, storage)
        held = sum(worker.alive for worker in found.status().workers)
        what = f"study {study!r} with {len(found.trials())} trials and its models"
        at_work = f"; {held} workers are on it" if held else ""
        if not yes:
            typer.confirm(f"Delete {what} for good{at_work}?", abort=True, err=True)
        aesearch.delete_study(study, storage)
        typer.echo(f"{what} is deleted")


def copy(
    study: Study,
    to: Annotated[
        str, typer.Option(help="Database URL or SQLite file that gets it.", show_default=False)
    ],
    new_name: Annotated[
        str | None, typer.Option("--name", help="Name of the copy. Default: the same.")
    ] = None,
    storage: Storage = None,
    *,
    debug: Debug = False,
) -> None:
    """Copy a study with its curves and models to another store, and check the copy.

    It goes on there where it was here. Given again, it says whether both are still the same.

    \b
    Example:
      aesearch copy mnist --to postgresql://me@host/studies
      aesearch copy mnist --storage postgresql://me@host/studies --to mnist.db
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        copied = aesearch.copy_study(study, to, storage, new_name=new_name)
        how = "was there already, the same" if copied.there else "is copied"
        typer.echo(
            f"study {study!r} {how}: {copied.rows.get('trials', 0)} trials, "
            f"{sum(copied.rows.values())} rows, sha256 {copied.sha256[:12]}"
        )


def exclude(
    study: Study,
    trial: Annotated[int, typer.Option(min=0, help="Its number.", show_default=False)],
    reason: Annotated[
        str | None, typer.Option(help="Why; shown wherever the trial is.", show_default=False)
    ] = None,
    storage: Storage = None,
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Put it back.")] = False,
    debug: Debug = False,
) -> None:
    """Take a trial out of the choice of a study; another winner is chosen if it was that.

    \b
    Example:
      aesearch exclude digits --trial 17 --reason "its code has dead units"
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        if undo == (reason is not None):
            raise OptionError("--reason must be given, or --undo; got both or none of them")
        found = aesearch.exclude_trial(study, trial, reason, storage)
        done = "may be chosen again" if undo else "is excluded"
        if found.winner is None:
            then = "there is no winner"
        elif found.retrained:
            then = f"trial {found.winner} is the winner; 'aesearch export {study}' writes its model"
        else:
            then = (
                f"trial {found.winner} is the winner and has yet to be retrained: give the same "
                "'aesearch run' again, or start 'aesearch worker'"
            )
        typer.echo(f"trial {trial} {done}; {then}")
