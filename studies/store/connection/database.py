"""Opening a database and its transactions; which tables it must have is in ``migrations``."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url

from aesearch.studies.errors import StoreError
from aesearch.studies.store.connection.driver_errors import describe, translated
from aesearch.studies.store.connection.passwords import PASSWORD_VARIABLE, password_from_file
from aesearch.studies.store.connection.retry import CONNECT_TIMEOUT_S, LOCK_TIMEOUT_S, lease_s

_READ = "aesearch_read"
_ASYNCHRONOUS = ("asyncpg", "psycopg_async", "aiosqlite")
# By a column of the first table that Optuna makes, or of the one that says its version.
_EMPTY_OR_OPTUNAS = (
    "SELECT count(*) = 0 OR max(sql LIKE '%study_name%' OR sql LIKE '%library_version%') "
    "FROM sqlite_master"
)


def parse_url(storage: str) -> URL:
    """Read a database URL or the path of an SQLite file.

    Parameters
    ----------
    storage : str
        ``sqlite:///path``, ``postgresql://user:password@host/database``, or the path
        of an SQLite file.

    Returns
    -------
    URL
        PostgreSQL always with the psycopg 3 driver.

    Raises
    ------
    StoreError
        Not a URL, or a database that is not supported.
    """
    if "://" not in storage:
        return _sqlite(URL.create("sqlite", database=storage))
    # A second one ends the password early, and the rest of it would be told as the host.
    if storage.count("@") > 1 and not storage.startswith("sqlite"):
        raise StoreError(
            f"storage must be a URL with one '@' at most, got {storage.count('@')}; write that of "
            f"a password as %40, or put the password into a file that {PASSWORD_VARIABLE} names"
        )
    try:
        url = make_url(storage)
    except (sa.exc.ArgumentError, ValueError):
        raise StoreError(
            "storage must be a database URL or a path, got one that cannot be read; "
            "use sqlite:///study.db or postgresql://user@host/database"
        ) from None
    backend = url.get_backend_name()
    if url.drivername.partition("+")[2] in _ASYNCHRONOUS:
        raise StoreError(
            f"storage must be read by a driver that waits, got {url.drivername!r}; leave the "
            f"driver out: {'sqlite' if backend == 'sqlite' else 'postgresql'}://"
        )
    if backend in ("postgresql", "postgres"):
        hidden = url.query.get("password")
        if isinstance(hidden, str):  # in its place, where every message leaves it out
            url = url.difference_update_query(["password"]).set(password=hidden)
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return _sqlite(url)
    raise StoreError(
        f"storage must be an SQLite file or a PostgreSQL database, got {describe(url)!r}; "
        "use sqlite:///study.db or postgresql://user@host/database"
    )


def _sqlite(url: URL) -> URL:
    name = str(url.database or "")
    if not name or ":memory:" in name or url.query.get("mode") == "memory":
        raise StoreError(
            "storage must be an SQLite file or a PostgreSQL database, since workers are processes "
            f"of their own, got {describe(url)!r}; use sqlite:///study.db"
        )
    return url.set(drivername="sqlite", database=str(Path(name).expanduser()))


def open_engine(url: URL) -> Engine:
    """Connect: on SQLite with a write-ahead log and immediate transactions.

    A deferred transaction that reads and then writes fails at once with "database is
    locked" in WAL mode, whatever the timeout; taking the write lock at BEGIN waits.
    """
    if url.get_backend_name() != "sqlite":
        try:
            engine = sa.create_engine(
                url.difference_update_query(["prepare_threshold"]),
                pool_pre_ping=True,
                connect_args=_postgres_arguments(url),
            )
        except ModuleNotFoundError as error:
            raise StoreError(
                "PostgreSQL needs the driver psycopg, which is not installed; "
                "run pip install 'aesearch[postgres]'"
            ) from error
        event.listen(engine, "begin", _begin_postgres)
        return engine
    folder = Path(str(url.database)).absolute().parent
    if not folder.is_dir():
        raise StoreError(
            f"storage must lie in an existing folder, got {url.database!r}; create {folder}"
        )
    engine = sa.create_engine(url, **_sqlite_arguments(url))
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgres_arguments(url: URL) -> dict[str, Any]:
    # A machine that is gone closes no connection: without these, a worker waits for it for hours.
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
        "application_name": "aesearch",
    }
    if url.password is None:
        # Never in the URL: that is written into errors, logs and other processes' environments.
        arguments |= password_from_file()
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    # The next transaction may meet another session behind a pool such as PgBouncer's, which knows
    # nothing of a statement that was prepared.
    return arguments | {"prepare_threshold": _prepare_threshold(url)}


def _prepare_threshold(url: URL) -> int | None:
    asked = url.query.get("prepare_threshold", "none")
    if asked == "none":
        return None
    if not isinstance(asked, str) or not asked.isdecimal():
        raise StoreError(
            f"prepare_threshold of the storage must be none or a number, got {asked!r}; leave it "
            "out for none, which every pool of connections understands"
        )
    return int(asked)


def _begin_postgres(connection: Connection) -> None:
    # For this transaction alone: a session may be another program's in the next one.
    # A worker that is paused inside a transaction keeps its row locks and would stop everyone:
    # the server ends its session well before its lease runs out; but on a busy machine a
    # second between two statements is no pause.
    idle_ms = round(1000 * min(max(lease_s() / 4, 2.0), 15.0))
    connection.exec_driver_sql(
        f"SELECT set_config('idle_in_transaction_session_timeout', '{idle_ms}', true), "
        f"set_config('lock_timeout', '{round(1000 * LOCK_TIMEOUT_S)}', true), "
        # A worker goes on from what it has committed: a crash of the server must not take that
        # back.
        "set_config('synchronous_commit', CASE current_setting('synchronous_commit') "
        "WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)"
    )


def _sqlite_arguments(url: URL) -> dict[str, Any]:
    """Arguments of an engine: nothing is made beside a file that may be read only."""
    path = Path(str(url.database)).absolute()
    if (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)) or not path.is_file():
        return {"connect_args": {"timeout": LOCK_TIMEOUT_S}}
    log = path.with_name(path.name + "-wal")
    # What is in the log counts; without one, SQLite would want to make it.
    how = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    uri = f"{path.as_uri()}?{how}"
    return {
        "creator": lambda: sqlite3.connect(
            uri, uri=True, timeout=LOCK_TIMEOUT_S, check_same_thread=False
        )
    }


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    # A write-ahead log is a mark in the file: one of another program, refused later, gets none,
    # nor does one that may be read only.
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal" and connection.execute(_EMPTY_OR_OPTUNAS).fetchone()[0]:
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode=WAL")
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _only_queries(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only=ON")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get(_READ, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction; all of it happens, or nothing.

    Raises
    ------
    StoreError
        The database does not answer, is read-only, full, or stays locked.
    """
    with translated(engine), engine.begin() as connection:
        yield connection


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent read; never waits for a writer."""
    with (
        translated(engine),
        engine.connect().execution_options(
            **{_READ: True},
            **({} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}),
        ) as connection,
        connection.begin(),
    ):
        yield connection


def optuna_storage(
    engine: Engine, *, create: bool = False, read_only: bool = False, lasting: bool = True
) -> optuna.storages.RDBStorage:
    """Optuna's own view of the same database, for its tools: plots, dashboard, frames.

    Parameters
    ----------
    create : bool
        Make Optuna's tables where they are missing.
    read_only : bool
        Never write, and never wait for those who do; the database itself refuses to.
    lasting : bool
        False for one use: no connection is left open, whatever happens.

    Raises
    ------
    StoreError
        The tables were made by an Optuna with another schema.
    """
    # Optuna fills placeholders of a URL with str.format: braces must be doubled.
    plain = engine.url.difference_update_query(["prepare_threshold"])
    url = plain.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    sqlite = engine.dialect.name == "sqlite"
    kwargs: dict[str, Any] = (
        _sqlite_arguments(engine.url)
        if sqlite
        else {"pool_pre_ping": True, "connect_args": _postgres_arguments(engine.url)}
    )
    if not lasting:
        kwargs["poolclass"] = sa.pool.NullPool
    try:
        storage = optuna.storages.RDBStorage(
            url, engine_kwargs=kwargs, skip_table_creation=not create
        )
    except RuntimeError as error:
        newer = "updating optuna" in str(error)
        remedy = (
            "run pip install --upgrade optuna"
            if newer
            else f"run optuna storage upgrade --storage {describe(engine.url)}"
        )
        raise StoreError(
            f"the store {describe(engine.url)} was made by "
            f"{'a later' if newer else 'an earlier'} version of Optuna (here "
            f"{optuna.__version__}); {remedy}, or name another store"
        ) from error
    if sqlite:
        event.listen(storage.engine, "connect", _prepare_sqlite)
        event.listen(storage.engine, "begin", _begin_sqlite)
        if read_only:
            event.listen(storage.engine, "connect", _only_queries)
        storage.engine.dispose()  # connections made before the listeners
    if read_only:
        storage.engine.update_execution_options(**{_READ: True})
        if engine.dialect.name == "postgresql":
            storage.engine.update_execution_options(postgresql_readonly=True)
    return storage


def close_storage(storage: optuna.storages.RDBStorage) -> None:
    """Close every connection of what ``optuna_storage`` gave."""
    storage.remove_session()
    storage.engine.dispose()
