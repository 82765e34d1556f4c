"""The names under which workers own leases, and those whose process is gone; imports no torch."""

import hashlib
import socket
from functools import cache
from pathlib import Path

from sqlalchemy.engine import Engine

from aesearch.studies.processes import lives
from aesearch.studies.store import ledger
from aesearch.studies.store.study_rows import StudyRow


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
