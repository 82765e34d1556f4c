"""Which trials of an Optuna study are ours, and what they hold, whatever others write there.

The first N numbers are the study's slots. A slot is begun when its generation gets parameters
and ends when its generation writes an outcome; both are recorded in ``aesearch_trial``, and only
what stands there counts. Everything else in the Optuna study is somebody else's: a slot that
another program took (``study.ask`` takes waiting trials) is given back under a number behind the
slots, and a value that another program told for one of ours is replaced by the one trained.
A waiting trial behind the slots (``study.enqueue_trial``) is a wish: see ``wishes``.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from aesearch.studies.results.stability import STABILITY
from aesearch.studies.spec.dimensions import Params
from aesearch.studies.store import tables
from aesearch.studies.store.optuna import optuna_tables
from aesearch.studies.store.optuna.optuna_tables import TRIALS, Attributes
from aesearch.studies.store.optuna.triggers import IDENTITY

# What a trial says of its end: where another program wrote one of them, it is not kept.
_ENDINGS = ("standard_error", "fold_scores", "unstable", "reason", STABILITY)
EXCLUDED = "aesearch:excluded"  # in what is read here only: why a person does not want the trial
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def n_slots(connection: Connection, study_id: int) -> int:
    """How many trials a study has: those that its generations are of."""
    lease = tables.lease
    query = sa.select(sa.func.coalesce(sa.func.sum(lease.c.size), 0)).where(
        lease.c.study_id == study_id, lease.c.kind == "search"
    )
    return int(connection.execute(query).scalar_one())


def slot_ids(connection: Connection, study_id: int) -> dict[int, int]:
    """Map trial number to trial id, for every slot of a study."""
    count = n_slots(connection, study_id)
    found = optuna_tables.trial_ids(connection, study_id)
    return {number: trial_id for number, trial_id in found.items() if number < count}


def add(connection: Connection, study_id: int, start: int, stop: int) -> None:
    """Add slots; trials of others that have their numbers move behind them."""
    connection.execute(
        TRIALS.update()
        .where(TRIALS.c.study_id == study_id, TRIALS.c.number >= start)
        .values(number=TRIALS.c.number + (stop - start))
    )
    optuna_tables.add_waiting_trials(connection, study_id, range(start, stop))


def remove_from(connection: Connection, study_id: int, start: int) -> None:
    """Remove the slots from a number on, none of which has begun, with their generations."""
    lease = tables.lease
    stop = n_slots(connection, study_id)
    # The generations first: the database keeps what is a slot.
    connection.execute(
        lease.delete().where(
            lease.c.study_id == study_id, lease.c.kind == "search", lease.c.first >= start
        )
    )
    for number in reversed(range(start, stop)):
        query = sa.select(TRIALS.c.trial_id, TRIALS.c.state).where(
            TRIALS.c.study_id == study_id, TRIALS.c.number == number
        )
        row = connection.execute(query).one()
        if row.state == TrialState.WAITING:  # else another program took it: it is theirs now
            optuna_tables.delete_trial(connection, study_id, row.trial_id)


def begin(
    connection: Connection,
    study_id: int,
    trial_id: int,
    params: Params,
    distributions: Mapping[str, BaseDistribution],
) -> None:
    """Give a slot its parameters; what another program made of it becomes a trial of its own."""
    if finished(connection, [trial_id]):
        return
    if not optuna_tables.start_trial(connection, trial_id, params, distributions):
        optuna_tables.move_away(connection, study_id, trial_id)
        optuna_tables.start_trial(connection, trial_id, params, distributions)
    recorded = {
        name: [value, distribution_to_json(distributions[name])] for name, value in params.items()
    }
    connection.execute(tables.trial.insert().values(trial_id=trial_id, params=json.dumps(recorded)))


def report(connection: Connection, trial_id: int, values: Mapping[int, float]) -> None:
    """Record mean losses by epoch in the place of what stands there."""
    if not values:
        return
    optuna_tables.report(connection, trial_id, values)
    table = tables.trial
    connection.execute(
        table.update()
        .where(table.c.trial_id == trial_id, table.c.reported < max(values))
        .values(reported=max(values))
    )


def finished(connection: Connection, trial_ids: Sequence[int]) -> set[int]:
    """Which of these trials have ended here."""
    table = tables.trial
    query = sa.select(table.c.trial_id).where(table.c.trial_id.in_(trial_ids), table.c.finished)
    return set(connection.execute(query).scalars())


def finish(
    connection: Connection,
    trial_id: int,
    state: TrialState,
    *,
    value: float | None,
    user_attributes: Attributes | None,
    system_attributes: Attributes | None,
) -> bool:
    """End a trial of ours, with exactly what was trained.

    Returns
    -------
    bool
        False where it had ended before; nothing is written then.
    """
    table = tables.trial
    # One that ends before it has parameters has an empty record from now on.
    empty = {"trial_id": trial_id, "params": "{}", "finished": False, "reported": 0}
    is_new = bool(optuna_tables.insert_new(connection, table, [empty]))
    row = connection.execute(sa.select(table).where(table.c.trial_id == trial_id)).one()
    if row.finished:
        return False
    connection.execute(table.update().where(table.c.trial_id == trial_id).values(finished=True))
    params, distributions = _recorded(row.params)
    optuna_tables.finish_trial(
        connection,
        trial_id,
        state,
        value=value,
        params=params,
        distributions=distributions,
        last_step=None if is_new else row.reported,
        user_attributes=user_attributes,
        system_attributes=system_attributes,
        replaced=_ENDINGS,
    )
    return True


def count_finished(connection: Connection, study_id: int) -> int:
    """How many trials of a study have ended here."""
    query = (
        sa.select(sa.func.count())
        .select_from(tables.trial)
        .join(TRIALS, TRIALS.c.trial_id == tables.trial.c.trial_id)
        .where(TRIALS.c.study_id == study_id, tables.trial.c.finished)
    )
    return int(connection.execute(query).scalar_one())


def begun(connection: Connection, study_id: int) -> list[tuple[int, int]]:
    """Number and id of every trial that has its parameters, in number order."""
    query = (
        sa.select(TRIALS.c.number, TRIALS.c.trial_id)
        .join(tables.trial, tables.trial.c.trial_id == TRIALS.c.trial_id)
        .where(TRIALS.c.study_id == study_id)
        .order_by(TRIALS.c.number)
    )
    return [(row.number, row.trial_id) for row in connection.execute(query)]


def own_trials(
    connection: Connection, study_id: int, *, only: Sequence[int] | None = None
) -> list[FrozenTrial]:
    """Read the trials of a study as our record says they are, in number order.

    Parameters
    ----------
    only : sequence of int or None
        Ids of the trials to read; None for every slot.
    """
    return split(connection, study_id, n_slots(connection, study_id), only=only)[0]


def split(
    connection: Connection, study_id: int, count: int, *, only: Sequence[int] | None = None
) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """Read our trials, as ``own_trials``, and those of others, as Optuna has them.

    ``count`` is that of ``n_slots``.
    """
    record = tables.trial.c
    query = (
        sa.select(TRIALS, record.params, record.finished, record.excluded)
        .outerjoin(tables.trial, record.trial_id == TRIALS.c.trial_id)
        .where(*optuna_tables.of_study(study_id, only))
        .order_by(TRIALS.c.number)
    )
    rows = connection.execute(query).all()
    found = optuna_tables.frozen_trials(connection, study_id, only=only, heads=rows)
    ours = [_as_recorded(*pair) for pair in zip(found, rows, strict=True) if pair[1].number < count]
    return ours, [trial for trial in found if trial.number >= count]


def _as_recorded(trial: FrozenTrial, record: sa.Row[Any]) -> FrozenTrial:
    if record.finished:  # which Optuna does not change
        if record.excluded is not None:
            trial.system_attrs = trial.system_attrs | {EXCLUDED: record.excluded}
        return trial
    waiting = record.finished is None
    params, distributions = ({}, {}) if waiting else _recorded(record.params)
    return FrozenTrial(
        number=trial.number,
        state=TrialState.WAITING if waiting else TrialState.RUNNING,
        value=None,
        datetime_start=None if waiting else trial.datetime_start,
        datetime_complete=None,
        params=params,
        distributions=distributions,
        user_attrs={} if waiting else trial.user_attrs,
        system_attrs={} if waiting else trial.system_attrs,
        intermediate_values={} if waiting else trial.intermediate_values,
        trial_id=trial._trial_id,  # noqa: SLF001 - has no public name
    )


def _recorded(text: str) -> tuple[Params, dict[str, BaseDistribution]]:
    stored = json.loads(text)
    params = {name: value for name, (value, _) in stored.items()}
    return params, {name: json_to_distribution(kind) for name, (_, kind) in stored.items()}


def new_identity(connection: Connection, study_id: int) -> str:
    """Mark an Optuna study so that a copy of it can be told; gives the mark."""
    identity = secrets.token_hex(16)
    connection.execute(
        optuna_tables.STUDY_USER_ATTRIBUTES.insert().values(
            study_id=study_id, key=IDENTITY, value_json=json.dumps(identity)
        )
    )
    return identity


def adopt_former_trials(connection: Connection) -> None:
    """Record what a store from before schema 6 knows of its trials, and mark its studies."""
    study, lease = tables.study, tables.lease
    unmarked = sa.select(study.c.study_id).where(study.c.identity.is_(None))
    for study_id in list(connection.execute(unmarked).scalars()):
        identity = new_identity(connection, study_id)
        connection.execute(
            study.update().where(study.c.study_id == study_id).values(identity=identity)
        )
        generations = sa.select(lease.c.first, lease.c.size).where(
            lease.c.study_id == study_id, lease.c.kind == "search", lease.c.suggested
        )
        suggested = {
            number
            for first, size in connection.execute(generations)
            for number in range(first, first + size)
        }
        rows = [
            _former_record(trial)
            for trial in optuna_tables.frozen_trials(connection, study_id)
            if trial.number in suggested and trial.state != TrialState.WAITING
        ]
        optuna_tables.insert_new(connection, tables.trial, rows)


def _former_record(trial: FrozenTrial) -> dict[str, Any]:
    # Only ours say what they scored on each fold, or why they ended.
    ended = trial.state in _FINISHED and bool(trial.user_attrs.keys() & {"fold_scores", "reason"})
    kinds = trial.distributions
    params = {
        name: [value, distribution_to_json(kinds[name])] for name, value in trial.params.items()
    }
    return {
        "trial_id": trial._trial_id,  # noqa: SLF001 - has no public name
        "params": json.dumps(params),
        "finished": ended,
        "reported": max(trial.intermediate_values, default=0),
    }
