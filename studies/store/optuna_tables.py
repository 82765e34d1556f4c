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
from collections.abc import Iterable, Mapping, Sequence
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

STUDIES = models.StudyModel.__table__
DIRECTIONS = models.StudyDirectionModel.__table__
TRIALS = models.TrialModel.__table__
PARAMS = models.TrialParamModel.__table__
VALUES = models.TrialValueModel.__table__
REPORTS = models.TrialIntermediateValueModel.__table__
USER_ATTRIBUTES = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRIBUTES = models.TrialSystemAttributeModel.__table__

_Report = models.TrialIntermediateValueModel
_Value = models.TrialValueModel
_OPEN = (TrialState.RUNNING, TrialState.WAITING)


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
) -> None:
    """Give a WAITING trial its parameters and set it RUNNING; does nothing to any other."""
    changed = connection.execute(
        TRIALS.update()
        .where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == TrialState.WAITING)
        .values(state=TrialState.RUNNING, datetime_start=_now())
    ).rowcount
    if not changed:
        return
    rows = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(distributions[name]),
        }
        for name, value in params.items()
    ]
    insert_new(connection, PARAMS, rows)


def report(connection: Connection, trial_id: int, values: Mapping[int, float]) -> None:
    """Record intermediate values by step; a step that is there already stays as it is."""
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
    insert_new(connection, REPORTS, rows)


def finished(connection: Connection, trial_ids: Sequence[int]) -> set[int]:
    """Which of these trials have ended."""
    query = sa.select(TRIALS.c.trial_id).where(
        TRIALS.c.trial_id.in_(trial_ids), TRIALS.c.state.not_in(_OPEN)
    )
    return set(connection.execute(query).scalars())


def count_finished(connection: Connection, study_id: int) -> int:
    """How many trials of a study have ended."""
    query = sa.select(sa.func.count()).where(
        TRIALS.c.study_id == study_id, TRIALS.c.state.not_in(_OPEN)
    )
    return int(connection.execute(query).scalar_one())


def finish_trial(
    connection: Connection,
    trial_id: int,
    state: TrialState,
    *,
    value: float | None = None,
    user_attributes: Attributes | None = None,
    system_attributes: Attributes | None = None,
) -> bool:
    """End a trial that is not finished yet.

    Returns
    -------
    bool
        False when somebody else finished it before; nothing is written then.
    """
    open_states = (TrialState.WAITING, TrialState.RUNNING)
    changed = connection.execute(
        TRIALS.update()
        .where(TRIALS.c.trial_id == trial_id, TRIALS.c.state.in_(open_states))
        .values(state=state, datetime_complete=_now())
    ).rowcount
    if not changed:
        return False
    if value is not None:
        if not math.isfinite(value):
            raise ValueError(f"value of trial {trial_id} must be finite, got {value!r}")
        stored, kind = _Value.value_to_stored_repr(float(value))
        connection.execute(
            VALUES.insert().values(trial_id=trial_id, objective=0, value=stored, value_type=kind)
        )
    for table, attributes in (
        (USER_ATTRIBUTES, user_attributes),
        (SYSTEM_ATTRIBUTES, system_attributes),
    ):
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(item)}
            for key, item in (attributes or {}).items()
        ]
        insert_new(connection, table, rows)
    return True


def frozen_trials(
    connection: Connection, study_id: int, *, only: Sequence[int] | None = None
) -> list[FrozenTrial]:
    """Read the trials of a study in number order, with six statements however many there are.

    Parameters
    ----------
    only : sequence of int or None
        Ids of the trials to read; None for every trial of the study.
    """
    wanted = [TRIALS.c.study_id == study_id]
    if only is not None:
        wanted.append(TRIALS.c.trial_id.in_(only))
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
