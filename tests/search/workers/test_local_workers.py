"""The worker processes of a run: replaced when they die, given up when none gets anywhere."""

import subprocess
import sys

import pytest
from patience import PATIENCE_S

from aesearch.studies.errors import RunFailedError
from aesearch.studies.store import ledger
from aesearch.workers import local_workers
from aesearch.workers.local_workers import Workers, worker_name

DIE = "import os; os.kill(os.getpid(), 9)"


@pytest.fixture
def dying(tmp_path, tiny_spec, create_study, monkeypatch):
    """One worker of a study that kills itself as soon as it starts."""
    storage = str(tmp_path / "s.db")
    engine = create_study(storage, tiny_spec())
    monkeypatch.setattr(
        local_workers, "worker_command", lambda _: [sys.executable, "-S", "-c", DIE]
    )
    workers = Workers(engine, storage, "digits", 1, tmp_path, cuda=False)
    workers.start()
    yield workers
    workers.stop()


def deaths(workers, count):
    """Look after the worker until it has died so often."""
    for _ in range(count):
        for child in workers._children.values():
            child.wait()
        workers.tend()


def test_workers_that_get_nowhere_end_the_run(dying):
    """Four deaths at once, and nothing was done in between."""
    with pytest.raises(RunFailedError, match="a worker failed"):
        deaths(dying, 4)


def test_a_worker_that_got_somewhere_is_replaced_again_and_again(dying, monkeypatch):
    """One that died after a rung, of a trial that kills it: the trial is given up, not the run."""
    monkeypatch.setattr(ledger, "free_owner", lambda *_, **__: True)
    deaths(dying, 8)


def test_work_that_others_finished_forgives_the_deaths_before(dying, monkeypatch):
    """Each death is of another trial: the one before has been given up by then."""
    left = iter(range(99, 0, -1))
    monkeypatch.setattr(ledger, "open_work", lambda *_: {"search": next(left)})
    deaths(dying, 8)


def test_the_name_of_a_worker_is_that_of_its_place_and_process():
    """The same for every process of a machine, so that a run knows those of its children."""
    code = "import os; from aesearch.workers.local_workers import worker_name; "
    code += "print(worker_name(os.getpid()))"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    said, _ = child.communicate(timeout=PATIENCE_S)
    assert said.strip() == worker_name(child.pid)
