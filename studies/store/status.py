"""How far studies are and who works on them, counted by the database: quick for any size."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.engine import Connection, Engine

from aesearch.studies.errors import StudyNotFoundError
from aesearch.studies.results.records import Document, Progress, TrialCounts
from aesearch.studies.store import tables
from aesearch.studies.store.connection.database import reading
from aesearch.studies.store.connection.retry import repeatable
from aesearch.studies.store.optuna import optuna_tables
from aesearch.studies.store.study_rows import STATES, StudyRow, clock, find_study, now

RATE_S = 3600.0  # the throughput is that of the last hour
FINISHED = ("complete", "pruned", "failed")


@dataclass(frozen=True)
class WorkerStatus(Document):
    """One unit of work that somebody holds, or held last and did not finish.

    Attributes
    ----------
    kind : {"search", "retrain", "evaluate"}
    position : int
        Generation or chunk, from 0.
    first, size : int
        Its trials, or seeds, are ``first`` to ``first + size - 1``.
    attempt : int
        Claims since its last progress; after three without any, its trials fail.
    age_s, expires_s : float or None
        Seconds since it was claimed, and until its lease expires (negative: it has), by the
        database's clock.
    progress : Progress
        What its owner last said.
    alive : bool
        Whether its lease still runs.
    """

    owner: str | None
    kind: Literal["search", "retrain", "evaluate"]
    position: int
    first: int
    size: int
    attempt: int
    age_s: float | None
    expires_s: float | None
    progress: Progress
    alive: bool


@dataclass(frozen=True)
class StudyStatus:
    """One study at this moment.

    Attributes
    ----------
    trials : TrialCounts
    best, chosen : (number, value) or None
        The stable complete trial with the lowest mean over folds (MSE per pixel), and the winner.
    open_work : dict
        Units of work that are not done, by kind.
    past_deadline : bool
        Whether its time limit is over: no generation is begun any more.
    trials_per_hour : float or None
        Of the last hour; None where no trial finished in it.
    seconds_left : float or None
        Until the search is over, at that rate; None where nobody works on it.
    """

    name: str
    dataset: str | None
    device: str
    created: float
    trials: TrialCounts
    best: tuple[int, float] | None
    chosen: tuple[int, float] | None
    open_work: dict[str, int]
    workers: tuple[WorkerStatus, ...]
    past_deadline: bool
    trials_per_hour: float | None
    seconds_left: float | None

    @property
    def n_trials(self) -> int:
        """How many slots it has."""
        return self.trials.total

    @property
    def finished(self) -> int:
        """How many trials are finished."""
        return self.trials.finished

    @property
    def searched(self) -> bool:
        """Whether somebody is at work on its search."""
        return any(worker.alive and worker.kind == "search" for worker in self.workers)

    @property
    def state(self) -> str:
        """A word or two on how far it is and whether anyone works on it."""
        searching = self.finished < self.n_trials
        return state_words(
            searching=searching,
            chosen=self.chosen is not None,
            held=any(worker.alive for worker in self.workers),
            retraining=bool(self.open_work["retrain"] or self.open_work["evaluate"]),
            hopeless=self.best is None and (self.past_deadline or not searching),
        )

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in ("finished", "timed out", "no winner")


def state_words(
    *, searching: bool, chosen: bool, held: bool, retraining: bool, hopeless: bool = False
) -> str:
    """Say in a word or two how far a study is and whether anyone works on it.

    Parameters
    ----------
    hopeless : bool
        No trial is begun any more, and none of those that are finished may be chosen.
    """
    if hopeless and not (chosen or held):
        return "no winner"
    if searching and not chosen:
        return "running" if held else "unfinished"
    if not chosen:
        return "no winner yet"
    if retraining:
        return "retraining" if held else "not retrained"
    return "timed out" if searching else "finished"


@repeatable
def trial_counts(engine: Engine, study: StudyRow) -> TrialCounts:
    """Count the trials of a study by state."""
    with reading(engine) as connection:
        return _counts(connection, [study.study_id])[study.study_id]


@repeatable
def statuses(engine: Engine, name: str | None = None) -> list[StudyStatus]:
    """Look at every study of a store, in order of creation, or at one.

    The number of statements and of rows read does not grow with the number of trials.

    Raises
    ------
    StudyNotFoundError
        There is no study of that name.
    """
    if name is not None:
        find_study(engine, name)  # its error lists the names there are
    with reading(engine) as connection:
        rows = _studies(connection, name)
        if name is not None and not rows:
            raise StudyNotFoundError(f"study {name!r} is gone: it was deleted or renamed just now")
        ids = [row.study_id for row in rows]
        counts, work = _counts(connection, ids), _open_work(connection, ids)
        workers, rates = _workers(connection, ids), _rates(connection, ids)
        best, chosen = _best(connection, ids), _chosen(connection, ids)
    return [
        _status(
            row,
            counts[row.study_id],
            work[row.study_id],
            tuple(workers[row.study_id]),
            rates.get(row.study_id),
            best.get(row.study_id),
            chosen.get(row.study_id),
        )
        for row in rows
    ]


def _status(  # noqa: PLR0917 - one row of each query
    row: Any,
    trials: TrialCounts,
    open_work: dict[str, int],
    workers: tuple[WorkerStatus, ...],
    per_second: float | None,
    best: tuple[int, float] | None,
    chosen: tuple[int, float] | None,
) -> StudyStatus:
    left = trials.waiting + trials.running
    working = any(worker.alive and worker.kind == "search" for worker in workers)
    return StudyStatus(
        name=row.study_name,
        dataset=json.loads(row.facts).get("dataset"),
        device=json.loads(row.spec)["compute"]["device"],
        created=row.created,
        trials=trials,
        best=best,
        chosen=chosen,
        open_work=open_work,
        workers=workers,
        past_deadline=bool(row.past_deadline),
        trials_per_hour=None if per_second is None else 3600 * per_second,
        seconds_left=left / per_second if per_second and left and working else None,
    )


def _studies(connection: Connection, name: str | None) -> list[Any]:
    passed = (tables.study.c.deadline <= clock(connection)).label("past_deadline")
    query = (
        sa.select(optuna_tables.STUDIES.c.study_name, tables.study, passed)
        .join(tables.study, tables.study.c.study_id == optuna_tables.STUDIES.c.study_id)
        .order_by(tables.study.c.created, tables.study.c.study_id)
    )
    if name is not None:
        query = query.where(optuna_tables.STUDIES.c.study_name == name)
    return list(connection.execute(query))


def _counts(connection: Connection, ids: list[int]) -> dict[int, TrialCounts]:
    """Count slots by state: what our record does not say to be begun, or finished, is not."""
    trials, record, lease = optuna_tables.TRIALS, tables.trial, tables.lease
    states = [str(state) for state in STATES.values()]
    found = {study_id: dict.fromkeys(states, 0) for study_id in ids}
    begun = (
        sa.select(trials.c.study_id, record.c.finished, trials.c.state, sa.func.count())
        .join(record, record.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id.in_(ids))
        .group_by(trials.c.study_id, record.c.finished, trials.c.state)
    )
    for study_id, finished, state, count in connection.execute(begun):
        found[study_id][STATES[state] if finished else "running"] += count
    slots = (
        sa.select(lease.c.study_id, sa.func.sum(lease.c.size))
        .where(lease.c.study_id.in_(ids), lease.c.kind == "search")
        .group_by(lease.c.study_id)
    )
    for study_id, count in connection.execute(slots):
        found[study_id]["waiting"] = int(count) - sum(found[study_id].values())
    return {study_id: TrialCounts(**counts) for study_id, counts in found.items()}


def _open_work(connection: Connection, ids: list[int]) -> Mapping[int, dict[str, int]]:
    lease = tables.lease
    found = {study_id: {"search": 0, "retrain": 0, "evaluate": 0} for study_id in ids}
    query = (
        sa.select(lease.c.study_id, lease.c.kind, sa.func.count())
        .where(lease.c.study_id.in_(ids), lease.c.done.is_(False))
        .group_by(lease.c.study_id, lease.c.kind)
    )
    for study_id, kind, count in connection.execute(query):
        found[study_id][kind] = count
    return found


def _workers(connection: Connection, ids: list[int]) -> Mapping[int, list[WorkerStatus]]:
    lease = tables.lease
    moment = now(connection)
    query = (
        sa.select(lease)
        .where(
            lease.c.study_id.in_(ids),
            lease.c.done.is_(False),
            # Progress sets the attempts back to 0 while the owner works on.
            lease.c.owner.is_not(None) | (lease.c.attempt > 0),
        )
        .order_by(lease.c.kind.desc(), lease.c.position)
    )
    found: dict[int, list[WorkerStatus]] = defaultdict(list)
    for row in connection.execute(query):
        left = None if row.expires is None else row.expires - moment
        found[row.study_id].append(
            WorkerStatus(
                owner=row.owner,
                kind=row.kind,
                position=row.position,
                first=row.first,
                size=row.size,
                attempt=row.attempt,
                age_s=None if row.claimed is None else moment - row.claimed,
                expires_s=left,
                progress=json.loads(row.progress) if row.progress else {},
                alive=left is not None and left > 0,
            )
        )
    return found


def _rates(connection: Connection, ids: list[int]) -> dict[int, float]:
    """Trials per second over the last hour, by the database's clock."""
    lease = tables.lease
    moment = now(connection)
    query = (
        sa.select(lease.c.study_id, sa.func.sum(lease.c.size), sa.func.min(lease.c.claimed))
        .where(
            lease.c.study_id.in_(ids),
            lease.c.kind == "search",
            lease.c.finished > moment - RATE_S,
        )
        .group_by(lease.c.study_id)
    )
    return {
        study_id: int(trials) / max(moment - began, 0.1)
        for study_id, trials, began in connection.execute(query)
    }


def _best(connection: Connection, ids: list[int]) -> dict[int, tuple[int, float]]:
    trials, values, attributes, record = (
        optuna_tables.TRIALS,
        optuna_tables.VALUES,
        optuna_tables.USER_ATTRIBUTES,
        tables.trial,
    )
    unstable = sa.exists().where(
        attributes.c.trial_id == trials.c.trial_id, attributes.c.key == "unstable"
    )
    rank = sa.func.row_number().over(
        partition_by=trials.c.study_id, order_by=(values.c.value, trials.c.number)
    )
    ranked = (
        sa.select(trials.c.study_id, trials.c.number, values.c.value, rank.label("rank"))
        .join(values, values.c.trial_id == trials.c.trial_id)
        .join(record, (record.c.trial_id == trials.c.trial_id) & record.c.finished)
        .where(record.c.excluded.is_(None))
        .where(trials.c.study_id.in_(ids), trials.c.state == TrialState.COMPLETE, ~unstable)
        .subquery()
    )
    query = sa.select(ranked).where(ranked.c.rank == 1)
    return {row.study_id: (row.number, row.value) for row in connection.execute(query)}


def _chosen(connection: Connection, ids: list[int]) -> dict[int, tuple[int, float]]:
    trials, values, study = optuna_tables.TRIALS, optuna_tables.VALUES, tables.study
    query = (
        sa.select(study.c.study_id, trials.c.number, values.c.value)
        .join(trials, trials.c.trial_id == study.c.chosen_trial_id)
        .join(values, values.c.trial_id == trials.c.trial_id)
        .where(study.c.study_id.in_(ids))
    )
    return {row.study_id: (row.number, row.value) for row in connection.execute(query)}
