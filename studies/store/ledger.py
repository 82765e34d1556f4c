"""Who works on what: units of work, their claims and leases; results are written elsewhere.

A unit of work (a *lease* row) is a generation of the search, a chunk of the retraining, or
the look at the test set. What its owner writes is a pure function of the study and of what
was finished before, so work that is done twice is harmless; the token makes sure that only
the present owner writes, and that one who slept too long is told.
"""

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from aesearch.studies.results.records import Progress
from aesearch.studies.store import tables
from aesearch.studies.store.connection.database import reading, writing
from aesearch.studies.store.connection.retry import lease_s, repeatable
from aesearch.studies.store.study_rows import StudyRow, clock

ALL_KINDS = ("search", "retrain", "evaluate")
MAX_ATTEMPTS = 3
# Deaths after a rung that was there before. Many more than deaths before any: who gets that far
# mostly dies by chance, and ten deaths by chance are promised to do no harm; but not without end.
MAX_REPEATED = 30


class LeaseLostError(Exception):
    """Somebody else holds this work now; whatever its old owner did is void."""


@dataclass(frozen=True)
class Lease:
    """A claim on one unit of work: trials or seeds ``first`` … ``first + size - 1``."""

    study_id: int
    kind: str
    position: int
    first: int
    size: int
    token: str
    attempt: int
    repeated: int = 0

    @property
    def members(self) -> range:
        """Trial numbers of a generation, seed indices of a retraining."""
        return range(self.first, self.first + self.size)


def claim(
    engine: Engine,
    study: StudyRow,
    *,
    owner: str,
    lookahead: int,
    kinds: Iterable[str] = ALL_KINDS,
    beside_retraining: bool = False,
    seconds: float | None = None,
) -> Lease | None:
    """Take the first unit of work that is free.

    A generation is free when nobody holds it (or its lease has expired by the database's
    clock), every generation ``lookahead`` or more before it is done, no choice has been made,
    and the study's deadline has not passed. Retraining waits for nothing (it exists only once
    the search is over); the test waits for all retraining.

    Parameters
    ----------
    beside_retraining : bool
        Take the test also while others hold all retraining that is left: much of it needs no
        retrained network.
    seconds : float, optional
        Until the lease expires; None for ``lease_s()``.

    Returns
    -------
    Lease or None
        None when there is nothing to take at this moment.
    """
    duration = lease_s() if seconds is None else seconds
    # Drawn once: a claim that is repeated because nobody knows whether it was carried out
    # finds its own token.
    token = secrets.token_hex(16)
    return _claim(
        engine,
        study.study_id,
        tuple(kinds),
        lookahead=lookahead,
        beside_retraining=beside_retraining,
        owner=owner,
        seconds=duration,
        token=token,
    )


@repeatable
def _claim(
    engine: Engine,
    study_id: int,
    kinds: tuple[str, ...],
    *,
    lookahead: int,
    beside_retraining: bool,
    owner: str,
    seconds: float,
    token: str,
) -> Lease | None:
    table = tables.lease
    with writing(engine) as connection:
        mine = connection.execute(
            sa.select(table).where(table.c.study_id == study_id, table.c.token == token)
        ).one_or_none()
        if mine is not None:
            return _lease(mine)
        row = _first_free(
            connection,
            study_id,
            kinds,
            lookahead,
            beside_retraining=beside_retraining,
            lock=True,
        )
        if row is None:
            return None
        connection.execute(
            table.update()
            .where(*this_work(study_id, row.kind, row.position))
            .values(
                owner=owner,
                token=token,
                attempt=row.attempt + 1,
                claimed=clock(connection),
                expires=clock(connection) + seconds,
                progress=None,
            )
        )
    return replace(_lease(row), token=token, attempt=row.attempt + 1)


def _first_free(
    connection: Connection,
    study_id: int,
    kinds: Iterable[str],
    lookahead: int,
    *,
    beside_retraining: bool = False,
    lock: bool,
) -> Any | None:
    """Find the row of the first free unit of work, if asked for locked against other claims."""
    table = tables.lease
    for kind in kinds:
        first_open = connection.execute(
            sa.select(sa.func.min(table.c.position)).where(*_open(study_id, kind))
        ).scalar()
        if first_open is None:
            continue
        free = sa.or_(table.c.expires.is_(None), table.c.expires < clock(connection))
        query = (
            sa.select(table).where(*_open(study_id, kind), free).order_by(table.c.position).limit(1)
        )
        if kind == "search":
            if not _searching(connection, study_id, lock=lock):
                continue
            query = query.where(table.c.position < first_open + lookahead)
        if lock:
            # A row that is locked is being taken or renewed: not waited for.
            query = query.with_for_update(skip_locked=True)
        if kind == "evaluate":
            retraining = sa.select(table.c.position).where(*_open(study_id, "retrain")).limit(1)
            if beside_retraining:
                retraining = retraining.where(free)
            if connection.execute(retraining).first():
                continue
        row = connection.execute(query).one_or_none()
        if row is not None:
            return row
    return None


def _open(study_id: int, kind: str) -> tuple[Any, ...]:
    table = tables.lease
    return table.c.study_id == study_id, table.c.kind == kind, table.c.done.is_(False)


def _searching(connection: Connection, study_id: int, *, lock: bool) -> bool:
    """Whether trials may be begun; if locked, no choice can be made before the transaction ends."""
    table = tables.study
    query = sa.select(table.c.study_id).where(
        table.c.study_id == study_id,
        table.c.chosen_trial_id.is_(None),
        sa.or_(table.c.deadline.is_(None), table.c.deadline > clock(connection)),
    )
    if lock:
        query = query.with_for_update(read=True)
    return connection.execute(query).first() is not None


def _lease(row: Any) -> Lease:
    unit = (row.study_id, row.kind, row.position, row.first, row.size)
    return Lease(*unit, row.token, row.attempt, row.repeated or 0)


@repeatable
def claimable(
    engine: Engine, study: StudyRow, *, lookahead: int, kinds: Iterable[str] = ALL_KINDS
) -> bool:
    """Whether a claim would give something at this moment; nothing is taken."""
    with reading(engine) as connection:
        row = _first_free(connection, study.study_id, kinds, lookahead, lock=False)
    return row is not None


@repeatable
def past_deadline(engine: Engine, study: StudyRow) -> bool:
    """Whether a study's time limit is over: no generation is begun any more."""
    with reading(engine) as connection:
        return _past_deadline(connection, study.study_id)


@repeatable
def search_is_over(engine: Engine, study: StudyRow) -> bool:
    """Whether a winner may be chosen; see ``no_search_left``."""
    with reading(engine) as connection:
        return no_search_left(connection, study.study_id)


def no_search_left(connection: Connection, study_id: int) -> bool:
    """Whether every generation is done, or the deadline has passed and nobody holds one."""
    table = tables.lease
    undone = sa.select(table.c.position).where(*_open(study_id, "search")).limit(1)
    if connection.execute(undone).first() is None:
        return True
    held = undone.where(table.c.expires >= clock(connection))
    return _past_deadline(connection, study_id) and connection.execute(held).first() is None


def _past_deadline(connection: Connection, study_id: int) -> bool:
    table = tables.study
    passed = sa.select(table.c.study_id).where(
        table.c.study_id == study_id, table.c.deadline <= clock(connection)
    )
    return connection.execute(passed).first() is not None


@repeatable
def forgive(engine: Engine, study: StudyRow) -> None:
    """Forget the failed attempts at unfinished retraining: a person has mended the cause."""
    table = tables.lease
    with writing(engine) as connection:
        connection.execute(
            table.update()
            .where(
                table.c.study_id == study.study_id,
                table.c.kind != "search",
                table.c.done.is_(False),
            )
            .values(attempt=0)
        )


def renew(engine: Engine, lease: Lease, progress: Progress, seconds: float | None = None) -> None:
    """Keep a claim and say how far it is; raises LeaseLostError when it is somebody else's.

    Not repeated while the store is away: the next renewal is as good.
    """
    duration = lease_s() if seconds is None else seconds
    with writing(engine) as connection:
        require_held(connection, lease)
        connection.execute(
            tables.lease.update()
            .where(*this_work(lease.study_id, lease.kind, lease.position))
            .values(expires=clock(connection) + duration, progress=json.dumps(progress))
        )


@repeatable
def release(engine: Engine, lease: Lease) -> None:
    """Give unfinished work back at once; the attempt does not count."""
    with writing(engine) as connection:
        connection.execute(
            tables.lease.update()
            .where(*this_work(lease.study_id, lease.kind, lease.position))
            .where(tables.lease.c.token == lease.token, tables.lease.c.done.is_(False))
            .values(**_FREE, **_uncounted())
        )


@repeatable
def free_owner(engine: Engine, owner: str, *, counts: bool = True) -> bool:
    """Let the work of a process that is known to be dead be taken at once.

    Parameters
    ----------
    counts : bool
        Whether its attempts count; False for a process that was asked to end.

    Returns
    -------
    bool
        Whether it had got somewhere with the work that it held.
    """
    table = tables.lease
    held = (table.c.owner == owner, table.c.done.is_(False))
    with writing(engine) as connection:
        # Whatever is written sets the attempts back.
        progressed = connection.execute(
            sa.select(table.c.position).where(*held, table.c.attempt == 0).limit(1)
        ).first()
        values = _FREE if counts else _FREE | _uncounted()
        connection.execute(table.update().where(*held).values(**values))
    return progressed is not None


_FREE: dict[str, Any] = {"expires": None, "owner": None, "token": None}


def _uncounted() -> dict[str, Any]:
    """Take an attempt back, whether it has written something or not."""
    attempt, repeated = tables.lease.c.attempt, sa.func.coalesce(tables.lease.c.repeated, 0)
    return {
        "attempt": sa.case((attempt > 0, attempt - 1), else_=0),
        "repeated": sa.case(((attempt == 0) & (repeated > 0), repeated - 1), else_=repeated),
    }


@repeatable
def owners(engine: Engine, study: StudyRow) -> list[str]:
    """Who holds unfinished work of a study at this moment, or held it last."""
    table = tables.lease
    with reading(engine) as connection:
        rows = connection.execute(
            sa.select(table.c.owner)
            .where(
                table.c.study_id == study.study_id,
                table.c.done.is_(False),
                table.c.owner.is_not(None),
            )
            .distinct()
        )
        return list(rows.scalars())


@repeatable
def is_there(engine: Engine, study: StudyRow, position: int) -> bool:
    """Whether a study has a generation of that position; not where its search ended before it."""
    table = tables.lease
    with reading(engine) as connection:
        query = sa.select(table.c.position).where(*this_work(study.study_id, "search", position))
        return connection.execute(query).first() is not None


@repeatable
def open_work(engine: Engine, study: StudyRow) -> dict[str, int]:
    """How many units of work of each kind are not done."""
    table = tables.lease
    with reading(engine) as connection:
        rows = connection.execute(
            sa.select(table.c.kind, sa.func.count())
            .where(table.c.study_id == study.study_id, table.c.done.is_(False))
            .group_by(table.c.kind)
        ).all()
    return {"search": 0, "retrain": 0, "evaluate": 0} | {row[0]: row[1] for row in rows}


def this_work(study_id: int, kind: str, position: int) -> tuple[Any, ...]:
    """Conditions that pick one row of the lease table."""
    table = tables.lease
    return (
        table.c.study_id == study_id,
        table.c.kind == kind,
        table.c.position == position,
    )


def require_held(connection: Connection, lease: Lease) -> None:
    """Raise LeaseLostError unless its owner still has the lease; holds the row until the commit."""
    token = connection.execute(
        sa.select(tables.lease.c.token)
        .where(*this_work(lease.study_id, lease.kind, lease.position))
        .with_for_update()
    ).scalar()
    if token != lease.token:
        raise LeaseLostError(f"{lease.kind} {lease.position} is not held by this worker any more")


def mark_done(connection: Connection, lease: Lease) -> None:
    """Mark a unit of work as finished, in the transaction that wrote its results."""
    connection.execute(
        tables.lease.update()
        .where(*this_work(lease.study_id, lease.kind, lease.position))
        .values(done=True, expires=None, token=None, finished=clock(connection))
    )
