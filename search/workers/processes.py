"""Worker processes of this machine: started, replaced when they die, ended; ``worker`` works."""

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.engine import Engine

from aesearch.options import STORAGE_VARIABLE
from aesearch.studies.errors import AesearchError, RunFailedError
from aesearch.studies.store import ledger, study_rows
from aesearch.workers.owners import worker_name
from aesearch.workers.places import gpu_of

log = logging.getLogger("aesearch.worker")

_GRACE_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_QUICK_DEATHS = 3


def serving(study: str) -> list[str]:
    """Arguments of a worker that serves one study to its end."""
    return ["--study", study, "--exit-when-idle"]


def worker_command(arguments: Sequence[str]) -> list[str]:
    """Command line of a worker that ends with this process, which starts it."""
    command = [sys.executable, "-m", "aesearch", "worker", *arguments]
    return [*command, "--parent", str(os.getpid())]


class WorkerProcesses:
    """Child processes that work until they find nothing left to do.

    The work of one that dies is freed, and another takes its place: at once where something was
    done since the death before, else after a pause that doubles with every death.

    Parameters
    ----------
    storage : str
        Database URL, passed through the environment: it may hold a password.
    arguments : sequence of str
        Of ``aesearch worker``.
    cuda : bool
        Give each one of the GPUs.
    study : str, optional
        What they serve, where that is one study. When they die again and again and nobody gets
        anywhere with it, they are given up.
    folder : Path, optional
        Where their logs go: ``worker-<n>.log``. None for the standard error of this process.
    """

    def __init__(
        self,
        engine: Engine,
        storage: str,
        arguments: Sequence[str],
        count: int,
        *,
        cuda: bool,
        study: str | None = None,
        folder: Path | None = None,
    ) -> None:
        self._engine = engine
        self._storage = storage
        self._command = worker_command(arguments)
        self._count = count
        self._cuda = cuda
        self._study = study
        self._folder = folder
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = {}
        self._due: dict[int, float] = {}  # when another takes the place of one that died
        self._deaths: Counter[int] = Counter()  # soon after the start, and nothing was done
        self._open_at_death = math.inf

    def start(self) -> None:
        """Start all of them."""
        for index in range(self._count):
            self._start_one(index)

    def _start_one(self, index: int) -> None:
        environment = os.environ | {STORAGE_VARIABLE: self._storage, "OMP_NUM_THREADS": "1"}
        if self._cuda:
            environment |= gpu_of(index)
        stream = None if self._folder is None else self._log(self._folder, index).open("ab")
        self._children[index] = subprocess.Popen(  # noqa: S603 - our own interpreter
            self._command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            # Ctrl-C reaches this process, which tells its workers itself.
            start_new_session=True,
        )
        if stream is not None:
            stream.close()
        self._started[index] = time.monotonic()

    @staticmethod
    def _log(folder: Path, index: int) -> Path:
        return folder / f"worker-{index + 1}.log"

    def tend(self) -> bool:
        """Replace the dead.

        Returns
        -------
        bool
            Whether any worker is still there, or will be.

        Raises
        ------
        RunFailedError
            One failed, or they die without doing anything; says why.
        AesearchError
            One refused to work, with its message.
        """
        for index, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[index]
                if child.returncode != 0:
                    self._due[index] = time.monotonic() + self._pause_after(index, child)
        for index in [i for i, due in self._due.items() if due <= time.monotonic()]:
            del self._due[index]
            self._start_one(index)
        return bool(self._children or self._due)

    def _pause_after(self, index: int, child: "subprocess.Popen[bytes]") -> float:
        """Seconds until another worker takes the place of one that died."""
        code = child.returncode
        progressed = ledger.free_owner(self._engine, worker_name(child.pid))
        if code == AesearchError.exit_code:
            raise AesearchError(self._last_words(index, code).removeprefix("error: "))
        if progressed or self._is_less_open():
            self._deaths.clear()
        elif time.monotonic() - self._started[index] < _GRACE_S:
            self._deaths[index] += 1
        else:
            self._deaths[index] = 0
        hopeless = self._study is not None and self._deaths.total() > _QUICK_DEATHS * self._count
        if code == RunFailedError.exit_code or hopeless:
            raise RunFailedError(f"a worker failed: {self._last_words(index, code)}")
        pause = 0.0
        if self._deaths[index]:
            pause = min(_FIRST_PAUSE_S * 2 ** (self._deaths[index] - 1), _LONGEST_PAUSE_S)
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        log.info("worker %d died (%s): started again in %.0f s", index + 1, cause, pause)
        return pause

    def _last_words(self, index: int, code: int) -> str:
        if self._folder is None:
            return f"worker {index + 1} ended with exit code {code}; see above why"
        path = self._log(self._folder, index)
        lines = path.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else f"exit code {code}"
        if code == AesearchError.exit_code:
            return last
        return f"{last}; the whole story is in {path}, and the same command goes on from here"

    def _is_less_open(self) -> bool:
        """Whether some work was done since the death before."""
        if self._study is None:
            return False
        study = study_rows.find_study(self._engine, self._study)
        before = self._open_at_death
        self._open_at_death = sum(ledger.open_work(self._engine, study).values())
        return self._open_at_death < before < math.inf

    def stop(self) -> None:
        """Ask them to give their work back, and end those that do not."""
        for child in self._children.values():
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        for child in self._children.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                # It was asked to end, in the middle of a long epoch.
                ledger.free_owner(self._engine, worker_name(child.pid), counts=False)
        self._children.clear()
        self._due.clear()
