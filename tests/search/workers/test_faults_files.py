"""Files that are locked, full, read-only, damaged or half there; and death while writing them."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from chaos import bury, create, finish, forked, forked_worker, killer, on_commits, table_of
from patience import PATIENCE_S
from typer.testing import CliRunner

from aesearch.artifacts.run_folder import write_run_folder
from aesearch.cli import app
from aesearch.listing import list_studies
from aesearch.studies.errors import StoreError, TransientStoreError
from aesearch.studies.results import output_files
from aesearch.studies.results.output_files import OutputError, write_whole
from aesearch.studies.store import study_rows
from aesearch.studies.store.connection import database
from aesearch.study import open_study

SMALL = (
    *("search.trials=4", "search.pruner=none", "retrain.seeds=1", "evaluation.bootstrap=10"),
    "evaluation.robustness={gaussian: [0.5], uniform: [], salt_and_pepper: [], occlusion: []}",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_spec):
    """A finished study and its run folder: the table, what the folder holds, and the store."""
    folder = tmp_path_factory.mktemp("whole")
    engine = create(folder / "s.db", tiny_spec(*SMALL))
    finish(folder / "s.db")
    write_run_folder(engine, "digits", folder / "out")
    table = table_of(engine)
    engine.dispose()  # the last to leave brings everything into the file
    return table, bytes_of(folder / "out"), folder / "s.db"


def bytes_of(folder):
    """Every file below a folder, to the byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --------------------------------------------------------------------- the store


# In a program of its own: SQLite takes a lock of this process for one of its forked children.
HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def locked():
    """Let another program hold the write lock of a store for so many seconds, or until killed."""
    programs = []

    def hold(path, seconds):
        command = [sys.executable, "-c", HOLD, str(path), str(seconds)]
        programs.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert programs[-1].stdout.readline() == "held\n"
        return programs[-1]

    yield hold
    for program in programs:
        program.kill()
        program.communicate()


@pytest.mark.parametrize("seconds", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_a_locked_store_is_waited_for(tmp_path, tiny_spec, create_study, whole, locked, seconds):
    """Another program holds the write lock: a worker without any patience waits, and goes on."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SMALL))
    locked(tmp_path / "s.db", seconds)
    finish(tmp_path / "s.db", patience_s=0)
    assert table_of(engine) == whole[0]


def test_a_store_that_stays_locked_is_named(
    tmp_path, tiny_spec, create_study, whole, locked, monkeypatch
):
    """Beyond the limit one line names the file; the worker after it loses nothing."""
    path = tmp_path / "s.db"
    engine = create_study(path, tiny_spec(*SMALL))
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.2)
    impatient = study_rows.open_store(str(path))
    study = study_rows.find_study(engine, "digits")
    holder = locked(path, PATIENCE_S)
    with pytest.raises(TransientStoreError, match=r"s\.db cannot be used: another process held"):
        study_rows.replace_spec(impatient, study, study_rows.stored_spec(study))
    holder.kill()
    impatient.dispose()
    monkeypatch.undo()
    finish(path)
    assert table_of(engine) == whole[0]


def full(engine):
    """Let the file of a store grow no further, as a full disk does."""

    @sa.event.listens_for(engine, "connect")
    def limit(connection, _record):
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")


def read_only(engine):
    """Refuse every write, with the words of a file that may not be written."""

    @sa.event.listens_for(engine, "connect")
    def refuse(connection, _record):
        connection.execute("PRAGMA query_only=ON")


@pytest.mark.parametrize(
    ("fault", "words"),
    [(full, "the disk is full; free some space"), (read_only, "is read-only; make it writable")],
)
@pytest.mark.parametrize("commit", [pytest.param(1, marks=pytest.mark.slow), 3, 5])
def test_a_store_that_takes_nothing_more_ends_in_one_line(
    tmp_path, tiny_spec, create_study, whole, fault, words, commit
):
    """In the middle of a study: the cause, no failed trial; with room again it goes on."""
    path = tmp_path / "s.db"
    engine = create_study(path, tiny_spec(*SMALL))
    said = tmp_path / "said"

    def work():
        own = study_rows.open_store(str(path))

        def break_it(number, _connection):
            if number == commit:
                fault(own)
                own.pool = own.pool.recreate()

        on_commits(own, break_it)
        from aesearch.workers.worker import Worker

        try:
            Worker(own, "digits", stop=threading.Event()).run()
        except StoreError as error:
            said.write_text(str(error))

    child = forked(work)
    assert os.waitpid(child, 0)[1] == 0
    (line,) = said.read_text().splitlines()
    assert line.startswith(f"the store sqlite:///{path} cannot be used: ")
    assert words in line
    states = {trial.state for trial in study_rows.snapshot(engine, "digits").trials}
    assert "failed" not in states
    bury(engine, child)
    finish(path)
    assert table_of(engine) == whole[0]


def as_nobody(call):
    """Call something as a user to whom files can be forbidden; what it returns, as text."""
    with tempfile.NamedTemporaryFile() as answer:
        Path(answer.name).chmod(0o666)

        def ask():
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(pwd.getpwnam("nobody").pw_uid)
            with open(answer.name, "w") as stream:  # noqa: PTH123 - in the child only
                stream.write(call())

        assert os.waitpid(forked(ask), 0)[1] == 0
        return Path(answer.name).read_text()


@pytest.fixture
def forbidden():
    """A folder that nobody may write; pytest's own cannot even be entered by another user."""
    folder = Path(tempfile.mkdtemp(prefix="aesearch-test-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def error_of(call):
    """Make what calls something and returns the message of our error."""

    def caught():
        with pytest.raises((StoreError, OutputError)) as error:
            call()
        return str(error.value)

    return caught


def test_a_file_that_may_not_be_written_is_named(forbidden, tiny_spec):
    """A read-only file in a read-only folder: one line, and not a byte is changed."""
    path = forbidden / "s.db"
    create(path, tiny_spec(*SMALL)).dispose()
    before = path.read_bytes()
    path.chmod(0o444)
    forbidden.chmod(0o555)

    def claim():
        from aesearch.studies.store import ledger

        engine = study_rows.open_store(str(path))
        ledger.claim(engine, study_rows.find_study(engine, "digits"), owner="me", lookahead=1)

    said = as_nobody(error_of(claim))
    assert said.startswith(f"the store sqlite:///{path} cannot be used: ")
    assert "read-only" in said or "cannot be opened" in said
    assert "\n" not in said
    assert path.read_bytes() == before


@pytest.mark.parametrize("logged", [False, True], ids=["whole", "with its log"])
def test_a_file_that_may_only_be_read_is_looked_at(forbidden, tiny_spec, logged):
    """List, show, report and export of somebody else's store; nothing is made beside it."""
    path = forbidden / "s.db"
    engine = create(path, tiny_spec(*SMALL))
    finish(path)
    if not logged:
        engine.dispose()  # the last to leave brings everything into the file
    assert (forbidden / "s.db-wal").exists() == logged
    before = {entry.name for entry in forbidden.iterdir()}
    for entry in forbidden.iterdir():
        entry.chmod(0o444)
    forbidden.chmod(0o555)

    def look():
        with tempfile.TemporaryDirectory() as folder:
            study = open_study("digits", path)
            made = (study.report(Path(folder) / "r.html"), study.export(Path(folder) / "out"))
            return f"{list_studies(path)[0].state} {[each.exists() for each in made]}"

    whole_look = look()  # and what it imports is there, which nobody may read
    said = as_nobody(look)
    engine.dispose()
    assert said == whole_look == "finished [True, True]"
    assert {entry.name for entry in forbidden.iterdir()} <= before


def test_a_folder_that_may_not_be_written_is_named(forbidden):
    """An output folder in a place that is not ours: one line with the option, nothing is made."""
    forbidden.chmod(0o555)
    said = as_nobody(error_of(lambda: output_files.make_folder(forbidden / "out")))
    assert said.startswith(f"out must be a folder that can be written, got '{forbidden}/out'")
    assert said.endswith("name another with --out")
    assert not (forbidden / "out").exists()


# ---------------------------------------------------------- damaged and half files


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_store_is_named_and_left_alone(tmp_path, whole, share):
    """Cut anywhere: one line that names the file, which stays as it is."""
    content = whole[2].read_bytes()
    path = tmp_path / "cut.db"
    path.write_bytes(content[: int(len(content) * share)])
    before = path.read_bytes()
    done = CliRunner().invoke(app, ["show", "digits", "--storage", str(path)])
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: the store sqlite:///{path} cannot be used: the file is damaged")
    assert path.read_bytes() == before


def test_a_store_without_its_log_is_no_store_or_an_older_one(tmp_path, tiny_spec, create_study):
    """Copied alone while it is in use, a file lacks what its -wal holds; and says so."""
    path = tmp_path / "s.db"
    create_study(path, tiny_spec(*SMALL))
    copy = tmp_path / "copy.db"
    assert (tmp_path / "s.db-wal").stat().st_size > 0
    shutil.copy(path, copy)
    before = copy.read_bytes()
    done = CliRunner().invoke(app, ["show", "digits", "--storage", str(copy)])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "got 'digits'; there: none" in line or "must hold studies of aesearch" in line
    assert copy.read_bytes() == before


# ------------------------------------------------------------- death while writing


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    """The older file stays, nothing else is left, and the cause is one line."""
    (tmp_path / "best.yaml").write_text("older")

    def refuse(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match=r"best\.yaml cannot be written: No space left on device"):
        write_whole(tmp_path / "best.yaml", "newer" * 1000)
    assert bytes_of(tmp_path) == {"best.yaml": b"older"}


FILES = ("trials.csv", "curves.csv", "model.safetensors", "report.html", "best.yaml")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_killed_while_the_folder_is_written(tmp_path, whole, name, moment):
    """Between the store and the last file: given again, every file is that of a peaceful run."""
    shutil.copy(whole[2], tmp_path / "s.db")
    out = tmp_path / "out"

    def write_and_die():
        write = output_files.write_whole

        def at(path, content):
            if path.name == name:
                target = os if moment == "fsync" else Path
                setattr(target, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            write(path, content)

        import aesearch.artifacts.run_folder

        aesearch.artifacts.run_folder.write_whole = at
        write_run_folder(study_rows.open_store(str(tmp_path / "s.db")), "digits", out)

    assert os.WIFSIGNALED(os.waitpid(forked(write_and_die), 0)[1])
    assert not (out / "best.yaml").exists()
    assert not (out / name).exists(), "half a file has its name"
    engine = study_rows.open_store(str(tmp_path / "s.db"))
    write_run_folder(engine, "digits", out)
    engine.dispose()
    assert bytes_of(out) == whole[1]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "commit", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3, 5, 6, 7))]
)
def test_killed_in_the_retraining(
    new_store, tiny_spec, create_study, work, whole, monkeypatch, commit, after
):
    """Around every claim, checkpoint and result: the same weights, the same files to the byte."""
    storage = new_store("s")
    engine = create_study(storage, tiny_spec(*SMALL))
    work(engine, kinds=("search",))
    monkeypatch.setattr("aesearch.workers.worker.CHECKPOINT_S", 0.0)
    child = forked_worker(storage, killer(commit, after=after))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "there are fewer commits than this test thinks"
    bury(engine, child)
    finish(storage)
    assert table_of(engine) == whole[0]
    with tempfile.TemporaryDirectory() as folder:
        write_run_folder(engine, "digits", Path(folder))
        assert bytes_of(Path(folder)) == whole[1]
