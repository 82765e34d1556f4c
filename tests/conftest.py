"""Options and fixtures that every test shares."""

from pathlib import Path

import pytest

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
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(skip_slow)
        if "gpu" in item.keywords and config.getoption("--device") != "cuda":
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
