"""What a study will need, said before it begins: memory of its workers, and roughly how long.

=======  ==================================================================================
symbol   meaning
=======  ==================================================================================
P        weights of the largest network that may be trained
m        networks that a worker holds at once
c        copies of each: weights, gradients, two moments, their average, the best so far, ...
b        images of a minibatch
v        values of an activation for each image
=======  ==================================================================================

A worker takes ``base + images + 4 m (c P + b v)`` bytes, the images only where they are not in a
file that all workers map; a step takes ``6 P b`` operations and the
time to call them. Two whole runs with the defaults, 50 trials and 3 folds on 2 cores, fixed the
constants of the time: digits (36 s) and MNIST (493 s).
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from aesearch.data import cache
from aesearch.data.study_data import Problem
from aesearch.sampling.suggest import n_defaults
from aesearch.studies.errors import AesearchError
from aesearch.studies.spec.model_size import largest_network
from aesearch.workers.places import places

_BASE_BYTES = 450_000_000  # a Python with torch, before any image
_COPIES = 8
_CGROUP = Path("/sys/fs/cgroup")
# Of the epochs and folds that many trials may have, the share that they have: losers leave after
# the first rungs of one fold, and the others stop early.
_SHARE_OF_EPOCHS = 0.1
# Training takes so many times what its matrix products alone take, ...
_OVERHEAD = 1.15
# ... a network's share of what a step of its population takes beside them, ...
_STEP_SECONDS = 0.6e-3
# ... and starting the processes, the evaluation and the report so long.
_START_SECONDS = 10.0


class MemoryNeededError(AesearchError, MemoryError):
    """A study that would take more memory than there is."""


@dataclass(frozen=True)
class Cost:
    """What a study needs on this machine.

    Attributes
    ----------
    n_weights : int
        Of its largest network.
    worker_bytes : int
        Memory of one worker.
    operations : float
        Floating-point operations of the search and the retraining.
    steps : float
        Optimiser steps of all networks.
    """

    n_weights: int
    worker_bytes: int
    operations: float
    steps: float

    def text(self, n_workers: int, seconds: float | None) -> str:
        """Say it in one line."""
        workers = f"{n_workers} worker{'s' * (n_workers != 1)}"
        how_long = "" if seconds is None else f", roughly {_duration(seconds)}"
        return (
            f"needs about {_size(n_workers * self.worker_bytes)} of memory for {workers}"
            f"{how_long}; networks of up to {self.n_weights:,} weights "
            f"({_size(4 * self.n_weights)})"
        )


def cost_of(problem: Problem) -> Cost:
    """Estimate what a study needs from its specification and the number of its images."""
    spec, (_, height, width) = problem.spec, problem.image_shape
    own = [array for array in (problem.images, problem.noisy) if not cache.is_mapped(array)]
    own_bytes = sum(array.nbytes for array in own if array is not None)
    size = largest_network(spec, problem.image_shape)
    folds, batch = spec.search.folds, int(spec.training.batch_size)
    # Where the folds come one after another, those after the first train together.
    at_once = spec.search.generation_size * (max(1, folds - 1) if spec.scores_delivery else folds)
    n_members = max(min(at_once, spec.compute.population * folds), spec.retrain.seeds)
    activations = batch * size.values_per_image
    if spec.compute.population == 1:  # one after the other: only weights are kept
        held = 4 * (n_members * _COPIES * size.n_weights + activations)
    else:
        held = 4 * n_members * (_COPIES * size.n_weights + activations)
    n_train = len(problem.images) * (folds - 1) / folds
    n_whole = float(spec.n_trials)
    if spec.search.pruner != "none":
        # The default configuration is never pruned.
        n_whole = max(min(spec.n_trials, n_defaults(spec)), _SHARE_OF_EPOCHS * spec.n_trials)
    n_seen = n_train * spec.trial_epochs * folds * n_whole
    n_seen += len(problem.images) * int(spec.retrain.max_epochs) * spec.retrain.seeds
    work = size.n_weights + size.weights_applied * height * width
    return Cost(
        n_weights=size.n_weights,
        worker_bytes=_BASE_BYTES + own_bytes + held,
        operations=6.0 * work * n_seen,
        steps=n_seen / batch,
    )


def seconds_for(cost: Cost, n_workers: int) -> float:
    """Estimate how long workers on this CPU take, by how fast a core multiplies matrices now."""
    seconds = _OVERHEAD * cost.operations / _products_per_second() + _STEP_SECONDS * cost.steps
    return _START_SECONDS + seconds / min(n_workers, places(cuda=False))


def _products_per_second() -> float:
    """Give the floating-point operations per second of one core: its best, if others use it too."""
    side = 384
    matrix = np.ones((side, side), dtype=np.float32)
    times = []
    with threadpool_limits(1):
        for _ in range(20):
            began = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - began)
    return 2 * side**3 / max(min(times), 1e-9)


def workers_that_fit(cost: Cost, n_workers: int, *, is_asked: bool, available: int | None) -> int:
    """Give as many workers as memory holds, at most so many.

    Parameters
    ----------
    n_workers : int
    is_asked : bool
        Whether a person asked for that number.
    available : int or None
        Bytes; None where nobody knows.

    Raises
    ------
    MemoryNeededError
        Not even one fits, or fewer than were asked for; says what helps.
    """
    if available is None:
        return n_workers
    fitting = available // cost.worker_bytes
    if fitting >= n_workers or (fitting >= 1 and not is_asked):
        return min(n_workers, fitting)
    fewer = f"--workers {fitting}, " if fitting else ""
    raise MemoryNeededError(
        f"the study must fit into memory, got {_size(available)} free where "
        f"{_size(n_workers * cost.worker_bytes)} are needed ({n_workers} workers, networks of "
        f"{cost.n_weights:,} weights); give {fewer}smaller images (--resize 64), fewer units "
        "(--set model.dense.hidden=128-64) or --architecture conv"
    )


def available_bytes() -> int | None:
    """Memory that this machine, or this container of it, has left; None where it is unknown."""
    found: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail")]
    except OSError:  # not Linux
        return None
    try:
        limit = (_CGROUP / "memory.max").read_text("ascii").strip()
        used = int((_CGROUP / "memory.current").read_text("ascii"))
        cached = dict(
            line.split() for line in (_CGROUP / "memory.stat").read_text("ascii").splitlines()
        ).get("inactive_file", "0")
        if limit != "max":
            found.append(int(limit) - used + int(cached))
    except (OSError, ValueError):
        pass
    return min(found, default=None)


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
