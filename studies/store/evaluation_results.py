"""The evaluation of the retrained model in the store: one document and its pictures."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from aesearch.studies.results.evaluation import Evaluation
from aesearch.studies.results.records import Picture
from aesearch.studies.store import tables
from aesearch.studies.store.connection.database import reading, writing
from aesearch.studies.store.connection.retry import repeatable
from aesearch.studies.store.study_rows import StudyRow, find_study_in


def count_look(engine: Engine, name: str) -> int:
    """Count a look at the test set of a study; not repeated, since it would count twice.

    Returns
    -------
    int
        How many there were, this one included.
    """
    with writing(engine) as connection:
        study = find_study_in(connection, name)
        row = tables.study.c.study_id == study.study_id
        looks = study.test_looks + 1
        connection.execute(tables.study.update().where(row).values(test_looks=looks))
    return looks


@repeatable
def read_evaluation(engine: Engine, study: StudyRow) -> Evaluation | None:
    """Read what ``aesearch.evaluation.evaluate`` found; None where nothing was evaluated."""
    with reading(engine) as connection:
        return read_evaluation_in(connection, study)


def read_evaluation_in(connection: Connection, study: StudyRow) -> Evaluation | None:
    """Read an evaluation, as ``read_evaluation``, inside a transaction."""
    text = connection.execute(
        sa.select(tables.evaluation.c.document).where(*_of(tables.evaluation, study))
    ).scalar()
    return None if text is None else Evaluation.from_json(text)


def read_pictures_in(connection: Connection, study: StudyRow) -> list[Picture]:
    """Read the pictures of the evaluation, by name."""
    table = tables.picture
    query = (
        sa.select(table.c.name, table.c.alt, table.c.png)
        .where(*_of(table, study))
        .order_by(table.c.name)
    )
    return [Picture(row.name, row.alt, bytes(row.png)) for row in connection.execute(query)]


def write_look(
    engine: Engine,
    study: StudyRow,
    evaluation: Evaluation,
    pictures: Sequence[Picture],
    *,
    replace: bool,
) -> tuple[int, bool]:
    """Record one more look at the test set and, where asked or where there is none, what it saw.

    Returns
    -------
    looks : int
        How many times the test set was looked at, this one included.
    kept : bool
        Whether this evaluation is the one in the store now.
    """
    assert study.retrain_key is not None, "only a retrained model is evaluated"
    with writing(engine) as connection:
        row = tables.study.c.study_id == study.study_id
        connection.execute(
            tables.study.update().where(row).values(test_looks=tables.study.c.test_looks + 1)
        )
        looks = connection.execute(sa.select(tables.study.c.test_looks).where(row)).scalar_one()
        there = connection.execute(
            sa.select(tables.evaluation.c.study_id).where(*_of(tables.evaluation, study))
        ).first()
        kept = replace or there is None
        if kept:
            insert_evaluation(connection, study.study_id, study.retrain_key, evaluation, pictures)
    return looks, kept


def insert_evaluation(
    connection: Connection,
    study_id: int,
    retrain_key: str,
    evaluation: Evaluation,
    pictures: Sequence[Picture],
) -> None:
    """Put an evaluation in the place of the one there may be, within a transaction."""
    key = {"study_id": study_id, "retrain_key": retrain_key}
    for table in (tables.evaluation, tables.picture):
        connection.execute(
            table.delete().where(table.c.study_id == study_id, table.c.retrain_key == retrain_key)
        )
    document = evaluation.to_json()
    connection.execute(tables.evaluation.insert().values(**key, document=document))
    if pictures:
        connection.execute(
            tables.picture.insert(), [key | picture._asdict() for picture in pictures]
        )


def _of(table: sa.Table, study: StudyRow) -> tuple[sa.ColumnElement[bool], ...]:
    return (table.c.study_id == study.study_id, table.c.retrain_key == study.retrain_key)
