"""A store that cannot be used says so in one line; one that can, survives company."""

import multiprocessing

import optuna
import pytest
import sqlalchemy as sa
from patience import PATIENCE_S

from aesearch.studies.errors import StoreError, TransientStoreError
from aesearch.studies.store import study_rows
from aesearch.studies.store.connection import database
from aesearch.studies.store.connection.driver_errors import explained
from aesearch.studies.store.status import statuses


def open_it(path):
    """Open a store in another process; for the test of six at once."""
    study_rows.open_store(path).dispose()


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("mongodb://host/db", "must be an SQLite file or a PostgreSQL database"),
        ("sqlite://", "must be an SQLite file or a PostgreSQL database"),
        ("nonsense://", "must be an SQLite file or a PostgreSQL database"),
        ("sqlite:///:memory:", "workers are processes of their own"),
        (":memory:", "workers are processes of their own"),
        ("sqlite:///file::memory:?uri=true", "workers are processes of their own"),
        ("sqlite+aiosqlite:///s.db", "driver that waits, got 'sqlite+aiosqlite'"),
        ("postgresql+asyncpg://me@host/db", "leave the driver out: postgresql://"),
        ("postgresql://me:hunter@s3cret@127.0.0.1/db", "write that of a password as %40"),
        ("postgresql://me:hunter@s3cret:5@127.0.0.1/db", "write that of a password as %40"),
        ("postgresql://me:hunter@s3cret?x=@127.0.0.1/db", "write that of a password as %40"),
        ("postgresql://me:/?#s3cret@127.0.0.1:1/db", "no server answers there"),
        ("postgresql://me:s3cret:more@127.0.0.1:1/db", "no server answers there"),
        ("postgresql://me:s3cret@[::1/db", "cannot be read"),
        ("postgresql://me:p@host/db?prepare_threshold=often", "none or a number, got 'often'"),
        ("post gres://x y", "cannot be read"),
        ("/no/such/folder/s.db", "existing folder"),
        ("postgresql://me:s3cret@127.0.0.1:1/db", "no server answers there"),
        ("mysql://me@host/db?sslpassword=s3cret&password=s3cret", "or a PostgreSQL database"),
        ("postgresql://me@127.0.0.1:1/db?sslpassword=s3cret", "no server answers there"),
    ],
)
def test_a_bad_url_is_one_line(storage, words):
    """Scheme, folder, server: named, without the password and without a traceback's text."""
    with pytest.raises(StoreError) as caught:
        study_rows.open_store(storage)
    message = str(caught.value)
    assert words in message
    assert "s3cret" not in message
    assert "\n" not in message


def test_a_tilde_in_a_url_is_the_home(monkeypatch, tmp_path):
    """As in a path: a shell expands it in neither."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for storage in ("~/s.db", "sqlite:///~/s.db"):
        assert database.parse_url(storage).database == str(tmp_path / "s.db")


@pytest.mark.parametrize(
    "said",
    [
        'connection to server at "db" (192.0.2.1), port 5432 failed: No route to host',
        'connection to server at "db" (192.0.2.1), port 5432 failed: Network is unreachable',
        "could not receive data from server: Connection reset by peer",
        "SSL connection has been closed unexpectedly",
        "FATAL:  the database system is not yet accepting connections",
        "connection to server failed: Connection refused",
    ],
)
def test_a_server_that_is_away_is_waited_for(said):
    """Its machine starts anew, or the network is away: what is said then passes."""
    url = sa.make_url("postgresql://me@db/studies")
    error = sa.exc.OperationalError("SELECT 1", {}, Exception(said))
    assert isinstance(explained(url, error), TransientStoreError)


@pytest.mark.parametrize(
    "content", [b"this is not a database, but long enough to be one" * 50, b"SQLite format 3\0" * 9]
)
def test_a_file_that_is_no_database_is_left_alone(tmp_path, content):
    """A wrong or damaged file is named, and not a byte of it changes."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"notes\.txt cannot be used"):
        study_rows.open_store(str(path))
    assert path.read_bytes() == content


def test_a_store_that_optuna_made_is_taken(tmp_path):
    """Our tables join a database that a user already has, whose studies stay."""
    path = tmp_path / "s.db"
    url = f"sqlite:///{path}"
    optuna.create_study(study_name="theirs", storage=url)
    engine = study_rows.open_store(str(path))
    assert study_rows.study_names(engine) == []
    assert optuna.get_all_study_names(url) == ["theirs"]


def test_six_processes_create_one_database(tmp_path):
    """Six that start at once on an empty file: one creates the tables, all run."""
    path = str(tmp_path / "s.db")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=open_it, args=(path,)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in processes] == [0] * 6


def test_a_full_transaction_or_nothing(new_store):
    """An error in the middle of a transaction leaves no row of it."""
    engine = study_rows.open_store(new_store("s"))
    with pytest.raises(RuntimeError, match="boom"), database.writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO studies (study_name) VALUES ('half')")
        raise RuntimeError("boom")
    with database.reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM studies").scalar() == 0
    engine.dispose()


def test_a_reader_never_waits_for_a_writer(new_store):
    """A snapshot is read while another connection holds the write lock."""
    engine = study_rows.open_store(new_store("s"))
    with database.writing(engine) as writer:
        writer.exec_driver_sql("INSERT INTO studies (study_name) VALUES ('new')")
        assert study_rows.study_names(engine) == []
    engine.dispose()


def test_a_store_is_opened_for_reading_while_somebody_writes(new_store):
    """``list``, ``show`` and ``status`` answer while a sleeping writer holds the lock."""
    storage = new_store("s")
    engine = study_rows.open_store(storage)
    asked = []
    with database.writing(engine), study_rows.existing_store(storage) as reader:
        sa.event.listen(reader, "before_cursor_execute", lambda *call: asked.append(call[2]))
        assert statuses(reader) == []
    engine.dispose()
    assert asked
    assert not [statement for statement in asked if "IMMEDIATE" in statement]
