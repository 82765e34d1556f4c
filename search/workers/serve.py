"""What ``aesearch worker`` does: serve a study, or every one, in this process or in several."""

import logging
import os
import threading

from aesearch.device import served_devices
from aesearch.studies.errors import AesearchError
from aesearch.studies.store.connection.driver_errors import describe
from aesearch.studies.store.connection.retry import Patience, lease_s, retry_s
from aesearch.studies.store.ledger import ALL_KINDS
from aesearch.studies.store.study_rows import existing_store
from aesearch.workers.owners import worker_name
from aesearch.workers.places import asked_workers
from aesearch.workers.processes import WorkerProcesses
from aesearch.workers.service import Service
from aesearch.workers.worker import KINDS, Worker

log = logging.getLogger("aesearch.worker")

_POLL_S = 0.2


def serve(
    study: str | None,
    storage: str,
    *,
    device: str,
    only: str | None,
    workers: str | None,
    retry: float | None,
    stop: threading.Event,
    parent: int | None,
    exit_when_idle: bool,
) -> None:
    """Serve what a store holds until it is finished, or told to stop.

    Parameters
    ----------
    study : str or None
        This one alone; None for every unfinished one, the oldest first.
    device : {"auto", "cpu", "cuda"}
        Take studies that train there.
    only : {"search", "retrain"} or None
        Take this work alone.
    workers : str or None
        A number or ``auto``: keep so many other processes running instead.
    retry : float or None
        Seconds to wait for a store that is away; None for what the environment says.
    stop : threading.Event
        Set to give unfinished work back and return.
    parent : int or None
        Process whose end is this one's end too.
    exit_when_idle : bool
        Return when everything is finished.

    Raises
    ------
    AesearchError
        An argument that cannot be meant, or a store that cannot be served.
    """
    if only is not None and only not in KINDS:
        raise AesearchError(f"only must be one of {', '.join(KINDS)}, got {only!r}")
    kinds = ALL_KINDS if only is None else KINDS[only]
    devices = served_devices(device)
    count = None if workers is None else asked_workers(workers, devices)
    patience = Patience(retry_s() if retry is None else retry, stop)
    lease_s()  # a value that cannot be used is said now, not by every study
    with existing_store(storage, patience) as engine:
        if count is not None:
            again = {"--study": study, "--device": device, "--only": only, "--retry": retry}
            arguments = [str(w) for pair in again.items() if pair[1] is not None for w in pair]
            arguments += ["--exit-when-idle"] if exit_when_idle else []
            crew = WorkerProcesses(engine, storage, arguments, count, cuda="cuda" in devices)
            keep(crew, stop, parent)
            return
        what = "every unfinished study" if study is None else f"study {study!r}"
        me = worker_name(os.getpid())
        log.info("%s serves %s in %s on %s", me, what, describe(engine.url), " and ".join(devices))
        if study is None:
            service = Service(engine, kinds=kinds, devices=devices, stop=stop, parent=parent)
            service.run(exit_when_idle=exit_when_idle)
        else:
            one = Worker(engine, study, kinds=kinds, devices=devices, stop=stop, parent=parent)
            one.run(exit_when_idle=exit_when_idle)
        if not stop.is_set():
            log.info("nothing is left to do here in %s", describe(engine.url))


def keep(crew: WorkerProcesses, stop: threading.Event, parent: int | None) -> None:
    """Return when every worker has ended by itself, or when told to stop."""
    try:
        crew.start()
        while not stop.is_set() and crew.tend() and parent in (None, os.getppid()):
            stop.wait(_POLL_S)
    finally:
        crew.stop()
