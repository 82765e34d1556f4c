"""Workers as tasks of a Ray cluster, which places them and starts them again where they die.

A task runs the command ``aesearch worker`` and tells how it ended; nothing here knows a result.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any

from sqlalchemy.engine import URL

from aesearch.data.load import DATA_VARIABLE
from aesearch.options import STORAGE_VARIABLE
from aesearch.studies.errors import AesearchError, RunFailedError, StoreError
from aesearch.studies.store import ledger
from aesearch.studies.store.connection import database
from aesearch.studies.store.connection.passwords import password_from_file
from aesearch.studies.store.connection.retry import LEASE_VARIABLE, RETRY_VARIABLE
from aesearch.workers.owners import worker_name
from aesearch.workers.processes import serving, worker_command
from aesearch.workers.ray_cluster import ray_library

_STOP_S = 30.0
_POLL_S = 0.2
_PAUSE_S = 1.0
_ENDED_BY_ITSELF = (0, RunFailedError.exit_code, AesearchError.exit_code)


class WorkerDiedError(Exception):
    """A worker process was killed; Ray starts its task again, here or on another machine."""


def serve(
    storage: str, name: str, settings: dict[str, str]
) -> tuple[int, str]:  # pragma: no cover - runs in the cluster
    """Run one worker process to its end; the body of a Ray task.

    Parameters
    ----------
    storage : str
        Database URL, password and all; goes on through the environment.
    name : str
        Study.
    settings : dict
        Environment of the run that must be the same for its workers.

    Returns
    -------
    code, line : int, str
        Exit code and last line of its log.

    Raises
    ------
    WorkerDiedError
        It was killed.
    """
    child = subprocess.Popen(  # noqa: S603 - our own interpreter
        worker_command(serving(name)),
        env=os.environ | settings | {STORAGE_VARIABLE: storage, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stderr is not None, "it was asked for"
    last: deque[str] = deque(["no reason"], maxlen=1)
    copier = threading.Thread(target=_copy, args=(child.stderr, last), daemon=True)
    copier.start()
    # Ray cancels a task by SIGINT, which is ignored below a cluster that a script put into the
    # background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while child.poll() is None:
            time.sleep(_POLL_S)  # short, since a cancelled task learns of it between two of them
    finally:
        signal.signal(signal.SIGINT, before)
        if child.poll() is None:
            _end(child)
        copier.join(_STOP_S)
        child.stderr.close()
    if child.returncode not in _ENDED_BY_ITSELF:
        _free(storage, worker_name(child.pid))
        time.sleep(_PAUSE_S)
        raise WorkerDiedError(f"{worker_name(child.pid)}: exit code {child.returncode}")
    return child.returncode, last[0]


def _copy(stream: IO[bytes], last: deque[str]) -> None:
    # What the worker says stands in Ray's log of the task.
    for line in stream:
        text = line.decode(errors="replace")
        sys.stderr.write(text)
        if text.strip():
            last.append(text.strip())


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _free(storage: str, owner: str) -> None:
    # Otherwise the work waits for its lease: a matter of a minute, not of the result.
    with contextlib.suppress(StoreError):
        engine = database.open_engine(database.parse_url(storage))
        try:
            ledger.free_owner(engine, owner)
        finally:
            engine.dispose()


class RayWorkers:
    """Tasks that serve one study until it is finished; what ``WorkerProcesses`` are here.

    Parameters
    ----------
    url : URL
        Of the store, as every machine reaches it.
    gpus : float
        Of each worker.
    """

    def __init__(self, url: URL, name: str, count: int, *, gpus: float) -> None:
        if url.get_backend_name() == "sqlite":
            self._storage = url.set(database=str(Path(str(url.database)).absolute()))
        elif url.password is None:
            # The machines of the cluster need no password file of their own.
            self._storage = url.set(password=password_from_file().get("password"))
        else:
            self._storage = url
        self._name = name
        self._count = count
        self._gpus = gpus
        self._tasks: list[Any] = []

    def start(self) -> None:
        """Submit all of them; Ray starts each as soon as there is room."""
        settings = {
            name: os.environ[name]
            for name in (LEASE_VARIABLE, RETRY_VARIABLE, DATA_VARIABLE)
            if name in os.environ
        }
        if DATA_VARIABLE in settings:  # a task runs in a folder of its own
            settings[DATA_VARIABLE] = str(Path(settings[DATA_VARIABLE]).expanduser().absolute())
        task = (
            ray_library()
            .remote(serve)
            .options(
                name=f"aesearch worker {self._name}",
                num_cpus=1,
                num_gpus=self._gpus,
                max_retries=-1,
                retry_exceptions=[WorkerDiedError],
            )
        )
        storage = self._storage.render_as_string(hide_password=False)
        self._tasks = [task.remote(storage, self._name, settings) for _ in range(self._count)]

    def tend(self) -> bool:
        """Look at those that ended; the dead are Ray's to start again.

        Returns
        -------
        bool
            Whether any worker is still there, or waits for room.

        Raises
        ------
        RunFailedError
            One gave up, or the cluster did.
        AesearchError
            One refused to work, with its message.
        """
        ray = ray_library()
        try:
            ended, self._tasks = (
                ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
                if self._tasks
                else ([], [])
            )
            results = ray.get(ended)
        except (ray.exceptions.RayError, ConnectionError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise RunFailedError(
                f"a Ray task failed: {reason}; aesearch must be installed on every machine of "
                "the cluster, and the same command goes on from here"
            ) from error
        for code, line in results:
            if code == AesearchError.exit_code:
                raise AesearchError(line.removeprefix("error: "))
            if code != 0:
                raise RunFailedError(
                    f"a worker failed: {line}; the whole story is in Ray's log of the task, and "
                    "the same command goes on from here"
                )
        return bool(self._tasks)

    def stop(self) -> None:
        """Ask them to give their work back, and end those that do not."""
        if not self._tasks:
            return
        ray = ray_library()
        with contextlib.suppress(ray.exceptions.RayError, ConnectionError):
            for task in self._tasks:
                ray.cancel(task)
            _, left = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=_STOP_S)
            for task in left:
                ray.cancel(task, force=True)
        self._tasks = []
