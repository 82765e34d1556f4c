"""A study as a whole, from Python: renamed, deleted, copied; a trial taken out of the choice."""

from dataclasses import dataclass
from pathlib import Path

from aesearch.options import OptionError, storage_or_default
from aesearch.studies.dashboard.publishing import publish
from aesearch.studies.errors import RunFailedError
from aesearch.studies.spec.problems import validated
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store import retrain_results, search_results, study_rows, whole_studies
from aesearch.studies.store.copying import Copied
from aesearch.studies.store.copying import copy_study as copy_rows
from aesearch.studies.store.study_rows import existing_store, open_store
from aesearch.workers.schedule import settle


def rename_study(name: str, new_name: str, storage: str | Path | None = None) -> None:
    """Give a study another name; its run folder keeps the one that it has.

    Parameters
    ----------
    name, new_name : str
        The study's, before and after.
    storage : str or path, optional
        Its store, as for ``open_study``.

    Raises
    ------
    StudyNotFoundError, StoreError
    StudyMismatchError
        The new name is taken.
    SpecError
        It is none that a study may have.
    """
    _check_name(new_name)
    with existing_store(storage_or_default(storage)) as engine:
        whole_studies.rename_study(engine, name, new_name)


def delete_study(name: str, storage: str | Path | None = None) -> None:
    """Delete a study with its trials, curves and models for good; files stay.

    Parameters
    ----------
    name : str
    storage : str or path, optional
        Its store, as for ``open_study``.

    Raises
    ------
    StudyNotFoundError, StoreError
    """
    with existing_store(storage_or_default(storage)) as engine:
        whole_studies.delete_study(engine, name)


def copy_study(
    name: str, to: str | Path, storage: str | Path | None = None, *, new_name: str | None = None
) -> Copied:
    """Copy a study with its curves and models to another store, and hold the copy against it.

    Parameters
    ----------
    name : str
    to : str or path
        Database URL or SQLite file; tables are made where they are missing.
    storage : str or path, optional
        Where it is now, as for ``open_study``.
    new_name : str, optional
        Name of the copy; None for the same.

    Raises
    ------
    StudyNotFoundError, StoreError
    StudyMismatchError
        The target has another study of that name.
    """
    new_name = name if new_name is None else new_name
    _check_name(new_name)
    with existing_store(storage_or_default(storage)) as source:
        study_rows.find_study(source, name)  # before a store is made
        target = open_store(str(to))
        try:
            copied = copy_rows(source, name, target, new_name)
            publish(target, new_name)
        finally:
            target.dispose()
    return copied


@dataclass(frozen=True)
class Excluded:
    """What a study chooses after a trial was taken out of the choice, or put back.

    Attributes
    ----------
    winner : int or None
        Number of the chosen trial; None while the search is open, or where none is left.
    retrained : bool
        Whether its model is there.
    """

    winner: int | None
    retrained: bool


def exclude_trial(
    name: str, trial: int, reason: str | None, storage: str | Path | None = None
) -> Excluded:
    """Take a trial out of the choice of a study, or put it back; the choice is made again.

    Parameters
    ----------
    name : str
    trial : int
        Number of a finished trial.
    reason : str or None
        Shown wherever the trial is; None puts it back.
    storage : str or path, optional
        Store of the study, as for ``open_study``.

    Raises
    ------
    StudyNotFoundError, StoreError
    OptionError
        There is no finished trial of that number, or the reason is blank.
    """
    if reason is not None and not reason.strip():
        raise OptionError("reason must say why the trial is excluded, got none")
    with existing_store(storage_or_default(storage)) as engine:
        study = study_rows.find_study(engine, name)
        if not search_results.exclude(engine, study, trial, reason):
            raise OptionError(
                f"trial must be the number of a finished trial of study {name!r}, got {trial}"
            )
        try:
            settle(engine, name)
        except RunFailedError:
            retrain_results.reopen_choice(engine, study)  # none is left
        publish(engine, name)
        snapshot = study_rows.snapshot(engine, name)
    tested = [row.test_mse is not None for row in snapshot.retrains]
    return Excluded(snapshot.chosen, bool(tested) and all(tested))


def _check_name(name: str) -> None:
    validated(StudySpec, {"name": name}, source="new name")
