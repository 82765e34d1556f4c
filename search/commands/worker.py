"""The command ``worker``: one process that takes work, or keeps others that do."""

import logging
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import Annotated

import typer

from aesearch.commands.arguments import Storage
from aesearch.options import storage_or_default
from aesearch.studies.errors import AesearchError


def worker(  # noqa: PLR0917 - Typer calls it by name
    study: Annotated[
        str | None,
        typer.Option(
            help="Serve this study alone. Default: every unfinished one, the oldest first."
        ),
    ] = None,
    storage: Storage = None,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda or mps: take studies that train there; auto: all that can train here."
        ),
    ] = "auto",
    only: Annotated[
        str | None, typer.Option(help="Take this alone: search or retrain. Default: everything.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Keep so many processes running; auto: one per GPU, or per core without one. "
            "Default: this process alone.",
        ),
    ] = None,
    retry: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Wait so long for a store that is away. Default: AESEARCH_RETRY_S, or 300.",
        ),
    ] = None,
    *,
    exit_when_idle: Annotated[
        bool,
        typer.Option("--exit-when-idle", help="End when everything is finished, not only idle."),
    ] = False,
    parent: Annotated[
        int | None, typer.Option(help="End with the process of this id, which started this one.")
    ] = None,
) -> None:
    """Work on studies that 'aesearch run' has created, here or on another machine.

    Ctrl-C or SIGTERM gives unfinished work back at once. A password never belongs on a command
    line, which other users can read: AESEARCH_PASSWORD_FILE names the file that holds it.

    \b
    Examples:
      aesearch worker
      aesearch worker --workers auto --device cuda
      aesearch worker --study mnist --storage postgresql://me@host/studies --exit-when-idle
    """  # noqa: D301 - \b is Typer's
    stop = threading.Event()
    received: list[int] = []

    def ask_to_stop(number: int, _frame: FrameType | None) -> None:
        if received:  # the second time: whatever it is doing
            os._exit(128 + number)
        received.append(number)
        stop.set()

    before = {n: signal.signal(n, ask_to_stop) for n in (signal.SIGTERM, signal.SIGINT)}
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        from aesearch.workers.serve import serve  # noqa: PLC0415 - imports torch

        serve(
            study,
            storage_or_default(storage),
            device=device,
            only=only,
            workers=workers,
            retry=retry,
            stop=stop,
            parent=parent,
            exit_when_idle=exit_when_idle,
        )
    except AesearchError as error:
        # The run that started this worker repeats the last line as its own error.
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        if not received:
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
