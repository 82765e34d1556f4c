"""Worker processes: replaced when they die, given up when none gets anywhere, ended together."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from chaos import check_whole, create, table_of
from forked_command import PROGRAM, ForkedCommand
from patience import PATIENCE_S

from aesearch.studies.errors import AesearchError, RunFailedError
from aesearch.studies.store import ledger, study_rows
from aesearch.workers import processes
from aesearch.workers.owners import worker_name
from aesearch.workers.processes import WorkerProcesses, serving
from aesearch.workers.serve import keep

DIE = "import os; os.kill(os.getpid(), 9)"


@pytest.fixture
def dying(tmp_path, tiny_spec, create_study, monkeypatch):
    """One worker of a study that kills itself as soon as it starts."""
    storage = str(tmp_path / "s.db")
    engine = create_study(storage, tiny_spec())
    monkeypatch.setattr(processes, "worker_command", lambda _: [sys.executable, "-S", "-c", DIE])
    monkeypatch.setattr(processes, "_FIRST_PAUSE_S", 0.0)
    workers = WorkerProcesses(
        engine, storage, serving("digits"), 1, cuda=False, study="digits", folder=tmp_path
    )
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
    code = "import os; from aesearch.workers.owners import worker_name; "
    code += "print(worker_name(os.getpid()))"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    said, _ = child.communicate(timeout=PATIENCE_S)
    assert said.strip() == worker_name(child.pid)


@pytest.fixture
def played(tmp_path, monkeypatch):
    """Make workers that are one line of Python, which writes into a folder; who is freed."""
    freed = []
    monkeypatch.setattr(ledger, "free_owner", lambda _, owner, **how: freed.append((owner, how)))
    monkeypatch.setenv("FOLDER", str(tmp_path))
    start = "import os, pathlib, signal, time; f = pathlib.Path(os.environ['FOLDER']);"
    start += "i = os.environ['CUDA_VISIBLE_DEVICES'];"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")

    def make(code, count=2):
        command = [sys.executable, "-S", "-c", f"{start} {code}"]
        monkeypatch.setattr(processes, "worker_command", lambda _: command)
        return WorkerProcesses(None, "s.db", [], count, cuda=True), freed

    return make


def test_they_are_kept_until_they_end(played, tmp_path):
    """Each ran once, with its own environment."""
    crew, freed = played("(f / i).touch()")
    keep(crew, threading.Event(), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert freed == []


def test_the_killed_are_started_again(played, monkeypatch):
    """The work of one that died is freed, and another takes its place until one ends by itself."""
    monkeypatch.setattr(processes, "_FIRST_PAUSE_S", 0.0)
    die = "first = not (f / i).exists(); (f / i).touch(); first and os.kill(os.getpid(), 9)"
    crew, freed = played(die)
    keep(crew, threading.Event(), None)
    assert len({owner for owner, _ in freed}) == 2


@pytest.mark.parametrize("death", ["os.kill(os.getpid(), 9)", "os._exit(3)"])
def test_a_gpu_whose_worker_dies_leaves_the_others_alone(played, tmp_path, monkeypatch, death):
    """Each process sees one GPU; whoever takes the place of the dead sees the same one."""
    monkeypatch.setattr(processes, "_FIRST_PAUSE_S", 0.0)
    code = f"""
lives = len(list(f.glob("1-*")))
(f / (i + "-" + str(os.getpid()))).touch()
if i == "1" and not lives:
    {death}
while len(list(f.glob("1-*"))) < 2:
    time.sleep(0.01)
"""
    crew, freed = played(code, count=3)
    keep(crew, threading.Event(), None)
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == ["0", "1", "1", "2"]
    assert len(freed) == 1


def test_the_pauses_grow_while_nothing_is_done(played, monkeypatch):
    """One second, two, four, up to a minute; work that was done forgives them."""
    crew, _ = played("time.sleep(600)")
    child = subprocess.Popen([sys.executable, "-S", "-c", DIE])
    child.wait()
    crew._started[0] = time.monotonic()
    assert [crew._pause_after(0, child) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    monkeypatch.setattr(ledger, "free_owner", lambda *_, **__: True)
    assert crew._pause_after(0, child) == 0


@pytest.mark.parametrize("code", [1, 2])
def test_one_that_refuses_ends_all(played, code):
    """Starting it again would only fill the log; all of them end with the same exit code."""
    crew, _ = played(f"i == '0' and os._exit({code}); (f / 'up').touch(); time.sleep(600)")
    with pytest.raises(AesearchError, match=f"worker 1 ended with exit code {code}") as caught:
        keep(crew, threading.Event(), None)
    assert caught.value.exit_code == code
    assert not crew._children


def test_stopping_ends_those_that_do_not_listen(played, tmp_path, monkeypatch):
    """First asked, then ended, and told of: their work goes to others."""
    monkeypatch.setattr(processes, "_GRACE_S", 0.3)
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); (f / i).touch(); time.sleep(600)"
    crew, freed = played(deaf)
    stop = threading.Event()
    thread = threading.Thread(target=keep, args=(crew, stop, None))
    thread.start()
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.02)
    stop.set()
    thread.join()
    assert [how for _, how in freed] == [{"counts": False}] * 2
    assert not crew._children


def test_a_worker_that_is_killed_is_replaced_and_its_work_done(tmp_path, tiny_spec, work):
    """Two processes, one killed at work: the table of one worker, long before its lease ran out."""
    spec = tiny_spec("retrain.seeds=1")
    alone = create(tmp_path / "alone.db", spec)
    work(alone)
    engine = create(tmp_path / "group.db", spec)
    group = ForkedCommand(
        [*PROGRAM, "worker", "--workers", "2", "--exit-when-idle"],
        cwd=tmp_path,
        env=os.environ | {"AESEARCH_STORAGE": "group.db"},
        stderr=subprocess.PIPE,
        text=True,
    )
    study = study_rows.find_study(engine, "digits")
    while not (owners := ledger.owners(engine, study)):
        assert group.poll() is None, group.communicate()
        time.sleep(0.01)
    os.kill(int(owners[0].rpartition(":")[2]), signal.SIGKILL)
    _, said = group.communicate(timeout=PATIENCE_S)
    assert group.returncode == 0, said
    assert "died (SIGKILL): started again" in said
    check_whole(engine)
    assert table_of(engine) == table_of(alone)
    alone.dispose()
    engine.dispose()
