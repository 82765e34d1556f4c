"""Who works on what: units of work, their claims and leases; results are written elsewhere.

A unit of work (a *lease* row) is a generation of the search, a chunk of the retraining, or
the look at the test set. What its owner writes is a pure function of the study and of what
was finished before, so work that is done twice is harmless; the token makes sure that only
the present owner writes, and that one who slept too long is told.
"""

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from aesearch.studies import tables
from aesearch.studies.database import reading, writing
from aesearch.studies.store import StudyRow, now

LEASE_S = 60.0
MAX_ATTEMPTS = 3


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
    kinds: Iterable[str] = ("search", "retrain", "evaluate"),
    seconds: float = LEASE_S,
) -> Lease | None:
    """Take the first unit of work that is free.

    A generation is free when nobody holds it (or its lease has expired by the database's
    clock) and every generation ``lookahead`` or more before it is done. Retraining waits
    for nothing (it exists only once the search is over); the test waits for all retraining.

    Returns
    -------
    Lease or None
        None when there is nothing to take at this moment.
    """
    table = tables.lease
    with writing(engine) as connection:
        moment = now(connection)
        open_rows = connection.execute(
            sa.select(table)
            .where(table.c.study_id == study.study_id, table.c.done.is_(False))
            .order_by(table.c.position)
            .with_for_update()
        ).all()
        # In position order, so the first row of a kind is the first that is open.
        first_open: dict[str, int] = {}
        for row in open_rows:
            first_open.setdefault(row.kind, row.position)
        for kind in kinds:
            for row in open_rows:
                if row.kind != kind or (row.expires is not None and row.expires >= moment):
                    continue
                if kind == "search" and row.position >= first_open["search"] + lookahead:
                    break
                if kind == "evaluate" and "retrain" in first_open:
                    break
                token = secrets.token_hex(16)
                connection.execute(
                    table.update()
                    .where(*this_work(row.study_id, kind, row.position))
                    .values(
                        owner=owner,
                        token=token,
                        attempt=row.attempt + 1,
                        expires=moment + seconds,
                        progress=None,
                    )
                )
                return Lease(
                    row.study_id, kind, row.position, row.first, row.size, token, row.attempt + 1
                )
    return None


def renew(
    engine: Engine, lease: Lease, progress: Mapping[str, Any], seconds: float = LEASE_S
) -> None:
    """Keep a claim and say how far it is; raises LeaseLostError when it is somebody else's."""
    with writing(engine) as connection:
        require_held(connection, lease)
        connection.execute(
            tables.lease.update()
            .where(*this_work(lease.study_id, lease.kind, lease.position))
            .values(expires=now(connection) + seconds, progress=json.dumps(progress))
        )


def release(engine: Engine, lease: Lease) -> None:
    """Give unfinished work back at once; the attempt does not count."""
    with writing(engine) as connection:
        connection.execute(
            tables.lease.update()
            .where(*this_work(lease.study_id, lease.kind, lease.position))
            .where(tables.lease.c.token == lease.token, tables.lease.c.done.is_(False))
            .values(
                expires=None,
                owner=None,
                token=None,
                attempt=sa.case((tables.lease.c.attempt > 0, tables.lease.c.attempt - 1), else_=0),
            )
        )


def free_owner(engine: Engine, owner: str) -> None:
    """Let the work of a process that is known to be dead be taken at once; the attempt counts."""
    with writing(engine) as connection:
        connection.execute(
            tables.lease.update()
            .where(tables.lease.c.owner == owner, tables.lease.c.done.is_(False))
            .values(expires=None, owner=None, token=None)
        )


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
        .values(done=True, expires=None, token=None)
    )
