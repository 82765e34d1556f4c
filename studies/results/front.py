"""The Pareto front of a study: its objectives, which trials are on it, and where it bends most.

| symbol | meaning |
|---|---|
| e | score of a trial, scaled so that it is 0 at the least and 1 at the largest of the front |
| s | each further objective, scaled likewise; those that all of the front have alike left out |

    knee = argmin(e + mean(s)),  if that is < 1

With one further objective the ends of the front lie at (e, s) = (0, 1) and (1, 0), on the line
e + s = 1, and the knee is the trial farthest below that line. Neither axis is logarithmic: errors
that are a power of the size have no knee on logarithmic axes.

References
----------
Das: On characterizing the "knee" of the Pareto curve based on normal-boundary intersection (1999):
the point of the front with the largest distance to the plane through its ends.
"""

from collections.abc import Callable, Sequence

from aesearch.studies.results.records import TrialRecord
from aesearch.studies.spec.sections import Objective
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.spec.weights import ImageShape, n_parameters

Sizes = Callable[[TrialRecord], tuple[int, ...]]
"""Gives the objectives of a trial that are known before it is trained: the less, the better."""

_FEWEST_FOR_A_KNEE = 3
_ROUNDING = 1e-9


def sizes_by(
    objectives: Sequence[Objective], spec: StudySpec, image_shape: ImageShape | None
) -> Sizes:
    """Give what reads the objectives of a trial but its mse, in their order.

    Parameters
    ----------
    spec : StudySpec
        Resolved.
    image_shape : (channel, height, width) or None
        None where ``n_parameters`` is none of them.
    """

    def size(name: str, trial: TrialRecord) -> int:
        configuration = spec.configuration(trial.params)
        if name == "encoding_dim":
            return configuration.encoding_dim
        assert image_shape is not None, "weights go by the shape of the images"
        return n_parameters(configuration, image_shape)

    names = [name for name in objectives if name != "mse"]
    return lambda trial: tuple(size(name, trial) for name in names)


def pareto_front(trials: Sequence[TrialRecord], sizes: Sizes) -> list[TrialRecord]:
    """Give the trials than which no other has less of one objective and no more of the rest.

    Parameters
    ----------
    trials : sequence of TrialRecord
        Those that may be chosen; each has a value.
    sizes : callable
        The objectives beside the value.

    Returns
    -------
    list of TrialRecord
        The smallest first; of trials that are equal in all objectives the lowest number.
    """
    points = {trial.number: (_value(trial), *sizes(trial)) for trial in trials}
    front: list[TrialRecord] = []
    # A trial is beaten by none that comes after it in this order.
    for trial in sorted(trials, key=lambda trial: (points[trial.number], trial.number)):
        point = points[trial.number]
        if not any(_no_more(points[other.number], point) for other in front):
            front.append(trial)
    return sorted(front, key=lambda trial: (points[trial.number][1:], points[trial.number][0]))


def knee(front: Sequence[TrialRecord], sizes: Sizes) -> TrialRecord | None:
    """Give the trial at which a Pareto front bends most; see the top of this module.

    Returns
    -------
    TrialRecord or None
        None for fewer than three trials, where all err alike, or where none lies below the line
        between the ends.
    """
    if len(front) < _FEWEST_FOR_A_KNEE:
        return None
    values = [_value(trial) for trial in front]
    if len(set(values)) == 1:  # of three objectives; the front bends nowhere
        return None
    errors = _scaled(values)
    columns = [column for column in zip(*map(sizes, front), strict=True) if len(set(column)) > 1]
    scaled = [_scaled(column) for column in columns]
    sums = [error + sum(own) / len(own) for error, *own in zip(errors, *scaled, strict=True)]
    least = min(range(len(front)), key=lambda i: (sums[i], errors[i]))
    return front[least] if sums[least] < 1.0 - _ROUNDING else None


def _value(trial: TrialRecord) -> float:
    assert trial.value is not None, "a trial that may be chosen has a value"
    return trial.value


def _no_more(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(mine <= its for mine, its in zip(one, other, strict=True))


def _scaled(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) for value in values]
