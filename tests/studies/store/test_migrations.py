"""A store of an older schema is upgraded whole or not at all, and its study goes on to its end."""

import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages._rdb import models as optuna_models

from aesearch.driver.study_run import run_study
from aesearch.studies.errors import StoreError
from aesearch.studies.store import ledger, migrations, study_rows, tables
from aesearch.studies.store.connection import database
from aesearch.terminal.display import make_display

COMMITTED = Path(__file__).parents[2] / "databases" / "schema-1.db"


def rows_of_finished_trials(path):
    """What the committed file knows of the four trials that were finished when it was killed."""
    queries = (
        "SELECT number, state, datetime_complete FROM trials WHERE number < 4",
        (
            "SELECT number, param_name, param_value, distribution_json FROM trial_params p "
            "JOIN trials t ON p.trial_id = t.trial_id WHERE number < 4"
        ),
        (
            "SELECT number, value FROM trial_values v "
            "JOIN trials t ON v.trial_id = t.trial_id WHERE number < 4"
        ),
        (
            "SELECT number, fold, epoch, train_loss, validation_loss FROM aesearch_curve c "
            "JOIN trials t ON c.trial_id = t.trial_id WHERE number < 4"
        ),
        (
            "SELECT number, key, value_json FROM trial_user_attributes a "
            "JOIN trials t ON a.trial_id = t.trial_id WHERE number < 4"
        ),
    )
    with closing(sqlite3.connect(path)) as connection:
        return [sorted(connection.execute(query).fetchall()) for query in queries]


def schema_of(engine):
    """Every table, column, key, index and trigger there is, however it came to be."""
    with database.reading(engine) as connection:
        if engine.dialect.name == "sqlite":
            rows = connection.exec_driver_sql("SELECT name, type, sql FROM sqlite_master")
            return {(name, kind): re.sub(r"\s+", "", sql or "") for name, kind, sql in rows}
        queries = (
            (
                "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, "
                "column_default FROM information_schema.columns WHERE table_schema = 'public'"
            ),
            (
                "SELECT conrelid::regclass::text, contype::text, pg_get_constraintdef(oid) "
                "FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
            ),
            "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        )
        return [set(map(tuple, connection.exec_driver_sql(query))) for query in queries]


@pytest.fixture
def older(new_store):
    """A store of schema 1: the committed file, and on PostgreSQL one with the same tables."""
    storage = new_store("older")
    if "://" not in storage:
        shutil.copy(COMMITTED, storage)
        return storage
    with closing(sqlite3.connect(COMMITTED)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
        columns = {
            name: {row[1] for row in connection.execute(f"PRAGMA table_info('{name}')")}
            for name in names
        }
    engine = study_rows.open_store(storage)
    with database.writing(engine) as connection:
        connection.exec_driver_sql(
            "CREATE TABLE aesearch_fold (trial_id INTEGER NOT NULL, fold INTEGER NOT NULL, "
            "score FLOAT, status VARCHAR(16) NOT NULL)"
        )
        for table in reversed(tables.OWN_TABLES):
            if table.name not in columns:
                connection.exec_driver_sql(f"DROP TABLE {table.name}")
                continue
            for column in table.columns:
                if column.name not in columns[table.name]:
                    connection.exec_driver_sql(f"ALTER TABLE {table.name} DROP {column.name}")
        connection.execute(tables.schema.update().values(version=1))
    engine.dispose()
    return storage


def test_an_upgraded_schema_is_that_of_a_fresh_store(older, new_store):
    """Tables, columns, keys, indexes and triggers: no difference but white space."""
    before = database.open_engine(database.parse_url(older))
    fresh = study_rows.open_store(new_store("fresh"))
    assert schema_of(before) != schema_of(fresh)
    before.dispose()
    upgraded = study_rows.open_store(older)
    assert schema_of(upgraded) == schema_of(fresh)
    for engine in (upgraded, fresh):
        engine.dispose()


def test_a_store_of_schema_three_gets_its_column(new_store, tiny_spec, create_study):
    """The number of the schema is raised with every column, or an older store is not upgraded."""
    storage = new_store("three")
    engine = create_study(storage, tiny_spec())
    with database.writing(engine) as connection:
        connection.exec_driver_sql("ALTER TABLE aesearch_lease DROP COLUMN repeated")
        connection.execute(tables.schema.update().values(version=3))
    upgraded = study_rows.open_store(storage)
    lease = ledger.claim(
        upgraded,
        study_rows.find_study(upgraded, "digits"),
        owner="me",
        lookahead=1,
        kinds=("search",),
    )
    upgraded.dispose()
    assert lease.repeated == 0


def test_an_upgrade_that_fails_leaves_the_older_schema(older, monkeypatch):
    """Tables and version are one transaction: an error at its end takes all of it back."""

    def half(connection):
        whole(connection)
        raise RuntimeError("boom")

    whole = migrations._add_what_is_missing
    engine = database.open_engine(database.parse_url(older))
    before = schema_of(engine)
    monkeypatch.setattr(migrations, "_add_what_is_missing", half)
    with pytest.raises(RuntimeError, match="boom"):
        study_rows.open_store(older)
    assert schema_of(engine) == before
    with database.reading(engine) as connection:
        assert connection.execute(sa.select(tables.schema.c.version)).scalar() == 1
    engine.dispose()


def test_six_processes_upgrade_one_store(older, new_store):
    """Six that start at once: one upgrades, all run, and the schema is right."""
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                study_rows.open_store(older).dispose()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    upgraded, fresh = study_rows.open_store(older), study_rows.open_store(new_store("fresh"))
    assert schema_of(upgraded) == schema_of(fresh)
    with database.reading(upgraded) as connection:
        versions = connection.execute(sa.select(tables.schema.c.version)).scalars().all()
    assert versions == [tables.SCHEMA_VERSION]
    for engine in (upgraded, fresh):
        engine.dispose()


def test_a_later_schema_is_refused_and_left_alone(new_store):
    """A store of a later aesearch is not touched; the remedy is the command that updates ours."""
    storage = new_store("later")
    engine = study_rows.open_store(storage)
    with database.writing(engine) as connection:
        connection.execute(tables.schema.update().values(version=tables.SCHEMA_VERSION + 1))
    before = schema_of(engine)
    later = f"got {tables.SCHEMA_VERSION + 1}; run pip install --upgrade aesearch"
    with pytest.raises(StoreError, match=later):
        study_rows.open_store(storage)
    assert schema_of(engine) == before
    engine.dispose()


@pytest.mark.parametrize(
    ("library", "revision", "remedy"),
    [
        ("6.1.0", "v6.0.0.a", "pip install --upgrade optuna"),
        ("2.10.0", "v2.6.0.a", "optuna storage upgrade"),
    ],
)
def test_tables_of_another_optuna_are_refused(new_store, library, revision, remedy):
    """Optuna's tables of a later or an earlier layout are not read as if they were ours."""
    storage = new_store("theirs")
    engine = study_rows.open_store(storage)
    with database.writing(engine) as connection:
        connection.exec_driver_sql(f"UPDATE version_info SET library_version = '{library}'")
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
    with pytest.raises(StoreError, match=remedy):
        study_rows.open_store(storage)
    engine.dispose()


@pytest.mark.parametrize("table", [None, *sorted(optuna_models.BaseModel.metadata.tables)])
def test_an_empty_file_and_tables_that_are_half_made_are_completed(tmp_path, table):
    """A process that died while Optuna made its tables one by one left some of them."""
    path = tmp_path / "half.db"
    path.touch()
    if table is not None:
        made = optuna_models.BaseModel.metadata.tables[table]
        begun = sa.create_engine(f"sqlite:///{path}")
        made.create(begun)
        begun.dispose()
    half, fresh = (
        study_rows.open_store(str(path)),
        study_rows.open_store(str(tmp_path / "fresh.db")),
    )
    assert schema_of(half) == schema_of(fresh)
    for engine in (half, fresh):
        engine.dispose()


def test_a_file_of_optuna_is_used_whatever_else_is_in_it(tmp_path):
    """Studies of another program that uses Optuna, and tables of its own beside them."""
    path = tmp_path / "theirs.db"
    optuna.create_study(storage=f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER)")
    study_rows.open_store(str(path)).dispose()
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = {row[0] for row in rows}
    assert {"t", "studies", "aesearch_schema"} <= names


@pytest.mark.server
def test_a_server_database_is_shared_with_other_tables(postgres_url):
    """There a database often serves several programs: ours lies beside them."""
    engine = database.open_engine(database.parse_url(postgres_url))
    with database.writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE t (a INTEGER)")
    migrations.prepare(engine)
    with database.reading(engine) as connection:
        assert {"t", "aesearch_schema"} <= set(sa.inspect(connection).get_table_names())
    engine.dispose()


def test_a_deleted_study_of_an_upgraded_store_leaves_nothing(tmp_path):
    """The triggers of an upgraded file know the tables that the older ones did not."""
    path = tmp_path / "older.db"
    shutil.copy(COMMITTED, path)
    engine = study_rows.open_store(str(path))
    filled = 0
    with closing(sqlite3.connect(path)) as connection:  # as the dashboard: no foreign keys
        trial = connection.execute("SELECT trial_id FROM trials LIMIT 1").fetchone()[0]
        for table in tables.OWN_TABLES:
            values = {
                column.name: {"study_id": 1, "trial_id": trial}.get(column.name, 0)
                for column in table.columns
            }
            if {"study_id", "trial_id"} & values.keys():
                names, marks = ", ".join(values), ", ".join("?" * len(values))
                connection.execute(
                    f"INSERT OR IGNORE INTO {table.name} ({names}) VALUES ({marks})",
                    list(values.values()),
                )
                filled += 1
        connection.execute("DELETE FROM aesearch_study")  # without which nothing is kept
        connection.execute("DELETE FROM trials")
        connection.execute("DELETE FROM studies")
        connection.commit()
        left = {
            table.name: connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0]
            for table in tables.OWN_TABLES
        }
    assert filled == len(tables.OWN_TABLES) - 2  # neither the schema nor what moves
    assert left == dict.fromkeys(left, 0) | {"aesearch_schema": 1}
    engine.dispose()


def test_an_older_study_goes_on_to_its_end(tmp_path):
    """Killed under schema 1 after four trials, given again today: all twelve, the four unchanged.

    Settings that the specification got since then are no difference.
    """
    path = tmp_path / "older.db"
    shutil.copy(COMMITTED, path)
    before = rows_of_finished_trials(path)
    assert len(before[0]) == 4
    engine = study_rows.open_store(str(path))
    study = study_rows.find_study(engine, "older")
    asked = study_rows.stored_spec(study)
    assert asked.model_dump(mode="json") != study.spec, "no setting is new: nothing is shown"
    run = run_study(
        asked,
        storage=str(path),
        out=tmp_path / "out",
        workers=1,
        display=make_display(quiet=True),
    )
    assert rows_of_finished_trials(path) == before
    assert [trial.number for trial in run.snapshot.trials] == list(range(12))
    assert {trial.state for trial in run.snapshot.trials} <= {"complete", "pruned"}
    assert (tmp_path / "out" / "best.yaml").exists()
    assert run.snapshot.test_looks == 1
    engine.dispose()
