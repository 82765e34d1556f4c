"""The tables of a study for people who analyse: ``aesearch.frames.trials``, ``curves``, ``scores``.

A study is named, with the store that it is in, or is what ``aesearch.search`` returned.
"""

from typing import TYPE_CHECKING

from aesearch.options import OptionError, storage_or_default

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from sqlalchemy.engine import Engine

    from aesearch.api import SearchResult


def trials(study: "str | SearchResult", *, storage: str | None = None) -> "pd.DataFrame":
    """One row per trial, in number order; also while the study runs.

    Parameters
    ----------
    study : str or SearchResult
        Its name, or what ``aesearch.search`` returned.
    storage : str, optional
        Database URL or SQLite file; None for ``AESEARCH_STORAGE``, or ``aesearch.db`` in the
        current folder. Only beside a name.

    Returns
    -------
    DataFrame
        ``number`` : int64, from 0.
        ``state`` : string; waiting, running, complete, pruned, failed.
        ``value`` : float64; mean over folds, MSE per pixel; for a pruned trial its last mean.
        ``standard_error`` : float64; of ``value``, over folds.
        ``fold_0``, ``fold_1``, … : float64; score of each fold of a complete trial.
        ``epochs`` : int64; trained so far.
        ``unstable``, ``reason`` : string; why it is never chosen, why it was pruned or failed.
        One column per searched name, missing where it did not apply or the trial waits:
        Int64 (``encoding_dim``), float64 (``learning_rate``) or string (``architecture``).

    Raises
    ------
    StoreError
        There is no such store, or it is not ours.
    StudyNotFoundError
        There is no study of that name; lists those there are.

    Examples
    --------
    >>> frame = aesearch.frames.trials("mnist")                       # doctest: +SKIP
    >>> frame.query("state == 'complete'").nsmallest(5, "value")      # doctest: +SKIP
    """
    from aesearch.studies.results import frames  # noqa: PLC0415 - imports SQLAlchemy, pandas
    from aesearch.studies.store import study_rows  # noqa: PLC0415 - imports SQLAlchemy, pandas

    if not isinstance(study, str):
        return _of_result(study, storage).trials
    return _read(storage, lambda engine: frames.trials(study_rows.snapshot(engine, study)))


def curves(study: "str | SearchResult", *, storage: str | None = None) -> "pd.DataFrame":
    """One row per trial, fold and epoch that was trained.

    Parameters
    ----------
    study, storage
        As in ``trials``.

    Returns
    -------
    DataFrame
        ``number``, ``fold``, ``epoch`` : int64; the epoch from 1.
        ``train_loss`` : float64; mean over the epoch's samples, with dropout.
        ``validation_loss`` : float64; after the epoch. Both MSE per pixel.

    Raises
    ------
    StoreError, StudyNotFoundError
        As ``trials``.
    """
    from aesearch.studies.results import frames  # noqa: PLC0415 - imports SQLAlchemy, pandas
    from aesearch.studies.store import study_rows  # noqa: PLC0415 - imports SQLAlchemy, pandas

    if not isinstance(study, str):
        return _of_result(study, storage).curves
    return _read(
        storage,
        lambda engine: frames.curves(
            study_rows.curves(engine, study_rows.find_study(engine, study))
        ),
    )


def scores(study: "str | SearchResult", *, storage: str | None = None) -> "pd.DataFrame":
    """One row per fold of each complete trial.

    Parameters
    ----------
    study, storage
        As in ``trials``.

    Returns
    -------
    DataFrame
        ``number``, ``fold`` : int64.
        ``score`` : float64; mean validation loss of the last epochs, MSE per pixel.

    Raises
    ------
    StoreError, StudyNotFoundError
        As ``trials``.
    """
    from aesearch.studies.results import frames  # noqa: PLC0415 - imports SQLAlchemy, pandas
    from aesearch.studies.store import study_rows  # noqa: PLC0415 - imports SQLAlchemy, pandas

    if not isinstance(study, str):
        return _of_result(study, storage).scores
    return _read(storage, lambda engine: frames.scores(study_rows.snapshot(engine, study)))


def _of_result(study: "SearchResult", storage: str | None) -> "SearchResult":
    from aesearch.api import SearchResult  # noqa: PLC0415 - imports torch

    if not isinstance(study, SearchResult):
        raise OptionError(
            f"study must be a name or what aesearch.search returned, got {type(study).__name__}"
        )
    if storage is not None:
        raise OptionError(
            f"storage must be given beside a name only, got {storage!r} beside a result; "
            "a result knows its store"
        )
    return study


def _read(storage: str | None, read: "Callable[[Engine], pd.DataFrame]") -> "pd.DataFrame":
    from aesearch.commands.stored import open_existing  # noqa: PLC0415 - imports SQLAlchemy

    engine = open_existing(storage_or_default(storage))
    try:
        return read(engine)
    finally:
        engine.dispose()
