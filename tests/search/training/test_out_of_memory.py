"""A device whose memory is too small for a population."""

import numpy as np
import pytest
import torch

from aesearch.data.study_data import load_problem
from aesearch.models.training.population import Population
from aesearch.studies.store import study_rows
from aesearch.training import memory
from aesearch.workers import worker


@pytest.fixture
def small_memory(monkeypatch):
    """Let at most so many members train together; returns the sizes that did."""

    def limit(n_members, error=None, *, after=0):
        sizes = []
        run_epoch = Population.run_epoch

        def checked(population, **asked):
            if population.n_members > n_members and population.epoch >= after:
                raise error or torch.OutOfMemoryError("CUDA out of memory")
            sizes.append(population.n_members)
            return run_epoch(population, **asked)

        monkeypatch.setattr(Population, "run_epoch", checked)
        return sizes

    return limit


@pytest.fixture
def small_device(monkeypatch):
    """Let a device have so many bytes free; returns the images that were put there."""

    def limit(n_bytes):
        made = []
        images_for = memory.images_for

        def images_noted(problem, device):
            with monkeypatch.context() as context:
                context.setattr(memory, "free_bytes", lambda _: n_bytes)
                context.setattr(memory, "WINDOW_SHARE", 0.9)
                made.append(images_for(problem, device))
            return made[-1]

        monkeypatch.setattr(worker, "images_for", images_noted)
        return made

    return limit


def table(engine):
    """Parameters, state and value of every trial."""
    return [(t.params, t.state, t.value) for t in study_rows.snapshot(engine, "digits").trials]


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), 0),
        (torch.OutOfMemoryError("CUDA out of memory"), 1),  # one rung is written by then
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"), 0),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), 0),
    ],
)
def test_populations_are_halved_until_they_fit(
    tiny_spec, create_study, work, tmp_path, small_memory, error, after
):
    """The study is the same; it only trains in smaller batches, and remembers the size."""
    spec = tiny_spec("space.architecture={choices: [dense]}")
    plenty = create_study(tmp_path / "plenty.db", spec)
    work(plenty, kinds=("search",))
    little = create_study(tmp_path / "little.db", spec)
    sizes = small_memory(2, error, after=after)
    work(little, kinds=("search",))
    # Six members: 6, 3, 1.
    assert max(sizes[after:]) == 1 if after == 0 else sizes[-1] == 1
    expected, found = table(plenty), table(little)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    # Other batch shapes round differently in the last bits of float32.
    np.testing.assert_allclose([r[2] for r in found], [r[2] for r in expected], rtol=1e-5)


def test_a_pruner_that_remembers_begins_again_too(
    tiny_spec, create_study, work, tmp_path, small_memory
):
    """Hyperband counts what it saw: of a generation that is begun again, it saw nothing."""
    many = ("search.trials=9", "search.generation_size=9", "search.reduction_factor=2")
    spec = tiny_spec(
        *many,
        "training.epochs=8",
        "space.architecture={choices: [dense]}",
        "search.pruner=hyperband",
    )
    plenty = create_study(tmp_path / "plenty.db", spec)
    work(plenty, kinds=("search",))
    assert "pruned" in {row[1] for row in table(plenty)}
    little = create_study(tmp_path / "little.db", spec)
    small_memory(14, after=2)
    work(little, kinds=("search",))
    assert [row[:2] for row in table(little)] == [row[:2] for row in table(plenty)]


def test_the_retraining_is_halved_too(tiny_spec, create_study, work, tmp_path, small_memory):
    """Its seeds train one by one where there is no room for more."""
    spec = tiny_spec("retrain.seeds=3")
    engines = [create_study(tmp_path / name, spec) for name in ("plenty.db", "little.db")]
    for engine in engines:
        work(engine, kinds=("search",))
    work(engines[0])
    sizes = small_memory(1)
    work(engines[1])
    assert set(sizes) == {1}
    expected, found = (
        [
            (r.seed, r.best_epoch, r.validation_loss)
            for r in study_rows.snapshot(e, "digits").retrains
        ]
        for e in engines
    )
    assert len(found) == 3
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    np.testing.assert_allclose([r[2] for r in found], [r[2] for r in expected], rtol=1e-4)


def test_a_member_that_does_not_fit_alone_fails_with_the_reason(
    tiny_spec, create_study, work, tmp_path, small_memory
):
    """There is nothing left to halve: the trials fail, and the study still ends."""
    engine = create_study(tmp_path / "none.db", tiny_spec())
    small_memory(0)
    work(engine, kinds=("search",))
    trials = study_rows.snapshot(engine, "digits").trials
    assert [t.state for t in trials] == ["failed"] * 5
    assert all("out of memory" in t.reason for t in trials)


def test_populations_are_bounded_by_free_memory(
    tiny_spec, create_study, work, tmp_path, small_memory, monkeypatch, caplog
):
    """Before anything runs out: the study is the same, in populations that fit."""
    spec = tiny_spec("space.architecture={choices: [dense]}")
    plenty = create_study(tmp_path / "plenty.db", spec)
    work(plenty, kinds=("search",))
    monkeypatch.setattr("aesearch.training.memory.free_bytes", lambda _: 10**9)
    monkeypatch.setattr("aesearch.training.memory.fitting_members", lambda *_, **__: 2)
    little = create_study(tmp_path / "little.db", spec)
    sizes = small_memory(100)
    with caplog.at_level("INFO"):
        work(little, kinds=("search",))
    assert set(sizes) == {1, 2}
    assert "populations of 2: 1000 MB of memory are free" in caplog.text
    expected, found = table(plenty), table(little)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    np.testing.assert_allclose([r[2] for r in found], [r[2] for r in expected], rtol=1e-5)


def test_images_that_do_not_fit_on_the_device_change_nothing(
    tiny_spec, create_study, work, tmp_path, small_device
):
    """Search, retraining and evaluation, bit for bit, with a part of the images there at a time."""
    spec = tiny_spec("training.epochs=auto", "search.score_epochs=1", "search.trials=3")
    plenty = create_study(tmp_path / "plenty.db", spec)
    work(plenty)
    little = create_study(tmp_path / "little.db", spec)
    made = small_device(2 * 85 * 64)
    work(little)
    assert [images.streams for images in made] == [True]
    assert (len(made[0]), made[0].window) == (90, 76)
    expected, found = (study_rows.snapshot(engine, "digits") for engine in (plenty, little))
    assert found.trials == expected.trials
    assert found.retrains == expected.retrains
    assert len(found.retrains) == 2


def test_images_stay_on_the_device_where_half_of_its_memory_holds_them(tiny_spec, monkeypatch):
    """Else as many as that, less the places for those that come and go."""
    problem = load_problem(tiny_spec(), device="cpu")
    n_bytes = problem.images.nbytes
    for free, streams, window in ((None, False, 0), (2 * n_bytes, False, 0), (n_bytes, True, 11)):
        monkeypatch.setattr(memory, "free_bytes", lambda _, free=free: free)
        images = memory.images_for(problem, "cpu")
        assert (images.streams, images.window) == (streams, window)
    monkeypatch.setattr(memory, "LARGEST_WINDOW", 3 * 64)
    assert memory.images_for(problem, "cpu").window == 3
