"""What the search writes: suggestions, and what happened at each rung, a transaction each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection, Engine

from aesearch.studies.dashboard.publishing import note_trials
from aesearch.studies.errors import StudyNotFoundError
from aesearch.studies.results.records import Picture
from aesearch.studies.spec.dimensions import Params
from aesearch.studies.store import tables
from aesearch.studies.store.connection.database import reading, writing
from aesearch.studies.store.connection.retry import repeatable
from aesearch.studies.store.ledger import Lease, mark_done, require_held, this_work
from aesearch.studies.store.optuna import optuna_tables, slots, wishes
from aesearch.studies.store.optuna.optuna_tables import Attributes
from aesearch.studies.store.optuna.wishes import Wish
from aesearch.studies.store.study_rows import StudyRow, to_sql

_LISTED = 500  # so many trials are asked for by their ids; for more, all are read


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
    user_attributes: Attributes | None = None
    system_attributes: Attributes | None = None
    pictures: tuple[Picture, ...] = ()


@repeatable
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


@repeatable
def history(
    engine: Engine, study: StudyRow, finished: dict[int, FrozenTrial] | None = None
) -> tuple[list[FrozenTrial], list[int]]:
    """Every trial that was begun, in number order, and the first number of every generation.

    Parameters
    ----------
    finished : dict of trial number to FrozenTrial, optional
        What this returned before of the same study: a finished trial does not change, and is
        not read again. Those that have finished since are added.

    Raises
    ------
    StudyNotFoundError
        The study was deleted.
    """
    table = tables.lease
    have = {} if finished is None else finished
    with reading(engine) as connection:
        firsts = list(
            connection.execute(
                sa.select(table.c.first)
                .where(table.c.study_id == study.study_id, table.c.kind == "search")
                .order_by(table.c.position)
            ).scalars()
        )
        if not firsts:
            raise StudyNotFoundError(f"study {study.name!r} is gone: it was deleted meanwhile")
        begun = slots.begun(connection, study.study_id)
        assert [n for n, _ in begun] == list(range(len(begun))), "begun in another order"
        missing = [trial_id for number, trial_id in begun if number not in have]
        found = {
            trial.number: trial
            for trial in slots.own_trials(
                connection, study.study_id, only=missing if len(missing) <= _LISTED else None
            )
        }
        trials = [have.get(number) or found[number] for number, _ in begun]
        have |= {n: trial for n, trial in found.items() if trial.state.is_finished()}
        return trials, firsts


@repeatable
def exclude(engine: Engine, study: StudyRow, number: int, reason: str | None) -> bool:
    """Take a finished trial out of the choice, or with None put it back.

    Returns
    -------
    bool
        False where no trial of that number is finished.
    """
    table = tables.trial
    with writing(engine) as connection:
        trial_id = slots.slot_ids(connection, study.study_id).get(number)
        changed = connection.execute(
            table.update()
            .where(table.c.trial_id == trial_id, table.c.finished)
            .values(excluded=reason)
        ).rowcount
    return bool(changed)


@repeatable
def stop_search(engine: Engine, generation: Lease, reason: str) -> None:
    """End the search before a generation: its trials, and all behind it, are no more.

    Whoever comes first does it; those that are under way go to their end.
    """
    study, lease, study_id = tables.study, tables.lease, generation.study_id
    with writing(engine) as connection:
        there = sa.select(lease.c.suggested).where(
            *this_work(study_id, "search", generation.position)
        )
        if connection.execute(there.with_for_update()).scalar() is not False:
            return
        slots.remove_from(connection, study_id, generation.first)
        connection.execute(
            study.update().where(study.c.study_id == study_id).values(stopped=reason)
        )


@repeatable
def pending_wishes(engine: Engine, study: StudyRow) -> list[Wish]:
    """What was enqueued and no generation has taken, the oldest first."""
    with reading(engine) as connection:
        return wishes.pending(connection, study.study_id)


@repeatable
def write_suggestions(
    engine: Engine,
    generation: Lease,
    suggestions: Sequence[Params],
    distributions: Mapping[str, BaseDistribution],
    *,
    seen: Sequence[Wish] = (),
    refused: Mapping[int, str] | None = None,
) -> bool:
    """Give a generation's trials their parameters; the first writer wins.

    Parameters
    ----------
    seen : sequence of Wish
        Those that the suggestions were made with: the first trials are those of them that are
        not ``refused``, as many as there are trials.
    refused : mapping of trial id to reason
        Wishes that cannot be tried.

    Returns
    -------
    bool
        False where wishes came or went meanwhile; nothing is written then.
    """
    table = tables.lease
    reasons = refused or {}
    with writing(engine) as connection:
        if wishes.pending(connection, generation.study_id)[: len(seen)] != list(seen):
            return False
        changed = connection.execute(
            table.update()
            .where(*this_work(generation.study_id, "search", generation.position))
            .where(table.c.suggested.is_(False))
            .values(suggested=True)
        ).rowcount
        if not changed:
            return True
        study_id = generation.study_id
        ids = slots.slot_ids(connection, study_id)
        for number, params in zip(generation.members, suggestions, strict=True):
            slots.begin(connection, study_id, ids[number], params, distributions)
        taken = [wish for wish in seen if wish.trial_id not in reasons]
        for wish, number in zip(taken, generation.members, strict=False):
            wishes.grant(connection, study_id, wish, ids[number])
        for wish in seen:
            if wish.trial_id in reasons:
                wishes.refuse(connection, wish, reasons[wish.trial_id])
    return True


@repeatable
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
        require_held(connection, lease)
        ids = slots.slot_ids(connection, lease.study_id)
        # What is trained again is written already, and a finished trial stays as it is: begun
        # again with smaller populations, it may go on where it had been pruned.
        over = slots.finished(connection, [ids[number] for number in lease.members])
        rows = [
            {
                "trial_id": ids[curve.number],
                "fold": curve.fold,
                "epoch": curve.first_epoch + i,
                "train_loss": to_sql(train),
                "validation_loss": to_sql(validation),
            }
            for curve in curves
            if ids[curve.number] not in over
            for i, (train, validation) in enumerate(zip(curve.train, curve.validation, strict=True))
        ]
        n_new = optuna_tables.insert_new(connection, tables.curve, rows)
        for number, values in reports.items():
            if ids[number] in over:
                continue
            slots.report(connection, ids[number], values)
        for outcome in outcomes:
            n_new += _write_outcome(connection, ids[outcome.number], outcome)
        # Now, not when somebody publishes: a page that shows a finished trial asks no more for it.
        note_trials(connection, lease.study_id, [ids[outcome.number] for outcome in outcomes])
        # The first rung of an attempt still finds it counted: it is counted here but once.
        again = sa.case((tables.lease.c.attempt > 0, 1), else_=0)
        repeated = 0 if n_new else sa.func.coalesce(tables.lease.c.repeated, 0) + again
        connection.execute(
            tables.lease.update()
            .where(*this_work(lease.study_id, lease.kind, lease.position))
            .values(attempt=0, repeated=repeated)
        )
        if done:
            mark_done(connection, lease)


def _write_outcome(connection: Connection, trial_id: int, outcome: Outcome) -> bool:
    """Write how a trial ended; False where that was written before."""
    written = slots.finish(
        connection,
        trial_id,
        outcome.state,
        value=outcome.value,
        user_attributes=outcome.user_attributes,
        system_attributes=outcome.system_attributes,
    )
    if written:
        pictures = [
            {"trial_id": trial_id, "name": p.name, "alt": p.alt, "png": p.png}
            for p in outcome.pictures
        ]
        optuna_tables.insert_new(connection, tables.trial_picture, pictures)
    return written
