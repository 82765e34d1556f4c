"""A study in the store: created once, opened again, looked at; leased work is in ``ledger``."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection, Engine

from aesearch.studies.errors import StoreError, StudyNotFoundError
from aesearch.studies.results.records import (
    Facts,
    ForeignTrial,
    LeaseRecord,
    RetrainRecord,
    StudySnapshot,
    TrialRecord,
)
from aesearch.studies.results.records import TrialState as RecordedState
from aesearch.studies.results.selection import with_pooled_errors
from aesearch.studies.spec.dimensions import Params
from aesearch.studies.spec.former import with_former_settings
from aesearch.studies.spec.load import spec_from_mapping
from aesearch.studies.spec.resolved import ResolvedSpec, resolve
from aesearch.studies.store import migrations, tables
from aesearch.studies.store.connection import database
from aesearch.studies.store.connection.driver_errors import describe
from aesearch.studies.store.connection.retry import Patience, be_patient, repeatable
from aesearch.studies.store.optuna import optuna_tables, slots, wishes

STATES: dict[TrialState, RecordedState] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class StudyRow:
    """The part of a study that never changes, and what was chosen."""

    study_id: int
    name: str
    spec: dict[str, Any]
    facts: Facts
    chosen_trial_id: int | None
    retrain_key: str | None
    test_looks: int
    created: float
    aesearch_version: str
    deadline: float | None = None
    stopped: str | None = None

    def same(self, other: "StudyRow") -> bool:
        """Whether the other is this study, and not one that got its name or its id later."""
        return (self.study_id, self.created) == (other.study_id, other.created)


def open_store(storage: str, patience: Patience | None = None) -> Engine:
    """Open a store, creating its tables where they are missing.

    Parameters
    ----------
    storage : str
        A database URL or the path of an SQLite file.
    patience : Patience, optional
        How long to wait for a store that is away, now and later; None for not at all.

    Raises
    ------
    StoreError
        It cannot be opened, or is not ours.
    """
    engine = database.open_engine(database.parse_url(storage))
    if patience is not None:
        be_patient(engine, patience)
    try:
        migrations.prepare(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def make_store(storage: str, wait_s: float) -> tuple[str, int]:
    """Make the tables of a store; returns where it is, without a password, and its schema."""
    engine = open_store(storage, Patience(wait_s))
    engine.dispose()
    return describe(engine.url), tables.SCHEMA_VERSION


@contextmanager
def existing_store(storage: str, patience: Patience | None = None) -> Iterator[Engine]:
    """Open a store that must be there already, and close it behind the block.

    Parameters
    ----------
    storage, patience
        As for ``open_store``.

    Raises
    ------
    StoreError
        There is none, or it is not ours.
    """
    url = database.parse_url(storage)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise StoreError(
            f"storage must be an existing store, got {url.database!r}: no such file; "
            + migrations.NAME_ANOTHER
        )
    engine = database.open_engine(url)
    try:
        if patience is not None:
            be_patient(engine, patience)
        migrations.prepare(engine, create=False)
        yield engine
    finally:
        engine.dispose()


def clock(connection: Connection) -> sa.ColumnElement[float]:
    """Seconds since 1970 as an SQL expression of the database's clock, the only one leases know."""
    sql = (
        "(julianday('now') - 2440587.5) * 86400.0"
        if connection.dialect.name == "sqlite"
        else "extract(epoch FROM clock_timestamp())::double precision"
    )
    return sa.literal_column(sql, sa.Float)


def now(connection: Connection) -> float:
    """Seconds since 1970 by the database's clock."""
    return float(connection.execute(sa.select(clock(connection))).scalar_one())


@repeatable
def create_study(
    engine: Engine,
    name: str,
    *,
    spec: ResolvedSpec,
    facts: Facts,
    n_trials: int,
    generation_size: int,
    version: str,
    timeout: float | None = None,
    wanted: Sequence[Params] = (),
) -> bool:
    """Create a study with all its slots and generations in one transaction.

    Parameters
    ----------
    wanted : sequence of dict
        Configurations that its first trials are to try.
    timeout : float, optional
        Seconds from now on after which no generation is begun.

    Returns
    -------
    bool
        False when a study of that name was there already (also when another process
        created it in this moment); nothing is written then.
    """
    try:
        with database.writing(engine) as connection:
            if optuna_tables.find_study(connection, name) is not None:
                return False
            study_id = optuna_tables.create_study(connection, name)
            connection.execute(
                tables.study.insert().values(
                    study_id=study_id,
                    spec=json.dumps(spec.model_dump(mode="json")),
                    facts=json.dumps(facts),
                    created=now(connection),
                    aesearch_version=version,
                    test_looks=0,
                    deadline=None if timeout is None else clock(connection) + timeout,
                    identity=slots.new_identity(connection, study_id),
                )
            )
            _add_slots(connection, study_id, 0, n_trials, generation_size)
            wishes.enqueue(connection, study_id, wanted)
    except sa.exc.IntegrityError:
        return False
    return True


@repeatable
def replace_spec(
    engine: Engine, study: StudyRow, spec: ResolvedSpec, *, timeout: float | None = None
) -> None:
    """Store the spec again after a part of it that may change did; the time limit starts anew."""
    with database.writing(engine) as connection:
        connection.execute(
            tables.study.update()
            .where(tables.study.c.study_id == study.study_id)
            .values(
                spec=json.dumps(spec.model_dump(mode="json")),
                deadline=None if timeout is None else clock(connection) + timeout,
            )
        )


@repeatable
def enqueue(engine: Engine, study: StudyRow, wanted: Sequence[Params]) -> int:
    """Ask for configurations to be tried next; those that were asked for before are not again.

    Returns
    -------
    int
        How many are new.
    """
    with database.writing(engine) as connection:
        connection.execute(
            sa.select(tables.study.c.study_id)
            .where(tables.study.c.study_id == study.study_id)
            .with_for_update()
        )
        return wishes.enqueue(connection, study.study_id, wanted)


@repeatable
def raise_trials(engine: Engine, study: StudyRow, n_trials: int, generation_size: int) -> int:
    """Add slots until the study has ``n_trials``; never removes any.

    Returns
    -------
    int
        How many slots the study has now.
    """
    with database.writing(engine) as connection:
        # Two that raise at once take turns: nothing else keeps a number from being added twice.
        connection.execute(
            sa.select(tables.study.c.study_id)
            .where(tables.study.c.study_id == study.study_id)
            .with_for_update()
        )
        have = slots.n_slots(connection, study.study_id)
        if n_trials > have:
            connection.execute(
                tables.study.update()
                .where(tables.study.c.study_id == study.study_id)
                .values(stopped=None)
            )
            _add_slots(connection, study.study_id, have, n_trials, generation_size)
    return max(have, n_trials)


def _add_slots(
    connection: Connection, study_id: int, start: int, stop: int, generation_size: int
) -> None:
    slots.add(connection, study_id, start, stop)
    position = connection.execute(
        sa.select(sa.func.count())
        .select_from(tables.lease)
        .where(tables.lease.c.study_id == study_id, tables.lease.c.kind == "search")
    ).scalar_one()
    rows = [
        lease_row(study_id, "search", position + i, first, min(generation_size, stop - first))
        for i, first in enumerate(range(start, stop, generation_size))
    ]
    optuna_tables.insert_new(connection, tables.lease, rows)


def lease_row(study_id: int, kind: str, position: int, first: int, size: int) -> dict[str, Any]:
    """A new unit of work that nobody has claimed."""
    return {
        "study_id": study_id,
        "kind": kind,
        "position": position,
        "first": first,
        "size": size,
        "suggested": False,
        "done": False,
        "attempt": 0,
    }


@repeatable
def find_study(engine: Engine, name: str) -> StudyRow:
    """Look a study up by name.

    Raises
    ------
    StudyNotFoundError
        There is none, or it was made by another program; names that exist are listed.
    """
    with database.reading(engine) as connection:
        return find_study_in(connection, name)


def find_study_in(connection: Connection, name: str) -> StudyRow:
    """Look a study up by name, as ``find_study``, inside a transaction."""
    row = connection.execute(
        sa.select(optuna_tables.STUDIES.c.study_name, tables.study)
        .join(tables.study, tables.study.c.study_id == optuna_tables.STUDIES.c.study_id)
        .where(optuna_tables.STUDIES.c.study_name == name)
    ).first()
    if row is None:
        listed = ", ".join(map(repr, study_names_in(connection)[:8])) or "none"
        raise StudyNotFoundError(
            f"study must be one of the studies in {describe(connection.engine.url)}, "
            f"got {name!r}; there: {listed}"
        )
    return _study_row(row)


def _study_row(row: Any) -> StudyRow:
    return StudyRow(
        study_id=row.study_id,
        name=row.study_name,
        spec=with_former_settings(json.loads(row.spec)),
        facts=json.loads(row.facts),
        chosen_trial_id=row.chosen_trial_id,
        retrain_key=row.retrain_key,
        test_looks=row.test_looks,
        created=row.created,
        aesearch_version=row.aesearch_version,
        deadline=row.deadline,
        stopped=row.stopped,
    )


@repeatable
def unfinished_studies(engine: Engine) -> list[StudyRow]:
    """Studies of ours with anything left to do, in order of creation.

    Those are studies with work that is not done, and studies whose search is over but that
    have no winner yet.
    """
    study, lease = tables.study, tables.lease
    open_work = sa.exists().where(lease.c.study_id == study.c.study_id, lease.c.done.is_(False))
    # What is left of the search after a time limit is work for the next run, not for a service.
    open_rest = open_work.where(lease.c.kind != "search")
    query = (
        sa.select(optuna_tables.STUDIES.c.study_name, study)
        .join(study, study.c.study_id == optuna_tables.STUDIES.c.study_id)
        .where(sa.or_(study.c.chosen_trial_id.is_(None), open_rest))
        .order_by(study.c.created, study.c.study_id)
    )
    with database.reading(engine) as connection:
        return [_study_row(row) for row in connection.execute(query)]


def stored_spec(study: StudyRow) -> ResolvedSpec:
    """Give the specification of a study as an object.

    Settings that came after it was made are resolved as they are today.
    """
    spec = spec_from_mapping(study.spec, f"the stored specification of study {study.name!r}")
    channel, height, width = study.facts["image_shape"]
    return resolve(
        spec,
        image_shape=(channel, height, width),
        n_train=study.facts["n_images"],
        device=spec.compute.device,
    )


@repeatable
def study_names(engine: Engine) -> list[str]:
    """Names of every study of ours in the store, oldest first."""
    with database.reading(engine) as connection:
        return study_names_in(connection)


@repeatable
def is_ours(engine: Engine, study_id: int) -> bool:
    """Whether an Optuna study is one of ours."""
    query = sa.select(tables.study.c.study_id).where(tables.study.c.study_id == study_id)
    with database.reading(engine) as connection:
        return connection.execute(query).first() is not None


def study_names_in(connection: Connection) -> list[str]:
    """Names of every study of ours, inside a transaction."""
    query = (
        sa.select(optuna_tables.STUDIES.c.study_name)
        .join(tables.study, tables.study.c.study_id == optuna_tables.STUDIES.c.study_id)
        .order_by(tables.study.c.study_id)
    )
    return list(connection.execute(query).scalars())


@repeatable
def snapshot(engine: Engine, name: str) -> StudySnapshot:
    """Read a study as it is at this moment.

    Raises
    ------
    StudyNotFoundError
        There is no study of that name.
    """
    with database.reading(engine) as connection:
        return snapshot_in(connection, find_study_in(connection, name))


def snapshot_in(
    connection: Connection, row: StudyRow, retrained: Sequence[RetrainRecord] | None = None
) -> StudySnapshot:
    """Read a study as it is inside a transaction, with eight statements at most.

    Parameters
    ----------
    retrained : sequence of RetrainRecord, optional
        Its retrained seeds, where they were read already.
    """
    leases = connection.execute(
        sa.select(tables.lease, clock(connection).label("moment"))
        .where(tables.lease.c.study_id == row.study_id)
        .order_by(tables.lease.c.kind, tables.lease.c.position)
    ).all()
    n_slots = sum(lease.size for lease in leases if lease.kind == "search")
    trials, foreign = slots.split(connection, row.study_id, n_slots)
    if retrained is None:
        # All but the weights, which may be hundreds of megabytes.
        columns = [tables.retrain.c[name] for name in RetrainRecord.__dataclass_fields__]
        query = (
            sa.select(*columns)
            .where(
                tables.retrain.c.study_id == row.study_id,
                tables.retrain.c.retrain_key == row.retrain_key,
            )
            .order_by(tables.retrain.c.seed_index)
        )
        retrained = list(map(retrain_record, connection.execute(query)))
    numbers = {trial._trial_id: trial.number for trial in trials}  # noqa: SLF001 - has no public name
    return StudySnapshot(
        name=row.name,
        spec=stored_spec(row),
        n_trials=len(trials),
        trials=with_pooled_errors(list(map(trial_record, trials))),
        leases=tuple(
            LeaseRecord(
                kind=lease.kind,
                index=lease.position,
                done=lease.done,
                owner=lease.owner,
                attempt=lease.attempt,
                seconds_left=None if lease.expires is None else lease.expires - lease.moment,
                progress=json.loads(lease.progress) if lease.progress else {},
                size=lease.size,
            )
            for lease in leases
        ),
        retrains=tuple(map(retrain_record, retrained)),
        chosen=numbers.get(row.chosen_trial_id) if row.chosen_trial_id is not None else None,
        test_looks=row.test_looks,
        facts=row.facts,
        foreign=tuple(map(_foreign, foreign)),
    )


def _foreign(trial: FrozenTrial) -> ForeignTrial:
    value = trial.values[0] if trial.values else None
    return ForeignTrial(trial.number, STATES[trial.state], value)


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """One trial in our words."""
    attributes = trial.user_attrs
    reports = trial.intermediate_values
    value = trial.value
    if value is None and reports and trial.state != TrialState.FAIL:
        last = reports[max(reports)]
        value = last if math.isfinite(last) else None
    excluded = trial.system_attrs.get(slots.EXCLUDED)
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state],
        params=trial.params,
        value=value,
        standard_error=attributes.get("standard_error"),
        fold_scores=tuple(attributes.get("fold_scores", ())),
        unstable=attributes.get("unstable") if excluded is None else f"excluded: {excluded}",
        reason=attributes.get("reason"),
        epochs=max(reports, default=0),
    )


def retrain_record(item: Any) -> RetrainRecord:
    """One retrained seed without its weights, from a row or from one that has them."""
    return RetrainRecord(
        seed_index=item.seed_index,
        seed=item.seed,
        epochs=item.epochs,
        best_epoch=item.best_epoch,
        validation_loss=from_sql(item.validation_loss),
        weights_sha256=item.weights_sha256,
        test_mse=item.test_mse,
    )


def to_sql(value: float) -> float | None:
    """Store NaN as NULL: SQLite has no NaN, and PostgreSQL sorts it as the largest."""
    return None if math.isnan(value) else float(value)


def from_sql(value: float | None) -> float:
    """Read back what ``to_sql`` wrote."""
    return math.nan if value is None else value


@repeatable
def curves(engine: Engine, study: StudyRow) -> list[tuple[int, int, int, float, float]]:
    """Every per-fold, per-epoch loss of a study.

    Returns
    -------
    list of (number, fold, epoch, train_loss, validation_loss)
        In that order of sorting; losses are mean squared errors per pixel.
    """
    with database.reading(engine) as connection:
        return curves_in(connection, study)


def curves_in(connection: Connection, study: StudyRow) -> list[tuple[int, int, int, float, float]]:
    """Every loss of a study, as ``curves``, inside a transaction."""
    trials, curve = optuna_tables.TRIALS, tables.curve
    query = (
        sa.select(
            trials.c.number,
            curve.c.fold,
            curve.c.epoch,
            curve.c.train_loss,
            curve.c.validation_loss,
        )
        .join(trials, trials.c.trial_id == curve.c.trial_id)
        .where(trials.c.study_id == study.study_id)
        .order_by(trials.c.number, curve.c.fold, curve.c.epoch)
    )
    return [
        (r.number, r.fold, r.epoch, from_sql(r.train_loss), from_sql(r.validation_loss))
        for r in connection.execute(query)
    ]
