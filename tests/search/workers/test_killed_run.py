"""The command itself, killed with all its workers and given again, leaves the same files."""

import os
import signal
import subprocess
import time

from forked_command import PROGRAM, ForkedCommand
from patience import PATIENCE_S

from aesearch.studies.processes import lives
from aesearch.studies.store import ledger, study_rows
from aesearch.studies.store.connection import retry

COMMAND = [
    *("run", "--folds", "3", "--trials", "6", "--epochs", "8", "--batch-size", "16", "--quiet"),
    *("--set", "data.limit=200", "--set", "retrain.seeds=2", "--set", "retrain.max_epochs=4"),
    *("--architecture", "dense,conv", "--set", "model.conv.channels=[8,16,32]"),
    *("--set", "search.generation_size=1", "--set", "search.unstable_loss=1", "--seed", "3"),
]


def aesearch(folder, popen=ForkedCommand):
    """Start the command in a folder of its own."""
    return popen(
        [*PROGRAM, *COMMAND],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(folder):
    """How many trials the study in a folder has finished."""
    if not (folder / "aesearch.db").exists():
        return 0
    engine = study_rows.open_store(str(folder / "aesearch.db"))
    if "digits" not in study_rows.study_names(engine):
        return 0
    trials = study_rows.snapshot(engine, "digits").trials
    engine.dispose()
    return sum(trial.state in {"complete", "pruned"} for trial in trials)


def kill_everything(process, folder):
    """End a run and its workers at once, as a power cut would."""
    engine = study_rows.open_store(str(folder / "aesearch.db"))
    owners = ledger.owners(engine, study_rows.find_study(engine, "digits"))
    process.kill()
    workers = [int(owner.rpartition(":")[2]) for owner in owners]
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    process.communicate()
    while any(map(lives, workers)):  # who comes in the same moment would wait for their leases
        time.sleep(0.01)
    engine.dispose()
    return owners


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    """Killed after two trials, then given again: tables, weights and best.yaml to the byte."""
    # The leases of the dead outlast this test: who waited for them would not end in time.
    monkeypatch.setenv(retry.LEASE_VARIABLE, str(10 * PATIENCE_S))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    _, errors = (process := aesearch(whole)).communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    process = aesearch(killed, subprocess.Popen)  # as a user's; the others as in other tests
    while finished(killed) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    owners = kill_everything(process, killed)
    assert owners
    assert finished(killed) < 6
    _, errors = (process := aesearch(killed)).communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    for name in ("trials.csv", "curves.csv", "model.safetensors", "best.yaml"):
        one, other = (folder / "runs" / "digits" / name for folder in (whole, killed))
        assert one.read_bytes() == other.read_bytes(), name
