"""All that a store holds of one study, read in one transaction: what everything else is made of."""

from dataclasses import dataclass, field

from sqlalchemy.engine import Connection, Engine

from aesearch.studies.results.evaluation import Evaluation
from aesearch.studies.results.records import Picture, RetrainPoint, StudySnapshot, TrainedSeed
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.studies.store.connection.database import reading
from aesearch.studies.store.connection.retry import repeatable
from aesearch.studies.store.evaluation_results import read_evaluation_in, read_pictures_in
from aesearch.studies.store.retrain_results import retrain_curves_in, retrained_in
from aesearch.studies.store.study_rows import (
    StudyRow,
    curves_in,
    find_study_in,
    snapshot_in,
)


@dataclass(frozen=True)
class StudyContents:
    """A study at one moment.

    Attributes
    ----------
    row : StudyRow
    snapshot : StudySnapshot
        Trials, leases, retrained seeds.
    evaluation : Evaluation or None
        What the exported seed reached on the test set, once it has been evaluated.
    curves : list of (number, fold, epoch, train_loss, validation_loss)
        Empty where they were not asked for, as all that follows.
    retrain_curves : list of RetrainPoint
    pictures : list of Picture
        Of the evaluation.
    retrained : list of TrainedSeed
        The retrained seeds with their weights, which may be hundreds of megabytes.
    """

    row: StudyRow
    snapshot: StudySnapshot
    evaluation: Evaluation | None
    curves: list[tuple[int, int, int, float, float]] = field(default_factory=list)
    retrain_curves: list[RetrainPoint] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    retrained: list[TrainedSeed] = field(default_factory=list)

    @property
    def spec(self) -> ResolvedSpec:
        """The resolved specification."""
        return self.snapshot.spec


@repeatable
def read_contents(
    engine: Engine,
    name: str,
    *,
    curves: bool = False,
    pictures: bool = False,
    weights: bool = False,
) -> StudyContents:
    """Read a study, or as much of it as is asked for.

    Parameters
    ----------
    curves : bool
        Of the search and of the retraining.
    pictures : bool
        Of the evaluation.
    weights : bool
        Of the retrained seeds.

    Raises
    ------
    StudyNotFoundError
        There is no study of that name; those that there are are listed.
    """
    with reading(engine) as connection:
        return contents_in(connection, name, curves=curves, pictures=pictures, weights=weights)


def contents_in(
    connection: Connection, name: str, *, curves: bool, pictures: bool, weights: bool
) -> StudyContents:
    """Read a study, as ``read_contents``, inside a transaction."""
    row = find_study_in(connection, name)
    retrained = retrained_in(connection, row) if weights and row.retrain_key else None
    return StudyContents(
        row=row,
        snapshot=snapshot_in(connection, row, retrained),
        evaluation=read_evaluation_in(connection, row),
        curves=curves_in(connection, row) if curves else [],
        retrain_curves=retrain_curves_in(connection, row) if curves else [],
        pictures=read_pictures_in(connection, row) if pictures else [],
        retrained=retrained or [],
    )
