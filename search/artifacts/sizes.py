"""Another trial than the winner, ready to be trained like a ``best.yaml``."""

from dataclasses import dataclass

from sqlalchemy.engine import Engine

from aesearch.studies.errors import AesearchError
from aesearch.studies.results.best_result import DataResult, Origin, chosen_spec
from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store import study_rows


class SizeError(AesearchError, ValueError):
    """A code size of which a study has no trial that may be chosen."""


class TrialError(AesearchError, LookupError):
    """A trial that a study does not have, or that cannot be delivered."""


@dataclass(frozen=True)
class TrialToDeliver:
    """A trial of a study, with what its delivery needs.

    Attributes
    ----------
    spec : StudySpec
        Its defaults are the trial.
    origin : Origin
        Which trial that is, and what it reached on the folds.
    data : DataResult
        The images of the study.
    looks : int
        How often the study's test set was looked at.
    """

    spec: StudySpec
    origin: Origin
    data: DataResult
    looks: int


def best_of_size(engine: Engine, name: str, encoding_dim: int) -> TrialToDeliver:
    """Give what trains a study's best network of one code size: the lowest mean over the folds.

    Raises
    ------
    StudyNotFoundError
        There is no study of that name.
    SizeError
        None of its complete, stable trials has that size.
    """
    snapshot = study_rows.snapshot(engine, name)
    ranked = eligible_trials(snapshot.trials)
    sizes = [snapshot.spec.configuration(trial.params).encoding_dim for trial in ranked]
    if encoding_dim not in sizes:
        found = ", ".join(map(str, sorted(set(sizes)))) or "none"
        raise SizeError(
            f"encoding-dim must be a size of which study {name!r} has a complete, stable trial "
            f"({found}), got {encoding_dim!r}"
        )
    return _to_deliver(snapshot, ranked[sizes.index(encoding_dim)])


def trial_of_study(engine: Engine, name: str, number: int) -> TrialToDeliver:
    """Give what trains the network of one trial of a study.

    Raises
    ------
    StudyNotFoundError
        There is no study of that name.
    TrialError
        It has no complete, stable trial of that number.
    """
    snapshot = study_rows.snapshot(engine, name)
    found = [trial for trial in eligible_trials(snapshot.trials) if trial.number == number]
    if not found:
        states = [t.unstable or t.state for t in snapshot.trials if t.number == number]
        got = f"trial {number}, which is {states[0]}" if states else f"{number}"
        raise TrialError(
            f"trial must be complete and stable in study {name!r} of {snapshot.n_trials} trials, "
            f"got {got}; 'aesearch show {name}' lists the best"
        )
    return _to_deliver(snapshot, found[0])


def _to_deliver(snapshot: StudySnapshot, trial: TrialRecord) -> TrialToDeliver:
    spec = snapshot.spec
    return TrialToDeliver(
        spec=chosen_spec(spec, spec.configuration(trial.params)),
        origin=Origin.of(snapshot, trial),
        data=DataResult.of(snapshot.facts),
        looks=snapshot.test_looks,
    )
