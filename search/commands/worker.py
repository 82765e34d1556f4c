"""The command ``worker``: one process that takes work; what it does is in ``service``."""

import logging
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from aesearch.commands.arguments import Storage
from aesearch.options import STORAGE_VARIABLE, storage_or_default
from aesearch.studies.errors import AesearchError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from aesearch.workers.worker_group import WorkerGroup


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
        _work(
            study,
            storage,
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


def _work(
    study: str | None,
    storage: str | None,
    *,
    device: str,
    only: str | None,
    workers: str | None,
    retry: float | None,
    stop: threading.Event,
    parent: int | None,
    exit_when_idle: bool,
) -> None:
    from aesearch.device import served_devices  # noqa: PLC0415
    from aesearch.studies.store.driver_errors import describe  # noqa: PLC0415
    from aesearch.studies.store.ledger import ALL_KINDS  # noqa: PLC0415
    from aesearch.studies.store.retry import Patience, lease_s, retry_s  # noqa: PLC0415
    from aesearch.studies.store.study_rows import existing_store  # noqa: PLC0415
    from aesearch.workers.local_workers import worker_name  # noqa: PLC0415
    from aesearch.workers.service import Service  # noqa: PLC0415 - imports torch
    from aesearch.workers.worker import KINDS, Worker  # noqa: PLC0415
    from aesearch.workers.worker_group import processes  # noqa: PLC0415

    if only is not None and only not in KINDS:
        raise AesearchError(f"only must be one of {', '.join(KINDS)}, got {only!r}")
    kinds = ALL_KINDS if only is None else KINDS[only]
    devices = served_devices(device)
    count = None if workers is None else processes(workers, devices)
    patience = Patience(retry_s() if retry is None else retry, stop)
    lease_s()  # a value that cannot be used is said now, not by every study
    with existing_store(storage_or_default(storage), patience) as engine:
        if count is not None:
            again = {"--study": study, "--device": device, "--only": only, "--retry": retry}
            arguments = [str(w) for pair in again.items() if pair[1] is not None for w in pair]
            arguments += ["--exit-when-idle"] if exit_when_idle else []
            _group(engine, count, arguments, storage, cuda="cuda" in devices, stop=stop).run(parent)
            return
        what = "every unfinished study" if study is None else f"study {study!r}"
        me = worker_name(os.getpid())
        logging.getLogger("aesearch.worker").info(
            "%s serves %s in %s on %s", me, what, describe(engine.url), " and ".join(devices)
        )
        if study is None:
            service = Service(engine, kinds=kinds, devices=devices, stop=stop, parent=parent)
            service.run(exit_when_idle=exit_when_idle)
        else:
            one = Worker(engine, study, kinds=kinds, devices=devices, stop=stop, parent=parent)
            one.run(exit_when_idle=exit_when_idle)
        if not stop.is_set():
            logging.getLogger("aesearch.worker").info(
                "nothing is left to do here in %s", describe(engine.url)
            )


def _group(
    engine: "Engine",
    count: int,
    arguments: list[str],
    storage: str | None,
    *,
    cuda: bool,
    stop: threading.Event,
) -> "WorkerGroup":
    from aesearch.studies.store import ledger  # noqa: PLC0415
    from aesearch.workers.local_workers import worker_name  # noqa: PLC0415
    from aesearch.workers.worker_group import WorkerGroup, gpu_of  # noqa: PLC0415

    def environment(index: int) -> dict[str, str]:
        store = {STORAGE_VARIABLE: storage_or_default(storage)}
        return store | (gpu_of(index) if cuda else {})

    def on_death(pid: int, asked: bool) -> None:
        ledger.free_owner(engine, worker_name(pid), counts=not asked)

    return WorkerGroup(count, arguments, environment=environment, on_death=on_death, stop=stop)
