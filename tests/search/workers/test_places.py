"""How many workers a machine gets, and which GPU each of them sees."""

import os

import pytest

from aesearch.studies.errors import AesearchError
from aesearch.workers.places import asked_workers, gpu_of


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", ""])
def test_workers_is_a_number_or_auto(asked):
    """Anything else is refused with what was given."""
    with pytest.raises(AesearchError, match=f"must be a number >= 1 or auto, got '{asked}'"):
        asked_workers(asked, ["cpu"])


def test_auto_is_one_per_core_or_per_gpu(monkeypatch):
    """A worker that serves GPUs gets one each, whatever the number of cores."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert asked_workers("auto", ["cuda", "cpu"]) == 3
    assert asked_workers("auto", ["cpu"]) == len(os.sched_getaffinity(0))
    assert asked_workers("7", ["cuda"]) == 7
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert asked_workers("auto", ["cpu"]) == 8


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
