"""Options and fixtures that every test shares."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Before NumPy and SciPy are loaded, and for every process that a test starts, as a run does for
# its workers: threads of BLAS wait for each other in busy loops, which was half of the processor
# time of a study of seconds.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import settings

# tests/postgres.py: a server, where its programs are here; tests/quick.py: what is done only once.
pytest_plugins = ("postgres", "quick")

# As the workers do: results are bitwise equal for equal counts, and small tensors gain nothing.
torch.set_num_threads(1)

# No test may fail because a machine is busy.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

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
    "space.architecture.choices=[dense, conv]",
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


@pytest.fixture(scope="session")
def tiny_spec() -> Callable[..., Any]:
    """Make the spec of a study of seconds on the digits; arguments are further overrides."""
    from aesearch.studies.spec.load import load_spec

    return lambda *overrides: load_spec(overrides=[*TINY, *overrides])


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Name a store by a word: its path or URL, the same for the same word; on both databases."""
    if request.param == "sqlite":
        yield lambda word: str(tmp_path / f"{word}.db")
        return
    server = request.getfixturevalue("postgres")
    template = request.getfixturevalue("prepared_database")
    databases: dict[str, str] = {}

    def name(word: str) -> str:
        if word not in databases:
            databases[word] = server.create_database(template=template)
        return server.url(databases[word])

    yield name
    for database in databases.values():
        server.drop_database(database)


@pytest.fixture
def create_study(prepared_file: Path) -> Iterator[Callable[..., Any]]:
    """Create a study of a spec in a store; returns its engine, closed at the end of the test."""
    from chaos import create

    engines = []

    def make(storage: Path | str, spec: Any) -> Any:
        if "://" not in str(storage) and not Path(storage).exists():
            shutil.copyfile(prepared_file, storage)
        engines.append(create(storage, spec))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Let tests after one that runs a worker in this process compute as if it had not been."""
    yield
    torch.set_flush_denormal(False)  # a worker turns it on for its whole process


@pytest.fixture
def work() -> Callable[..., None]:
    """Run one worker in this process until the study is finished."""
    from aesearch.workers.worker import ALL_KINDS, Worker

    def run(engine: Any, name: str = "digits", kinds: tuple[str, ...] = ALL_KINDS) -> None:
        Worker(engine, name, kinds=kinds, stop=threading.Event()).run(exit_when_idle=True)

    return run


@dataclass
class Visit:
    """One page in a real browser, and everything it said and asked for.

    Attributes
    ----------
    page : playwright.sync_api.Page
        Loaded; to click, measure and take screenshots with.
    problems : list of str
        Console errors and warnings, uncaught exceptions and failed requests.
    requests : list of str
        Every URL that was asked for, the page itself first.
    """

    page: Any
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def strange_requests(self) -> list[str]:
        """Requests to another origin than that of the page."""
        own = urlsplit(self.page.url)
        parts = [(url, urlsplit(url)) for url in self.requests]
        return [
            url
            for url, part in parts
            if part.scheme not in ("data", "blob")
            and (part.scheme, part.netloc) != (own.scheme, own.netloc)
        ]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Give a headless Chromium; skips where the program or playwright is absent."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if program is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    # One per module: while it lives, this thread has an event loop that asyncio.run refuses.
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Visit]]:
    """Open a URL or a file in a window of its own: ``visit(url, width=390, dark=True)``."""
    contexts = []

    def open_page(
        address: str | Path, *, width: int = 1280, height: int = 900, dark: bool = False
    ) -> Visit:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        contexts.append(context)
        seen = Visit(context.new_page())

        def on_console(message: Any) -> None:
            if message.type in ("error", "warning"):
                seen.problems.append(f"{message.type}: {message.text}")

        seen.page.on("console", on_console)
        seen.page.on("pageerror", lambda error: seen.problems.append(f"uncaught: {error}"))
        seen.page.on("requestfailed", lambda r: seen.problems.append(f"failed: {r.url:.200}"))
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        url = address.absolute().as_uri() if isinstance(address, Path) else address
        seen.page.goto(url, wait_until="load")
        return seen

    yield open_page
    for context in contexts:
        context.close()
