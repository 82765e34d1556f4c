"""Optuna studies in stores that are not ours: their trials are read, and nothing is written."""

import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import sqlalchemy as sa
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, make_url

from aesearch.studies.errors import StoreError, StudyNotFoundError
from aesearch.studies.store.connection import database
from aesearch.studies.store.connection.driver_errors import describe, explained

_SQLITE_HEAD = b"SQLite format 3\0"
_SHOWN = 8


class ForeignStudy(NamedTuple):
    """A study as Optuna knows it.

    Attributes
    ----------
    directions : tuple of str
        ``minimize`` or ``maximize`` for each objective.
    """

    name: str
    directions: tuple[str, ...]
    trials: list[FrozenTrial]


def read_study(storage: str, name: str | None = None) -> ForeignStudy:
    """Read a study of any program that uses Optuna.

    Parameters
    ----------
    storage : str
        Database URL, or the path of an SQLite file or of a file of Optuna's journal storage.
    name : str, optional
        None for the only study of the store.

    Raises
    ------
    StoreError
        There is no such store, it is not Optuna's, or of a version that this Optuna cannot read.
    StudyNotFoundError
        There is no study of that name, or no name was given and there is not exactly one; those
        that there are are listed.
    """
    if "://" in storage:
        return _in_database(_url(storage), name)
    path = Path(storage).expanduser()
    if not path.is_file():
        raise _no_file(path)
    with path.open("rb") as file:
        is_sqlite = file.read(len(_SQLITE_HEAD)) == _SQLITE_HEAD
    if is_sqlite:
        return _in_database(URL.create("sqlite", database=str(path)), name)
    return _in_journal(path, name)


def _in_journal(path: Path, name: str | None) -> ForeignStudy:
    refused = StoreError(
        "from must be a database URL, an SQLite file or a journal file of Optuna, got "
        f"{str(path)!r}, which is none of them"
    )
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError, OSError) as error:  # of a line that is no log
        raise refused from error
    if not storage.get_all_studies():  # a last line that is broken is none to Optuna
        raise refused
    return _study(storage, name, str(path))


def _url(storage: str) -> URL:
    if storage.startswith(("sqlite", "postgres")):
        url = database.parse_url(storage)
    else:
        try:
            url = make_url(storage)
        except (sa.exc.ArgumentError, ValueError):
            raise StoreError(
                "from must be a database URL or the path of a file, got one that cannot be read; "
                "use sqlite:///study.db or postgresql://user@host/database"
            ) from None
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise _no_file(Path(str(url.database)))
    return url


def _no_file(path: Path) -> StoreError:
    return StoreError(f"from must be a store that exists, got {str(path)!r}: no such file")


def _in_database(url: URL, name: str | None) -> ForeignStudy:
    where = describe(url)
    storage = None
    try:
        storage = _opened(url)
        return _study(storage, name, where)
    except (ImportError, sa.exc.NoSuchModuleError) as error:
        raise StoreError(
            f"from must be a database whose driver is installed, got {where!r}: {error}"
        ) from error
    except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _unusable(url, error.__cause__ or error) from error
    except RuntimeError as error:  # what Optuna says of tables of another version
        raise StoreError(
            f"the store {where} must be of the version of Optuna here ({optuna.__version__}), got "
            f"one of another; run optuna storage upgrade --storage {where} on a copy of it"
        ) from error
    finally:
        if storage is not None:
            database.close_storage(storage)


def _opened(url: URL) -> optuna.storages.RDBStorage:
    if url.get_backend_name() == "postgresql":
        engine = database.open_engine(url)
        try:
            return database.optuna_storage(engine, read_only=True, lasting=False)
        finally:
            engine.dispose()
    # Optuna fills placeholders of a URL with str.format: braces must be doubled.
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    arguments: dict[str, Any] = {"poolclass": sa.pool.NullPool}
    if url.get_backend_name() == "sqlite":
        file = f"{Path(str(url.database)).absolute().as_uri()}?mode=ro"
        arguments["creator"] = lambda: sqlite3.connect(file, uri=True, check_same_thread=False)
    return optuna.storages.RDBStorage(text, engine_kwargs=arguments, skip_table_creation=True)


def _unusable(url: URL, error: BaseException) -> StoreError:
    if "no such table" in str(error) or "UndefinedTable" in str(error):
        return StoreError(
            f"from must be a store of Optuna, got {describe(url)!r}, which has none of its tables"
        )
    return explained(url, error)


def _study(storage: optuna.storages.BaseStorage, name: str | None, where: str) -> ForeignStudy:
    studies = {study.study_name: study for study in storage.get_all_studies()}
    if name is None and len(studies) == 1:
        name = next(iter(studies))
    if name is None or name not in studies:
        listed = ", ".join(map(repr, list(studies)[:_SHOWN])) or "none"
        more = f" and {len(studies) - _SHOWN} more" if len(studies) > _SHOWN else ""
        got = "none" if name is None else repr(name)
        raise StudyNotFoundError(
            f"study must be one of the store {where}, got {got}; there: {listed}{more}"
        )
    found = studies[name]
    directions = tuple(direction.name.lower() for direction in found.directions)
    return ForeignStudy(name, directions, storage.get_all_trials(found._study_id))  # noqa: SLF001
