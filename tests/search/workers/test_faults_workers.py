"""Workers that die, sleep, come late or come in numbers: the table is that of one worker."""

import json
import os
import signal
import time
from collections import Counter

import pytest
import sqlalchemy as sa
from chaos import (
    Telephone,
    at_epoch,
    by_themselves,
    check_whole,
    create,
    die,
    forked,
    forked_worker,
    log_to,
    table_of,
)
from typer.testing import CliRunner

from aesearch.cli import app
from aesearch.models.training.population import Population
from aesearch.studies.store import ledger, retrain_results, study_rows, tables
from aesearch.studies.store.connection import database, retry
from aesearch.workers.worker import Worker

SMALL = (
    *("search.trials=6", "search.pruner=median", "retrain.seeds=1", "evaluation.bootstrap=10"),
    "space.architecture.choices=[dense, conv]",
)
GENERATIONS = 3


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_spec):
    """The table of the study when one worker does it in one go, on SQLite."""
    path = tmp_path_factory.mktemp("whole") / "whole.db"
    engine = create(path, tiny_spec(*SMALL))
    assert os.waitpid(forked_worker(path), 0)[1] == 0
    yield table_of(engine)
    engine.dispose()


def leases(engine):
    """Rows of the search, by generation."""
    table = tables.lease
    with database.reading(engine) as connection:
        query = sa.select(table).where(table.c.kind == "search").order_by(table.c.position)
        return connection.execute(query).all()


def move_expiry(engine, seconds):
    """Let the leases of a store run out so much later, or earlier."""
    table = tables.lease
    with database.writing(engine) as connection:
        connection.execute(
            table.update()
            .where(table.c.expires.is_not(None))
            .values(expires=table.c.expires + seconds)
        )


def epochs_of(work, monkeypatch):
    """How many epochs populations train while something is done."""
    run_epoch, seen = Population.run_epoch, []
    with monkeypatch.context() as patch:
        patch.setattr(Population, "run_epoch", lambda p, **a: seen.append(1) or run_epoch(p, **a))
        work()
    return len(seen)


def test_killed_in_an_epoch_only_that_generation_is_trained_again(
    new_store, tiny_spec, create_study, uninterrupted, work, monkeypatch
):
    """The next worker trains what was not finished, from its start, and nothing else."""
    alone = create_study(new_store("alone"), tiny_spec(*SMALL))
    epochs = epochs_of(lambda: work(alone, kinds=("search",)), monkeypatch)
    engine = create_study(new_store("s"), tiny_spec(*SMALL))
    child = forked_worker(new_store("s"), prepare=at_epoch(epochs, die))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert [row.done for row in leases(engine)] == [True, True, False]
    finished = by_themselves(study_rows.snapshot(engine, "digits").trials[:4])
    move_expiry(engine, -1e6)
    again = epochs_of(lambda: work(engine, kinds=("search",)), monkeypatch)
    assert 0 < again < epochs / 2
    assert by_themselves(study_rows.snapshot(engine, "digits").trials[:4]) == finished
    work(engine)
    assert table_of(engine) == uninterrupted


@pytest.mark.parametrize("epoch", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_all_are_dead_and_one_comes_the_next_day(
    new_store, tiny_spec, create_study, uninterrupted, work, epoch
):
    """Leases that ran out in the meantime are taken without waiting for anything."""

    def prepare():
        os.environ[retry.LEASE_VARIABLE] = "1"  # the second to die waits for the first
        at_epoch(epoch, die)()

    engine = create_study(new_store("s"), tiny_spec(*SMALL))
    children = [forked_worker(new_store("s"), prepare=prepare, patience_s=60) for _ in range(2)]
    assert all(os.WIFSIGNALED(os.waitpid(child, 0)[1]) for child in children)
    assert any(row.expires is not None for row in leases(engine))
    move_expiry(engine, -86_400)
    work(engine)
    assert table_of(engine) == uninterrupted
    check_whole(engine)


def test_the_work_of_the_dead_is_taken_when_its_lease_runs_out(
    new_store, tiny_spec, create_study, uninterrupted, monkeypatch
):
    """Nobody says that the owner died right after its claim: not before the lease, and then."""
    monkeypatch.setenv(retry.LEASE_VARIABLE, "2")
    engine = create_study(new_store("s"), tiny_spec(*SMALL))
    study = study_rows.find_study(engine, "digits")

    def claim_and_die():
        own = study_rows.open_store(str(new_store("s")))
        ledger.claim(own, study, owner="dead", lookahead=2)
        die()

    assert os.WIFSIGNALED(os.waitpid(forked(claim_and_die), 0)[1])
    (held, *_) = leases(engine)
    assert (held.owner, held.attempt, held.done) == ("dead", 1, False)
    # Patient, since short leases make PostgreSQL end a session that is idle for a quarter of one.
    assert os.waitpid(forked_worker(new_store("s"), patience_s=60), 0)[1] == 0
    assert leases(engine)[0].claimed >= held.expires
    assert table_of(engine) == uninterrupted


def test_killed_on_the_last_generation_the_other_finishes_it(
    new_store, tiny_spec, create_study, uninterrupted, monkeypatch
):
    """Two workers, one of them dies on the last generation: nothing is left running."""
    monkeypatch.setenv(retry.LEASE_VARIABLE, "1")
    storage = new_store("s")
    engine = create_study(storage, tiny_spec(*SMALL))
    line = Telephone()

    def die_on_the_last():
        do = Worker._do

        def on_the_last(worker, lease):
            if lease.kind == "search" and lease.position == GENERATIONS - 1:
                line.ask()
                die()
            do(worker, lease)

        Worker._do = on_the_last

    doomed = forked_worker(storage, prepare=die_on_the_last, patience_s=60)
    line.wait()
    other = forked_worker(storage, patience_s=60)
    line.answer()
    assert os.WIFSIGNALED(os.waitpid(doomed, 0)[1])
    assert os.waitpid(other, 0)[1] == 0
    line.hang_up()
    assert table_of(engine) == uninterrupted
    check_whole(engine)


def test_a_worker_that_slept_says_so_and_goes_on(
    new_store, tiny_spec, create_study, uninterrupted, work, tmp_path
):
    """Stopped in an epoch, overtaken, woken: one value, "lease lost" in its log, exit 0."""
    storage = new_store("s")
    engine = create_study(storage, tiny_spec(*SMALL))
    line = Telephone()

    def prepare():
        log_to(tmp_path / "log")()
        at_epoch(2, line.ask)()

    sleeper = forked_worker(storage, prepare=prepare)
    line.wait()
    os.kill(sleeper, signal.SIGSTOP)
    line.answer()
    move_expiry(engine, -1e6)
    work(engine)
    before = table_of(engine)
    os.kill(sleeper, signal.SIGCONT)
    assert os.waitpid(sleeper, 0)[1] == 0
    line.hang_up()
    assert "lease lost: search 0" in (tmp_path / "log").read_text()
    assert table_of(engine) == before == uninterrupted


def note_claims(path):
    """Make what writes each unit of work that its process takes into a file."""

    def prepare():
        do = Worker._do

        def noted(worker, lease):
            with path.open("a") as stream:  # one short line: not mixed with others'
                stream.write(json.dumps([lease.kind, lease.position]) + "\n")
            do(worker, lease)

        Worker._do = noted

    return prepare


@pytest.mark.parametrize(
    ("workers", "n_trials"),
    [
        pytest.param(1, 12, marks=pytest.mark.slow),
        (8, 12),
        *(pytest.param(n, 50, marks=pytest.mark.slow) for n in (1, 2, 4, 8)),
    ],
)
def test_any_number_of_workers_does_exactly_what_was_asked(
    new_store, tiny_spec, create_study, tmp_path, workers, n_trials
):
    """So many trials, no unit of work twice, no lock error though nobody is patient."""
    storage = new_store("s")
    spec = tiny_spec(
        *(*SMALL, f"search.trials={n_trials}", "search.generation_size=1", "search.lookahead=8"),
        *("training.epochs=1", "search.score_epochs=1", "search.sampler=random"),
    )
    engine = create_study(storage, spec)
    claims = tmp_path / "claims"
    children = [forked_worker(storage, prepare=note_claims(claims)) for _ in range(workers)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * workers
    assert len(study_rows.snapshot(engine, "digits").trials) == n_trials
    check_whole(engine)
    taken = Counter(claims.read_text().splitlines())
    assert len(taken) == n_trials + 2, "the trials, the retraining, the test"
    assert set(taken.values()) == {1}


@pytest.mark.parametrize("arguments", [["--study", "digits"], []], ids=["one", "every"])
def test_a_worker_that_comes_after_the_end_says_so(
    new_store, tiny_spec, create_study, work, caplog, arguments
):
    """Exit code 0 and a line that nothing is left; no trial more."""
    caplog.set_level("INFO")
    engine = create_study(new_store("s"), tiny_spec(*SMALL))
    work(engine)
    before = table_of(engine)
    storage = ["--storage", new_store("s")]
    done = CliRunner().invoke(app, ["worker", "--exit-when-idle", *storage, *arguments])
    assert done.exit_code == 0, done.stderr
    assert "nothing is left to do here in" in caplog.text
    assert table_of(engine) == before


def test_six_begin_at_once_on_nothing(request, tiny_spec, tmp_path, uninterrupted, new_store):
    """Tables, study and work at the same moment: one creates it, all run."""
    storage = new_store("s")
    if "://" in storage:
        storage = request.getfixturevalue("postgres_url")

    def begin():
        create(storage, tiny_spec(*SMALL), again=True).dispose()
        assert os.waitpid(forked_worker(storage), 0)[1] == 0

    children = [forked(begin) for _ in range(6)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    engine = study_rows.open_store(str(storage))
    assert table_of(engine) == uninterrupted
    check_whole(engine)
    engine.dispose()


@pytest.mark.parametrize(
    "n_trials", [(4, 7), pytest.param((50, 70), marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("running", [False, True], ids=["after", "while"])
def test_more_trials_leave_the_first_as_they_were(
    new_store, tiny_spec, create_study, work, n_trials, running
):
    """Raised after the end or while it runs: exactly so many, and the first are unchanged."""
    few, many = n_trials
    quick = ("training.epochs=1", "search.score_epochs=1", "search.pruner=none")
    alone = create_study(new_store("alone"), tiny_spec(*SMALL, *quick, f"search.trials={few}"))
    work(alone)
    engine = create_study(new_store("s"), tiny_spec(*SMALL, *quick, f"search.trials={few}"))
    study = study_rows.find_study(engine, "digits")
    if running:
        line = Telephone()
        child = forked_worker(new_store("s"), prepare=at_epoch(2, line.ask))
        line.wait()
        assert study_rows.raise_trials(engine, study, many, 2) == many
        line.answer()
        assert os.waitpid(child, 0)[1] == 0
        line.hang_up()
    else:
        work(engine)
        assert study_rows.raise_trials(engine, study, many, 2) == many
        retrain_results.reopen_choice(engine, study)
        work(engine)
    check_whole(engine)
    trials = study_rows.snapshot(engine, "digits").trials
    assert len(trials) == many
    first = study_rows.snapshot(alone, "digits").trials
    assert by_themselves(trials[:few]) == by_themselves(first)


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_a_worker_decides_nothing(
    new_store, tiny_spec, create_study, uninterrupted, hours
):
    """An hour off, it neither takes what is held nor loses what it holds."""
    engine = create_study(new_store("s"), tiny_spec(*SMALL))
    study = study_rows.find_study(engine, "digits")
    held = ledger.claim(engine, study, owner="other", lookahead=1)
    true_time = time.time

    def set_clock():
        time.time = lambda: true_time() + 3600 * hours

    def look():
        set_clock()
        own = study_rows.open_store(str(new_store("s")))
        assert ledger.claim(own, study, owner="me", lookahead=1) is None

    assert os.waitpid(forked(look), 0)[1] == 0
    ledger.release(engine, held)
    assert os.waitpid(forked_worker(new_store("s"), prepare=set_clock), 0)[1] == 0
    with database.reading(engine) as connection:
        now = study_rows.now(connection)
    assert all(0 <= now - row.finished < 1800 for row in leases(engine))
    assert table_of(engine) == uninterrupted
