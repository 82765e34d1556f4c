"""How much each hyperparameter matters, by Optuna's fANOVA on several seeded forests."""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from aesearch.studies.results.records import StudySnapshot
from aesearch.studies.spec.dimensions import Choices, Dimension

LEAST_TRIALS = 10  # trials below which a forest learns nothing that would be worth a bar
FORESTS = 4
TREES = 32  # of each forest: the forests differ more among themselves than with more trees
MOST_TRIALS = 200  # fANOVA takes the square of their number: 1000 would take half a minute


_SIZE = "encoding_dim"


def early_losses(snapshot: StudySnapshot, curves: pd.DataFrame) -> dict[int, float]:
    """Give what trials are compared by at the first rung, where folds are bought last.

    Only survivors are complete there; they are few, and no fair sample of the space. At the first
    rung every trial is there, with its lowest loss on fold 0.

    Returns
    -------
    dict
        By trial number: the logarithm of that loss, less its mean over the trials of the same
        size of the code where several are searched. {} where all trials have all folds.
    """
    spec = snapshot.spec
    if not spec.scores_delivery or spec.search.pruner == "none":
        return {}
    until = curves["epoch"] <= max(1, int(spec.search.warmup_epochs))
    losses = curves[until & (curves["fold"] == 0)].groupby("number")["validation_loss"].min()
    found = np.log(losses[np.isfinite(losses) & (losses > 0)])
    if _SIZE in spec.space.dimensions():
        sizes = {trial.number: trial.params.get(_SIZE) for trial in snapshot.trials}
        found = found - found.groupby(found.index.map(sizes)).transform("mean")
    return {int(number): float(value) for number, value in found.items()}


def shares(
    snapshot: StudySnapshot,
    dimensions: Mapping[str, Dimension],
    *,
    seed: int,
    early: Mapping[int, float] | None = None,
) -> dict[str, tuple[float, float, float]] | str:
    """Give the share of the variance that each hyperparameter explains by itself.

    The shares need not add up to 1: the rest is of hyperparameters together. A logarithmic
    range counts by its logarithm, as it was searched.

    Only complete trials count, the unstable ones too: what was stopped early was measured
    at another epoch; or those of ``early``, by the values there. Of more than ``MOST_TRIALS`` so
    many are taken, evenly over their numbers.

    Parameters
    ----------
    dimensions : mapping
        What is searched, by name. A dimension that some trials do not have is left out.
    seed : int
        Of the forests.
    early : mapping, optional
        Of :func:`early_losses`: values without what the size of the code explains, which then is
        no hyperparameter here.

    Returns
    -------
    dict or str
        Mean, lowest and highest share over the forests by name, in [0, 1]; or a sentence
        that says why there are none.

    References
    ----------
    Hutter, F., Hoos, H. and Leyton-Brown, K., "An Efficient Approach for Assessing
    Hyperparameter Importance", ICML 2014.
    """
    kind = "trials that reached the first rung" if early else "complete trials"
    if early:
        trials = [
            replace(trial, value=early[trial.number])
            for trial in snapshot.trials
            if trial.number in early
        ]
        dimensions = {name: own for name, own in dimensions.items() if name != _SIZE}
    else:
        trials = [
            trial
            for trial in snapshot.trials
            if trial.state == "complete" and trial.value is not None and math.isfinite(trial.value)
        ]
    if len(trials) < LEAST_TRIALS:
        return (
            f"Importances need {LEAST_TRIALS} {kind}, and there are {len(trials)}: fewer would "
            "say nothing."
        )
    if len({trial.value for trial in trials}) == 1:
        return f"All {kind} have the same value, so nothing can be said to matter."
    if len(trials) > MOST_TRIALS:
        places = np.linspace(0, len(trials) - 1, MOST_TRIALS).round().astype(int)
        trials = [trials[place] for place in places]
    common = [name for name in dimensions if all(name in trial.params for trial in trials)]
    varied = [name for name in common if len({str(t.params[name]) for t in trials}) > 1]
    if not varied:
        return f"No hyperparameter differs among the {kind}."
    if len(varied) == 1:
        return f"Only one hyperparameter differs among the {kind}: {varied[0]}."
    with _quiet():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    distributions = {name: _distribution(dimensions[name]) for name in varied}
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: _place(trial.params[name], dimensions[name]) for name in varied},
                distributions=distributions,
                value=trial.value,
            )
            for trial in trials
        ]
    )
    forests = [_forest(study, (seed + forest) % 2**32) for forest in range(FORESTS)]
    table = {name: [forest[name] for forest in forests] for name in varied}
    if not all(math.isfinite(share) for found in table.values() for share in found):
        return "The forests could not tell the hyperparameters apart."
    return {name: (float(np.mean(f)), min(f), max(f)) for name, f in table.items()}


def _forest(study: optuna.Study, seed: int) -> dict[str, float]:
    from optuna.importance import FanovaImportanceEvaluator  # noqa: PLC0415 - imports scikit-learn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Optuna's get_param_importances would scale the shares to add up to 1.
        return FanovaImportanceEvaluator(n_trees=TREES, seed=seed).evaluate(study)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.choices)
    low, high, step = dimension.low, dimension.high, dimension.step
    if dimension.log:  # the evaluator weighs by the width on a linear scale
        return FloatDistribution(math.log(low), math.log(high))
    if dimension.integer:
        return IntDistribution(low, high, step=1 if step is None else step)
    return FloatDistribution(low, high, step=step)


def _place(value: Any, dimension: Dimension) -> Any:
    """Where a value lies on the scale of its dimension's distribution."""
    if isinstance(dimension, Choices) or not dimension.log:
        return value
    return min(max(math.log(value), math.log(dimension.low)), math.log(dimension.high))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling of a study that nobody asked for."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
