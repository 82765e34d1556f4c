"""Training one generation of the search, rung by rung; who leases it is no matter here."""

import logging
from collections.abc import Callable, Mapping, Sequence

from aesearch.data.study_data import Problem
from aesearch.models.runtime import is_out_of_memory
from aesearch.models.training.capture import release_memory
from aesearch.models.training.device_images import DeviceImages
from aesearch.sampling.suggest import Pruner
from aesearch.studies.spec.study import Configuration
from aesearch.training.delivery import train_as_delivered
from aesearch.training.fixed_epochs import train_fixed_epochs
from aesearch.training.rungs import Rung

log = logging.getLogger("aesearch.worker")


def train_generation(
    problem: Problem,
    images: DeviceImages,
    configurations: Mapping[int, Configuration],
    *,
    population: int,
    rungs: Sequence[int],
    pruner: Callable[[], Pruner],
    on_epoch: Callable[[int, int], None],
    on_rung: Callable[[Rung, bool], None],
) -> int:
    """Train every trial of a generation to its end, or until it is pruned.

    Where memory runs out, the generation is begun again with populations half as large. What a
    member computes depends on their size in the last bits only.

    Parameters
    ----------
    images : DeviceImages
        Those of ``problem``.
    configurations : mapping of trial number to Configuration
    population : int
        Members that train as one batch, at most; >= 1.
    rungs : sequence of int
        Epochs at which losers leave; the last one is the end.
    pruner : callable
        Makes a pruner that knows nothing of this generation yet, for each beginning. What it
        remembers is stored with the trial.
    on_epoch : callable(epoch, n_members)
        Called after each epoch of each population, with the mean over the members that still
        train (populations train one after the other), rounded down; may raise to stop. Where
        the folds come one after another, epochs of all folds are counted together.
    on_rung : callable(rung, done)
        Writes what happened; may raise to stop.

    Returns
    -------
    int
        The ``population`` that fitted into memory.
    """
    train = train_as_delivered if problem.spec.scores_delivery else train_fixed_epochs
    n_members = len(configurations) * problem.spec.search.folds
    while True:
        try:
            train(
                problem,
                images,
                configurations,
                population=population,
                rungs=rungs,
                pruner=pruner(),
                on_epoch=on_epoch,
                on_rung=on_rung,
            )
        except RuntimeError as error:
            if population == 1 or not is_out_of_memory(error):
                raise
            log.warning("out of memory with populations of %d", min(population, n_members))
        else:
            return population
        # Only here does nothing hold on to the tensors of the attempt any more.
        population = max(1, min(population, n_members) // 2)
        release_memory()
