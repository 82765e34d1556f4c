"""What the retraining writes: the choice, weights, checkpoints, and the look at the test set."""

import json
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from aesearch.studies.results.evaluation import Evaluation
from aesearch.studies.results.records import Picture, RetrainPoint, TrainedSeed
from aesearch.studies.spec.former import with_former_settings
from aesearch.studies.store import tables
from aesearch.studies.store.connection.database import reading, writing
from aesearch.studies.store.connection.retry import repeatable
from aesearch.studies.store.evaluation_results import insert_evaluation
from aesearch.studies.store.ledger import Lease, mark_done, no_search_left, require_held, this_work
from aesearch.studies.store.optuna import optuna_tables, slots
from aesearch.studies.store.study_rows import StudyRow, from_sql, lease_row, retrain_record, to_sql


@repeatable
def begin_retraining(
    engine: Engine,
    study: StudyRow,
    *,
    number: int,
    retrain_key: str,
    chunks: Sequence[range],
    n_finished: int,
) -> bool:
    """Record which trial was chosen and lay out its retraining, unless that stands already.

    Chunks whose seeds are in the store already (the same configuration was chosen before)
    are done at once; another choice than last time starts from nothing.

    Parameters
    ----------
    study : StudyRow
        With the specification that the choice was made by.
    n_finished : int
        Finished trials that it was made from.

    Returns
    -------
    bool
        False where the search is open, or the choice was made from what is no longer so.
    """
    lease, rows = tables.lease, tables.retrain
    with writing(engine) as connection:
        chosen = slots.slot_ids(connection, study.study_id).get(number)
        current = connection.execute(
            sa.select(
                tables.study.c.chosen_trial_id, tables.study.c.retrain_key, tables.study.c.spec
            )
            .where(tables.study.c.study_id == study.study_id)
            # Several workers see the end of the search at once; the second must see the first.
            .with_for_update()
        ).one_or_none()
        if chosen is None or current is None:
            return False  # deleted in this moment
        if not no_search_left(connection, study.study_id):
            return False
        if with_former_settings(json.loads(current.spec)) != study.spec:
            return False
        if slots.count_finished(connection, study.study_id) != n_finished:
            return False
        if (current.chosen_trial_id, current.retrain_key) == (chosen, retrain_key):
            return True
        connection.execute(
            tables.study.update()
            .where(tables.study.c.study_id == study.study_id)
            .values(chosen_trial_id=chosen, retrain_key=retrain_key)
        )
        connection.execute(
            lease.delete().where(lease.c.study_id == study.study_id, lease.c.kind != "search")
        )
        # At a time limit, a worker that was paused may still hold trials: the choice is made, so
        # that their results are not wanted any more.
        connection.execute(
            lease.update()
            .where(lease.c.study_id == study.study_id, lease.c.done.is_(False))
            .values(owner=None, token=None, expires=None)
        )
        finished = {
            row.seed_index: row.test_mse
            for row in connection.execute(
                sa.select(rows.c.seed_index, rows.c.test_mse).where(
                    rows.c.study_id == study.study_id, rows.c.retrain_key == retrain_key
                )
            )
        }
        new = [
            lease_row(study.study_id, "retrain", position, chunk.start, len(chunk))
            | {"done": all(index in finished for index in chunk)}
            for position, chunk in enumerate(chunks)
        ]
        n_seeds = sum(len(chunk) for chunk in chunks)
        looked = len(finished) == n_seeds and all(m is not None for m in finished.values())
        new.append(lease_row(study.study_id, "evaluate", 0, 0, n_seeds) | {"done": looked})
        optuna_tables.insert_new(connection, lease, new)
    return True


@repeatable
def reopen_choice(engine: Engine, study: StudyRow) -> None:
    """Forget what was chosen while the search is open again; retrained seeds stay in the store."""
    with writing(engine) as connection:
        connection.execute(
            tables.study.update()
            .where(tables.study.c.study_id == study.study_id)
            .values(chosen_trial_id=None, retrain_key=None)
        )
        connection.execute(
            tables.lease.delete().where(
                tables.lease.c.study_id == study.study_id, tables.lease.c.kind != "search"
            )
        )


@repeatable
def write_retrained(
    engine: Engine,
    lease: Lease,
    retrain_key: str,
    seeds: Sequence[TrainedSeed],
    curves: Mapping[int, Sequence[tuple[float, float, float]]],
) -> None:
    """Record the retrained seeds of one chunk with their weights and curves; the chunk is done.

    ``curves`` maps a seed index to its (train loss, validation loss, validation binary
    accuracy) from epoch 1 on.
    """
    with writing(engine) as connection:
        require_held(connection, lease)
        key = {"study_id": lease.study_id, "retrain_key": retrain_key}
        for seed in seeds:  # one by one: the weights of one can be most of what a message holds
            optuna_tables.insert_new(connection, tables.retrain, [key | vars(seed)])
        rows = [
            key
            | {
                "seed_index": index,
                "epoch": epoch,
                "train_loss": to_sql(train),
                "validation_loss": to_sql(validation),
                "validation_accuracy": to_sql(accuracy),
            }
            for index, curve in curves.items()
            for epoch, (train, validation, accuracy) in enumerate(curve, start=1)
        ]
        optuna_tables.insert_new(connection, tables.retrain_curve, rows)
        _delete_checkpoint(connection, lease)
        mark_done(connection, lease)


@repeatable
def retrained(engine: Engine, study: StudyRow) -> list[TrainedSeed]:
    """The retrained seeds of the chosen configuration, weights included, by seed index."""
    with reading(engine) as connection:
        return retrained_in(connection, study)


def retrained_in(connection: Connection, study: StudyRow) -> list[TrainedSeed]:
    """The retrained seeds, as ``retrained``, inside a transaction."""
    table = tables.retrain
    query = (
        sa.select(table)
        .where(table.c.study_id == study.study_id, table.c.retrain_key == study.retrain_key)
        .order_by(table.c.seed_index)
    )
    return [
        TrainedSeed(**vars(retrain_record(row)), weights=row.weights)
        for row in connection.execute(query)
    ]


@repeatable
def write_test(
    engine: Engine,
    lease: Lease,
    retrain_key: str,
    mse: Mapping[int, float],
    evaluation: tuple[Evaluation, Sequence[Picture]] | None = None,
) -> None:
    """Record the one look at the test set, and that it was one.

    Parameters
    ----------
    mse : mapping
        Mean squared error per pixel by seed index.
    evaluation : (Evaluation, pictures), optional
        Of the exported seed.
    """
    with writing(engine) as connection:
        require_held(connection, lease)
        for index, value in mse.items():
            connection.execute(
                tables.retrain.update()
                .where(
                    tables.retrain.c.study_id == lease.study_id,
                    tables.retrain.c.retrain_key == retrain_key,
                    tables.retrain.c.seed_index == index,
                )
                .values(test_mse=value)
            )
        connection.execute(
            tables.study.update()
            .where(tables.study.c.study_id == lease.study_id)
            .values(test_looks=tables.study.c.test_looks + 1)
        )
        if evaluation is not None:
            insert_evaluation(connection, lease.study_id, retrain_key, *evaluation)
        mark_done(connection, lease)


@repeatable
def write_checkpoint(engine: Engine, lease: Lease, key: str, payload: bytes) -> None:
    """Replace the checkpoint of this work; ``key`` says what it belongs to."""
    with writing(engine) as connection:
        require_held(connection, lease)
        _delete_checkpoint(connection, lease)
        connection.execute(
            tables.checkpoint.insert().values(
                study_id=lease.study_id,
                kind=lease.kind,
                position=lease.position,
                key=key,
                payload=payload,
            )
        )
        connection.execute(
            tables.lease.update()
            .where(*this_work(lease.study_id, lease.kind, lease.position))
            .values(attempt=0)
        )


@repeatable
def read_checkpoint(engine: Engine, lease: Lease, key: str) -> bytes | None:
    """Return the last checkpoint of this work if it belongs to ``key``."""
    table = tables.checkpoint
    with reading(engine) as connection:
        return connection.execute(
            sa.select(table.c.payload).where(
                table.c.study_id == lease.study_id,
                table.c.kind == lease.kind,
                table.c.position == lease.position,
                table.c.key == key,
            )
        ).scalar()


def _delete_checkpoint(connection: Connection, lease: Lease) -> None:
    table = tables.checkpoint
    connection.execute(
        table.delete().where(
            table.c.study_id == lease.study_id,
            table.c.kind == lease.kind,
            table.c.position == lease.position,
        )
    )


def retrain_curves_in(connection: Connection, study: StudyRow) -> list[RetrainPoint]:
    """Every epoch of the retraining of the chosen configuration, by seed and epoch."""
    table = tables.retrain_curve
    query = (
        sa.select(
            table.c.seed_index,
            table.c.epoch,
            table.c.train_loss,
            table.c.validation_loss,
            table.c.validation_accuracy,
        )
        .where(table.c.study_id == study.study_id, table.c.retrain_key == study.retrain_key)
        .order_by(table.c.seed_index, table.c.epoch)
    )
    return [
        RetrainPoint(seed_index, epoch, *(from_sql(value) for value in values))
        for seed_index, epoch, *values in connection.execute(query)
    ]
