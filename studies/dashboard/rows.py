"""Optuna's study attributes that its dashboard reads: notes and figures, in chunks, by version.

The keys and the size of a chunk are those of optuna-dashboard 0.21; the tests read what is
written here back through the dashboard's own API.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from optuna.storages._rdb import models
from sqlalchemy.engine import Connection

from aesearch.studies.store.optuna import optuna_tables

ATTRIBUTES = models.StudySystemAttributeModel.__table__
CHUNK = 2045  # characters
FIGURE_PREFIX = "dashboard:plot_data:aesearch-"
# sha256 of the note that we wrote last: a note that reads otherwise is somebody else's.
_OWN_NOTE = "aesearch:note_sha256"


def note_keys(trial_id: int | None) -> tuple[str, str]:
    """Key of a note's version, and prefix of the keys of its text; None for the study's."""
    owner = "dashboard:" if trial_id is None else f"dashboard:{trial_id}:"
    return owner + "note_ver", owner + "note_str:"


def noted_trials(connection: Connection, study_id: int) -> set[int]:
    """Ids of the trials that have a note, whoever wrote it."""
    keys = connection.execute(
        sa.select(ATTRIBUTES.c.key).where(
            ATTRIBUTES.c.study_id == study_id, ATTRIBUTES.c.key.like("dashboard:%:note\\_ver", "\\")
        )
    ).scalars()
    return {int(key.split(":")[1]) for key in keys}


def add_trial_notes(connection: Connection, study_id: int, notes: Mapping[int, str]) -> None:
    """Write the notes of trials that have none; a note that is there is never touched."""
    rows: list[tuple[str, object]] = []
    for trial_id, text in notes.items():
        version, prefix = note_keys(trial_id)
        rows.append((version, 1))
        rows += _chunks(prefix, text)
    _insert(connection, study_id, rows)


def write_study_note(connection: Connection, study_id: int, text: str) -> bool:
    """Write the note of the study, unless somebody changed ours.

    Returns
    -------
    bool
        Whether anything was written.
    """
    version_key, prefix = note_keys(None)
    stored = _stored(connection, study_id, (version_key, _OWN_NOTE), prefix)
    version = stored.pop(version_key, 0)
    own = stored.pop(_OWN_NOTE, "")
    present = _joined(stored, prefix)
    if present == text or (version and _sha256(present) != own):
        return False
    _replace(connection, study_id, stored, dict(_chunks(prefix, text)))
    known = {} if version == 0 else {version_key: version}
    _replace(connection, study_id, known, {version_key: int(str(version)) + 1})
    _replace(connection, study_id, {_OWN_NOTE: own} if own else {}, {_OWN_NOTE: _sha256(text)})
    return True


def write_figures(connection: Connection, study_id: int, figures: Mapping[str, str]) -> bool:
    """Write figures (JSON by name) and remove those of ours that are no more.

    Returns
    -------
    bool
        Whether anything was written.
    """
    wanted: dict[str, object] = {}
    for name, text in figures.items():
        wanted.update(_chunks(f"{FIGURE_PREFIX}{name}:", text))
    stored = _stored(connection, study_id, (), FIGURE_PREFIX)
    return _replace(connection, study_id, stored, wanted)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _chunks(prefix: str, text: str) -> list[tuple[str, object]]:
    count = math.ceil(len(text) / CHUNK)
    return [(f"{prefix}{i}", text[i * CHUNK : (i + 1) * CHUNK]) for i in range(count)]


def _joined(stored: Mapping[str, object], prefix: str) -> str:
    return "".join(str(stored[f"{prefix}{i}"]) for i in range(len(stored)))


def _stored(
    connection: Connection, study_id: int, keys: Iterable[str], prefix: str
) -> dict[str, object]:
    rows = connection.execute(
        sa.select(ATTRIBUTES.c.key, ATTRIBUTES.c.value_json).where(
            ATTRIBUTES.c.study_id == study_id,
            ATTRIBUTES.c.key.in_(list(keys)) | ATTRIBUTES.c.key.startswith(prefix, autoescape=True),
        )
    )
    return {row.key: json.loads(row.value_json) for row in rows}


def _insert(connection: Connection, study_id: int, rows: Iterable[tuple[str, object]]) -> None:
    optuna_tables.insert_new(
        connection,
        ATTRIBUTES,
        [
            {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
            for key, value in rows
        ],
    )


def _replace(
    connection: Connection,
    study_id: int,
    stored: Mapping[str, object],
    wanted: Mapping[str, object],
) -> bool:
    """Make the stored attributes the wanted ones, touching only what differs."""
    mine = ATTRIBUTES.c.study_id == study_id
    gone = [key for key in stored if key not in wanted]
    if gone:
        connection.execute(ATTRIBUTES.delete().where(mine, ATTRIBUTES.c.key.in_(gone)))
    changed = [key for key in wanted if key in stored and stored[key] != wanted[key]]
    for key in changed:
        connection.execute(
            ATTRIBUTES.update()
            .where(mine, ATTRIBUTES.c.key == key)
            .values(value_json=json.dumps(wanted[key]))
        )
    new = [(key, value) for key, value in wanted.items() if key not in stored]
    _insert(connection, study_id, new)
    return bool(gone or changed or new)
