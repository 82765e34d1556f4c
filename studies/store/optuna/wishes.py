"""Configurations that somebody asked to be tried: waiting trials that ``enqueue_trial`` made.

The next generation takes them, in order, for its first trials. Which trial was one stands with
it, so that what is suggested after it depends on the same list only.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from aesearch.studies.store import tables
from aesearch.studies.store.optuna import optuna_tables, slots
from aesearch.studies.store.optuna.optuna_tables import SYSTEM_ATTRIBUTES, TRIALS, USER_ATTRIBUTES

FIXED = "fixed_params"  # Optuna's: a system attribute of a waiting trial
ENQUEUED = "aesearch:enqueued"  # ours, of a trial that was a wish: what was asked for


class Wish(NamedTuple):
    """One waiting trial that another program, or a run, enqueued."""

    trial_id: int
    params: Mapping[str, Any]


def pending(connection: Connection, study_id: int) -> list[Wish]:
    """Every wish that no generation has taken, the oldest first."""
    attributes = SYSTEM_ATTRIBUTES
    query = (
        sa.select(TRIALS.c.trial_id, attributes.c.value_json)
        .join(attributes, attributes.c.trial_id == TRIALS.c.trial_id)
        .where(
            TRIALS.c.study_id == study_id,
            TRIALS.c.state == TrialState.WAITING,
            TRIALS.c.number >= slots.n_slots(connection, study_id),
            attributes.c.key == FIXED,
        )
        .order_by(TRIALS.c.number)
    )
    return [Wish(row.trial_id, json.loads(row.value_json)) for row in connection.execute(query)]


def granted(connection: Connection, study_id: int) -> list[dict[str, Any]]:
    """What was asked for in trials that were wishes, in number order."""
    query = (
        sa.select(SYSTEM_ATTRIBUTES.c.value_json)
        .join(TRIALS, TRIALS.c.trial_id == SYSTEM_ATTRIBUTES.c.trial_id)
        .join(tables.trial, tables.trial.c.trial_id == TRIALS.c.trial_id)
        .where(TRIALS.c.study_id == study_id, SYSTEM_ATTRIBUTES.c.key == ENQUEUED)
        .order_by(TRIALS.c.number)
    )
    return [json.loads(text) for text in connection.execute(query).scalars()]


def enqueue(connection: Connection, study_id: int, wanted: Sequence[Mapping[str, Any]]) -> int:
    """Add wishes that the study has not got yet, granted or not.

    The same list again adds nothing; one that has a configuration twice tries it twice.

    Returns
    -------
    int
        How many were added.
    """
    have = [dict(wish.params) for wish in pending(connection, study_id)]
    have += granted(connection, study_id)
    last = sa.select(sa.func.max(TRIALS.c.number)).where(TRIALS.c.study_id == study_id)
    number, added = connection.execute(last).scalar_one(), 0
    for params in map(dict, wanted):
        if params in have:
            have.remove(params)
            continue
        added += 1
        trial_id = connection.execute(
            TRIALS.insert()
            .values(study_id=study_id, number=number + added, state=TrialState.WAITING)
            .returning(TRIALS.c.trial_id)
        ).scalar_one()
        connection.execute(
            SYSTEM_ATTRIBUTES.insert().values(
                trial_id=trial_id, key=FIXED, value_json=json.dumps(params)
            )
        )
    return added


def grant(connection: Connection, study_id: int, wish: Wish, trial_id: int) -> None:
    """Let a trial of ours that has begun take the place of a wish, labels and all."""
    labels = USER_ATTRIBUTES.c.trial_id
    connection.execute(
        USER_ATTRIBUTES.update().where(labels == wish.trial_id).values(trial_id=trial_id)
    )
    connection.execute(
        SYSTEM_ATTRIBUTES.insert().values(
            trial_id=trial_id, key=ENQUEUED, value_json=json.dumps(dict(wish.params))
        )
    )
    optuna_tables.delete_trial(connection, study_id, wish.trial_id)


def refuse(connection: Connection, wish: Wish, reason: str) -> None:
    """Fail a wish that cannot be tried; it stays, with the reason."""
    connection.execute(
        TRIALS.update().where(TRIALS.c.trial_id == wish.trial_id).values(state=TrialState.FAIL)
    )
    optuna_tables.insert_new(
        connection,
        USER_ATTRIBUTES,
        [{"trial_id": wish.trial_id, "key": "reason", "value_json": json.dumps(reason)}],
    )
