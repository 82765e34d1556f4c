"""The studies of a store and how far each is; what is in one of them is in ``study``."""

from pathlib import Path

from aesearch.options import storage_or_default
from aesearch.studies.store.status import StudyStatus, statuses
from aesearch.studies.store.study_rows import existing_store


def list_studies(storage: str | Path | None = None, name: str | None = None) -> list[StudyStatus]:
    """Say how far each study of a store is, in order of creation.

    Parameters
    ----------
    storage : str or path, optional
        Database URL or SQLite file; None for ``AESEARCH_STORAGE``, or ``aesearch.db`` in the
        current folder.
    name : str, optional
        Of this study alone.

    Raises
    ------
    StoreError
        There is no such store, or it is not ours.
    StudyNotFoundError
        There is no study of that name.
    """
    with existing_store(storage_or_default(storage)) as engine:
        return statuses(engine, name)
