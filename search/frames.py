"""The tables of a study for people who analyse: ``aesearch.frames.trials``, ``curves``, ``scores``.

A study is named, with the store that it is in, or is what ``aesearch.open_study`` or
``aesearch.search`` returned.
"""

import pandas as pd

import aesearch
from aesearch.options import OptionError
from aesearch.study import Study, open_study


def trials(
    study: "str | aesearch.SearchResult | Study", *, storage: str | None = None
) -> pd.DataFrame:
    """One row per trial, in number order; also while the study runs.

    Parameters
    ----------
    study : str, Study or SearchResult
        Its name, or what ``aesearch.open_study`` or ``aesearch.search`` returned.
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
    return _table(study, storage, "trials")


def curves(
    study: "str | aesearch.SearchResult | Study", *, storage: str | None = None
) -> pd.DataFrame:
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
    return _table(study, storage, "curves")


def scores(
    study: "str | aesearch.SearchResult | Study", *, storage: str | None = None
) -> pd.DataFrame:
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
    return _table(study, storage, "scores")


def _table(
    study: "str | aesearch.SearchResult | Study", storage: str | None, name: str
) -> pd.DataFrame:
    if isinstance(study, str):
        study = open_study(study, storage)
    elif not isinstance(study, Study | aesearch.SearchResult):
        raise OptionError(
            "study must be a name, or what aesearch.open_study or aesearch.search returned, got "
            f"{type(study).__name__}"
        )
    elif storage is not None:
        raise OptionError(
            f"storage must be given beside a name only, got {storage!r} beside a "
            f"{type(study).__name__}, which knows its store"
        )
    found = getattr(study, name)
    table: pd.DataFrame = found() if isinstance(study, Study) else found
    return table
