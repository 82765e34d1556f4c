"""Optuna's tables, written and read in bulk inside our own transactions; nothing of ours here.

Optuna's storage commits once per parameter, attribute and report. A generation must be
recorded whole or not at all, together with our own rows, so its tables are written
directly: the layout is that of Optuna 5 (``pyproject.toml`` pins the major version, and
``tests/test_optuna_rows.py`` reads everything back through Optuna's public API).
"""

import datetime as dt
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from aesearch.studies.spec.dimensions import Params

# Of a trial, as Optuna keeps them: values that JSON can hold.
Attributes = Mapping[str, str | float | list[float]]

METRIC = "validation MSE"  # what Optuna's own views call the value
_METRIC_NAMES = "study:metric_names"  # Optuna's, see Study.set_metric_names
STUDIES = models.StudyModel.__table__
DIRECTIONS = models.StudyDirectionModel.__table__
TRIALS = models.TrialModel.__table__
PARAMS = models.TrialParamModel.__table__
VALUES = models.TrialValueModel.__table__
REPORTS = models.TrialIntermediateValueModel.__table__
USER_ATTRIBUTES = models.TrialUserAttributeModel.__table__
STUDY_USER_ATTRIBUTES = models.StudyUserAttributeModel.__table__
STUDY_SYSTEM_ATTRIBUTES = models.StudySystemAttributeModel.__table__
SYSTEM_ATTRIBUTES = models.TrialSystemAttributeModel.__table__

_Report = models.TrialIntermediateValueModel
_Value = models.TrialValueModel
_OF_TRIAL = (PARAMS, VALUES, REPORTS, USER_ATTRIBUTES, SYSTEM_ATTRIBUTES)


def insert_new(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> int:
    """Insert the rows whose key is not there yet; the first writer wins.

    Returns
    -------
    int
        How many rows were new.
    """
    if not rows:
        return 0
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    written = 0
    # One statement per slice: the driver's executemany cannot count, and a statement has a limit.
    width = max(1, 900 // max(1, len(rows[0])))
    for start in range(0, len(rows), width):
        statement = dialect.insert(table).values(rows[start : start + width])
        written += connection.execute(
            statement.on_conflict_do_nothing(),
            # Else the count of an INSERT is gone with its cursor: -1 on PostgreSQL.
            execution_options={"preserve_rowcount": True},
        ).rowcount
    return written


def create_study(connection: Connection, name: str) -> int:
    """Create a study that minimises one value; raises IntegrityError when the name is taken."""
    study_id = connection.execute(
        STUDIES.insert().values(study_name=name).returning(STUDIES.c.study_id)
    ).scalar_one()
    connection.execute(
        DIRECTIONS.insert().values(
            study_id=study_id, objective=0, direction=StudyDirection.MINIMIZE
        )
    )
    connection.execute(
        STUDY_SYSTEM_ATTRIBUTES.insert().values(
            study_id=study_id, key=_METRIC_NAMES, value_json=json.dumps([METRIC])
        )
    )
    return int(study_id)


def find_study(connection: Connection, name: str) -> int | None:
    """Look a study up by its name."""
    return connection.execute(
        sa.select(STUDIES.c.study_id).where(STUDIES.c.study_name == name)
    ).scalar()


def add_waiting_trials(connection: Connection, study_id: int, numbers: Iterable[int]) -> None:
    """Add one WAITING trial per number: the slots of the study."""
    rows = [
        {"study_id": study_id, "number": number, "state": TrialState.WAITING} for number in numbers
    ]
    if rows:
        connection.execute(TRIALS.insert(), rows)


def trial_ids(connection: Connection, study_id: int) -> dict[int, int]:
    """Map trial number to trial id, for every trial of the study."""
    rows = connection.execute(
        sa.select(TRIALS.c.number, TRIALS.c.trial_id)
        .where(TRIALS.c.study_id == study_id)
        .order_by(TRIALS.c.number)
    )
    return {row.number: row.trial_id for row in rows}


def start_trial(
    connection: Connection,
    trial_id: int,
    params: Params,
    distributions: Mapping[str, BaseDistribution],
) -> bool:
    """Give a WAITING trial its parameters and set it RUNNING.

    Returns
    -------
    bool
        False for one that does not wait; nothing is written then.
    """
    changed = connection.execute(
        TRIALS.update()
        .where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == TrialState.WAITING)
        .values(state=TrialState.RUNNING, datetime_start=_now())
    ).rowcount
    if changed:
        insert_new(connection, PARAMS, _param_rows(trial_id, params, distributions))
    return bool(changed)


def _param_rows(
    trial_id: int, params: Params, distributions: Mapping[str, BaseDistribution]
) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(distributions[name]),
        }
        for name, value in params.items()
    ]


def move_away(connection: Connection, study_id: int, trial_id: int) -> None:
    """Let a trial begin anew: all that it holds goes to a new one, behind all numbers."""
    head = connection.execute(sa.select(TRIALS).where(TRIALS.c.trial_id == trial_id)).one()
    last = sa.select(sa.func.max(TRIALS.c.number)).where(TRIALS.c.study_id == study_id)
    values = {
        "study_id": study_id,
        "number": connection.execute(last).scalar_one() + 1,
        "state": head.state,
        "datetime_start": head.datetime_start,
        "datetime_complete": head.datetime_complete,
    }
    other = connection.execute(
        TRIALS.insert().values(values).returning(TRIALS.c.trial_id)
    ).scalar_one()
    for table in _OF_TRIAL:
        connection.execute(
            table.update().where(table.c.trial_id == trial_id).values(trial_id=other)
        )
    connection.execute(
        TRIALS.update()
        .where(TRIALS.c.trial_id == trial_id)
        .values(state=TrialState.WAITING, datetime_start=None, datetime_complete=None)
    )


def delete_trial(connection: Connection, study_id: int, trial_id: int) -> None:
    """Delete a trial; those behind it move up by a number."""
    number = connection.execute(
        sa.select(TRIALS.c.number).where(TRIALS.c.trial_id == trial_id)
    ).scalar_one()
    for table in (*_OF_TRIAL, TRIALS):
        connection.execute(table.delete().where(table.c.trial_id == trial_id))
    connection.execute(
        TRIALS.update()
        .where(TRIALS.c.study_id == study_id, TRIALS.c.number > number)
        .values(number=TRIALS.c.number - 1)
    )


def report(connection: Connection, trial_id: int, values: Mapping[int, float]) -> None:
    """Record intermediate values by step, in the place of those that are there."""
    rows = []
    for step, value in values.items():
        stored, kind = _Report.intermediate_value_to_stored_repr(float(value))
        rows.append(
            {
                "trial_id": trial_id,
                "step": step,
                "intermediate_value": stored,
                "intermediate_value_type": kind,
            }
        )
    connection.execute(
        REPORTS.delete().where(REPORTS.c.trial_id == trial_id, REPORTS.c.step.in_(list(values)))
    )
    insert_new(connection, REPORTS, rows)


def finish_trial(
    connection: Connection,
    trial_id: int,
    state: TrialState,
    *,
    value: float | None = None,
    params: Params,
    distributions: Mapping[str, BaseDistribution],
    last_step: int | None,
    user_attributes: Attributes | None = None,
    system_attributes: Attributes | None = None,
    replaced: Collection[str] = (),
) -> None:
    """End a trial with this value, these parameters and no report after a step, if one is given.

    Whatever else stood there is replaced; attributes of names that are neither given nor to be
    ``replaced`` stay.
    """
    if value is not None and not math.isfinite(value):
        raise ValueError(f"value of trial {trial_id} must be finite, got {value!r}")
    connection.execute(
        TRIALS.update()
        .where(TRIALS.c.trial_id == trial_id)
        .values(state=state, datetime_complete=_now())
    )
    connection.execute(VALUES.delete().where(VALUES.c.trial_id == trial_id))
    if value is not None:
        stored, kind = _Value.value_to_stored_repr(float(value))
        connection.execute(
            VALUES.insert().values(trial_id=trial_id, objective=0, value=stored, value_type=kind)
        )
    _set_params(connection, trial_id, _param_rows(trial_id, params, distributions))
    if last_step is not None:
        strange = (REPORTS.c.step < 1) | (REPORTS.c.step > last_step)
        connection.execute(REPORTS.delete().where(REPORTS.c.trial_id == trial_id, strange))
    for table, attributes in (
        (USER_ATTRIBUTES, user_attributes or {}),
        (SYSTEM_ATTRIBUTES, system_attributes or {}),
    ):
        own = (table.c.trial_id == trial_id, table.c.key.in_([*attributes, *replaced]))
        connection.execute(table.delete().where(*own))
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(item)}
            for key, item in attributes.items()
        ]
        insert_new(connection, table, rows)


def _set_params(connection: Connection, trial_id: int, rows: list[dict[str, Any]]) -> None:
    columns = ("param_name", "param_value", "distribution_json")
    query = sa.select(*(PARAMS.c[name] for name in columns)).where(PARAMS.c.trial_id == trial_id)
    there = {tuple(row) for row in connection.execute(query)}
    if there == {tuple(row[name] for name in columns) for row in rows}:
        return
    connection.execute(PARAMS.delete().where(PARAMS.c.trial_id == trial_id))
    insert_new(connection, PARAMS, rows)


def of_study(study_id: int, only: Sequence[int] | None) -> list[sa.ColumnElement[bool]]:
    """Give the condition that a row of ``TRIALS`` is of a study and, if given, of these ids."""
    wanted = [TRIALS.c.study_id == study_id]
    return wanted if only is None else [*wanted, TRIALS.c.trial_id.in_(only)]


def frozen_trials(
    connection: Connection,
    study_id: int,
    *,
    only: Sequence[int] | None = None,
    heads: Sequence[sa.Row[Any]] | None = None,
) -> list[FrozenTrial]:
    """Read the trials of a study in number order, with six statements however many there are.

    Parameters
    ----------
    only : sequence of int or None
        Ids of the trials to read; None for every trial of the study.
    heads : sequence of Row, optional
        Their rows of ``TRIALS``, where they were read already.
    """
    wanted = of_study(study_id, only)
    if heads is None:
        heads = connection.execute(sa.select(TRIALS).where(*wanted).order_by(TRIALS.c.number)).all()

    def grouped(table: sa.Table, *order: sa.Column[Any]) -> dict[int, list[Any]]:
        rows = defaultdict(list)
        query = (
            sa.select(table)
            .join(TRIALS, TRIALS.c.trial_id == table.c.trial_id)
            .where(*wanted)
            .order_by(*order)
        )
        for row in connection.execute(query):
            rows[row.trial_id].append(row)
        return rows

    params = grouped(PARAMS, PARAMS.c.param_id)
    values = grouped(VALUES, VALUES.c.objective)
    reports = grouped(REPORTS, REPORTS.c.step)
    user = grouped(USER_ATTRIBUTES, USER_ATTRIBUTES.c.key)
    system = grouped(SYSTEM_ATTRIBUTES, SYSTEM_ATTRIBUTES.c.key)
    parsed: dict[str, BaseDistribution] = {}

    def distribution(text: str) -> BaseDistribution:
        if text not in parsed:
            parsed[text] = json_to_distribution(text)
        return parsed[text]

    trials = []
    for head in heads:
        key = head.trial_id
        trial_values = [
            _Value.stored_repr_to_value(row.value, row.value_type) for row in values[key]
        ]
        kinds = {row.param_name: distribution(row.distribution_json) for row in params[key]}
        trials.append(
            FrozenTrial(
                number=head.number,
                state=head.state,
                value=None,
                values=trial_values or None,
                datetime_start=head.datetime_start,
                datetime_complete=head.datetime_complete,
                params={
                    row.param_name: kinds[row.param_name].to_external_repr(row.param_value)
                    for row in params[key]
                },
                distributions=kinds,
                user_attrs={row.key: json.loads(row.value_json) for row in user[key]},
                system_attrs={row.key: json.loads(row.value_json) for row in system[key]},
                intermediate_values={
                    row.step: _Report.stored_repr_to_intermediate_value(
                        row.intermediate_value, row.intermediate_value_type
                    )
                    for row in reports[key]
                },
                trial_id=key,
            )
        )
    return trials


def _now() -> dt.datetime:
    # Optuna keeps naive UTC; these times are for people, no decision depends on them.
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)
