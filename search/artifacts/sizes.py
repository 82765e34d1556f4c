"""The best of another code size than the winner's, ready to be trained like a ``best.yaml``."""

from dataclasses import dataclass

from sqlalchemy.engine import Engine

from aesearch.studies.errors import AesearchError
from aesearch.studies.results.best_result import DataResult, Origin
from aesearch.studies.results.output_files import chosen_spec
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store import study_rows


class SizeError(AesearchError, ValueError):
    """A code size of which a study has no trial that may be chosen."""


@dataclass(frozen=True)
class BestOfSize:
    """A study's best network of one code size.

    Attributes
    ----------
    spec : StudySpec
        Its defaults are the best stable trial of that size: the lowest mean over the folds.
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


def best_of_size(engine: Engine, name: str, encoding_dim: int) -> BestOfSize:
    """Give what trains a study's best network of one code size.

    Raises
    ------
    StudyNotFoundError
        There is no study of that name.
    SizeError
        None of its complete, stable trials has that size.
    """
    snapshot = study_rows.snapshot(engine, name)
    spec = snapshot.spec
    ranked = eligible_trials(snapshot.trials)
    sizes = [spec.configuration(trial.params).encoding_dim for trial in ranked]
    if encoding_dim not in sizes:
        found = ", ".join(map(str, sorted(set(sizes)))) or "none"
        raise SizeError(
            f"encoding-dim must be a size of which study {name!r} has a complete, stable trial "
            f"({found}), got {encoding_dim!r}"
        )
    best = ranked[sizes.index(encoding_dim)]
    return BestOfSize(
        spec=chosen_spec(spec, spec.configuration(best.params)),
        origin=Origin.of(snapshot, best),
        data=DataResult.of(snapshot.facts),
        looks=snapshot.test_looks,
    )
