"""The command ``worker``: one process that takes work of a study; what it does is in ``worker``."""

import logging
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import Annotated

import typer

from aesearch.options import STORAGE_VARIABLE, storage_or_default
from aesearch.studies.errors import AesearchError


def worker(
    study: Annotated[str, typer.Option(help="Name of the study.")],
    storage: Annotated[
        str | None,
        typer.Option(
            envvar=STORAGE_VARIABLE,
            help="Database URL or SQLite file. Default: aesearch.db in this folder.",
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Take this alone: search or retrain. Default: everything.")
    ] = None,
    *,
    exit_when_idle: Annotated[
        bool, typer.Option("--exit-when-idle", help="End when the study is finished.")
    ] = False,
    parent: Annotated[
        int | None, typer.Option(help="End with the process of this id, which started this one.")
    ] = None,
) -> None:
    """Work on a study that a run has created, here or on another machine.

    Ctrl-C or SIGTERM gives unfinished work back at once. 'aesearch run' starts its own workers.

    \b
    Example:
      aesearch worker --study mnist --storage postgresql://me@host/studies --exit-when-idle
    """  # noqa: D301 - \b is Typer's
    stop = threading.Event()
    received: list[int] = []

    def ask_to_stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        stop.set()

    before = {n: signal.signal(n, ask_to_stop) for n in (signal.SIGTERM, signal.SIGINT)}
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        _work(study, storage, only, stop, parent, exit_when_idle=exit_when_idle)
    except AesearchError as error:
        # The run that started this worker repeats the last line as its own error.
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(error.exit_code) from None
    except Exception as error:  # noqa: BLE001 - the run must learn why
        # A worker's stderr is its log: the traceback belongs there, the cause last.
        traceback.print_exc()
        typer.echo(f"error: {type(error).__name__}: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise typer.Exit(128 + received[0])


def _work(
    study: str,
    storage: str | None,
    only: str | None,
    stop: threading.Event,
    parent: int | None,
    *,
    exit_when_idle: bool,
) -> None:
    from aesearch.commands.stored import open_existing  # noqa: PLC0415 - imports SQLAlchemy
    from aesearch.worker import ALL_KINDS, KINDS, Worker  # noqa: PLC0415 - imports torch

    if only is not None and only not in KINDS:
        raise AesearchError(f"only must be one of {', '.join(KINDS)}, got {only!r}")
    engine = open_existing(storage_or_default(storage))
    try:
        kinds = ALL_KINDS if only is None else KINDS[only]
        Worker(engine, study, kinds=kinds, stop=stop, parent=parent).run(
            exit_when_idle=exit_when_idle
        )
    finally:
        engine.dispose()
