"""Retraining a specification outside a study: in its own processes, without a store."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

from aesearch.artifacts import model_file
from aesearch.data.study_data import Problem, load_problem
from aesearch.evaluation.metrics import mean_squared_error
from aesearch.models.runtime import prepare_process
from aesearch.studies.errors import RunFailedError
from aesearch.studies.results.records import TrainedSeed
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.training.memory import images_for
from aesearch.training.pool_process import StoppedError, begin, shared
from aesearch.training.retrain import retrain
from aesearch.training.retrain_key import seed_chunks

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
    spec = problem.spec
    chunks = [chunk for chunk in seed_chunks(spec) if only is None or only in chunk]
    context = multiprocessing.get_context("spawn")
    stop, said = context.Event(), context.SimpleQueue()
    # One process per GPU is enough, and each has the whole of it.
    n_processes = min(os.cpu_count() or 1, len(chunks)) if spec.compute.device == "cpu" else 1
    pool = ProcessPoolExecutor(
        n_processes, mp_context=context, initializer=begin, initargs=(stop, said, os.getpid())
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


def _train_chunk(document: dict[str, Any], seed_indices: list[int]) -> list[TrainedSeed]:
    spec = ResolvedSpec.model_validate(document)
    prepare_process(spec.compute.threads)
    problem = load_problem(spec, device=spec.compute.device)
    tell = _teller(seed_indices, spec)
    done = retrain(
        problem,
        images_for(problem, spec.compute.device),
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
                test_mse=mean_squared_error(model, problem.test_images, inputs=problem.test_noisy),
                weights_sha256=item.weights_sha256,
                weights=weights,
            )
        )
    return trained


def _teller(seed_indices: list[int], spec: ResolvedSpec) -> Callable[[int, int], None]:
    told = 0.0

    def tell(epoch: int, _n_members: int) -> None:
        nonlocal told
        if shared["stop"].is_set():
            raise StoppedError
        if time.monotonic() - told >= _SAY_S:
            told = time.monotonic()
            shared["said"].put((seed_indices, epoch, spec.retrain.max_epochs))

    return tell
