"""A study as pandas tables with documented columns; how they are written to files is elsewhere."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from aesearch.studies.records import StudySnapshot


def trials(snapshot: StudySnapshot) -> pd.DataFrame:
    """One row per trial, in number order.

    Returns
    -------
    DataFrame
        Columns: ``number``; ``state`` (waiting, running, complete, pruned, failed); ``value``
        (mean over folds, MSE per pixel; for a pruned trial its last mean);
        ``standard_error``; ``fold_0`` … one score per fold; ``epochs`` trained; ``unstable``
        and ``reason`` in words; one column per searched name, empty where it did not apply.
    """
    n_folds = int(snapshot.spec["search"]["folds"])
    names = list(dict.fromkeys(name for trial in snapshot.trials for name in trial.params))
    rows = []
    for trial in snapshot.trials:
        row: dict[str, Any] = {
            "number": trial.number,
            "state": trial.state,
            "value": trial.value,
            "standard_error": trial.standard_error,
        }
        scores = trial.fold_scores or (None,) * n_folds
        row |= {f"fold_{fold}": score for fold, score in enumerate(scores)}
        row |= {"epochs": trial.epochs, "unstable": trial.unstable, "reason": trial.reason}
        rows.append(row | {name: trial.params.get(name) for name in names})
    return pd.DataFrame(rows)


def curves(rows: Sequence[tuple[int, int, int, float, float]]) -> pd.DataFrame:
    """One row per trial, fold and epoch, from ``store.curves``.

    Returns
    -------
    DataFrame
        Columns ``number``, ``fold``, ``epoch`` (from 1), ``train_loss`` (mean over the
        epoch's minibatches, with dropout), ``validation_loss`` (after the epoch); MSE per pixel.
    """
    columns = ["number", "fold", "epoch", "train_loss", "validation_loss"]
    return pd.DataFrame(list(rows), columns=columns)


def scores(snapshot: StudySnapshot) -> pd.DataFrame:
    """One row per fold of each complete trial: ``number``, ``fold``, ``score`` (MSE per pixel)."""
    rows = [
        (trial.number, fold, score)
        for trial in snapshot.trials
        for fold, score in enumerate(trial.fold_scores)
    ]
    return pd.DataFrame(rows, columns=["number", "fold", "score"])
