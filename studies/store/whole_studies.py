"""A study as a whole: renamed or deleted; how it is copied to another store is in ``copying``."""

import sqlalchemy as sa
from optuna.storages._rdb import models
from sqlalchemy.engine import Connection, Engine

from aesearch.studies.errors import StudyMismatchError
from aesearch.studies.store import tables
from aesearch.studies.store.connection.database import writing
from aesearch.studies.store.connection.retry import repeatable
from aesearch.studies.store.optuna.optuna_tables import STUDIES, TRIALS
from aesearch.studies.store.study_rows import find_study_in


@repeatable
def rename_study(engine: Engine, name: str, new_name: str) -> None:
    """Give a study another name; nothing else changes.

    Raises
    ------
    StudyNotFoundError
        There is no study of that name.
    StudyMismatchError
        The new name is taken.
    """
    try:
        with writing(engine) as connection:
            study = find_study_in(connection, name)
            connection.execute(
                STUDIES.update()
                .where(STUDIES.c.study_id == study.study_id)
                .values(study_name=new_name)
            )
    except sa.exc.IntegrityError as error:
        raise taken(new_name) from error


def taken(name: str) -> StudyMismatchError:
    """Make the error for a name that another study has."""
    return StudyMismatchError(
        f"new name must be one that no study of the store has, got {name!r}; give another"
    )


@repeatable
def delete_study(engine: Engine, name: str) -> None:
    """Delete a study with its models, from our tables and from Optuna's.

    Raises
    ------
    StudyNotFoundError
        There is no study of that name.
    """
    with writing(engine) as connection:
        delete_in(connection, find_study_in(connection, name).study_id)


def delete_in(connection: Connection, study_id: int) -> None:
    """Delete a study inside a transaction."""
    # First: without this row, the database lets the others go.
    connection.execute(tables.study.delete().where(tables.study.c.study_id == study_id))
    of_study = sa.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id)
    for table in reversed(models.BaseModel.metadata.sorted_tables):
        if "study_id" in table.c:
            connection.execute(table.delete().where(table.c.study_id == study_id))
        elif "trial_id" in table.c:
            connection.execute(table.delete().where(table.c.trial_id.in_(of_study)))
