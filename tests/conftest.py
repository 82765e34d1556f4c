"""Options and fixtures that every test shares."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

# As the workers do: results are bitwise equal for equal counts, and small tensors gain nothing.
torch.set_num_threads(1)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --slow (run everything) and --device (where tensors live)."""
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--device", default="cpu", help="device of the tensor tests: cpu or cuda")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this run was not asked for."""
    skip_slow = pytest.mark.skip(reason="slow: run with --slow")
    skip_gpu = pytest.mark.skip(reason="gpu: run with --device cuda")
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(skip_slow)
        if item.get_closest_marker("gpu") and config.getoption("--device") != "cuda":
            item.add_marker(skip_gpu)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """Device that tensor tests run on."""
    return request.config.getoption("--device")


@pytest.fixture
def mnist_dir() -> Path:
    """Folder with the real MNIST in torchvision's layout; skips where it is absent."""
    if not (SHARED_DATA / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
        pytest.skip("the real MNIST is not beside the project (../shared/data)")
    return SHARED_DATA


TINY = (
    "data.limit=90",
    "training.epochs=3",
    "training.batch_size=16",
    "model.dense.hidden=[24]",
    "model.conv.channels=[3,4,5]",
    "model.conv.hidden=12",
    "search.trials=5",
    "search.generation_size=2",
    "search.lookahead=2",
    "search.startup_trials=2",
    "search.score_epochs=2",
    "search.unstable_loss=1.0",
    "retrain.seeds=2",
    "retrain.max_epochs=4",
    "retrain.patience=2",
    "compute.device=cpu",
)


@pytest.fixture
def tiny_spec() -> Callable[..., Any]:
    """Make the spec of a study of seconds on the digits; arguments are further overrides."""
    from aesearch.studies.spec_yaml import load_spec

    return lambda *overrides: load_spec(overrides=[*TINY, *overrides])


@pytest.fixture
def create_study() -> Callable[..., Any]:
    """Create a study of a spec in a store; returns its engine."""
    from aesearch.problem import load_problem
    from aesearch.studies import store

    def create(path: Path, spec: Any) -> Any:
        engine = store.open_store(str(path))
        problem = load_problem(spec, device="cpu")
        resolved = problem.spec
        created = store.create_study(
            engine,
            resolved.name,
            spec=resolved.model_dump(mode="json"),
            facts=problem.facts(),
            n_trials=resolved.search.trials,
            generation_size=resolved.search.generation_size,
            version="test",
        )
        assert created
        return engine

    return create


@pytest.fixture
def work() -> Callable[..., None]:
    """Run one worker in this process until the study is finished."""
    from aesearch.worker import ALL_KINDS, Worker

    def run(engine: Any, name: str = "digits", kinds: tuple[str, ...] = ALL_KINDS) -> None:
        Worker(engine, name, kinds=kinds, stop=threading.Event()).run(exit_when_idle=True)

    return run
