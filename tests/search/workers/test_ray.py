"""Workers in a Ray cluster: killed, with the run that watches them or without, all ends the same.

The cluster is one of this machine, of real Ray processes; several machines are not tested.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from patience import PATIENCE_S

from aesearch.data.load import DATA_VARIABLE
from aesearch.studies.store import ledger, study_rows
from aesearch.studies.store.connection import database
from aesearch.studies.store.connection.passwords import PASSWORD_VARIABLE
from aesearch.workers import ray_workers
from aesearch.workers.owners import worker_name
from aesearch.workers.ray_cluster import Cluster, RayClusterError
from aesearch.workers.ray_workers import RayWorkers, WorkerDiedError, serve

SQLITE = database.parse_url("studies.db")
POSTGRES = database.parse_url("postgresql://me@host/studies")

# ----------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "address", ["head.example:6379", "ray://192.0.2.7:10001", "[2001:db8::1]:1"]
)
def test_a_file_is_no_store_for_other_machines(address):
    """Refused before anything is connected, with the store that would do."""
    with (
        pytest.raises(RayClusterError, match=r"got the file 'studies.db'.*--storage postgresql://"),
        Cluster(address).connected(SQLITE),
    ):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://localhost:1", "nonsense"])
def test_where_no_cluster_is_the_address_is_named(address):
    """At once, in one line, with the command that starts one."""
    pytest.importorskip("ray", reason="Ray is not installed (aesearch[ray])")
    with (
        pytest.raises(RayClusterError, match="must be the address of a running") as caught,
        Cluster(address).connected(POSTGRES),
    ):
        pass
    assert repr(address) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_ray_the_extra_is_named(monkeypatch):
    """The option says what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(RayClusterError, match=r"pip install 'aesearch\[ray\]'"),
        Cluster("auto").connected(SQLITE),
    ):
        pass


@pytest.mark.parametrize(
    ("asked", "device", "found"),
    [
        (None, "auto", ("cpu", 0.0)),
        (0.25, "auto", ("cuda", 0.25)),
        (None, "cuda", ("cuda", 1.0)),
        (0.5, "cuda", ("cuda", 0.5)),
        (0.0, "auto", ("cpu", 0.0)),
        (None, "cpu", ("cpu", 0.0)),
    ],
)
def test_the_device_is_that_of_the_cluster(tiny_spec, asked, device, found):
    """What is asked for decides, not what the machine of the run has."""
    cluster = Cluster("auto", asked)
    chosen = cluster.device(tiny_spec(f"compute.device={device}"))
    assert (chosen, cluster.gpus(chosen)) == found


def test_a_study_of_a_cpu_gets_no_gpu(tiny_spec):
    """It would only keep it from others."""
    with pytest.raises(RayClusterError, match=r"gpus_per_worker must be 0 .* got 0\.5"):
        Cluster("auto", 0.5).device(tiny_spec("compute.device=cpu"))


@pytest.mark.parametrize("gpus", [-1.0, float("nan"), float("inf")])
def test_gpus_are_a_number(gpus):
    """From 0 on."""
    with pytest.raises(RayClusterError, match="gpus_per_worker must be >= 0"):
        Cluster("auto", gpus)


def test_the_password_reaches_the_machines(tmp_path, monkeypatch):
    """Those of the cluster need no file of their own; a file store is named by its whole path."""
    (tmp_path / "password").write_text("s3cret\n")
    monkeypatch.setenv(PASSWORD_VARIABLE, str(tmp_path / "password"))
    monkeypatch.chdir(tmp_path)
    assert RayWorkers(POSTGRES, "digits", 1, gpus=0)._storage.password == "s3cret"
    assert RayWorkers(SQLITE, "digits", 1, gpus=0)._storage.database == str(tmp_path / "studies.db")


def test_a_data_folder_is_named_by_its_whole_path(tmp_path, monkeypatch):
    """A task runs in a folder of its own."""
    given = []

    class Ray:
        def remote(self, *arguments):
            given.append(arguments)
            return self

        def options(self, **_options):
            return self

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(DATA_VARIABLE, "data")
    monkeypatch.setattr(ray_workers, "ray_library", Ray)
    RayWorkers(SQLITE, "digits", 1, gpus=0).start()
    assert given[-1][-1][DATA_VARIABLE] == str(tmp_path / "data")


# ------------------------------------------------------------------ what a task does


@pytest.fixture
def played(monkeypatch, tmp_path):
    """A store, and tasks whose worker is one line of Python."""
    monkeypatch.setattr(ray_workers, "_PAUSE_S", 0.0)

    def play(code):
        lines = f"import os, signal, sys, time; {code}"
        monkeypatch.setattr(
            ray_workers, "worker_command", lambda *_: [sys.executable, "-S", "-c", lines]
        )
        return serve(str(tmp_path / "store.db"), "digits", {"SAID": "hello"})

    return play


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_task_tells_how_its_worker_ended(played, code):
    """Exit code and last line; a refusal is no reason to start it again."""
    said = "print('first\\nerror:', os.environ['SAID'], '\\n', file=sys.stderr)"
    assert played(f"{said}; sys.exit({code})") == (code, "error: hello")


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), 9)", "sys.exit(143)", "sys.exit(7)"])
def test_a_task_whose_worker_was_killed_fails(played, how):
    """So Ray starts it again, here or elsewhere."""
    with pytest.raises(WorkerDiedError, match=f"{socket.gethostname()}.*:"):
        played(how)


def test_the_work_of_a_killed_worker_is_free_at_once(played, tmp_path, tiny_spec, create_study):
    """Nobody waits for the lease of a process that is known to be dead."""
    engine = create_study(tmp_path / "store.db", tiny_spec())
    study = study_rows.find_study(engine, "digits")
    claimed = []

    def claim(command, **how):
        child = real(command, **how)
        claimed.append(ledger.claim(engine, study, owner=worker_name(child.pid), lookahead=1))
        return child

    real = subprocess.Popen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_workers.subprocess, "Popen", claim)
        with pytest.raises(WorkerDiedError):
            played("time.sleep(0.5); os.kill(os.getpid(), 9)")
    assert claimed[0].position == 0
    assert ledger.owners(engine, study) == []


def test_a_cancelled_task_ends_its_worker(played, tmp_path):
    """Ray raises KeyboardInterrupt in it: the worker is asked to end, and waited for."""
    ended = tmp_path / "ended"
    on_term = f"open({str(ended)!r}, 'w').close(); os._exit(143)"
    code = f"signal.signal(15, lambda *_: exec({on_term!r})); time.sleep(60)"
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        played(code)
    timer.join()
    assert ended.exists()


# --------------------------------------------------------------- a cluster of processes

COMMAND = [
    *("run", "--folds", "3", "--trials", "8", "--epochs", "12", "--batch-size", "16", "--quiet"),
    *("--set", "data.limit=400", "--set", "retrain.seeds=2", "--set", "retrain.max_epochs=4"),
    *("--set", "search.generation_size=1", "--set", "search.unstable_loss=1", "--seed", "3"),
    *("--device", "cpu", "--architecture", "dense,conv"),
]
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
FILES = ("trials.csv", "curves.csv", "model.safetensors", "best.yaml")


def begin(folder, *extra):
    """Start the command in a folder of its own."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "aesearch", *COMMAND, *extra],
        cwd=folder,
        env=os.environ | TOKEN | {"AESEARCH_LEASE_S": "4"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files_of(process, folder):
    """The files of a run once it is done."""
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    return {name: (folder / "runs" / "digits" / name).read_bytes() for name in FILES}


def answers(host, port):
    """Whether anyone listens there."""
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray cluster on this machine."""
    pytest.importorskip("ray", reason="Ray is not installed (aesearch[ray])")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Sockets lie in it, whose paths are short.
    folder = tempfile.mkdtemp(prefix="ray-")
    address = "127.0.0.1"
    head = subprocess.Popen(
        [
            *(Path(sys.executable).with_name("ray"), "start", "--head", "--block"),
            *(f"--port={port}", f"--temp-dir={folder}"),
            *("--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"),
        ],
        env=os.environ | TOKEN,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not answers(address, port):
        assert head.poll() is None, "ray start --head ended"
        time.sleep(0.2)
    yield f"{address}:{port}"
    # It ends its own processes when it is asked to.
    head.terminate()
    head.wait(PATIENCE_S)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The files of the same run with one worker and without Ray."""
    folder = tmp_path_factory.mktemp("plain")
    return files_of(begin(folder, "--workers", "1"), folder)


def worker_at_work(folder, process):
    """Process id of a worker that holds work after two trials are finished."""
    while True:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
        if not (folder / "aesearch.db").exists():
            continue
        engine = study_rows.open_store(str(folder / "aesearch.db"))
        try:
            if "digits" not in study_rows.study_names(engine):
                continue
            trials = study_rows.snapshot(engine, "digits").trials
            owners = ledger.owners(engine, study_rows.find_study(engine, "digits"))
            if owners and sum(t.state in {"complete", "pruned"} for t in trials) >= 2:
                return int(owners[0].rpartition(":")[2])
        finally:
            engine.dispose()


def parent_of(pid):
    """Process id of the parent of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("PPid:")).split()[1])


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["worker", "task", "run"])
def test_whoever_is_killed_the_files_are_the_same(cluster, plain, tmp_path, killed):
    """A worker, the Ray task around it, or the run itself, which is then given again."""
    folder = tmp_path / "study"
    process = begin(folder, "--workers", "2", "--ray", cluster)
    worker = worker_at_work(folder, process)
    victim = {"worker": worker, "run": process.pid}.get(killed) or parent_of(worker)
    os.kill(victim, signal.SIGKILL)
    if killed == "run":
        process.communicate()
        process = begin(folder, "--workers", "2", "--ray", cluster)
    assert files_of(process, folder) == plain


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_gives_its_work_back(cluster, tmp_path):
    """SIGTERM reaches its workers through the cluster: exit code 143, and nobody holds anything."""
    folder = tmp_path / "study"
    process = begin(folder, "--workers", "2", "--ray", cluster)
    worker_at_work(folder, process)
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 143, errors
    assert "To go on: aesearch run" in errors
    engine = study_rows.open_store(str(folder / "aesearch.db"))
    assert ledger.owners(engine, study_rows.find_study(engine, "digits")) == []
    engine.dispose()
