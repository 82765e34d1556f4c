"""Retraining a specification outside a study: in its own processes, without a store."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from signal import SIG_IGN, SIGINT, signal
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from aesearch.data.study_data import Problem
from aesearch.studies.errors import RunFailedError
from aesearch.studies.results.records import TrainedSeed
from aesearch.studies.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event

_SAY_S = 0.5


class Progress(Protocol):
    """Who is told how far a retraining is."""

    def epoch(self, seeds: Sequence[int], epoch: int, n_epochs: int) -> None:
        """Take note of an epoch of the seeds that train together."""

    def finished(self, seed: TrainedSeed) -> None:
        """Take note of a finished seed."""


def train_seeds(
    problem: Problem, *, only: int | None = None, progress: Progress
) -> list[TrainedSeed]:
    """Retrain the configuration that a specification holds as its defaults.

    Parameters
    ----------
    problem : Problem
        With the resolved specification; the processes load the same images again.
    only : int, optional
        Train just the population that this seed index is in.

    Returns
    -------
    list of TrainedSeed
        By seed index. On the same machine with the same versions, bit for bit what the
        study's own retraining gave.

    Raises
    ------
    RunFailedError
        A seed diverged, or a process died.
    """
    from aesearch.training.retrain import seed_chunks  # noqa: PLC0415 - imports torch

    spec = problem.spec
    chunks = [chunk for chunk in seed_chunks(spec) if only is None or only in chunk]
    context = multiprocessing.get_context("spawn")
    stop, said = context.Event(), context.SimpleQueue()
    # One process per GPU is enough, and each has the whole of it.
    n_processes = min(os.cpu_count() or 1, len(chunks)) if spec.compute.device == "cpu" else 1
    pool = ProcessPoolExecutor(
        n_processes, mp_context=context, initializer=_begin, initargs=(stop, said, os.getpid())
    )
    document = spec.model_dump()  # pydantic's generic classes cannot be pickled
    found: list[TrainedSeed] = []
    try:
        with _without_main():
            waiting: set[Future[list[TrainedSeed]]] = {
                pool.submit(_train_chunk, document, list(chunk)) for chunk in chunks
            }
        while waiting:
            done, waiting = wait(waiting, timeout=_SAY_S, return_when=FIRST_COMPLETED)
            while not said.empty():
                progress.epoch(*said.get())
            for future in done:
                for seed in future.result():
                    found.append(seed)
                    progress.finished(seed)
    except BrokenProcessPool as error:
        raise RunFailedError(
            "a retraining process died (out of memory?); free memory and run the same command again"
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    return sorted(found, key=lambda seed: seed.seed_index)


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep processes that start meanwhile from running the user's script once more.

    A process that is spawned imports the main module of its parent, where a script without a
    guard does all its work again. Nothing here is of that module.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# What the processes of the pool share with the one that made it; set once in each of them.
_shared: dict[str, Any] = {}


class _StoppedError(Exception):
    """The retraining was interrupted."""


def _begin(stop: "Event", said: "SimpleQueue[Any]", parent: int) -> None:
    # Ctrl-C reaches the whole process group: the one that made the pool decides.
    signal(SIGINT, SIG_IGN)
    _shared.update(stop=stop, said=said)
    # A parent that was killed closes nothing: an idle process would wait for its work for ever.
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SAY_S)
    os._exit(1)


def _train_chunk(document: dict[str, Any], seed_indices: list[int]) -> list[TrainedSeed]:
    import torch  # noqa: PLC0415 - in the processes that train only

    from aesearch.artifacts import model_file  # noqa: PLC0415
    from aesearch.data.study_data import load_problem  # noqa: PLC0415
    from aesearch.evaluation.metrics import mean_squared_error  # noqa: PLC0415
    from aesearch.models.runtime import prepare_process  # noqa: PLC0415
    from aesearch.training.retrain import retrain  # noqa: PLC0415

    spec = ResolvedSpec.model_validate(document)
    prepare_process(spec.compute.threads)
    problem = load_problem(spec, device=spec.compute.device)
    tell = _teller(seed_indices, spec)
    done = retrain(
        problem,
        torch.from_numpy(problem.images).to(spec.compute.device),
        spec.configuration({}),
        seed_indices,
        on_epoch=tell,
    )
    trained = []
    for item in done:
        weights = model_file.to_bytes(item.model)
        # Through the file, as the study does: what is tested is what is exported.
        model = model_file.from_bytes(weights)
        trained.append(
            TrainedSeed(
                seed_index=item.seed_index,
                seed=item.seed,
                epochs=item.epochs,
                best_epoch=item.best_epoch,
                validation_loss=item.validation_loss,
                test_mse=mean_squared_error(model, problem.test_images),
                weights_sha256=item.weights_sha256,
                weights=weights,
            )
        )
    return trained


def _teller(seed_indices: list[int], spec: ResolvedSpec) -> Callable[[int, int], None]:
    told = 0.0

    def tell(epoch: int, _n_members: int) -> None:
        nonlocal told
        if _shared["stop"].is_set():
            raise _StoppedError
        if time.monotonic() - told >= _SAY_S:
            told = time.monotonic()
            _shared["said"].put((seed_indices, epoch, spec.retrain.max_epochs))

    return tell
