"""Another trial than the winner, ready to be trained like a ``best.yaml``."""

from typing import Any

from sqlalchemy.engine import Engine

from aesearch.artifacts.run_folder import data_result, trial_result
from aesearch.studies.errors import AesearchError
from aesearch.studies.results.output_files import chosen_spec
from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store import study_rows


class SizeError(AesearchError, ValueError):
    """A code size of which a study has no trial that may be chosen."""


class TrialError(AesearchError, LookupError):
    """A trial that a study does not have, or that cannot be delivered."""


def trial_of_study(engine: Engine, name: str, number: int) -> tuple[StudySpec, dict[str, Any]]:
    """Give what trains the network of one trial of a study; as ``best_of_size``.

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
    return _as_best(snapshot, study_rows.stored_spec(study_rows.find_study(engine, name)), found[0])


def best_of_size(engine: Engine, name: str, encoding_dim: int) -> tuple[StudySpec, dict[str, Any]]:
    """Give what trains a study's best network of one code size.

    Parameters
    ----------
    name : str
        Of the study.
    encoding_dim : int
        Size of the code.

    Returns
    -------
    spec : StudySpec
        Its defaults are the best stable trial of that size: the lowest mean over the folds.
    result : dict
        Which trial that is and what it reached on the folds, on which images, and how often the
        study's test set was looked at.

    Raises
    ------
    StudyNotFoundError
        There is no study of that name.
    SizeError
        None of its complete, stable trials has that size.
    """
    snapshot = study_rows.snapshot(engine, name)
    spec = study_rows.stored_spec(study_rows.find_study(engine, name))
    ranked = eligible_trials(snapshot.trials)
    sizes = [spec.configuration(trial.params).encoding_dim for trial in ranked]
    if encoding_dim not in sizes:
        found = ", ".join(map(str, sorted(set(sizes)))) or "none"
        raise SizeError(
            f"encoding-dim must be a size of which study {name!r} has a complete, stable trial "
            f"({found}), got {encoding_dim!r}"
        )
    return _as_best(snapshot, spec, ranked[sizes.index(encoding_dim)])


def _as_best(
    snapshot: StudySnapshot, spec: StudySpec, trial: TrialRecord
) -> tuple[StudySpec, dict[str, Any]]:
    result = {
        **trial_result(snapshot, trial),
        "test": {"looks": snapshot.test_looks},
        **data_result(snapshot.facts),
    }
    return chosen_spec(spec, spec.configuration(trial.params)), result
