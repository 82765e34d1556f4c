"""Every measurement that a number or a claim of a report is held against, by name.

====================  ===================================================================
name                  what it gives, one value per fold (cv), per seed, or one in all
====================  ===================================================================
cv_validation         validation loss of a trial at an epoch
cv_score              score of a trial
cv_gap                validation over training loss at an epoch
cv_climb              largest climb of the validation losses up to an epoch, over their median
seed_train            training loss of the retraining at an epoch
seed_validation       held-out loss of the retraining at an epoch
gap                   held-out over training loss of the retraining at an epoch
climb                 as cv_climb, of the training losses of the retraining
fall_share            share of the fall of the training loss that is made by an epoch
fall_epoch            first epoch by which 95% of that fall is made
reach_epoch           first epoch whose held-out loss is below a bound; or whose binary accuracy
                      is above it
seed_accuracy         held-out binary accuracy of the retraining at an epoch
plateaus              how often the plateau schedule lowered the learning rate
winner                a parameter of the winner
best_choice           the value of a parameter whose trial has the lowest validation loss
others                see ``networks``: they are made when a study is recorded
====================  ===================================================================
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch

from aesearch.models.training.schedules import Schedule
from aesearch.studies.results.stability import relative_climb
from reproduction.evidence import Evidence, NotMeasuredError
from reproduction.networks import EVERY_SEED, NETWORK_MEASURES
from reproduction.record import array
from reproduction.reported import Measure

FALL = 0.95

Spread = Literal["folds", "seeds", "none"]
_TRAIN, _VALIDATION, _ACCURACY = range(3)


@dataclass(frozen=True)
class Values:
    """What was measured.

    Attributes
    ----------
    values : ndarray, (fold,) or (seed,) or (1,)
    spread : {"folds", "seeds", "none"}
        What they differ by.
    study : str
        Whose seeds they are.
    split : str
        Whose folds they are: equal for the same folds of the same images.
    """

    values: np.ndarray
    spread: Spread
    study: str = ""
    split: str = ""

    @property
    def mean(self) -> float:
        """Their mean."""
        return float(self.values.mean())

    @property
    def deviation(self) -> float:
        """Their standard deviation; 0 for one value."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else 0.0


def measure(evidence: Evidence, asked: Measure) -> Values:
    """Measure what is asked for on a study.

    Raises
    ------
    NotMeasuredError
        The study does not have it.
    """
    spread, function = _MEASURES[asked.of]
    values = np.atleast_1d(np.asarray(function(evidence, asked), dtype=np.float64))
    return Values(values, spread, evidence.name, evidence.split)


def _of_folds(index: int) -> Callable[[Evidence, Measure], Any]:
    def losses(evidence: Evidence, asked: Measure) -> np.ndarray:
        curves = evidence.fold_curves(evidence.trial(asked.trial))[index]
        at: np.ndarray = curves[:, evidence.position(asked, curves.shape[1])]
        return -10 * np.log10(at) if asked.metric == "psnr" else at

    return losses


def _of_seeds(index: int) -> Callable[[Evidence, Measure], Any]:
    def losses(evidence: Evidence, asked: Measure) -> np.ndarray:
        curves = evidence.seed_curves[index]
        at: np.ndarray = curves[:, evidence.position(asked, curves.shape[1])]
        return at

    return losses


def _ratio(
    of: Callable[[int], Callable[[Evidence, Measure], Any]],
) -> Callable[[Evidence, Measure], Any]:
    return lambda evidence, asked: of(_VALIDATION)(evidence, asked) / of(_TRAIN)(evidence, asked)


def _climbs(evidence: Evidence, asked: Measure, curves: np.ndarray) -> list[float]:
    end = evidence.position(asked, curves.shape[1]) + 1
    return [relative_climb(curve[:end]) for curve in curves]


def _whole(evidence: Evidence, index: int) -> np.ndarray:
    """Curves of the retraining, none of which ends before another: (seed, epoch)."""
    curves: np.ndarray = evidence.seed_curves[index]
    if np.isnan(curves[:, -1]).any():
        raise NotMeasuredError(f"seeds of study {evidence.name!r} must train for equally long")
    return curves


def _fall(evidence: Evidence) -> np.ndarray:
    """Share of the fall from the first to the last epoch: (seed, epoch)."""
    curves = _whole(evidence, _TRAIN)
    first, last = curves[:, :1], curves[:, -1:]
    shares: np.ndarray = (first - curves) / (first - last)
    return shares


def _fall_share(evidence: Evidence, asked: Measure) -> np.ndarray:
    shares = _fall(evidence)
    at: np.ndarray = shares[:, evidence.position(asked, shares.shape[1])]
    return at


def _reach_epoch(evidence: Evidence, asked: Measure) -> np.ndarray:
    assert asked.bound is not None, "reported.yaml names a bound"
    if asked.metric == "binary_accuracy":
        reached = _whole(evidence, _ACCURACY) > asked.bound
    else:
        reached = _whole(evidence, _VALIDATION) < asked.bound
    if not reached.any(axis=1).all() and not evidence.is_quick:
        raise NotMeasuredError(
            f"{asked.metric} must reach {asked.bound:g} in study {evidence.name!r}, got a seed "
            "that does not"
        )
    first: np.ndarray = reached.argmax(axis=1) + 1
    return first


def _plateaus(evidence: Evidence, _asked: Measure) -> list[int]:
    """Replay the schedule on the losses that it saw."""
    training = evidence.spec.training
    counts = []
    for losses in _whole(evidence, _TRAIN):
        schedule = Schedule(
            training.schedule,
            torch.tensor([training.learning_rate]),
            epochs=len(losses),
            gamma=training.gamma,
            factor=training.factor,
            patience=training.patience,
        )
        rates = []
        for epoch, loss in enumerate(losses):
            rates.append(float(schedule.learning_rates(epoch)))
            schedule.observe(torch.tensor([loss]))
        counts.append(sum(after < before for before, after in pairwise(rates)))
    return counts


def _winner(evidence: Evidence, asked: Measure) -> float:
    return float(evidence.winner.params[str(asked.parameter)])


def _best_choice(evidence: Evidence, asked: Measure) -> float:
    last = _of_folds(_VALIDATION)
    found = [
        (float(last(evidence, asked.model_copy(update={"trial": trial.params})).mean()), trial)
        for trial in evidence.trials(asked.trial)
    ]
    finite = [each for each in found if math.isfinite(each[0])]
    if not finite:
        raise NotMeasuredError(f"a trial of study {evidence.name!r} must be finite, got none")
    return float(min(finite, key=lambda each: each[0])[1].params[str(asked.parameter)])


_OF_CURVES: dict[str, tuple[Spread, Callable[[Evidence, Measure], Any]]] = {
    "cv_validation": ("folds", _of_folds(_VALIDATION)),
    "cv_score": ("folds", lambda evidence, asked: array(evidence.trial(asked.trial).fold_scores)),
    "cv_gap": ("folds", _ratio(_of_folds)),
    "cv_climb": (
        "folds",
        lambda e, asked: _climbs(e, asked, e.fold_curves(e.trial(asked.trial))[_VALIDATION]),
    ),
    "seed_train": ("seeds", _of_seeds(_TRAIN)),
    "seed_validation": ("seeds", _of_seeds(_VALIDATION)),
    "seed_accuracy": ("seeds", _of_seeds(_ACCURACY)),
    "gap": ("seeds", _ratio(_of_seeds)),
    "climb": ("seeds", lambda e, asked: _climbs(e, asked, e.seed_curves[_TRAIN])),
    "fall_share": ("seeds", _fall_share),
    "fall_epoch": ("seeds", lambda evidence, _: (_fall(evidence) >= FALL).argmax(axis=1) + 1),
    "reach_epoch": ("seeds", _reach_epoch),
    "plateaus": ("seeds", _plateaus),
    "winner": ("none", _winner),
    "best_choice": ("none", _best_choice),
}
_OF_NETWORKS: dict[str, tuple[Spread, Callable[[Evidence, Measure], Any]]] = {
    name: (
        "seeds" if name in EVERY_SEED else "none",
        lambda evidence, asked: evidence.measured(asked),
    )
    for name in NETWORK_MEASURES
}

_MEASURES = _OF_CURVES | _OF_NETWORKS
NAMES = frozenset(_MEASURES)
# One figure that is met or missed, not approached.
EXACT = frozenset({"parameters", "winner", "best_choice"})
# Of no network of ours, so neither better nor worse than it.
UNTRAINED = frozenset({"black", "components"})
