"""Looking into a store that must be there already; making one is ``studies.store``'s."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from aesearch.studies.errors import StoreError
from aesearch.studies.results.records import StudySnapshot
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.results.summary import value_text
from aesearch.studies.store import database, migrations, study_rows
from aesearch.studies.store.database import reading
from aesearch.studies.store.driver_errors import describe
from aesearch.studies.store.retry import Patience, be_patient, repeatable
from aesearch.studies.store.status import state_words


def open_existing(storage: str, patience: Patience | None = None) -> Engine:
    """Open a store without ever making one.

    Parameters
    ----------
    patience : Patience, optional
        How long to wait for a store that is away, now and later; None for not at all.

    Raises
    ------
    StoreError
        There is none, or it is not ours.
    """
    url = database.parse_url(storage)
    remedy = "name it with --storage or AESEARCH_STORAGE, or make one with 'aesearch run'"
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise StoreError(
            f"storage must be an existing store, got {url.database!r}: no such file; {remedy}"
        )
    engine = database.open_engine(url)
    if patience is not None:
        be_patient(engine, patience)
    try:
        _check_ours(engine, remedy)
        migrations.prepare(engine)
    except StoreError:
        engine.dispose()
        raise
    return engine


@repeatable
def _check_ours(engine: Engine, remedy: str) -> None:
    # Before anything is prepared: that would put our tables into another program's database.
    with reading(engine) as connection:
        if sa.inspect(connection).has_table("aesearch_schema"):
            return
    raise StoreError(
        f"storage must hold studies of aesearch, got {describe(engine.url)} without; " + remedy
    )


def described_studies(engine: Engine) -> list[dict[str, Any]]:
    """Describe every study of a store in one row.

    Returns
    -------
    list of dict
        ``study``, ``dataset``, ``finished`` (trials), ``trials`` (all of them), ``value`` and
        ``standard_error`` of the winner or of the best so far (None where there is none),
        ``state`` in words.
    """
    rows = []
    for name in study_rows.study_names(engine):
        snapshot = study_rows.snapshot(engine, name)
        ranked = eligible_trials(snapshot.trials)
        best = snapshot.trials[snapshot.chosen] if snapshot.chosen is not None else None
        best = best or (ranked[0] if ranked else None)
        rows.append(
            {
                "study": name,
                "dataset": snapshot.facts.get("dataset"),
                "finished": sum(t.state not in ("waiting", "running") for t in snapshot.trials),
                "trials": snapshot.n_trials,
                "value": None if best is None else best.value,
                "standard_error": None if best is None else best.standard_error,
                "state": state_text(snapshot),
            }
        )
    return rows


def state_text(snapshot: StudySnapshot) -> str:
    """Say in a word or two how far a study is and whether anyone works on it."""
    searching = any(trial.state in ("waiting", "running") for trial in snapshot.trials)
    return state_words(
        searching=searching,
        chosen=snapshot.chosen is not None,
        held=any(
            lease.owner is not None and not lease.done and (lease.seconds_left or 0) > 0
            for lease in snapshot.leases
        ),
        retraining=any(lease.kind != "search" and not lease.done for lease in snapshot.leases),
        hopeless=not searching and not eligible_trials(snapshot.trials),
    )


def table_text(rows: list[dict[str, Any]]) -> str:
    """Arrange ``described_studies`` in columns."""
    cells = [("study", "dataset", "trials", "best", "state")]
    cells += [
        (
            row["study"],
            str(row["dataset"]),
            f"{row['finished']}/{row['trials']}",
            "-" if row["value"] is None else value_text(row["value"], row["standard_error"]),
            row["state"],
        )
        for row in rows
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
