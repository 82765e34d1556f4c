"""Two writers of one folder: neither takes the other's half-written file away, each waits."""

import os
import subprocess
import threading
from pathlib import Path

from aesearch.studies import files
from aesearch.studies.files import one_writer, whole_file


def dead_process():
    """The id of a process that is gone."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_a_part_of_another_machine_stays(tmp_path, monkeypatch):
    """Its writer may live, whatever process has that id here; what our own dead left goes."""
    path = tmp_path / "best.yaml"
    names = []
    for where in ("there", "here"):
        monkeypatch.setattr(files, "place", lambda where=where: where)
        monkeypatch.setattr(os, "getpid", dead_process)
        with whole_file(path) as stream:
            names.append(stream.name)
        monkeypatch.undo()
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    monkeypatch.setattr(files, "place", lambda: "here")
    with whole_file(path) as stream:
        stream.write(b"whole")
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {"best.yaml", Path(names[0]).name}


def test_threads_write_a_folder_one_after_the_other(tmp_path):
    """Nobody begins before the one who writes has ended."""
    inside, most = [], []

    def write():
        for _ in range(20):
            with one_writer(tmp_path):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert len(most) == 80
