"""Several worker processes as one: started together, started again when they die, ended together.

Those that ``aesearch run`` starts for its own study are in ``local_workers``.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from aesearch.studies.errors import AesearchError, RunFailedError

log = logging.getLogger("aesearch.worker")

_POLL_S = 0.2
_STOP_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_LONG_LIFE_S = 60.0


def processes(asked: str, devices: Sequence[str]) -> int:
    """How many worker processes a machine gets.

    Parameters
    ----------
    asked : str
        A number >= 1, or ``auto``: one per GPU where GPUs are served, else one per core.
    devices : sequence of str
        What the workers serve: ``cuda``, ``cpu`` or both.

    Raises
    ------
    AesearchError
        Anything else.
    """
    if asked == "auto":
        return places(cuda="cuda" in devices)
    if not asked.isdecimal() or int(asked) < 1:
        raise AesearchError(f"workers must be a number >= 1 or auto, got {asked!r}")
    return int(asked)


def places(*, cuda: bool) -> int:
    """How many workers this machine has room for: one per GPU or per core, one at least."""
    if cuda:
        return max(1, torch.cuda.device_count())
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def gpu_of(index: int) -> dict[str, str]:
    """Environment that shows the worker of a number one GPU only; GPUs take turns.

    Returns
    -------
    dict
        Empty where there is no GPU.
    """
    count = torch.cuda.device_count()
    if count == 0:
        return {}
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",")[:count] if named else [str(number) for number in range(count)]
    return {"CUDA_VISIBLE_DEVICES": names[index % len(names)]}


class WorkerGroup:
    """Worker processes that are kept running until they have nothing left to do.

    Parameters
    ----------
    arguments : sequence of str
        Of ``aesearch worker``; they hold no password.
    environment : callable(index) -> mapping
        What the environment of a worker adds to that of this process.
    on_death : callable(pid, asked)
        Told of every worker that did not end by itself, and whether it had been asked to.
    stop : threading.Event
        Set to end them all; each gives its work back.
    """

    def __init__(
        self,
        count: int,
        arguments: Sequence[str],
        *,
        environment: Callable[[int], Mapping[str, str]],
        on_death: Callable[[int, bool], None],
        stop: threading.Event,
    ) -> None:
        self._command = [
            *(sys.executable, "-m", "aesearch", "worker"),
            *(*arguments, "--parent", str(os.getpid())),
        ]
        self._environment = environment
        self._on_death = on_death
        self._stop = stop
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._began: dict[int, float] = {}
        self._pause = dict.fromkeys(range(count), 0.0)
        self._due = dict.fromkeys(range(count), 0.0)

    def run(self, parent: int | None = None) -> None:
        """Return when every worker has ended by itself, or when told to stop.

        Parameters
        ----------
        parent : int or None
            Process whose end is the end of all of them.

        Raises
        ------
        AesearchError, RunFailedError
            A worker refused to work, or failed: its last line on stderr says why.
        """
        try:
            while not self._stop.is_set() and (self._due or self._children):
                for index in [i for i, due in self._due.items() if due <= time.monotonic()]:
                    self._start(index)
                self._stop.wait(_POLL_S)
                for index, child in list(self._children.items()):
                    if child.poll() is not None:
                        del self._children[index]
                        self._ended(index, child)
                if parent is not None and os.getppid() != parent:
                    return
        finally:
            self._end_all()

    def _start(self, index: int) -> None:
        del self._due[index]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict(self._environment(index))
        self._children[index] = subprocess.Popen(  # noqa: S603 - our own interpreter
            self._command,
            env=environment,
            stdin=subprocess.DEVNULL,
            # Ctrl-C reaches this process, which tells the others itself.
            start_new_session=True,
        )
        self._began[index] = time.monotonic()

    def _ended(self, index: int, child: subprocess.Popen[bytes]) -> None:
        code = child.returncode
        if code == 0:
            return
        for error in (AesearchError, RunFailedError):  # this process ends as that one did
            if code == error.exit_code:
                raise error(f"worker {index + 1} ended with exit code {code}; see above why")
        self._on_death(child.pid, False)  # noqa: FBT003 - it is told by name in the docstring
        lived = time.monotonic() - self._began[index]
        longer = max(_FIRST_PAUSE_S, min(2 * self._pause[index], _LONGEST_PAUSE_S))
        self._pause[index] = _FIRST_PAUSE_S if lived > _LONG_LIFE_S else longer
        self._due[index] = time.monotonic() + self._pause[index]
        log.warning(
            "worker %d died (%s): started again in %.0f s",
            index + 1,
            signal.Signals(-code).name if code < 0 else f"exit code {code}",
            self._pause[index],
        )

    def _end_all(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for child in self._children.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                self._on_death(child.pid, True)  # noqa: FBT003 - as above
        self._children.clear()
