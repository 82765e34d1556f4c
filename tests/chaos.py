"""Workers in processes of their own that are killed, paused and woken; what must be equal then."""

import logging
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa
from patience import PATIENCE_S
from sqlalchemy import event

from aesearch.data.study_data import load_problem
from aesearch.models.training.population import Population
from aesearch.studies.store import ledger, study_rows, tables
from aesearch.studies.store.connection import database
from aesearch.studies.store.connection.retry import Patience
from aesearch.workers.owners import worker_name
from aesearch.workers.worker import Worker


def create(storage, spec, *, again=False):
    """Create a study of a spec in a store and give its engine; ``again``: it may be there."""
    engine = study_rows.open_store(str(storage))
    problem = load_problem(spec, device="cpu")
    resolved = problem.spec
    created = study_rows.create_study(
        engine,
        resolved.name,
        spec=resolved,
        facts=problem.facts(),
        n_trials=resolved.search.trials,
        generation_size=resolved.search.generation_size,
        version="test",
        timeout=resolved.search.timeout,
    )
    assert created or again
    return engine


def table_of(engine, name="digits"):
    """Everything that must not depend on how a study was run."""
    snapshot = study_rows.snapshot(engine, name)
    study = study_rows.find_study(engine, name)
    trials = [
        (t.number, t.state, t.params, t.value, t.fold_scores, t.unstable, t.reason)
        for t in snapshot.trials
    ]
    retrains = [(r.seed, r.epochs, r.weights_sha256, r.test_mse) for r in snapshot.retrains]
    return trials, study_rows.curves(engine, study), snapshot.chosen, retrains, snapshot.test_looks


def by_themselves(trials):
    """Trials without their standard errors, which come of all complete trials together."""
    return [replace(trial, standard_error=None) for trial in trials]


def check_whole(engine, name="digits"):
    """Nothing is missing, double, left running, or without its study."""
    study = study_rows.find_study(engine, name)
    trials = study_rows.snapshot(engine, name).trials
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} <= {"complete", "pruned", "failed"}
    assert ledger.open_work(engine, study) == {"search": 0, "retrain": 0, "evaluate": 0}
    with database.reading(engine) as connection:
        keys = sa.select(tables.curve.c.trial_id, tables.curve.c.fold, tables.curve.c.epoch)
        rows = connection.execute(keys).all()
        assert len(rows) == len(set(rows))
        if engine.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def forked(call):
    """Run ``call()`` in a child process; returns its id. Status 0 if it returned, else 1."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            call()
            status = 0
        except BaseException:
            logging.getLogger(__name__).exception("in the child")
        finally:
            os._exit(status)
    return child


def forked_worker(storage, at_commit=None, *, name="digits", patience_s=0.0, prepare=None):
    """Run a worker in a child process; ``at_commit`` is called there; returns its process id.

    Parameters
    ----------
    at_commit : callable(number, connection), optional
        Before each commit of a write, which are counted from 1.
    prepare : callable, optional
        Called in the child before anything else.
    """

    def work():
        if prepare is not None:
            prepare()
        engine = study_rows.open_store(str(storage), Patience(patience_s))
        if at_commit is not None:
            on_commits(engine, at_commit)
        Worker(engine, name, stop=threading.Event()).run()

    return forked(work)


def log_to(path):
    """Make what writes the log of a process to a file; for a child's ``prepare``."""

    def prepare():
        logging.basicConfig(filename=path, level=logging.INFO, force=True)

    return prepare


def at_epoch(number, call):
    """Make what calls something before the n-th epoch of any population of its process."""

    def prepare():
        run_epoch, seen = Population.run_epoch, []

        def counted(population, **asked):
            seen.append(1)
            if len(seen) == number:
                call()
            return run_epoch(population, **asked)

        Population.run_epoch = counted

    return prepare


def die():
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def on_commits(engine, call):
    """Call ``call(number, connection)`` before each commit of a write.

    Renewals of leases are not counted: how many there are depends on the time.

    Parameters
    ----------
    engine : Engine
        Or the class, for those of Optuna as well.
    """
    seen = 0

    @event.listens_for(engine, "begin")
    def remember(connection):
        connection.info["reads"] = connection.get_execution_options().get("aesearch_read", False)

    @event.listens_for(engine, "commit")
    def on_commit(connection):
        nonlocal seen
        if connection.info.get("reads") or threading.current_thread().name == "heartbeat":
            return
        seen += 1
        call(seen, connection)


def commit_now(connection):
    """Commit behind SQLAlchemy's back: what follows happens after the commit."""
    driver = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        if driver.in_transaction:  # that of Optuna may have nothing to commit
            driver.execute("COMMIT")
    else:
        driver.commit()
        driver.execute("SELECT 1")  # what SQLAlchemy commits is not nothing


def killer(commit, *, after=False):
    """Make what kills its own process right before, or right after, its n-th commit."""

    def at_commit(number, connection):
        if number == commit:
            if after:
                commit_now(connection)
            os.kill(os.getpid(), signal.SIGKILL)

    return at_commit


def bury(engine, child):
    """Let the work of a dead child be taken at once, as the run that started it would."""
    ledger.free_owner(engine, worker_name(child))


def finish(storage, name="digits", *, patience_s=PATIENCE_S):
    """One more worker, as a run would start it after the last one died."""
    child = forked_worker(storage, name=name, patience_s=patience_s)
    assert os.waitpid(child, 0)[1] == 0


def work_to_the_end(path):
    """Run one worker on an SQLite file, and let ``commits_of`` know how many commits it made."""
    note = path.with_name("commits")
    child = forked_worker(path, lambda number, _connection: note.write_text(str(number)))
    assert os.waitpid(child, 0)[1] == 0


def commits_of(engine):
    """How many commits ``work_to_the_end`` made."""
    return int(Path(engine.url.database).with_name("commits").read_text())


class Telephone:
    """Lets a worker in a child process ask this one for something and wait for it."""

    def __init__(self):
        self._ask = os.pipe()
        self._answer = os.pipe()

    def ask(self):
        """In the child: wait until it is done."""
        os.write(self._ask[1], b"?")
        os.read(self._answer[0], 1)

    def wait(self):
        """Here: wait until the child asks."""
        assert os.read(self._ask[0], 1) == b"?"

    def answer(self):
        """Here: let the child go on."""
        os.write(self._answer[1], b"!")

    def hang_up(self):
        """Here: at the end."""
        for end in (*self._ask, *self._answer):
            os.close(end)
