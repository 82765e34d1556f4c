"""How a command ends: what is said on stderr, and the exit code."""

import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from aesearch.studies.errors import AesearchError
from aesearch.terminal.interruption import TerminatedError, interruptible

INTERRUPTED = 130


@contextmanager
def ending(*, debug: bool, interrupted: str = "interrupted") -> Iterator[None]:
    """Turn whatever a command meets into one message and an exit code.

    Parameters
    ----------
    debug : bool
        Show tracebacks.
    interrupted : str
        What Ctrl-C says.

    Raises
    ------
    typer.Exit
        With 1 (the run failed, or a bug), 2 (usage, specification, data, store), 130
        (Ctrl-C) or 143 (SIGTERM).
    """
    try:
        with interruptible():
            yield
    except TerminatedError:
        typer.echo(interrupted, err=True)
        raise typer.Exit(128 + signal.SIGTERM) from None
    except KeyboardInterrupt:
        typer.echo(interrupted, err=True)
        raise typer.Exit(INTERRUPTED) from None
    except AesearchError as error:
        if debug:
            traceback.print_exc()
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - a bug too ends in one line
        if debug:
            traceback.print_exc()
        cause = (str(error).strip().splitlines() or [""])[0]
        hint = "" if debug else "; run again with --debug for the traceback"
        typer.echo(f"error: {type(error).__name__}: {cause}{hint}", err=True)
        raise typer.Exit(1) from None


def same_command() -> str:
    """Give the present command again, quoted for a shell, without the password of a URL."""
    return shlex.join(["aesearch", *map(_without_password, sys.argv[1:])])


def _without_password(word: str) -> str:
    if "://" not in word:
        return word
    from aesearch.studies.store.connection import database, driver_errors  # noqa: PLC0415 - SQLAlchemy

    option, equals, url = word.partition("=") if word.startswith("-") else ("", "", word)
    try:
        return option + equals + driver_errors.describe(database.parse_url(url))
    except AesearchError:
        # Nobody knows where in it a password ends.
        return f"{option}{equals}{url.partition('://')[0]}://***"
