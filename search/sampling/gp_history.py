"""What a Gaussian process is shown of a study: one space for all, and a value for every trial.

Optuna's process reads complete trials only and would try what was pruned again and again.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from aesearch.studies.results.stability import STABILITY
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.studies.store.optuna.wishes import ENQUEUED

_SMALLEST = 1e-12  # of a loss, in a logarithm


def with_values(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Give pruned and failed trials the value that they can be expected to have.

    A pruned trial would have gone on to fall as the complete ones did, in the median, from
    the epoch at which it ended; but it counts as no better than the best of them. So does one
    whose worker died. A trial that diverged, or of which nothing is known, is as bad as the
    worst, and unstable. Where none is complete, all stay as they are.

    Parameters
    ----------
    trials : sequence of FrozenTrial
        Finished; with their means over folds by epoch.

    Returns
    -------
    list of FrozenTrial
        Complete, where a value could be given.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        return list(trials)
    best = min(_value(trial) for trial in complete)
    values = [_expected(trial, complete, best) for trial in trials]
    worst = max(value for value in values if value is not None)
    constrained = any(STABILITY in trial.system_attrs for trial in complete)
    return [
        trial
        if trial.state == TrialState.COMPLETE
        else create_trial(
            value=worst if value is None else value,
            params=trial.params,
            distributions=trial.distributions,
            # The process wants to hear of the constraint from all or from none.
            system_attrs={STABILITY: 1.0 if value is None else -1.0} if constrained else {},
        )
        for trial, value in zip(trials, values, strict=True)
    ]


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None, "a complete trial has a value"
    return trial.value


def _expected(trial: FrozenTrial, complete: Sequence[FrozenTrial], best: float) -> float | None:
    if trial.state == TrialState.COMPLETE:
        return _value(trial)
    scores = trial.user_attrs.get("fold_scores")
    if scores:  # of its first fold: the others did not go on with it
        shares = [_value(o) / o.user_attrs["fold_scores"][0] for o in complete]
        return float(max(best, scores[0] * median(shares)))
    epoch = trial.last_step
    if epoch is None or trial.system_attrs.get(STABILITY, 0.0) > 0.0:
        return None
    falls = [
        _value(other) / other.intermediate_values[epoch]
        for other in complete
        if other.intermediate_values.get(epoch, 0) > 0
    ]
    return max(best, trial.intermediate_values[epoch] * median(falls)) if falls else None


def relative_to_size(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Give trials the logarithm of their value relative to the first one of their code size.

    The first trials of all sizes have one configuration but for the size, so what is left is
    how much better or worse a configuration is: comparable over sizes. Pruned and failed trials
    have a value as in :func:`with_values`, each among those of its size.

    Parameters
    ----------
    trials : sequence of FrozenTrial
        As for ``with_values``; those of a size of which none is complete stay as they are.
    """
    sizes: dict[Any, list[FrozenTrial]] = {}
    for trial in trials:
        sizes.setdefault(trial.params.get("encoding_dim"), []).append(trial)
    found = []
    for own in sizes.values():
        complete = [trial for trial in own if trial.state == TrialState.COMPLETE]
        suggested = [trial for trial in complete if ENQUEUED not in trial.system_attrs]
        first = next(iter(suggested or complete), None)
        found += own if first is None else [_relative(t, first) for t in with_values(own)]
    return found


def _relative(trial: FrozenTrial, first: FrozenTrial) -> FrozenTrial:
    return create_trial(
        value=math.log(max(_value(trial), _SMALLEST) / max(_value(first), _SMALLEST)),
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
        system_attrs=trial.system_attrs,
    )


def filled(
    spec: ResolvedSpec, trial: FrozenTrial, kinds: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    """Give a trial a constant for each dimension that its architecture does not have.

    A Gaussian process would leave a dimension that some trials lack to chance.
    """
    lacking = {
        name: dimension
        for name, dimension in spec.space.dimensions().items()
        if name not in trial.params
    }
    return create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params | {name: d.nearest(0) for name, d in lacking.items()},
        distributions=trial.distributions | {name: kinds[name] for name in lacking},
        intermediate_values=trial.intermediate_values,
        system_attrs=trial.system_attrs,
    )
