"""The tables of a store: made where they are missing, brought up to date where they are older."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import optuna
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from aesearch.studies.errors import StoreError
from aesearch.studies.store import tables
from aesearch.studies.store.connection.database import (
    close_storage,
    optuna_storage,
    reading,
    writing,
)
from aesearch.studies.store.connection.driver_errors import describe, translated
from aesearch.studies.store.connection.retry import repeatable
from aesearch.studies.store.optuna import optuna_tables
from aesearch.studies.store.optuna.slots import adopt_former_trials
from aesearch.studies.store.optuna.triggers import make_triggers

try:
    import fcntl
except ImportError:  # Windows, where the lock is left out
    fcntl = None  # type: ignore[assignment]

_ADVISORY_KEY = 6301974  # any number that nobody else locks


NAME_ANOTHER = "name it with --storage or AESEARCH_STORAGE, or make one with 'aesearch run'"


@repeatable
def prepare(engine: Engine, *, create: bool = True) -> None:
    """Create Optuna's tables and ours where they are missing; upgrade ours where they are older.

    Several processes may do this at once; one of them does the work.

    Parameters
    ----------
    create : bool
        False to refuse a database without our tables.

    Raises
    ------
    StoreError
        The tables belong to a later aesearch, another Optuna, or to another program.
    """
    with translated(engine):
        if _version(engine, create=create) == tables.SCHEMA_VERSION:
            return
        with _alone(engine):
            found = _version(engine, create=create)
            if found is None:
                _create(engine)
            else:
                _upgrade(engine)


def _version(engine: Engine, *, create: bool) -> int | None:
    """Schema that the store has, None where there is none yet and one may be made."""
    with reading(engine) as connection:
        inspector = sa.inspect(connection)
        names = set(inspector.get_table_names())
        if "aesearch_schema" not in names and not create:
            raise StoreError(
                f"storage must hold studies of aesearch, got {describe(engine.url)} without; "
                + NAME_ANOTHER
            )
        if "aesearch_schema" not in names:
            _refuse_foreign(engine, inspector, names)
            _refuse_encoding(engine, connection)
            return None
        found = connection.execute(sa.select(tables.schema.c.version)).scalar()
        library = connection.exec_driver_sql("SELECT library_version FROM version_info").scalar()
    if found is not None and found > tables.SCHEMA_VERSION:
        raise StoreError(
            f"the store {describe(engine.url)} must have schema {tables.SCHEMA_VERSION} or older, "
            f"got {found}; run pip install --upgrade aesearch, or name another store"
        )
    if _major(library) != _major(optuna.__version__):
        close_storage(
            optuna_storage(engine, lasting=False)
        )  # Optuna says whether it can read its tables
    return found


def _major(version: str | None) -> str:
    return str(version).partition(".")[0]


def _refuse_foreign(engine: Engine, inspector: sa.Inspector, names: set[str]) -> None:
    # Optuna's own, half made by a process that died, are completed; anyone else's are left alone.
    keys = {"trials": "trial_id", "studies": "study_id"}
    strange: set[str] = set()
    remedy = "name another"
    if engine.dialect.name == "sqlite":
        # A file has one owner, and version_info says that it is Optuna's. On a server, programs
        # often share a database: there, tables of other names are none of our business.
        keys["version_info"] = "library_version"
        if "version_info" not in names:
            strange = names - set(optuna_tables.STUDIES.metadata.tables)
        remedy = "name another file with --storage"
    foreign = any(
        key not in {column["name"] for column in inspector.get_columns(table)}
        for table, key in keys.items()
        if table in names
    )
    foreign |= "alembic_version" in names and not names & {"version_info", "studies"}
    if foreign or strange:
        raise StoreError(
            f"the store {describe(engine.url)} must be empty or made by aesearch or Optuna, got "
            f"tables of another program ({', '.join(sorted(strange or names)[:5])}); {remedy}"
        )


def _refuse_encoding(engine: Engine, connection: Connection) -> None:
    if engine.dialect.name == "sqlite":
        return
    found = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if found != "UTF8":
        raise StoreError(
            f"the store {describe(engine.url)} must have the encoding UTF8, got {found}: names "
            "and notes hold any character; create a database with CREATE DATABASE name ENCODING "
            "'UTF8' TEMPLATE template0"
        )


def _create(engine: Engine) -> None:
    close_storage(optuna_storage(engine, create=True, lasting=False))
    with writing(engine) as connection:
        tables.metadata.create_all(connection, tables=tables.OWN_TABLES)
        make_triggers(connection)
        connection.execute(tables.schema.insert().values(version=tables.SCHEMA_VERSION))


def _upgrade(engine: Engine) -> None:
    with writing(engine) as connection:
        # The tables and the number that says so: together or not at all.
        _add_what_is_missing(connection)
        _drop_what_nothing_reads(connection)
        adopt_former_trials(connection)
        connection.execute(tables.schema.update().values(version=tables.SCHEMA_VERSION))


def _add_what_is_missing(connection: Connection) -> None:
    """Add tables, columns and indexes that an older schema lacks; nothing there changes."""
    tables.metadata.create_all(connection, tables=tables.OWN_TABLES)
    inspector = sa.inspect(connection)
    for table in tables.OWN_TABLES:
        have = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in have:
                assert column.nullable or column.server_default is not None, f"{column}: old rows"
                added = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {added}")
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    make_triggers(connection)


def _drop_what_nothing_reads(connection: Connection) -> None:
    # Fold scores stand with their trial, as Optuna's user attribute; until schema 4 here too.
    connection.exec_driver_sql("DROP TABLE IF EXISTS aesearch_fold")


@contextlib.contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    # Optuna's own creation of a fresh database crashes when two processes meet in it.
    if engine.dialect.name == "sqlite":
        folder = os.open(Path(str(engine.url.database)).absolute().parent, os.O_RDONLY)
        try:
            if fcntl is not None:
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
        return
    with engine.begin() as connection:
        # It does nothing meanwhile, for which the server would end it.
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_KEY})")
        yield
