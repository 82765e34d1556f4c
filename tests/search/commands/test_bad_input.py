"""Names, URLs, files and databases that are not what they should be: one line, or they work."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from aesearch.artifacts.run_folder import write_run_folder
from aesearch.cli import app
from aesearch.studies.errors import StoreError
from aesearch.studies.results.output_files import default_folder
from aesearch.studies.store import study_rows, whole_studies
from aesearch.studies.store.connection import retry
from aesearch.workers.worker import Worker

NAMES = {
    "quotes": 'it\'s "mine"; DROP TABLE trials; --',
    "path": "../../etc/x",
    "absolute": "/tmp/x",
    "dots": "..",
    "braces": "{0} {name!r} %s %(x)s ${HOME}",
    "unicode": "Größe 日本 🙂",
    "long": "n" * 200,
    "url": "sqlite:///x?y#z",
    "markup": "<script>alert(1)</script>",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_strange_name_is_a_name(tmp_path, tiny_spec, create_study, name, monkeypatch):
    """Created, trained, listed and written below ``runs`` under it, and gone with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AESEARCH_STORAGE", raising=False)
    short = ("search.trials=1", "retrain.seeds=1", "evaluation.bootstrap=5")
    spec = tiny_spec(*short).model_copy(update={"name": name})
    engine = create_study(tmp_path / "aesearch.db", spec)
    create_study(tmp_path / "aesearch.db", tiny_spec("name=other"))
    Worker(engine, name, stop=threading.Event()).run()
    write_run_folder(engine, name, default_folder(name))
    (folder,) = (tmp_path / "runs").iterdir()
    assert yaml.safe_load((folder / "best.yaml").read_text())["result"]["study"] == name
    assert {path.name for path in tmp_path.iterdir()} - {"runs"} <= {
        "aesearch.db",
        "aesearch.db-shm",
        "aesearch.db-wal",
    }
    shown = CliRunner().invoke(app, ["show", name])
    assert shown.exit_code == 0, shown.stderr
    assert name in shown.stdout
    whole_studies.delete_study(engine, name)
    assert study_rows.study_names(engine) == ["other"]


def test_names_that_no_folder_has_stay_apart():
    """What is no name of a folder is replaced; a plain name stays as it is."""
    names = ("faces/v2", "faces:v2", "faces_v2", "..", ".", "///")
    folders = [default_folder(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder.parent == Path("runs") and folder.name for folder in folders)
    assert default_folder("faces_v2") == Path("runs/faces_v2")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("n" * 201, "must be text of length <= 200"),
        ("n" * 600, "must be text of length <= 200"),
        ("two\nlines", "must be printable text on one line"),
        ("", "must be text of length >= 1"),
        ("zero\0byte", "must be printable text on one line"),
    ],
    ids=["201", "600", "lines", "empty", "zero"],
)
def test_a_name_that_no_database_takes_is_refused(tmp_path, monkeypatch, name, rule):
    """Before anything is made; PostgreSQL would cut or refuse it, SQLite would not."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["run", "--study", name, "--trials", "1"])
    assert done.exit_code == 2
    assert f"name: {rule}" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "storage",
    [
        "postgresql://me:s3cret{0}%25@127.0.0.1:1/db",
        "postgresql://me:s3cret@127.0.0.1:notaport/db",
        "postgresql://me:s3cret@[::1/db",
        "postgresql://me@127.0.0.1:1/db?password=s3cret",
        "mysql://me:s3cret@host/db",
        "http://me:s3cret@host/db",
        "://me:s3cret@host",
    ],
)
@pytest.mark.parametrize("command", ["run", "list", "worker", "dashboard"])
def test_a_password_in_a_bad_url_is_never_printed(tmp_path, monkeypatch, storage, command):
    """Whatever is wrong with it, the line says so without it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(retry.RETRY_VARIABLE, "0")
    done = CliRunner().invoke(app, [command, "--storage", storage])
    assert done.exit_code == 2, done.output
    *before, error = done.stderr.splitlines()
    assert all(line.startswith("read digits: ") for line in before), done.stderr
    assert error.startswith("error: ")
    assert "s3cret" not in done.output
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "CREATE TABLE trials (trial_number INTEGER, outcome TEXT)",
        "CREATE TABLE studies (name TEXT)",
        "CREATE TABLE version_info (version TEXT)",
        "CREATE TABLE t (a INTEGER)",
    ],
    ids=["alembic", "trials", "studies", "version_info", "t"],
)
def test_a_database_of_another_program_is_left_alone(tmp_path, statement):
    """Whether a table has the name of one of Optuna's or not: refused, and no byte is changed."""
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    before = path.read_bytes()
    name = statement.split()[2]
    with pytest.raises(
        StoreError,
        match=rf"tables of another program \({name}\); name another file with --storage",
    ):
        study_rows.open_store(str(path))
    assert path.read_bytes() == before


def test_a_file_of_ten_megabytes_is_not_read(tmp_path):
    """A specification is a page of text: a larger file is refused by its size."""
    path = tmp_path / "study.yaml"
    path.write_bytes(b"seed: 1\n" * 1_310_720)
    done = CliRunner().invoke(app, ["run", "--spec", str(path), "--print-config"])
    assert done.exit_code == 2
    assert "must be at most 1,000,000 bytes" in done.stderr
