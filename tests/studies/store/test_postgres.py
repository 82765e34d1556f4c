"""A PostgreSQL store: what cannot be used is one line without the password; the rest works."""

import contextlib
import json
import logging
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from chaos import commit_now, create, on_commits
from patience import PATIENCE_S
from postgres import PASSWORD, USER
from sqlalchemy.engine import make_url

from aesearch.studies.errors import StoreError, TransientStoreError
from aesearch.studies.store import ledger, search_results, study_rows
from aesearch.studies.store.connection import database, retry
from aesearch.studies.store.connection.retry import Patience, be_patient, repeatable

pytestmark = pytest.mark.server


def shapes_of_the_password():
    """The password as it is, and as it stands in a URL."""
    url = sa.URL.create("postgresql", username="u", password=PASSWORD, host="h")
    encoded = url.render_as_string(hide_password=False).partition("u:")[2].rpartition("@h")[0]
    return {PASSWORD, encoded, PASSWORD.split()[0]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wrong %{0}"}, "the user or password is wrong"),
        ({"username": "nobody-such"}, "the user or password is wrong"),
        ({"password": None}, "needs a password"),
        ({"database": "nosuch{0}%s"}, "no such database or role; create it first"),
        ({"port": 1}, "no server answers there"),
        ({"host": "no-such-host.invalid"}, "there is no such host"),
        ({"host": None, "query": {"host": "/nowhere"}}, "no server listens on that socket"),
    ],
    ids=["password", "user", "no-password", "database", "port", "host", "socket"],
)
def test_what_cannot_be_reached_is_one_line(postgres, changes, words):
    """Named, with the remedy, without any password."""
    with pytest.raises(StoreError, match=re.escape(words)) as caught:
        study_rows.open_store(postgres.url(**({"database": "postgres"} | changes)))
    message = str(caught.value)
    assert "\n" not in message
    assert not any(shape in message for shape in (*shapes_of_the_password(), "wrong %"))


def test_a_user_without_rights_learns_what_to_grant(postgres, postgres_url):
    """PostgreSQL 15 lets nobody but the owner create tables: the remedy says so."""
    postgres.execute("DROP ROLE IF EXISTS guest")
    postgres.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    guest = make_url(postgres_url).set(username="guest", password="guest")
    with pytest.raises(StoreError, match="GRANT ALL ON SCHEMA public"):
        study_rows.open_store(guest.render_as_string(hide_password=False))


@pytest.mark.parametrize("socket_path", [False, True], ids=["tcp", "socket"])
def test_percent_and_braces_reach_the_server(postgres, tiny_spec, socket_path):
    """A study is made and read through a URL full of special characters, by Optuna too."""
    name = postgres.create_database()
    engine = create(postgres.url(name, socket_path=socket_path), tiny_spec())
    theirs = database.optuna_storage(engine)
    assert [study.study_name for study in theirs.get_all_studies()] == ["digits"]
    database.close_storage(theirs)
    engine.dispose()
    postgres.drop_database(name)


def test_six_processes_create_one_database(postgres_url):
    """Six that start at once on an empty database: one creates the tables, all run."""
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=lambda: study_rows.open_store(postgres_url).dispose())
        for _ in range(6)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in processes] == [0] * 6


def test_a_paused_transaction_stops_nobody(postgres_url, tiny_spec, monkeypatch):
    """Who sleeps with a row locked loses the connection, and is told when it wakes."""
    monkeypatch.setenv(retry.LEASE_VARIABLE, "2")
    engine = create(postgres_url, tiny_spec())
    study = study_rows.find_study(engine, "digits")
    lease = ledger.claim(engine, study, owner="sleeper", lookahead=2)
    with (
        pytest.raises(TransientStoreError, match="closed the connection"),
        database.writing(engine) as connection,
    ):
        ledger.require_held(connection, lease)
        # Waits for the row until the server ends the session of the sleeper.
        ledger.renew(engine, lease, {})
        ledger.mark_done(connection, lease)
    assert ledger.open_work(engine, study)["search"] == 3
    engine.dispose()


def test_two_that_raise_the_trials_add_them_once(postgres_url, tiny_spec):
    """Two runs that ask for more trials at the same moment leave every number once."""
    engine = create(postgres_url, tiny_spec())
    study = study_rows.find_study(engine, "digits")
    threads = [
        threading.Thread(target=study_rows.raise_trials, args=(engine, study, 60, 2))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [trial.number for trial in study_rows.snapshot(engine, "digits").trials]
    assert numbers == list(range(60))
    engine.dispose()


def test_no_generation_is_claimed_twice(postgres_url, tiny_spec):
    """Eight threads that claim at once get eight different generations."""
    engine = create(postgres_url, tiny_spec("search.trials=40", "search.lookahead=50"))
    study = study_rows.find_study(engine, "digits")
    start = threading.Barrier(8)
    found = []

    def claim():
        start.wait()
        lease = None
        while lease is None:  # the first free row may be in another claim's hands
            lease = ledger.claim(engine, study, owner="me", lookahead=50)
        found.append(lease.position)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8
    engine.dispose()


def test_a_claim_that_was_carried_out_unseen_is_found(postgres, postgres_url, tiny_spec):
    """When the connection breaks right after the commit, the repeated claim is the same one."""
    engine = create(postgres_url, tiny_spec())
    be_patient(engine, Patience(30))
    study = study_rows.find_study(engine, "digits")
    broken = []

    def break_after_commit(_number, connection):
        if not broken:
            broken.append(True)
            commit_now(connection)
            pid = connection.connection.driver_connection.info.backend_pid
            postgres.execute(f"SELECT pg_terminate_backend({pid}, 5000)")

    on_commits(engine, break_after_commit)
    lease = ledger.claim(engine, study, owner="me", lookahead=2)
    assert broken
    assert (lease.position, lease.attempt) == (0, 1)
    search_results.write_rung(engine, lease, curves=[], reports={}, outcomes=[], done=True)
    engine.dispose()


def test_a_deadlock_is_repeated_at_once(postgres_url):
    """Two transactions that lock crosswise both go through, without anyone's patience."""
    engine = study_rows.open_store(postgres_url)
    with database.writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE pair (id INT PRIMARY KEY, n INT)")
        connection.exec_driver_sql("INSERT INTO pair VALUES (1, 0), (2, 0)")
    meet = threading.Barrier(2)
    tries = []

    @repeatable
    def both(engine, first, second):
        tries.append(first)
        with database.writing(engine) as connection:
            update = "UPDATE pair SET n = n + 1 WHERE id = {}"
            connection.exec_driver_sql(update.format(first))
            if len(tries) <= 2:
                meet.wait()
            connection.exec_driver_sql(update.format(second))

    threads = [threading.Thread(target=both, args=(engine, *pair)) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT n FROM pair").scalars().all() == [2, 2]
    assert len(tries) >= 3, "they did not meet"
    engine.dispose()


# ------------------------------------------------------------------- passwords


def command_lines():
    """Command lines of every process that this user can see."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended in this moment
            lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return lines


def test_the_password_is_nowhere(postgres, postgres_url, tmp_path, caplog):
    """A run with workers: not in a command line, the output, a log, a file, or the store."""
    caplog.set_level(logging.DEBUG)
    environment = os.environ | {"AESEARCH_STORAGE": postgres_url}
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "aesearch", "run", "--trials", "3", "--epochs", "2"),
            *(
                "--set",
                "data.limit=60",
                "--set",
                "retrain.seeds=1",
                "--set",
                "retrain.max_epochs=2",
            ),
            *("--set", "search.unstable_loss=1", "--device", "cpu", "--workers", "1", "--json"),
        ],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = []
    while run.poll() is None:
        seen += command_lines()
        time.sleep(0.2)
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert any("worker --study digits" in line for line in seen), "no worker was seen"
    assert json.loads(out)["finished"]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    texts = [out, err, caplog.text, *seen, *(data.decode(errors="replace") for data in written)]
    engine = study_rows.open_store(postgres_url)
    with database.reading(engine) as connection:
        names = connection.exec_driver_sql(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        ).scalars()
        tables_text = [
            str(connection.exec_driver_sql(f'SELECT * FROM "{name}"').all()) for name in list(names)
        ]
    engine.dispose()
    assert len(tables_text) > 10
    for shape in shapes_of_the_password():
        assert not any(shape in text for text in texts + tables_text)


def test_an_interrupted_command_repeats_itself_without_the_password(postgres_url, monkeypatch):
    """What to type again names the store, not its password."""
    from aesearch.commands.ending import same_command

    monkeypatch.setattr(sys, "argv", ["aesearch", "run", f"--storage={postgres_url}"])
    assert f"{USER}:***@127.0.0.1" in same_command()
    assert not any(shape in same_command() for shape in shapes_of_the_password())
