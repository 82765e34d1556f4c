"""A study as pandas tables; how they are written to files is elsewhere.

Types are pandas': what is missing is NaN in a float64 column, NA in an Int64 or string column.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from aesearch.studies.results.records import StudySnapshot
from aesearch.studies.results.summary import front_of
from aesearch.studies.spec.problems import validated
from aesearch.studies.spec.sections import Objective, SearchSpec

_CURVE_TYPES = {
    "number": "int64",
    "fold": "int64",
    "epoch": "int64",
    "train_loss": "float64",
    "validation_loss": "float64",
}
_FRONT_TYPES = {
    "number": "int64",
    "mse": "float64",
    "encoding_dim": "int64",
    "n_parameters": "int64",
}
_SCORE_TYPES = {"number": "int64", "fold": "int64", "score": "float64"}


def trials(snapshot: StudySnapshot) -> pd.DataFrame:
    """One row per trial, in number order; columns as of ``aesearch.frames.trials``."""
    n_folds = snapshot.spec.search.folds
    rows = snapshot.trials
    columns: dict[str, pd.Series] = {
        "number": pd.Series([row.number for row in rows], dtype="int64"),
        "state": pd.Series([row.state for row in rows], dtype="string"),
        "value": pd.Series([row.value for row in rows], dtype="float64"),
        "standard_error": pd.Series([row.standard_error for row in rows], dtype="float64"),
    }
    for fold in range(n_folds):
        scores = [row.fold_scores[fold] if fold < len(row.fold_scores) else None for row in rows]
        columns[f"fold_{fold}"] = pd.Series(scores, dtype="float64")
    columns["epochs"] = pd.Series([row.epochs for row in rows], dtype="int64")
    columns["unstable"] = pd.Series([row.unstable for row in rows], dtype="string")
    columns["reason"] = pd.Series([row.reason for row in rows], dtype="string")
    for name in dict.fromkeys(name for row in rows for name in row.params):
        columns[name] = _of_one_type([row.params.get(name) for row in rows])
    return pd.DataFrame(columns)


def front(snapshot: StudySnapshot, objectives: Sequence[Objective] | None = None) -> pd.DataFrame:
    """One row per trial of the Pareto front; arguments and columns as of ``Study.front``.

    Raises
    ------
    SpecError
        Objectives that no study could have.
    """
    asked = snapshot.spec.search.objectives if objectives is None else tuple(objectives)
    if objectives is None and len(asked) < 2:
        asked = ("mse", "encoding_dim")
    validated(SearchSpec, {"objectives": list(asked)}, source="front")
    found = front_of(snapshot, asked)
    rows = [] if found is None else [row.to_dict() for row in found.trials]
    table = pd.DataFrame(rows, columns=list(_FRONT_TYPES)).astype(_FRONT_TYPES)
    table["knee"] = table["number"] == (None if found is None else found.knee)
    return table


def _of_one_type(values: Sequence[Any]) -> pd.Series:
    there = [value for value in values if value is not None]
    if all(isinstance(value, int) for value in there):
        return pd.Series(values, dtype="Int64")
    if all(isinstance(value, int | float) for value in there):
        return pd.Series(values, dtype="float64")
    return pd.Series([None if v is None else str(v) for v in values], dtype="string")


def curves(rows: Sequence[tuple[int, int, int, float, float]]) -> pd.DataFrame:
    """One row per trial, fold and epoch; columns as of ``aesearch.frames.curves``."""
    return pd.DataFrame(list(rows), columns=list(_CURVE_TYPES)).astype(_CURVE_TYPES)


def scores(snapshot: StudySnapshot) -> pd.DataFrame:
    """One row per fold of each complete trial; columns as of ``aesearch.frames.scores``."""
    rows = [
        (trial.number, fold, score)
        for trial in snapshot.trials
        for fold, score in enumerate(trial.fold_scores)
    ]
    return pd.DataFrame(rows, columns=list(_SCORE_TYPES)).astype(_SCORE_TYPES)
