"""Publishing a study to Optuna's dashboard: only what is new is written, whoever writes it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from aesearch.studies.dashboard import rows
from aesearch.studies.dashboard.artifacts import TrialFile, artifacts, stored_artifacts
from aesearch.studies.dashboard.figures import study_figures
from aesearch.studies.dashboard.finished import FINISHED, FinishedTrial, finished_trials
from aesearch.studies.dashboard.notes import study_note, trial_note
from aesearch.studies.results.output_files import make_folder, write_whole
from aesearch.studies.results.records import StudySnapshot
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.results.summary import Denoising, summary
from aesearch.studies.spec.sections import TrainingSpec
from aesearch.studies.store import study_rows, tables
from aesearch.studies.store.connection import database
from aesearch.studies.store.connection.retry import repeatable
from aesearch.studies.store.optuna import optuna_tables, slots

# The dashboard looks through all notes for each trial that it shows: with a note on each of
# 10,000 trials a page would take a minute. Larger studies get them on their best trials only.
MAX_NOTED = 1000
_SLICE = 200  # trials read at a time


def note_trials(connection: Connection, study_id: int, trial_ids: Sequence[int]) -> None:
    """Write notes and list the files of finished trials, inside the transaction that ends them.

    Does nothing in a study of more than ``MAX_NOTED`` trials: who is best is known at its end.
    """
    if trial_ids and _n_trials(connection, study_id) <= MAX_NOTED:
        _write(connection, study_id, trial_ids)


def publish(engine: Engine, name: str, folder: Path | None = None) -> bool:
    """Bring notes, figures and files of a study up to date for Optuna's dashboard.

    Everything is a function of what the store holds; a second call writes nothing. A note
    that somebody edited in the dashboard is left alone.

    Parameters
    ----------
    folder : Path or None
        Where to write the files as well, for ``optuna-dashboard --artifact-dir``; files that
        are there already are not written again.

    Returns
    -------
    bool
        Whether the store was changed.

    Raises
    ------
    StudyNotFoundError, StoreError
    OutputError
        The folder cannot be written.
    """
    study = study_rows.find_study(engine, name)
    snapshot = study_rows.snapshot(engine, name)
    missing = _without_note(engine, study.study_id, snapshot)
    for start in range(0, len(missing), _SLICE):
        _write_notes(engine, study.study_id, missing[start : start + _SLICE])
    changed = _publish_study(engine, study.study_id, snapshot)
    if folder is not None:
        write_files(engine, name, folder)
    return bool(missing) or changed


def write_files(engine: Engine, name: str, folder: Path) -> int:
    """Write the files of a study's trials that a folder lacks.

    Returns
    -------
    int
        How many were written.
    """
    make_folder(folder)
    study = study_rows.find_study(engine, name)
    present = _present(folder)
    wanted: dict[int, list[tuple[str, str]]] = {}
    for artifact_id, (trial_id, filename) in _stored_artifacts(engine, study.study_id).items():
        if artifact_id not in present:
            wanted.setdefault(trial_id, []).append((artifact_id, filename))
    ids, written = sorted(wanted), 0
    for start in range(0, len(ids), _SLICE):
        files = []
        for trial in _finished_trials(engine, study.study_id, ids[start : start + _SLICE]):
            known = {artifact.filename for artifact in artifacts(name, trial)}
            files += [
                TrialFile(*file, trial) for file in wanted[trial.trial_id] if file[1] in known
            ]
        written += write_missing(files, folder)
    return written


def write_missing(files: Sequence[TrialFile], folder: Path) -> int:
    """Write those of the files of a study's trials that a folder lacks; says how many."""
    make_folder(folder)
    present = _present(folder)
    missing = [file for file in files if file.artifact_id not in present]
    for file in missing:
        # Made again where a power cut left it empty.
        write_whole(folder / file.artifact_id, file.content, durable=False)
    return len(missing)


def _present(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.stat().st_size}


@repeatable
def _stored_artifacts(engine: Engine, study_id: int) -> dict[str, tuple[int, str]]:
    with database.reading(engine) as connection:
        return stored_artifacts(connection, study_id)


@repeatable
def _finished_trials(
    engine: Engine, study_id: int, trial_ids: Sequence[int]
) -> list[FinishedTrial]:
    with database.reading(engine) as connection:
        return finished_trials(connection, study_id, trial_ids)


def change_mark(connection: Connection, study_id: int) -> tuple[Any, ...]:
    """Give a small value that differs whenever there may be something new to publish."""
    trials, study, retrain = optuna_tables.TRIALS, tables.study, tables.retrain
    finished = (
        sa.select(sa.func.count())
        .select_from(trials)
        .where(trials.c.study_id == study_id, trials.c.state.in_(FINISHED))
        .scalar_subquery()
    )
    retrained = (
        sa.select(sa.func.count())
        .select_from(retrain)
        .where(retrain.c.study_id == study_id)
        .scalar_subquery()
    )
    row = connection.execute(
        sa.select(
            finished, retrained, study.c.chosen_trial_id, study.c.retrain_key, study.c.test_looks
        ).where(study.c.study_id == study_id)
    ).first()
    return () if row is None else tuple(row)


def _n_trials(connection: Connection, study_id: int) -> int:
    return connection.execute(
        sa.select(sa.func.count())
        .select_from(optuna_tables.TRIALS)
        .where(optuna_tables.TRIALS.c.study_id == study_id)
    ).scalar_one()


@repeatable
def _without_note(engine: Engine, study_id: int, snapshot: StudySnapshot) -> list[int]:
    """Ids of the trials that should have a note and have none, in number order."""
    finished = [t for t in snapshot.trials if t.state not in ("waiting", "running")]
    if snapshot.n_trials > MAX_NOTED:
        over = len(finished) == snapshot.n_trials or snapshot.chosen is not None
        finished = eligible_trials(finished)[:MAX_NOTED] if over else []
    with database.reading(engine) as connection:
        ids = slots.slot_ids(connection, study_id)
        noted = rows.noted_trials(connection, study_id)
    wanted = sorted(trial.number for trial in finished)
    return [ids[number] for number in wanted if number in ids and ids[number] not in noted]


@repeatable
def _write_notes(engine: Engine, study_id: int, trial_ids: Sequence[int]) -> None:
    with database.writing(engine) as connection:
        _write(connection, study_id, trial_ids)


def _write(connection: Connection, study_id: int, trial_ids: Sequence[int]) -> None:
    row = connection.execute(
        sa.select(optuna_tables.STUDIES.c.study_name, tables.study.c.spec)
        .join(tables.study, tables.study.c.study_id == optuna_tables.STUDIES.c.study_id)
        .where(tables.study.c.study_id == study_id)
    ).one()
    document = json.loads(row.spec)
    of_images: dict[str, Any] = {
        "noise": Denoising.of(TrainingSpec.model_validate(document["training"])),
        "has_noisy": document["data"].get("noisy") is not None,
    }
    score_epochs = int(document["search"]["score_epochs"])
    as_delivered = document["training"]["epochs"] == "auto"
    attributes, notes = [], {}
    for trial in finished_trials(connection, study_id, trial_ids):
        files = artifacts(row.study_name, trial)
        attributes += [
            {"trial_id": trial.trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in (file.attribute for file in files)
        ]
        pictures = [
            (file.alt, f"/artifacts/{study_id}/{trial.trial_id}/{file.artifact_id}")
            for file in files
            if file.alt is not None
        ]
        notes[trial.trial_id] = trial_note(
            trial, pictures, score_epochs=score_epochs, as_delivered=as_delivered, **of_images
        )
    optuna_tables.insert_new(connection, optuna_tables.SYSTEM_ATTRIBUTES, attributes)
    rows.add_trial_notes(connection, study_id, notes)


@repeatable
def _publish_study(engine: Engine, study_id: int, snapshot: StudySnapshot) -> bool:
    found = summary(snapshot)
    shown, ties = found.winner or found.best, found.indistinguishable
    note = study_note(found, study_id=study_id, folds=snapshot.spec.search.folds)
    with database.writing(engine) as connection:
        # Two that publish at once take turns: each writes only what differs from what it read.
        connection.execute(
            sa.select(optuna_tables.STUDIES.c.study_id)
            .where(optuna_tables.STUDIES.c.study_id == study_id)
            .with_for_update(key_share=True)
        )
        ids = slots.slot_ids(connection, study_id)
        if not ids:
            return False  # deleted in this moment
        best = [] if shown is None else [ids[shown.number]]
        figures = study_figures(
            snapshot.trials,
            ties=None if ties is None else [tie.number for tie in ties.trials],
            winner=snapshot.chosen,
            front=found.front,
            curve=[
                point
                for trial in finished_trials(connection, study_id, best)
                for point in trial.curve
            ],
        )
        wrote_note = rows.write_study_note(connection, study_id, note)
        return rows.write_figures(connection, study_id, figures) or wrote_note
