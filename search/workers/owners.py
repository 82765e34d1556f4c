"""The names under which workers own leases, and those whose process is gone; imports no torch."""

from sqlalchemy.engine import Engine

from aesearch.studies.processes import lives, place
from aesearch.studies.store import ledger
from aesearch.studies.store.study_rows import StudyRow


def worker_name(pid: int) -> str:
    """Owner of the leases of a process: where process ids are its own, and its own."""
    return f"{place()}:{pid}"


def free_the_dead(engine: Engine, study: StudyRow) -> None:
    """Let work be taken at once whose owner was a process of this machine that is gone.

    Without this, a run that was killed waits for its own old leases to expire.
    """
    for owner in ledger.owners(engine, study):
        where, _, pid = owner.rpartition(":")
        if where == place() and pid.isdecimal() and not lives(int(pid)):
            ledger.free_owner(engine, owner)
