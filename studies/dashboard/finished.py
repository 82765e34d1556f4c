"""Finished trials as the dashboard tells them, read back from the store; nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from aesearch.studies.results.records import TrialRecord
from aesearch.studies.store import tables
from aesearch.studies.store.optuna import optuna_tables, slots
from aesearch.studies.store.study_rows import from_sql, trial_record

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class CurvePoint:
    """Losses of one fold after one epoch (MSE per pixel); nan where the fold diverged."""

    fold: int
    epoch: int
    train: float
    validation: float


@dataclass(frozen=True)
class StoredPicture:
    """A picture (PNG), and in words what it shows."""

    alt: str
    png: bytes


@dataclass(frozen=True)
class FinishedTrial:
    """What the store knows of one finished trial.

    Attributes
    ----------
    curve : tuple of CurvePoint
        By fold, then epoch.
    pictures : dict of file name to StoredPicture
    """

    trial_id: int
    record: TrialRecord
    curve: tuple[CurvePoint, ...]
    pictures: dict[str, StoredPicture]


def trial_pictures(connection: Connection, study_id: int) -> dict[int, dict[str, StoredPicture]]:
    """Read the pictures of all trials of a study, by trial number and name."""
    picture, trials = tables.trial_picture, optuna_tables.TRIALS
    query = (
        sa.select(trials.c.number, picture.c.name, picture.c.alt, picture.c.png)
        .join(trials, trials.c.trial_id == picture.c.trial_id)
        .where(trials.c.study_id == study_id)
        .order_by(trials.c.number, picture.c.name)
    )
    found: dict[int, dict[str, StoredPicture]] = {}
    for row in connection.execute(query):
        stored = StoredPicture(row.alt, bytes(row.png))
        found.setdefault(row.number, {})[row.name] = stored
    return found


def finished_trials(
    connection: Connection, study_id: int, trial_ids: Sequence[int]
) -> list[FinishedTrial]:
    """Read those of the trials that are finished, in number order."""
    curve, picture = tables.curve, tables.trial_picture
    curves: dict[int, list[CurvePoint]] = {}
    for row in connection.execute(
        sa.select(curve)
        .where(curve.c.trial_id.in_(trial_ids))
        .order_by(curve.c.trial_id, curve.c.fold, curve.c.epoch)
    ):
        point = CurvePoint(
            row.fold, row.epoch, from_sql(row.train_loss), from_sql(row.validation_loss)
        )
        curves.setdefault(row.trial_id, []).append(point)
    pictures: dict[int, dict[str, StoredPicture]] = {}
    for row in connection.execute(
        sa.select(picture).where(picture.c.trial_id.in_(trial_ids)).order_by(picture.c.name)
    ):
        stored = StoredPicture(row.alt, bytes(row.png))
        pictures.setdefault(row.trial_id, {})[row.name] = stored
    return [
        FinishedTrial(
            trial_id=trial._trial_id,  # noqa: SLF001 - has no public name
            record=trial_record(trial),
            curve=tuple(curves.get(trial._trial_id, ())),  # noqa: SLF001
            pictures=pictures.get(trial._trial_id, {}),  # noqa: SLF001
        )
        for trial in slots.own_trials(connection, study_id, only=trial_ids)
        if trial.state in FINISHED
    ]
