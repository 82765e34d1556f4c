"""``aesearch worker --workers``: several processes that stay, or end, as one."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from chaos import check_whole, create, table_of
from patience import PATIENCE_S

from aesearch.studies.errors import AesearchError
from aesearch.studies.store import ledger, study_rows
from aesearch.workers import worker_group
from aesearch.workers.worker_group import WorkerGroup, gpu_of, processes


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", ""])
def test_workers_is_a_number_or_auto(asked):
    """Anything else is refused with what was given."""
    with pytest.raises(AesearchError, match=f"must be a number >= 1 or auto, got '{asked}'"):
        processes(asked, ["cpu"])


def test_auto_is_one_per_core_or_per_gpu(monkeypatch):
    """A worker that serves GPUs gets one each, whatever the number of cores."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert processes("auto", ["cuda", "cpu"]) == 3
    assert processes("auto", ["cpu"]) == len(os.sched_getaffinity(0))
    assert processes("7", ["cuda"]) == 7
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert processes("auto", ["cpu"]) == 8


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, ["0", "1", "0"]), ("5,GPU-abc", ["5", "GPU-abc", "5"])],
    ids=["all", "some"],
)
def test_gpus_take_turns(monkeypatch, visible, expected):
    """Each worker sees one GPU; more workers than GPUs share them; a choice that was made stays."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu_of(index)["CUDA_VISIBLE_DEVICES"] for index in range(3)] == expected


def test_without_a_gpu_nothing_is_hidden(monkeypatch):
    """A machine without one is left as it is."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert gpu_of(0) == {}


class Played(WorkerGroup):
    """A group whose workers are one line of Python that writes into a folder."""

    def __init__(self, folder, code, count=2):
        self.stop = threading.Event()
        self.dead = []
        super().__init__(
            count,
            [],
            environment=lambda index: gpu_of(index) | {"INDEX": str(index), "FOLDER": str(folder)},
            on_death=lambda pid, asked: self.dead.append((pid, asked)),
            stop=self.stop,
        )
        start = "import os, pathlib, signal, time; f = pathlib.Path(os.environ['FOLDER']);"
        self._command = [sys.executable, "-S", "-c", f"{start} i = os.environ['INDEX']; {code}"]


def test_a_group_ends_when_its_workers_do(tmp_path):
    """Each ran once, with its own environment."""
    group = Played(tmp_path, "(f / i).touch()")
    group.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert group.dead == []


def test_the_killed_are_started_again(tmp_path, monkeypatch):
    """One that died is told of, and another takes its place until one ends by itself."""
    monkeypatch.setattr(worker_group, "_FIRST_PAUSE_S", 0.0)
    die = "first = not (f / i).exists(); (f / i).touch(); first and os.kill(os.getpid(), 9)"
    group = Played(tmp_path, die)
    group.run()
    assert len(set(group.dead)) == 2


@pytest.mark.parametrize("death", ["os.kill(os.getpid(), 9)", "os._exit(3)"])
def test_a_gpu_whose_worker_dies_leaves_the_others_alone(tmp_path, monkeypatch, death):
    """Each process sees one GPU; whoever takes the place of the dead sees the same one."""
    monkeypatch.setattr(worker_group, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    code = f"""
gpu = os.environ["CUDA_VISIBLE_DEVICES"]
lives = len(list(f.glob("5-*")))
(f / (gpu + "-" + str(os.getpid()))).touch()
if gpu == "5" and not lives:
    {death}
while len(list(f.glob("5-*"))) < 2:
    time.sleep(0.01)
"""
    group = Played(tmp_path, code, count=3)
    group.run()
    names = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert names == ["4", "5", "5", "6"]
    assert len(group.dead) == 1


@pytest.mark.parametrize("code", [1, 2])
def test_one_that_refuses_ends_all(tmp_path, code):
    """Starting it again would only fill the log; the group ends with the same exit code."""
    refuse = f"i == '0' and os._exit({code}); (f / 'up').touch(); time.sleep(600)"
    group = Played(tmp_path, refuse)
    with pytest.raises(AesearchError, match=f"worker 1 ended with exit code {code}") as caught:
        group.run()
    assert caught.value.exit_code == code
    assert not group._children


def test_stopping_ends_those_that_do_not_listen(tmp_path, monkeypatch):
    """First asked, then ended, and told of: their work goes to others."""
    monkeypatch.setattr(worker_group, "_STOP_S", 0.3)
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); (f / i).touch(); time.sleep(600)"
    group = Played(tmp_path, deaf)
    thread = threading.Thread(target=group.run)
    thread.start()
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.02)
    group.stop.set()
    thread.join()
    assert len(group.dead) == 2
    assert not group._children


def test_a_worker_that_is_killed_is_replaced_and_its_work_done(tmp_path, tiny_spec, work):
    """Two processes, one killed at work: the table of one worker, long before its lease ran out."""
    spec = tiny_spec("retrain.seeds=1")
    alone = create(tmp_path / "alone.db", spec)
    work(alone)
    engine = create(tmp_path / "group.db", spec)
    group = subprocess.Popen(
        [sys.executable, "-m", "aesearch", "worker", "--workers", "2", "--exit-when-idle"],
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
