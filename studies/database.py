"""Opening a store: its URL, its engine, its tables, and what can be wrong with them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url

from aesearch.studies import tables
from aesearch.studies.errors import StoreError

LOCK_TIMEOUT_S = 60.0
_READ = "aesearch_read"


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
        return URL.create("sqlite", database=str(Path(storage).expanduser()))
    try:
        url = make_url(storage)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise StoreError(
            "storage must be a database URL or a path, got one that cannot be read; "
            "use sqlite:///study.db or postgresql://user@host/database"
        ) from error
    backend = url.get_backend_name()
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database not in (None, "", ":memory:"):
        return url
    raise StoreError(
        f"storage must be an SQLite file or a PostgreSQL database, got {describe(url)!r}; "
        "use sqlite:///study.db or postgresql://user@host/database"
    )


def describe(url: URL) -> str:
    """Give the URL as text without its password: for messages, logs and the screen."""
    return url.render_as_string(hide_password=True)


def open_engine(url: URL) -> Engine:
    """Connect: on SQLite with a write-ahead log and immediate transactions.

    A deferred transaction that reads and then writes fails at once with "database is
    locked" in WAL mode, whatever the timeout; taking the write lock at BEGIN waits.
    """
    if url.get_backend_name() != "sqlite":
        try:
            return sa.create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise StoreError(
                "PostgreSQL needs the driver psycopg, which is not installed; "
                "run pip install 'aesearch[postgres]'"
            ) from error
    folder = Path(str(url.database)).absolute().parent
    if not folder.is_dir():
        raise StoreError(
            f"storage must lie in an existing folder, got {url.database!r}; create {folder}"
        )
    engine = sa.create_engine(url, connect_args={"timeout": LOCK_TIMEOUT_S})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
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


@contextlib.contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn what the driver says into one line that names the database and the remedy."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.DatabaseError) as error:
        if isinstance(error, sa.exc.IntegrityError):
            raise
        raise StoreError(_explain(engine.url, error)) from error
    except optuna.exceptions.StorageInternalError as error:
        raise StoreError(_explain(engine.url, error.__cause__ or error)) from error


_REMEDIES = {
    "file is not a database": "it is not an SQLite file; name another file or move this one away",
    "malformed": "the file is damaged; restore a copy (with its -wal file beside it)",
    "readonly": "the file or its folder is read-only; make it writable or name another",
    "read-only": "the file or its folder is read-only; make it writable or name another",
    "unable to open": "it cannot be opened; check that the folder is there and writable",
    "locked": f"another process held its lock for over {LOCK_TIMEOUT_S:.0f} s; "
    "end that process and run the same command again, nothing is lost",
    "disk is full": "the disk is full; free some space and run the same command again",
    "password authentication failed": "the user or password is wrong; check the URL",
    "does not exist": "no such database or role; create it first",
    "refused": "no server answers there; check the host and port, and that it runs",
    "could not translate host": "there is no such host; check the URL",
    "resolve": "there is no such host; check the URL",
}


def _explain(url: URL, error: BaseException) -> str:
    cause = str(getattr(error, "orig", None) or error).strip().splitlines() or ["no reason given"]
    text = " ".join(cause)
    for part, remedy in _REMEDIES.items():
        if part in text:
            return f"the store {describe(url)} cannot be used: {remedy}"
    password = url.password or ""
    shown = cause[0].replace(password, "***") if password else cause[0]
    return f"the store {describe(url)} cannot be used: {shown}"


def prepare(engine: Engine) -> None:
    """Create Optuna's tables and ours where they are missing; check that they are of this version.

    Raises
    ------
    StoreError
        The tables belong to another version of Optuna or aesearch, or to another program.
    """
    with translated(engine):
        if _ready(engine):
            return
        with _creation_lock(engine):
            if not _ready(engine):
                _create(engine)


def _ready(engine: Engine) -> bool:
    inspector = sa.inspect(engine)
    names = set(inspector.get_table_names())
    if "aesearch_schema" not in names:
        foreign = names & {"trials", "studies"} and "version_info" not in names
        if foreign:
            raise StoreError(
                f"the store {describe(engine.url)} must be empty or made by aesearch or Optuna, "
                f"got tables of another program ({', '.join(sorted(names)[:5])}); name another"
            )
        return False
    with reading(engine) as connection:
        found = connection.execute(sa.select(tables.schema.c.version)).scalar()
    if found is None:
        return False
    if found != tables.SCHEMA_VERSION:
        raise StoreError(
            f"the store {describe(engine.url)} must have schema {tables.SCHEMA_VERSION}, "
            f"got {found}; use the aesearch version that made it, or another store"
        )
    return True


def _create(engine: Engine) -> None:
    optuna_storage(engine, create=True)
    with engine.begin() as connection:
        tables.metadata.create_all(connection, tables=tables.OWN_TABLES)
        connection.execute(tables.schema.insert().values(version=tables.SCHEMA_VERSION))


@contextlib.contextmanager
def _creation_lock(engine: Engine) -> Iterator[None]:
    # Optuna's own creation of a fresh database crashes when two processes meet in it.
    if engine.dialect.name == "sqlite":
        fcntl = _fcntl()
        folder = os.open(Path(str(engine.url.database)).absolute().parent, os.O_RDONLY)
        try:
            if fcntl is not None:
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
    else:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT pg_advisory_lock(6301974)"))
            try:
                yield
            finally:
                connection.execute(sa.text("SELECT pg_advisory_unlock(6301974)"))


def _fcntl() -> Any:
    try:
        import fcntl  # noqa: PLC0415 - absent on Windows, where the lock is left out
    except ImportError:
        return None
    return fcntl


def optuna_storage(
    engine: Engine, *, create: bool = False, read_only: bool = False
) -> optuna.storages.RDBStorage:
    """Optuna's own view of the same database, for its tools: plots, dashboard, frames.

    Parameters
    ----------
    create : bool
        Make Optuna's tables where they are missing.
    read_only : bool
        Never write, and never wait for those who do; the database itself refuses to.

    Raises
    ------
    StoreError
        The tables were made by an Optuna with another schema.
    """
    # Optuna fills placeholders of a URL with str.format: braces must be doubled.
    url = engine.url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    kwargs = {"connect_args": {"timeout": LOCK_TIMEOUT_S}} if url.startswith("sqlite") else {}
    try:
        storage = optuna.storages.RDBStorage(
            url, engine_kwargs=kwargs, skip_table_creation=not create
        )
    except RuntimeError as error:
        raise StoreError(
            f"the store {describe(engine.url)} was made by another version of Optuna "
            f"(here {optuna.__version__}); upgrade it with 'optuna storage upgrade', or name "
            "another store"
        ) from error
    if engine.dialect.name == "sqlite":
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
