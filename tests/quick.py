"""What a process would do again for every study that a test makes is done once for all of them.

Nothing that is computed changes. Programs that a test starts itself know nothing of this.
"""

import copy
import functools
import gc
import multiprocessing
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

# What is heavy is imported in the fixtures: the process that only hands out tests needs none.


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave what is there by now out of every later search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def forked_processes() -> None:
    """Let runs fork their workers, ``train`` and ``verify`` theirs: each would import for seconds.

    Those of a program of its own (``subprocess``) start as a user's do.
    """
    from forked_command import ForkedCommand

    from aesearch.training import retrain_pool
    from aesearch.workers import processes

    processes.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": ForkedCommand})
    fork = multiprocessing.get_context("fork")
    retrain_pool.multiprocessing = SimpleNamespace(get_context=lambda _: fork)


@pytest.fixture(scope="session", autouse=True)
def read_once() -> None:
    """Optuna reads its migrations three times for each new store, scikit-learn parses a text."""
    import alembic.script.base
    import sklearn.datasets

    module_of = alembic.script.base.util.load_python_file
    alembic.script.base.util.load_python_file = functools.cache(module_of)
    load_digits = functools.cache(sklearn.datasets.load_digits)
    sklearn.datasets.load_digits = lambda **how: copy.deepcopy(load_digits(**how))


@pytest.fixture(scope="session", autouse=True)
def quick_pictures() -> None:
    """Let nobody look for the smallest file of a picture, which takes longer than the search."""
    from aesearch.evaluation import tiles

    png_bytes = tiles.png_bytes
    tiles.png_bytes = lambda pixels, *, colours=None, **_: png_bytes(pixels, colours=colours)


@pytest.fixture(scope="session", autouse=True)
def short_naps() -> None:
    """Look for the end of a study more often: of a study of a second it is worth it."""
    from aesearch.driver import study_run
    from aesearch.workers import serve, service, worker

    study_run.POLL_S = worker.POLL_S = service.POLL_S = serve._POLL_S = 0.05


@pytest.fixture(scope="session")
def prepared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with all tables and nothing in them, to be copied."""
    from aesearch.studies.store import study_rows

    path = tmp_path_factory.mktemp("empty") / "empty.db"
    study_rows.open_store(str(path)).dispose()  # the last to leave brings all into the file
    return path
