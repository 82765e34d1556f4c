"""A whole study copied from one store to another, whatever their databases, and held against it.

Rows are read and written in one transaction each. What is compared afterwards, still inside that
of the target, is the number of rows of every table and a hash of all they hold, with trial numbers
in the place of ids, which every database gives anew.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from sqlalchemy.engine import Connection, Engine

from aesearch.studies.errors import StoreError
from aesearch.studies.store import tables
from aesearch.studies.store.connection.database import reading, writing
from aesearch.studies.store.optuna.optuna_tables import STUDIES, TRIALS, find_study
from aesearch.studies.store.study_rows import find_study_in
from aesearch.studies.store.whole_studies import taken

# Notes, figures and lists of files name ids, and are written anew.
_WRITTEN_ANEW = ("dashboard:", "aesearch:note", "artifacts:")
# Nobody works on the copy.
_OF_A_WORKER = ("owner", "token", "expires", "progress", "attempt")
_LEFT_OUT = ("trial_heartbeats",)


@dataclass(frozen=True)
class Copied:
    """What a copy holds.

    Attributes
    ----------
    rows : dict of table name to int
    sha256 : str
        Of everything in them.
    there : bool
        Whether it was there before, the same.
    """

    rows: dict[str, int]
    sha256: str
    there: bool


def copy_study(source: Engine, name: str, target: Engine, new_name: str) -> Copied:
    """Copy a study with its trials, curves and models; it goes on there where it was here.

    A copy that was interrupted left nothing; one that is there is held against the original.

    Raises
    ------
    StudyNotFoundError
        There is no study of that name.
    StudyMismatchError
        Another study of the target has the new name.
    StoreError
        What arrived is not what was sent; nothing of it stays.
    """
    with reading(source) as connection:
        study_id = find_study_in(connection, name).study_id
        rows = _rows(connection, study_id)
    digest = _digest(rows)
    counts = {table: len(found) for table, found in rows.items() if found}
    with writing(target) as connection:
        there = find_study(connection, new_name)
        if there is None:
            there = _insert(connection, rows, new_name)
            copied = True
        else:
            copied = False
        found = _digest(_rows(connection, there))
        if found != digest and copied:
            raise StoreError(
                f"the copy of study {name!r} must hold what it holds (sha256 {digest[:12]}…), got "
                f"sha256 {found[:12]}…; nothing of it stays: run the same command again"
            )
        if found != digest:
            raise taken(new_name)
    return Copied(counts, digest, there=not copied)


def _tables() -> list[sa.Table]:
    """Every table with rows of a study, parents first, that of the study left out."""
    theirs = [t for t in models.BaseModel.metadata.sorted_tables if t.name not in _LEFT_OUT]
    ours = [table for table in tables.OWN_TABLES if table is not tables.moved]
    with_rows = [t for t in (*theirs, *ours) if {"study_id", "trial_id"} & set(t.c.keys())]
    return [table for table in with_rows if table is not STUDIES]


def _own_key(table: sa.Table) -> str | None:
    """The column that the database numbers by itself, if any."""
    keys = [column.name for column in table.primary_key]
    numbered = len(keys) == 1 and keys[0] != "study_id" and not table.name.startswith("aes")
    return keys[0] if numbered else None


def _rows(connection: Connection, study_id: int) -> dict[str, list[dict[str, Any]]]:
    """Read all rows of a study by table, in an order that every database gives."""
    of_study = sa.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id)
    numbers = {
        row.trial_id: row.number
        for row in connection.execute(sa.select(TRIALS).where(TRIALS.c.study_id == study_id))
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for table in _tables():
        mine = (
            table.c.study_id == study_id
            if "study_id" in table.c
            else table.c.trial_id.in_(of_study)
        )
        query = sa.select(table).where(mine).order_by(*table.primary_key)
        rows = [dict(row) for row in connection.execute(query).mappings()]
        found[table.name] = [
            _portable(table, row, numbers)
            for row in rows
            if not str(row.get("key", "")).startswith(_WRITTEN_ANEW)
        ]
    return found


def _portable(table: sa.Table, row: dict[str, Any], numbers: Mapping[int, int]) -> dict[str, Any]:
    """Replace ids by trial numbers, and forget who is at work."""
    kept = {name: value for name, value in row.items() if name not in ("study_id", _own_key(table))}
    if "trial_id" in row and table is not TRIALS:
        kept["trial_id"] = numbers[row["trial_id"]]
    if kept.get("chosen_trial_id") is not None:
        kept["chosen_trial_id"] = numbers[row["chosen_trial_id"]]
    if table is tables.lease:
        kept |= dict.fromkeys(_OF_A_WORKER) | {"attempt": 0}
    return kept


def _insert(connection: Connection, rows: Mapping[str, list[dict[str, Any]]], name: str) -> int:
    study_id = connection.execute(
        STUDIES.insert().values(study_name=name).returning(STUDIES.c.study_id)
    ).scalar_one()
    ids: dict[int, int] = {}
    for table in _tables():
        for row in rows[table.name]:
            values = dict(row)
            if "study_id" in table.c:
                values["study_id"] = study_id
            if "trial_id" in values:
                values["trial_id"] = ids[values["trial_id"]]
            if values.get("chosen_trial_id") is not None:
                values["chosen_trial_id"] = ids[values["chosen_trial_id"]]
            if table is TRIALS:
                ids[row["number"]] = connection.execute(
                    TRIALS.insert().values(values).returning(TRIALS.c.trial_id)
                ).scalar_one()
            else:
                connection.execute(table.insert(), values)
    return int(study_id)


def _digest(rows: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    lines = sorted(
        json.dumps([table, *sorted((name, _plain(value)) for name, value in row.items())])
        for table, found in rows.items()
        for row in found
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _plain(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return str(int(value))
    return repr(value)
