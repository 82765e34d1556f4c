"""Successive halving for trials that advance together; who trains them is no matter here.

Optuna's pruner judges one trial at a time against those that reached the rung before it, so the
first of a generation meet little competition. Here the whole generation stands at the rung
at once, and each is held against all of it and all that older generations left there.
"""

import math
from collections.abc import Mapping, Sequence


def halving_losers(
    losses: Mapping[int, float], older: Sequence[float], *, reduction_factor: int
) -> list[int]:
    """Name the trials that are not in the best ``1 / reduction_factor`` at a rung.

    Parameters
    ----------
    losses : mapping of trial number to float
        Mean over folds at the rung, of the generation's trials that are still training.
    older : sequence of float
        The same of older trials that reached the rung, whatever became of them.
    reduction_factor : int
        >= 2.

    Returns
    -------
    list of int
        In the order of ``losses``. At least one trial of all is always good enough, and
        trials that are equal to the last good enough one stay too.

    References
    ----------
    Jamieson, Talwalkar: Non-stochastic best arm identification and hyperparameter optimization
    (2016), section 3. Li et al.: A system for massively parallel hyperparameter tuning (2020),
    algorithm 2, for judging against whoever reached the rung so far.
    """
    pool = sorted(loss for loss in (*losses.values(), *older) if math.isfinite(loss))
    if not pool:
        return []
    worst_good = pool[max(1, len(pool) // reduction_factor) - 1]
    return [number for number, loss in losses.items() if not loss <= worst_good]


def halving_rungs(warmup: int, epochs: int, reduction_factor: int) -> list[int]:
    """Epochs at which trials are judged: ``warmup``, then times powers of the factor up to a half.

    A trial pruned later than at half of its epochs saves little and loses its fold scores; a
    warm-up that was set later than that is kept to all the same.
    """
    rungs = [warmup] if warmup < epochs else []
    while rungs and rungs[-1] * reduction_factor <= epochs / 2:
        rungs.append(rungs[-1] * reduction_factor)
    return rungs
