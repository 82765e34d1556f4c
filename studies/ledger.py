"""Who works on what, and the results they write: claims, leases, suggestions, rungs.

A unit of work (a *lease* row) is a generation of the search, a chunk of the retraining, or
the look at the test set. What its owner writes is a pure function of the study and of what
was finished before, so work that is done twice is harmless; the token makes sure that only
the present owner writes, and that one who slept too long is told.
"""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection, Engine

from aesearch.studies import optuna_rows, tables
from aesearch.studies.database import reading, writing
from aesearch.studies.store import StudyRow, lease_row, now, to_sql

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


@dataclass(frozen=True)
class FoldCurve:
    """Losses of one fold of one trial over consecutive epochs (MSE per pixel)."""

    number: int
    fold: int
    first_epoch: int
    train: Sequence[float]
    validation: Sequence[float]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    number: int
    state: TrialState
    value: float | None = None
    fold_scores: tuple[float, ...] = ()
    user_attributes: Mapping[str, Any] | None = None
    system_attributes: Mapping[str, Any] | None = None


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
                    .where(*_is(row.study_id, kind, row.position))
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
        _check(connection, lease)
        connection.execute(
            tables.lease.update()
            .where(*_is(lease.study_id, lease.kind, lease.position))
            .values(expires=now(connection) + seconds, progress=json.dumps(progress))
        )


def release(engine: Engine, lease: Lease) -> None:
    """Give unfinished work back at once; the attempt does not count."""
    with writing(engine) as connection:
        connection.execute(
            tables.lease.update()
            .where(*_is(lease.study_id, lease.kind, lease.position))
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


def unsuggested(engine: Engine, study: StudyRow, position: int) -> list[Lease]:
    """Generations up to ``position`` whose trials have no parameters yet, in order."""
    table = tables.lease
    with reading(engine) as connection:
        rows = connection.execute(
            sa.select(table)
            .where(
                table.c.study_id == study.study_id,
                table.c.kind == "search",
                table.c.position <= position,
                table.c.suggested.is_(False),
            )
            .order_by(table.c.position)
        ).all()
    return [Lease(r.study_id, r.kind, r.position, r.first, r.size, "", r.attempt) for r in rows]


def history(engine: Engine, study: StudyRow) -> tuple[list[FrozenTrial], list[int]]:
    """Every trial in number order, and the first trial number of every generation."""
    table = tables.lease
    with reading(engine) as connection:
        firsts = connection.execute(
            sa.select(table.c.first)
            .where(table.c.study_id == study.study_id, table.c.kind == "search")
            .order_by(table.c.position)
        ).scalars()
        return optuna_rows.frozen_trials(connection, study.study_id), list(firsts)


def write_suggestions(
    engine: Engine,
    generation: Lease,
    suggestions: Sequence[Mapping[str, Any]],
    distributions: Mapping[str, BaseDistribution],
) -> None:
    """Give a generation's trials their parameters; the first writer wins."""
    table = tables.lease
    with writing(engine) as connection:
        changed = connection.execute(
            table.update()
            .where(*_is(generation.study_id, "search", generation.position))
            .where(table.c.suggested.is_(False))
            .values(suggested=True)
        ).rowcount
        if not changed:
            return
        ids = optuna_rows.trial_ids(connection, generation.study_id)
        for number, params in zip(generation.members, suggestions, strict=True):
            optuna_rows.start_trial(connection, ids[number], params, distributions)


def write_rung(
    engine: Engine,
    lease: Lease,
    *,
    curves: Sequence[FoldCurve],
    reports: Mapping[int, Mapping[int, float]],
    outcomes: Sequence[Outcome],
    done: bool,
) -> None:
    """Record what a generation did since the last rung, in one transaction.

    Parameters
    ----------
    curves : sequence of FoldCurve
        Losses of every fold since the last rung.
    reports : mapping of trial number to {epoch: mean over folds}
        What Optuna sees as intermediate values.
    outcomes : sequence of Outcome
        Trials that ended here (pruned, failed, complete).
    done : bool
        Whether the whole generation is finished.

    Raises
    ------
    LeaseLostError
        The lease is somebody else's by now; nothing is written.
    """
    with writing(engine) as connection:
        _check(connection, lease)
        ids = optuna_rows.trial_ids(connection, lease.study_id)
        rows = [
            {
                "trial_id": ids[curve.number],
                "fold": curve.fold,
                "epoch": curve.first_epoch + i,
                "train_loss": to_sql(train),
                "validation_loss": to_sql(validation),
            }
            for curve in curves
            for i, (train, validation) in enumerate(zip(curve.train, curve.validation, strict=True))
        ]
        optuna_rows.insert_new(connection, tables.curve, rows)
        for number, values in reports.items():
            optuna_rows.report(connection, ids[number], values)
        for outcome in outcomes:
            _write_outcome(connection, ids[outcome.number], outcome)
        connection.execute(
            tables.lease.update()
            .where(*_is(lease.study_id, lease.kind, lease.position))
            .values(attempt=0, done=done, **({"expires": None, "token": None} if done else {}))
        )


def _write_outcome(connection: Connection, trial_id: int, outcome: Outcome) -> None:
    written = optuna_rows.finish_trial(
        connection,
        trial_id,
        outcome.state,
        value=outcome.value,
        user_attributes=outcome.user_attributes,
        system_attributes=outcome.system_attributes,
    )
    if written:
        rows = [
            {"trial_id": trial_id, "fold": fold, "score": to_sql(score), "status": "complete"}
            for fold, score in enumerate(outcome.fold_scores)
        ]
        optuna_rows.insert_new(connection, tables.fold, rows)


def begin_retraining(
    engine: Engine,
    study: StudyRow,
    *,
    number: int,
    retrain_key: str,
    chunks: Sequence[range],
) -> None:
    """Record which trial was chosen and lay out its retraining, unless that stands already.

    Chunks whose seeds are in the store already (the same configuration was chosen before)
    are done at once; another choice than last time starts from nothing.
    """
    lease, rows = tables.lease, tables.retrain
    with writing(engine) as connection:
        chosen = optuna_rows.trial_ids(connection, study.study_id)[number]
        current = connection.execute(
            sa.select(tables.study.c.chosen_trial_id, tables.study.c.retrain_key).where(
                tables.study.c.study_id == study.study_id
            )
        ).one()
        if tuple(current) == (chosen, retrain_key):
            return
        connection.execute(
            tables.study.update()
            .where(tables.study.c.study_id == study.study_id)
            .values(chosen_trial_id=chosen, retrain_key=retrain_key)
        )
        connection.execute(
            lease.delete().where(lease.c.study_id == study.study_id, lease.c.kind != "search")
        )
        finished = {
            row.seed_index: row.test_mse
            for row in connection.execute(
                sa.select(rows.c.seed_index, rows.c.test_mse).where(
                    rows.c.study_id == study.study_id, rows.c.retrain_key == retrain_key
                )
            )
        }
        new = [
            lease_row(study.study_id, "retrain", position, chunk.start, len(chunk))
            | {"done": all(index in finished for index in chunk)}
            for position, chunk in enumerate(chunks)
        ]
        n_seeds = sum(len(chunk) for chunk in chunks)
        looked = len(finished) == n_seeds and all(m is not None for m in finished.values())
        new.append(lease_row(study.study_id, "evaluate", 0, 0, n_seeds) | {"done": looked})
        optuna_rows.insert_new(connection, lease, new)


def reopen_choice(engine: Engine, study: StudyRow) -> None:
    """Forget what was chosen while the search is open again; retrained seeds stay in the store."""
    with writing(engine) as connection:
        connection.execute(
            tables.study.update()
            .where(tables.study.c.study_id == study.study_id)
            .values(chosen_trial_id=None, retrain_key=None)
        )
        connection.execute(
            tables.lease.delete().where(
                tables.lease.c.study_id == study.study_id, tables.lease.c.kind != "search"
            )
        )


def write_retrained(
    engine: Engine,
    lease: Lease,
    retrain_key: str,
    seeds: Sequence[Mapping[str, Any]],
    curves: Mapping[int, Sequence[tuple[float, float]]],
) -> None:
    """Record the retrained seeds of one chunk with their weights and curves; the chunk is done.

    ``curves`` maps a seed index to its (train, validation) losses from epoch 1 on.
    """
    with writing(engine) as connection:
        _check(connection, lease)
        key = {"study_id": lease.study_id, "retrain_key": retrain_key}
        optuna_rows.insert_new(connection, tables.retrain, [key | dict(seed) for seed in seeds])
        rows = [
            key
            | {
                "seed_index": index,
                "epoch": epoch,
                "train_loss": to_sql(train),
                "validation_loss": to_sql(validation),
            }
            for index, losses in curves.items()
            for epoch, (train, validation) in enumerate(losses, start=1)
        ]
        optuna_rows.insert_new(connection, tables.retrain_curve, rows)
        _delete_checkpoint(connection, lease)
        _finish(connection, lease)


def retrained(engine: Engine, study: StudyRow) -> list[Any]:
    """Rows of the retrained seeds of the chosen configuration, weights included, by seed index."""
    table = tables.retrain
    with reading(engine) as connection:
        return list(
            connection.execute(
                sa.select(table)
                .where(table.c.study_id == study.study_id, table.c.retrain_key == study.retrain_key)
                .order_by(table.c.seed_index)
            )
        )


def retrain_curves(engine: Engine, study: StudyRow) -> list[Any]:
    """Rows (seed_index, epoch, train_loss, validation_loss) of the chosen configuration."""
    table = tables.retrain_curve
    with reading(engine) as connection:
        return list(
            connection.execute(
                sa.select(
                    table.c.seed_index, table.c.epoch, table.c.train_loss, table.c.validation_loss
                )
                .where(table.c.study_id == study.study_id, table.c.retrain_key == study.retrain_key)
                .order_by(table.c.seed_index, table.c.epoch)
            )
        )


def write_test(engine: Engine, lease: Lease, retrain_key: str, mse: Mapping[int, float]) -> None:
    """Record the one look at the test set: mean squared error per pixel by seed index."""
    with writing(engine) as connection:
        _check(connection, lease)
        for index, value in mse.items():
            connection.execute(
                tables.retrain.update()
                .where(
                    tables.retrain.c.study_id == lease.study_id,
                    tables.retrain.c.retrain_key == retrain_key,
                    tables.retrain.c.seed_index == index,
                )
                .values(test_mse=value)
            )
        connection.execute(
            tables.study.update()
            .where(tables.study.c.study_id == lease.study_id)
            .values(test_looks=tables.study.c.test_looks + 1)
        )
        _finish(connection, lease)


def write_checkpoint(engine: Engine, lease: Lease, key: str, payload: bytes) -> None:
    """Replace the checkpoint of this work; ``key`` says what it belongs to."""
    with writing(engine) as connection:
        _check(connection, lease)
        _delete_checkpoint(connection, lease)
        connection.execute(
            tables.checkpoint.insert().values(
                study_id=lease.study_id,
                kind=lease.kind,
                position=lease.position,
                key=key,
                payload=payload,
            )
        )
        connection.execute(
            tables.lease.update()
            .where(*_is(lease.study_id, lease.kind, lease.position))
            .values(attempt=0)
        )


def read_checkpoint(engine: Engine, lease: Lease, key: str) -> bytes | None:
    """Return the last checkpoint of this work if it belongs to ``key``."""
    table = tables.checkpoint
    with reading(engine) as connection:
        return connection.execute(
            sa.select(table.c.payload).where(
                table.c.study_id == lease.study_id,
                table.c.kind == lease.kind,
                table.c.position == lease.position,
                table.c.key == key,
            )
        ).scalar()


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


def _is(study_id: int, kind: str, position: int) -> tuple[Any, ...]:
    table = tables.lease
    return (
        table.c.study_id == study_id,
        table.c.kind == kind,
        table.c.position == position,
    )


def _check(connection: Connection, lease: Lease) -> None:
    token = connection.execute(
        sa.select(tables.lease.c.token)
        .where(*_is(lease.study_id, lease.kind, lease.position))
        .with_for_update()
    ).scalar()
    if token != lease.token:
        raise LeaseLostError(f"{lease.kind} {lease.position} is not held by this worker any more")


def _finish(connection: Connection, lease: Lease) -> None:
    connection.execute(
        tables.lease.update()
        .where(*_is(lease.study_id, lease.kind, lease.position))
        .values(done=True, expires=None, token=None)
    )


def _delete_checkpoint(connection: Connection, lease: Lease) -> None:
    table = tables.checkpoint
    connection.execute(
        table.delete().where(
            table.c.study_id == lease.study_id,
            table.c.kind == lease.kind,
            table.c.position == lease.position,
        )
    )
