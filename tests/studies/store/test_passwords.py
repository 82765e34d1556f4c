"""A password that only a file holds: every way into the database reads it, nothing shows it."""

import pytest
import sqlalchemy as sa
from forked_command import forked_command
from postgres import PASSWORD
from sqlalchemy.engine import make_url

from aesearch.studies.errors import StoreError
from aesearch.studies.store import study_rows
from aesearch.studies.store.connection import database
from aesearch.studies.store.connection.passwords import PASSWORD_VARIABLE, password_from_file


@pytest.fixture
def named_file(tmp_path, monkeypatch):
    """Write the file that the variable names."""
    path = tmp_path / "the password"
    monkeypatch.setenv(PASSWORD_VARIABLE, str(path))

    def write(content):
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n"], ids=["none", "lf", "crlf", "two"])
def test_the_file_is_read_without_its_line_end(named_file, end):
    """Editors and ``echo`` end a line; blanks and everything else belong to the password."""
    named_file(" pässword{0}% ".encode() + end)
    assert password_from_file() == {"password": " pässword{0}% "}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "with 0 lines"),
        (b"\n", "with 0 lines"),
        (b"user\nsecret\n", "with 2 lines"),
        (b"\xffsecret", "not UTF-8"),
    ],
    ids=["empty", "blank", "two", "bytes"],
)
def test_a_file_that_holds_no_password_is_refused(named_file, content, words):
    """The file is named; what is in it is not."""
    path = named_file(content)
    with pytest.raises(StoreError, match=words) as caught:
        password_from_file()
    assert repr(str(path)) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_named(monkeypatch):
    """With the variable, so that whoever reads it knows where to look."""
    monkeypatch.setenv(PASSWORD_VARIABLE, "/nowhere/password")
    with pytest.raises(StoreError, match=f"{PASSWORD_VARIABLE}.*'/nowhere/password': No such file"):
        password_from_file()


def test_a_password_among_the_parameters_is_shown_nowhere():
    """A URL may carry it behind the question mark too; messages leave it out all the same."""
    url = database.parse_url("postgresql://me@host/studies?password=s3cret&sslmode=require")
    assert url.password == "s3cret"
    assert dict(url.query) == {"sslmode": "require"}
    assert "s3cret" not in url.render_as_string()


@pytest.mark.server
def test_the_engine_and_optuna_read_the_file(postgres, named_file, prepared_database):
    """Neither URL holds the password, and both get in."""
    named_file(PASSWORD.encode() + b"\n")
    engine = study_rows.open_store(postgres.url(prepared_database, password=None))
    theirs = database.optuna_storage(engine)
    assert engine.url.password is None
    assert theirs.get_all_studies() == []
    database.close_storage(theirs)
    engine.dispose()


@pytest.mark.server
def test_a_password_in_the_url_wins(postgres, named_file, prepared_database):
    """What was said closest to the command counts."""
    named_file(b"wrong")
    study_rows.open_store(postgres.url(prepared_database)).dispose()


@pytest.mark.server
def test_a_wrong_password_of_a_file_is_not_repeated(postgres, named_file, prepared_database):
    """The server's refusal is one line without it."""
    named_file(b"wrong-one")
    with pytest.raises(StoreError, match="the user or password is wrong") as caught:
        study_rows.open_store(postgres.url(prepared_database, password=None))
    assert "wrong-one" not in str(caught.value)


@pytest.mark.server
def test_a_password_file_of_libpq_works_as_well(postgres, prepared_database, tmp_path, monkeypatch):
    """Who has a ``.pgpass`` needs nothing of ours."""
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    (tmp_path / "pgpass").write_text(f"*:*:*:*:{escaped}\n", encoding="utf-8")
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    study_rows.open_store(postgres.url(prepared_database, password=None)).dispose()


def init(storage):
    """Run ``aesearch init`` in a process of its own."""
    return forked_command("init", "--storage", storage)


@pytest.mark.server
def test_init_makes_the_tables_once(postgres, postgres_url, named_file):
    """On an empty database, with the password in the file; once more changes nothing."""
    named_file(PASSWORD.encode())
    url = postgres.url(make_url(postgres_url).database, password=None)
    first, second = init(url), init(url)
    assert (first.returncode, first.stderr) == (0, "")
    assert (second.returncode, second.stdout) == (0, first.stdout)
    engine = database.open_engine(database.parse_url(url))
    assert sa.inspect(engine).has_table("aesearch_schema")
    assert sa.inspect(engine).has_table("trials")
    engine.dispose()


def test_init_of_what_is_no_store_is_one_line(tmp_path):
    """A file of another kind is left as it is."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, " * 100)
    done = init(str(path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert path.read_text() == "not a database, " * 100
