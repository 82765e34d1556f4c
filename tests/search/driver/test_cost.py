"""What a study will need: counted weights, memory that grows with them, workers that fit."""

import numpy as np
import pytest

from aesearch.data import cache
from aesearch.data.study_data import load_problem
from aesearch.driver import cost, study_run
from aesearch.driver.cost import Cost, MemoryNeededError, cost_of, workers_that_fit
from aesearch.models.autoencoder import build_autoencoder
from aesearch.studies.errors import AesearchError
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.model_size import largest_network

GB = 10**9


@pytest.fixture
def problem_of(tmp_path):
    """Make the problem of a few photographs under some settings."""

    def make(*overrides, shape=(3, 16, 16), n=24):
        images = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
        np.savez(tmp_path / "a.npz", images=images)
        words = [f"data.dataset={tmp_path}/a.npz", "space.encoding_dim.choices=[4, 7]", *overrides]
        return load_problem(load_spec(overrides=words), device="cpu")

    return make


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_weights_are_counted(problem_of, architecture):
    """As the largest network that is built has them; a convolutional one within a tenth."""
    problem = problem_of(f"model.architecture={architecture}", "space.architecture=null")
    configuration = problem.spec.configuration({"encoding_dim": 7})
    network = build_autoencoder(
        architecture=architecture,
        image_shape=(3, 16, 16),
        encoding_dim=7,
        hidden=configuration.hidden,
        channels=configuration.channels,
        conv_hidden=configuration.conv_hidden,
        shortcut=configuration.shortcut,
        output=configuration.output,
    )
    counted = sum(weights.numel() for weights in network.parameters())
    counted += sum(weights.numel() for weights in network.buffers())
    estimated = largest_network(problem.spec, (3, 16, 16)).n_weights
    assert estimated == pytest.approx(counted, rel=0.1)


def test_automatic_widths_go_by_a_budget(problem_of):
    """30 photographs of 128 x 128 x 3 make networks of some 80 MB, not 400."""
    problem = problem_of("model.architecture=dense", "space.architecture=null", shape=(3, 128, 128))
    assert problem.spec.model.dense.hidden == (203, 101)
    assert 4 * cost_of(problem).n_weights < 0.1 * GB
    small = problem_of("model.architecture=dense", "space.architecture=null", shape=(1, 28, 28))
    assert small.spec.model.dense.hidden == (392, 196)


@pytest.mark.parametrize(
    ("available", "is_asked", "expected"), [(None, True, 4), (9, False, 4), (5, False, 2)]
)
def test_as_many_workers_as_fit(available, is_asked, expected):
    """Fewer where nobody asked for a number; all where memory is unknown."""
    needed = Cost(1000, 2 * GB, 1.0, 1.0)
    bytes_there = None if available is None else available * GB
    assert workers_that_fit(needed, 4, is_asked=is_asked, available=bytes_there) == expected


@pytest.mark.parametrize(
    ("available", "is_asked", "remedy"), [(1, False, "--resize 64"), (5, True, "--workers 2")]
)
def test_more_memory_than_there_is_is_refused(available, is_asked, remedy):
    """With what there is, what is needed, and what helps."""
    needed = Cost(1000, 2 * GB, 1.0, 1.0)
    with pytest.raises(MemoryNeededError, match=rf"got {available}\.0 GB free.*8\.0 GB") as raised:
        workers_that_fit(needed, 4, is_asked=is_asked, available=available * GB)
    assert remedy in str(raised.value)


def test_a_run_stops_before_it_takes_too_much(tmp_path, monkeypatch):
    """Nothing is trained; the message is the user's."""
    import aesearch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study_run, "available_bytes", lambda: 10_000_000)
    images = np.random.default_rng(0).integers(0, 256, (24, 9, 9), dtype=np.uint8)
    with pytest.raises(AesearchError, match="the study must fit into memory, got 10 MB free"):
        aesearch.search(images, trials=2, quiet=True)


def test_memory_that_is_left_is_known():
    """On Linux; elsewhere nobody knows, and nothing is refused."""
    found = cost.available_bytes()
    assert found is None or found > 0


def test_the_time_is_near_what_was_measured(monkeypatch):
    """The quick start took 36 s on 2 such cores; on one it would have taken twice the training."""
    monkeypatch.setattr(cost, "_products_per_second", lambda: 95e9)
    monkeypatch.setattr(cost, "places", lambda **_: 2)
    needed = cost_of(load_problem(load_spec(overrides=["data.dataset=digits"]), device="cpu"))
    assert cost.seconds_for(needed, 2) == pytest.approx(36, rel=0.2)
    assert cost.seconds_for(needed, 1) - 10 == pytest.approx(2 * (cost.seconds_for(needed, 8) - 10))


def test_a_core_is_as_fast_as_its_best_product(monkeypatch):
    """Whatever else runs beside it: nineteen slow products say nothing."""
    clock = iter(np.cumsum([0.0, *[5.0, 0.0] * 19, 0.001, 0.0]))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    assert cost._products_per_second() == pytest.approx(2 * 384**3 / 0.001)


def test_few_trials_are_trained_whole(problem_of):
    """The first of each size is never pruned: two trials take as long as ten, one half of that."""
    operations = [
        cost_of(problem_of(f"search.trials={n}", "retrain.seeds=1")).operations
        for n in (1, 2, 10, 40)
    ]
    assert operations[1] == operations[2]
    assert operations[0] < 0.7 * operations[1]
    assert operations[3] > 1.5 * operations[2]


def test_images_that_all_workers_map_are_nobodys_own(problem_of, tmp_path, monkeypatch):
    """Eight workers on a set of 4 GB would not fit into 32 GB else."""
    read = cost_of(problem_of())
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(cache, "SMALLEST_BYTES", 1)
    problem = problem_of()
    assert cache.is_mapped(problem.images)
    assert read.worker_bytes - cost_of(problem).worker_bytes == problem.images.nbytes
