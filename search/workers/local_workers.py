"""The worker processes that a run starts on this machine; what they do is in ``worker``."""

import hashlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from sqlalchemy.engine import Engine

from aesearch.options import STORAGE_VARIABLE
from aesearch.studies.errors import AesearchError, RunFailedError
from aesearch.studies.processes import lives
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.studies.store import ledger, study_rows
from aesearch.studies.store.study_rows import StudyRow
from aesearch.workers.worker_group import gpu_of, places

_GRACE_S = 30.0
_QUICK_DEATHS = 3


def default_workers(spec: ResolvedSpec, n_generations: int) -> int:
    """One worker per GPU, or per core of a CPU; never more than there is work for."""
    device = spec.compute.device
    here = 1 if device == "mps" else places(cuda=device == "cuda")
    return max(1, min(here, useful_workers(spec, n_generations)))


def useful_workers(spec: ResolvedSpec, n_generations: int) -> int:
    """How many workers a study ever has work for at once."""
    return max(min(spec.search.lookahead, n_generations), spec.retrain.seeds)


def worker_name(pid: int) -> str:
    """Owner of the leases of a process: where process ids are its own, and its own."""
    return f"{_place()}:{pid}"


@cache
def _place() -> str:
    """Name this machine, or this container of it: hosts may share a name, and process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        place = f"{boot}{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return socket.gethostname()
    return f"{socket.gethostname()}-{hashlib.sha256(place.encode()).hexdigest()[:4]}"


def free_the_dead(engine: Engine, study: StudyRow) -> None:
    """Let work be taken at once whose owner was a process of this machine that is gone.

    Without this, a run that was killed waits for its own old leases to expire.
    """
    for owner in ledger.owners(engine, study):
        place, _, pid = owner.rpartition(":")
        if place == _place() and pid.isdecimal() and not lives(int(pid)):
            ledger.free_owner(engine, owner)


def worker_command(study: str) -> list[str]:
    """Command line of a child of this process that serves one study to its end."""
    command = [sys.executable, "-m", "aesearch", "worker", "--study", study]
    return [*command, "--exit-when-idle", "--parent", str(os.getpid())]


class Workers:
    """Child processes that serve one study until it is finished.

    A child that dies is replaced; its lease is freed at once. Children that die again and
    again, and none of which gets anywhere, end the run.

    Parameters
    ----------
    storage : str
        Database URL, passed through the environment.
    folder : Path
        Where their logs go: ``worker-<n>.log``.
    """

    def __init__(
        self, engine: Engine, storage: str, name: str, count: int, folder: Path, *, cuda: bool
    ) -> None:
        self._engine = engine
        self._storage = storage
        self._name = name
        self._count = count
        self._folder = folder
        self._cuda = cuda
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = {}
        self._quick_deaths = 0
        self._open_at_death = math.inf

    def start(self) -> None:
        """Start all of them."""
        for index in range(self._count):
            self._start_one(index)

    def _start_one(self, index: int) -> None:
        environment = os.environ | {STORAGE_VARIABLE: self._storage, "OMP_NUM_THREADS": "1"}
        if self._cuda:
            environment |= gpu_of(index)
        with self._log(index).open("ab") as stream:
            self._children[index] = subprocess.Popen(  # noqa: S603 - our own interpreter
                worker_command(self._name),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                # Ctrl-C reaches the run, which tells its workers itself.
                start_new_session=True,
            )
        self._started[index] = time.monotonic()

    def _log(self, index: int) -> Path:
        return self._folder / f"worker-{index + 1}.log"

    def tend(self) -> bool:
        """Replace the dead.

        Returns
        -------
        bool
            Whether any worker is still there.

        Raises
        ------
        RunFailedError
            They die without doing anything; the last lines of a log say why.
        AesearchError
            One refused to work, with its message.
        """
        for index, child in list(self._children.items()):
            code = child.poll()
            if code is None:
                continue
            del self._children[index]
            if code == 0:
                continue
            progressed = ledger.free_owner(self._engine, worker_name(child.pid))
            lines = self._log(index).read_text(errors="replace").strip().splitlines()
            if code == AesearchError.exit_code:
                raise AesearchError(lines[-1].removeprefix("error: ") if lines else "no reason")
            if progressed or self._is_less_open():
                self._quick_deaths = 0
            elif time.monotonic() - self._started[index] < _GRACE_S:
                self._quick_deaths += 1
            if code == 1 or self._quick_deaths > _QUICK_DEATHS * self._count:
                last = lines[-1] if lines else f"exit code {code}"
                raise RunFailedError(
                    f"a worker failed: {last}; the whole story is in {self._log(index)}, and the "
                    "same command goes on from here"
                )
            self._start_one(index)
        return bool(self._children)

    def _is_less_open(self) -> bool:
        """Whether some work was done since the death before."""
        study = study_rows.find_study(self._engine, self._name)
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
