"""``aesearch status`` and ``run --detach``: what they say is what the store holds, at any size."""

import io
import json
import math
import os
import re
import shlex
import threading
import time
from collections import Counter

import numpy as np
import pytest
from chaos import Telephone, create, forked_worker, table_of
from forked_command import forked_command
from optuna.trial import TrialState
from patience import PATIENCE_S
from rich.console import Console
from sqlalchemy import event
from sqlalchemy.engine import CursorResult
from typer.testing import CliRunner

from aesearch.cli import app
from aesearch.studies.results.output_files import default_folder
from aesearch.studies.results.records import TrialCounts
from aesearch.studies.store import ledger, search_results, study_rows, tables
from aesearch.studies.store.connection import database
from aesearch.studies.store.optuna import optuna_tables
from aesearch.studies.store.search_results import Outcome
from aesearch.studies.store.status import statuses
from aesearch.terminal import status_view
from aesearch.workers.worker import Worker

SHORT = ("search.trials=5", "retrain.seeds=1")
TINY_RUN = (
    *("run", "--trials", "3", "--epochs", "2", "--device", "cpu", "--quiet"),
    *("--set", "data.limit=60", "--set", "retrain.seeds=1", "--set", "retrain.max_epochs=2"),
    *("--set", "search.unstable_loss=1"),
)


def aesearch(*arguments):
    """Run the command in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_counts_are_those_of_the_snapshot(new_store, tiny_spec, create_study, work):
    """States, best, winner and open work equal what reading every trial gives."""
    storage = new_store("s")
    engine = create_study(storage, tiny_spec("search.pruner=median", "search.trials=7"))
    create_study(storage, tiny_spec(*SHORT, "name=fresh"))
    work(engine)
    found, fresh = statuses(engine)
    snapshot = study_rows.snapshot(engine, "digits")
    states = [trial.state for trial in snapshot.trials]
    assert found.trials == TrialCounts(**Counter(states))
    stable = [(t.value, t.number) for t in snapshot.trials if t.eligible]
    assert found.best == min(stable)[::-1]
    assert (found.chosen[0], found.state, found.over) == (snapshot.chosen, "finished", True)
    assert found.open_work == {"search": 0, "retrain": 0, "evaluate": 0}
    assert found.workers == ()
    assert found.trials_per_hour > 0
    assert (fresh.name, fresh.state, fresh.best, fresh.trials_per_hour) == (
        *("fresh", "unfinished"),
        *(None, None),
    )
    assert fresh.trials == TrialCounts(waiting=5)
    assert statuses(engine, "fresh") == [fresh]


def test_an_unstable_trial_is_not_the_best(new_store, tiny_spec, create_study):
    """The lowest value of a stable trial, and the lowest number at a tie."""
    engine = create_study(new_store("s"), tiny_spec("search.generation_size=5"))
    study = study_rows.find_study(engine, "digits")
    lease = ledger.claim(engine, study, owner="me", lookahead=2)
    outcomes = [
        Outcome(0, TrialState.COMPLETE, value=0.1, user_attributes={"unstable": "it swings"}),
        Outcome(1, TrialState.COMPLETE, value=0.3),
        Outcome(2, TrialState.COMPLETE, value=0.2),
        Outcome(3, TrialState.COMPLETE, value=0.2),
        Outcome(4, TrialState.PRUNED, value=0.01),
    ]
    search_results.write_rung(engine, lease, curves=[], reports={}, outcomes=outcomes, done=True)
    assert statuses(engine)[0].best == (2, 0.2)


def test_a_worker_is_shown_with_its_lease(new_store, tiny_spec, create_study):
    """Owner, work, age, time to expiry, progress; and attempts that came to nothing."""
    engine = create_study(new_store("s"), tiny_spec())
    study = study_rows.find_study(engine, "digits")
    ledger.claim(engine, study, owner="gone:1", lookahead=2, seconds=-5)
    ledger.claim(engine, study, owner="gone:2", lookahead=2, seconds=-5)
    lease = ledger.claim(engine, study, owner="here:3", lookahead=2)
    ledger.claim(engine, study, owner="dead:4", lookahead=2, seconds=-5)
    ledger.renew(engine, lease, {"epoch": 2, "n_epochs": 3, "n_members": 6})
    (found,) = statuses(engine)
    assert found.state == "running"
    here, dead = found.workers
    assert (here.owner, here.kind, here.position, here.first, here.size, here.attempt) == (
        *("here:3", "search", 0, 0, 2, 3),
    )
    assert here.alive
    assert not dead.alive
    assert 0 <= here.age_s < 30
    assert 30 < here.expires_s <= 60
    assert -40 < dead.expires_s <= -5
    assert here.progress["epoch"] == 2
    storage = engine.url.render_as_string(hide_password=False)
    shown = aesearch("status", "--storage", storage)
    assert shown.exit_code == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    assert "here:3 digits generation 0: trials 0-1 2/3" in words
    assert "dead:4 digits generation 1: trials 2-3 -" in words
    assert "digits, generation 0: trials 0-1: attempt 3 of 3" in words
    (plain,) = json.loads(aesearch("status", "--json", "--storage", storage).stdout)["studies"]
    assert [worker["owner"] for worker in plain["workers"]] == ["here:3", "dead:4"]
    assert [worker["alive"] for worker in plain["workers"]] == [True, False]


def test_a_worker_is_shown_when_its_rung_is_written(new_store, tiny_spec, create_study):
    """Progress sets its attempts back to none; it is still at work."""
    engine = create_study(new_store("s"), tiny_spec())
    lease = ledger.claim(engine, study_rows.find_study(engine, "digits"), owner="me", lookahead=2)
    curves = [search_results.FoldCurve(0, 0, 1, [0.5], [0.5])]
    search_results.write_rung(engine, lease, curves=curves, reports={}, outcomes=[], done=False)
    (found,) = statuses(engine)
    assert [(worker.owner, worker.attempt) for worker in found.workers] == [("me", 0)]
    assert found.state == "running"


def test_time_left_is_what_is_left_at_the_rate_of_the_last_hour(new_store, tiny_spec, create_study):
    """Two of six trials in the last 100 s, one a day ago: 3 left take 150 s."""
    engine = create_study(new_store("s"), tiny_spec("search.trials=6", "search.generation_size=1"))
    study = study_rows.find_study(engine, "digits")
    for _ in range(3):
        lease = ledger.claim(engine, study, owner="me", lookahead=2)
        done = [Outcome(lease.first, TrialState.FAIL)]
        search_results.write_rung(engine, lease, curves=[], reports={}, outcomes=done, done=True)
    ledger.claim(engine, study, owner="me", lookahead=2)
    with database.writing(engine) as connection:
        moment = study_rows.now(connection)
        for position, began in ((0, moment - 86400), (1, moment - 100), (2, moment - 50)):
            connection.execute(
                tables.lease.update()
                .where(tables.lease.c.position == position)
                .values(claimed=began, finished=began + 40)
            )
    (found,) = statuses(engine)
    assert math.isclose(found.trials_per_hour, 72, rel_tol=0.1)
    assert math.isclose(found.seconds_left, 150, rel_tol=0.1)
    with database.writing(engine) as connection:
        connection.execute(tables.lease.update().values(expires=moment - 1))
    assert statuses(engine)[0].seconds_left is None, "nobody works on it"


def test_ten_thousand_trials_cost_what_ten_do(new_store, tiny_spec):
    """As many statements and as many rows for a large study as for a small one."""
    costs = []
    for word, n_trials in (("small", 10), ("large", 10_000)):
        engine = create(new_store(word), tiny_spec(f"search.trials={n_trials}"))
        with database.writing(engine) as connection:
            ids = optuna_tables.trial_ids(connection, 1)
            values = optuna_tables.VALUES
            connection.execute(
                optuna_tables.TRIALS.update()
                .where(optuna_tables.TRIALS.c.number < n_trials - 2)
                .values(state=TrialState.COMPLETE)
            )
            rows = [
                {"trial_id": ids[n], "objective": 0, "value": n / 7, "value_type": "FINITE"}
                for n in range(n_trials - 2)
            ]
            connection.execute(values.insert(), rows)
            ended = {"params": "{}", "finished": True, "reported": 0}
            connection.execute(
                tables.trial.insert(), [ended | {"trial_id": row["trial_id"]} for row in rows]
            )
        costs.append(cost_of_a_look(engine))
        engine.dispose()
    assert costs[0] == costs[1]
    assert 0 < costs[0][0] < 20
    assert 0 < costs[0][1] < 20


def cost_of_a_look(engine):
    """How many statements one look takes, and how many rows it fetches."""
    statements, rows = [], []
    fetch = event.listens_for(engine, "after_cursor_execute")

    @fetch
    def count(_connection, cursor, statement, *_rest):
        statements.append(statement)

    whole = CursorResult.__iter__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            CursorResult,
            "__iter__",
            lambda result: (rows.append(row) or row for row in whole(result)),
        )
        assert statuses(engine)[0].best == (0, 0.0)
    return len(statements), len(rows)


def test_watching_ends_with_the_study(new_store, tiny_spec, create_study, monkeypatch):
    """Lines for what changed, until everything is finished; exit code 0."""
    storage = new_store("s")
    engine = create_study(storage, tiny_spec(*SHORT))
    line = Telephone()

    def at_commit(number, _connection):
        if number == 6:
            line.ask()

    child = forked_worker(storage, at_commit)
    line.wait()
    sleep, looked = time.sleep, threading.Event()

    def note_and_sleep(seconds):
        looked.set()
        sleep(seconds)

    monkeypatch.setattr("aesearch.terminal.status_view.time.sleep", note_and_sleep)
    results = []
    watcher = threading.Thread(
        target=lambda: results.append(aesearch("status", "digits", "--watch", "--storage", storage))
    )
    watcher.start()
    assert looked.wait(PATIENCE_S)
    line.answer()
    watcher.join(PATIENCE_S)
    line.hang_up()
    assert os.waitpid(child, 0)[1] == 0
    (result,) = results
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("digits: running, ")
    assert lines[-1].startswith("digits: finished, 5/5 trials, best ")
    assert len(set(lines)) == len(lines)
    engine.dispose()


def test_watching_ends_where_nothing_can_be_chosen(new_store, tiny_spec, create_study, monkeypatch):
    """The search is over and all of it is unstable: one line, no rate in it, and exit code 0."""
    storage = new_store("s")
    engine = create_study(storage, tiny_spec("search.trials=2"))
    finish(engine, 2, unstable=True)

    def patience_is_over(_seconds):
        raise AssertionError("it looks again")

    monkeypatch.setattr("aesearch.terminal.status_view.time.sleep", patience_is_over)
    result = aesearch("status", "digits", "--watch", "--storage", storage)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["digits: no winner, 2/2 trials, 0 at work"]
    (found,) = json.loads(aesearch("status", "--json", "--storage", storage).stdout)["studies"]
    assert found["state"] == "no winner"
    assert found["trials_per_hour"] > 0


@pytest.mark.parametrize(
    ("done", "unstable", "limited", "state"),
    [
        (4, True, False, "no winner"),
        (4, False, False, "no winner yet"),  # whoever comes next chooses
        (2, True, False, "unfinished"),
        (2, True, True, "no winner"),
        (2, False, True, "unfinished"),
        (0, True, True, "no winner"),
    ],
)
def test_no_winner_is_said_once_none_can_come(
    new_store, tiny_spec, create_study, done, unstable, limited, state
):
    """When the trials or the time are over, none may be chosen, and nobody holds work."""
    engine = create_study(new_store("s"), tiny_spec("search.trials=4"))
    finish(engine, done, unstable=unstable)
    if limited:
        with database.writing(engine) as connection:
            connection.execute(
                tables.study.update().values(deadline=study_rows.now(connection) - 1)
            )
    (found,) = statuses(engine)
    assert (found.state, found.over) == (state, state == "no winner")


def test_a_trial_in_training_beyond_the_time_limit_may_still_win(
    new_store, tiny_spec, create_study
):
    """Somebody holds work: the study is not over, though its time is and nothing can be chosen."""
    engine = create_study(new_store("s"), tiny_spec("search.trials=4"))
    finish(engine, 2, unstable=True)
    study = study_rows.find_study(engine, "digits")
    lease = ledger.claim(engine, study, owner="me", lookahead=2)
    with database.writing(engine) as connection:
        connection.execute(tables.study.update().values(deadline=study_rows.now(connection) - 1))
    assert statuses(engine)[0].state == "running"
    ledger.release(engine, lease)
    assert statuses(engine)[0].state == "no winner"


def test_the_rate_is_told_while_somebody_searches(new_store, tiny_spec, create_study):
    """It is of the last hour: with nobody at work it only decays, and each look would differ."""
    engine = create_study(new_store("s"), tiny_spec("search.trials=4"))
    finish(engine, 2, unstable=False)
    (idle,) = statuses(engine)
    assert idle.trials_per_hour is not None
    assert status_view.line(idle) == "digits: unfinished, 2/4 trials, best 0.1 (trial 0), 0 at work"
    cells = shown([idle]).splitlines()[1].split()
    assert cells == ["digits", "unfinished", "2/4", "0.1", "-", "-", "0"]
    ledger.claim(engine, study_rows.find_study(engine, "digits"), owner="me", lookahead=2)
    (busy,) = statuses(engine)
    assert re.search(r"1 at work, [\d.,]+ trials/h, .* left$", status_view.line(busy))
    assert shown([busy]).splitlines()[1].split()[4] != "-"


def finish(engine, n_trials, *, unstable):
    """Complete the first trials, all of them stable or none."""
    study = study_rows.find_study(engine, "digits")
    reason = {"unstable": "the loss of fold 0 ends at 0.2"} if unstable else {}
    finished = 0
    while finished < n_trials:
        lease = ledger.claim(engine, study, owner="me", lookahead=2)
        outcomes = [
            Outcome(number, TrialState.COMPLETE, value=0.1 + number, user_attributes=reason)
            for number in lease.members
        ]
        search_results.write_rung(
            engine, lease, curves=[], reports={}, outcomes=outcomes, done=True
        )
        finished += lease.size
    assert finished == n_trials, "a generation is finished as one"


def shown(studies):
    """What the table of ``aesearch status`` says."""
    console = Console(width=200, file=io.StringIO())
    console.print(status_view.view(studies))
    return console.file.getvalue()


def test_no_study_and_no_such_study(new_store):
    """An empty store is no error; a name that is not there is one line."""
    storage = new_store("s")
    study_rows.open_store(storage).dispose()
    assert aesearch("status", "--storage", storage).stdout.strip() == (
        "There is no study in this store."
    )
    missing = aesearch("status", "nosuch", "--storage", storage)
    assert missing.exit_code == 2
    assert "study must be one of the studies in" in missing.stderr


# ---------------------------------------------------------------------- run --detach


@pytest.fixture(scope="module")
def table_of_a_run(tmp_path_factory):
    """What the ordinary run makes of the study."""
    folder = tmp_path_factory.mktemp("whole")
    done = forked_command(*TINY_RUN, "--storage", "whole.db", "--workers", "1", folder=folder)
    assert done.returncode == 0, done.stderr
    engine = study_rows.open_store(str(folder / "whole.db"))
    table = table_of(engine)
    engine.dispose()
    return table


def test_a_detached_study_is_that_of_a_run(new_store, tmp_path, monkeypatch, table_of_a_run):
    """Created and left at once; a worker finishes it to the table of the ordinary run."""
    monkeypatch.chdir(tmp_path)
    storage = new_store("detached")
    left = aesearch(*TINY_RUN, "--detach", "--json", "--storage", storage)
    assert left.exit_code == 0, left.stderr
    said = json.loads(left.stdout)
    assert (said["study"], said["finished"], said["trials"]) == ("digits", 0, 3)
    assert said["timeout"] is None
    limited = aesearch(*TINY_RUN, "--detach", "--storage", new_store("limited"), "--timeout=90")
    assert "No trial is begun later than 90 s from now." in limited.stdout
    assert said["commands"]["follow"].startswith("aesearch status digits --watch --storage ")
    assert not (tmp_path / "runs").exists()
    engine = study_rows.open_store(storage)
    assert statuses(engine)[0].state == "unfinished"
    Worker(engine, "digits", stop=threading.Event()).run()
    again = json.loads(aesearch(*TINY_RUN, "--detach", "--json", "--storage", storage).stdout)
    assert again["finished"] == 3
    assert table_of(engine) == table_of_a_run
    engine.dispose()


@pytest.mark.parametrize(
    ("variable", "storage", "named"),
    [
        (None, (), False),
        ("q.db", (), False),
        ("q.db", ("--storage", "q.db"), False),
        ("q.db", ("--storage", "aesearch.db"), True),  # the variable would win
        (None, ("--storage", "other.db"), True),
    ],
)
def test_what_it_prints_can_be_typed(tmp_path, monkeypatch, variable, storage, named):
    """The commands that are printed do the work, in this folder and environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AESEARCH_STORAGE", raising=False)
    if variable is not None:
        monkeypatch.setenv("AESEARCH_STORAGE", variable)
    left = aesearch(*TINY_RUN, "--detach", "--study", "it's {mine}", *storage)
    assert left.exit_code == 0, left.stderr
    assert "0 of 3 trials are finished" in left.stdout
    assert "on this machine" in left.stdout
    assert ("--storage" in left.stdout) == named
    typed = [line.strip() for line in left.stdout.splitlines() if line.startswith("  ")]
    work, follow, export = (shlex.split(re.split(" {2,}", line)[0]) for line in typed)
    engine = study_rows.open_store(storage[1] if storage else variable or "aesearch.db")
    Worker(engine, "it's {mine}", stop=threading.Event()).run()
    engine.dispose()
    assert work[:2] == ["aesearch", "worker"]
    for words in (
        [*work[1:], "--exit-when-idle"],
        [word for word in follow[1:] if word != "--watch"],
        export[1:],
    ):
        done = aesearch(*words)
        assert done.exit_code == 0, done.stderr
    assert (tmp_path / default_folder("it's {mine}") / "best.yaml").is_file()


def test_a_relative_path_is_found_from_anywhere(tmp_path, monkeypatch):
    """A detached study names its images in full, and a run in that folder goes on with it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    values = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez("pictures.npz", images=values)
    command = [*TINY_RUN, "--dataset", "pictures.npz", "--storage", tmp_path / "s.db"]
    first = aesearch(*command, "--detach")
    assert first.exit_code == 0, first.stderr
    monkeypatch.chdir(tmp_path)
    engine = study_rows.open_store(str(tmp_path / "s.db"))
    Worker(engine, "pictures", stop=threading.Event()).run()
    assert statuses(engine)[0].over
    monkeypatch.chdir(tmp_path / "here")
    again = aesearch(*command, "--detach")
    assert again.exit_code == 0, again.stderr
    engine.dispose()


@pytest.mark.parametrize("option", [("--workers", "2"), ("--out", "folder")])
def test_options_of_a_run_that_stays_are_refused(tmp_path, monkeypatch, option):
    """What would be ignored is an error that says what to do instead."""
    monkeypatch.chdir(tmp_path)
    refused = aesearch(*TINY_RUN, "--detach", *option)
    assert refused.exit_code == 2
    assert f"{option[0]} must not be given beside --detach" in refused.stderr
    assert not list(tmp_path.iterdir())
