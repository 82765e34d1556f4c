"""Files that the dashboard shows with a trial: made from the store's rows whenever asked for."""

import csv
import hashlib
import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import sqlalchemy as sa
from optuna.artifacts.exceptions import ArtifactNotFound
from PIL import Image
from sqlalchemy.engine import Connection, Engine

from aesearch.studies.dashboard.drawing import draw_curves
from aesearch.studies.dashboard.finished import (
    CurvePoint,
    FinishedTrial,
    finished_trials,
    trial_pictures,
)
from aesearch.studies.results.output_files import write_whole
from aesearch.studies.store.connection.database import reading
from aesearch.studies.store.contents import StudyContents
from aesearch.studies.store.optuna import optuna_tables

KEY_PREFIX = "artifacts:"  # Optuna's own, see optuna.artifacts.upload_artifact
_CURVES_PICTURE, _CURVES_TABLE = "curves.png", "curves.csv"
_STRIP_WIDTH = 600  # pixels that a strip is enlarged to at least


@dataclass(frozen=True)
class Artifact:
    """A file of a trial: its id is a function of the study, the trial and what is in it.

    Attributes
    ----------
    alt : str or None
        What is to be seen; None for a file that is no picture.
    """

    artifact_id: str
    filename: str
    alt: str | None

    @property
    def attribute(self) -> tuple[str, str]:
        """Key and value of the system attribute by which Optuna knows it."""
        kind = "text/csv" if self.alt is None else "image/png"
        meta = {
            "artifact_id": self.artifact_id,
            "filename": self.filename,
            "mimetype": kind,
            "encoding": None,
        }
        return KEY_PREFIX + self.artifact_id, json.dumps(meta)


def artifacts(study_name: str, trial: FinishedTrial) -> list[Artifact]:
    """List a trial's files; the curves first, so that an index means the same in every trial."""
    sources: list[tuple[str, str | None, bytes]] = []
    if trial.curve:
        table = curve_table(trial)
        seen = "training and validation loss by epoch, one line per fold"
        sources = [(_CURVES_TABLE, None, table), (_CURVES_PICTURE, seen, table)]
    sources += [(name, picture.alt, picture.png) for name, picture in trial.pictures.items()]
    return [
        Artifact(_artifact_id(position, [study_name, trial.record.number, name], source), name, alt)
        for position, (name, alt, source) in enumerate(sources)
    ]


def _artifact_id(position: int, names: list[str | int], source: bytes) -> str:
    # A UUID as Optuna's are, but the same for the same study: a folder never mixes two. The
    # position comes first, because SQLite lists the files of a trial in the order of their ids.
    digest = hashlib.sha256(json.dumps(names).encode() + source).digest()
    return str(uuid.UUID(bytes=bytes([position]) + digest[:15], version=4))


def content(trial: FinishedTrial, filename: str) -> bytes:
    """Make a file of a trial; raises KeyError for a name that it has none of."""
    if filename == _CURVES_TABLE:
        return curve_table(trial)
    if filename == _CURVES_PICTURE:
        return draw_curves(trial.curve, f"Trial {trial.record.number}: MSE per pixel by epoch")
    return _enlarged(trial.pictures[filename].png)


def curve_table(trial: FinishedTrial) -> bytes:
    """Write a trial's losses as CSV; a loss that is not finite is left empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["fold", "epoch", "train_loss", "validation_loss"])
    for point in trial.curve:
        losses = ("" if loss != loss else loss for loss in (point.train, point.validation))  # noqa: PLR0124
        writer.writerow([point.fold, point.epoch, *losses])
    return stream.getvalue().encode()


def _enlarged(png: bytes) -> bytes:
    # In whole pixels: a browser would smooth what the network left rough.
    picture = Image.open(io.BytesIO(png))
    factor = -(-_STRIP_WIDTH // picture.width)
    if factor <= 1:
        return png
    stream = io.BytesIO()
    size = (picture.width * factor, picture.height * factor)
    picture.resize(size, Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


@dataclass(frozen=True)
class TrialFile:
    """A file that the dashboard shows with a trial, to be made when it is written."""

    artifact_id: str
    filename: str
    trial: FinishedTrial

    @property
    def content(self) -> bytes:
        """What is in it."""
        return content(self.trial, self.filename)


def trial_files(connection: Connection, contents: StudyContents) -> list[TrialFile]:
    """List the files of all trials of a study that was read with its curves, in trial order."""
    row, records = contents.row, contents.snapshot.trials
    pictures = trial_pictures(connection, row.study_id)
    curves: dict[int, list[CurvePoint]] = {}
    for number, fold, epoch, train, validation in contents.curves:
        curves.setdefault(number, []).append(CurvePoint(fold, epoch, train, validation))
    files = []
    for stored in _stored_files(connection, row.study_id):
        number = stored.number
        trial = FinishedTrial(
            stored.trial_id,
            records[number],
            tuple(curves.get(number, ())),
            pictures.get(number, {}),
        )
        if any(each.filename == stored.filename for each in artifacts(row.name, trial)):
            files.append(TrialFile(stored.artifact_id, stored.filename, trial))
    return files


def stored_artifacts(connection: Connection, study_id: int) -> dict[str, tuple[int, str]]:
    """Map every artifact id of a study's trials to its trial id and file name."""
    stored = _stored_files(connection, study_id)
    return {file.artifact_id: (file.trial_id, file.filename) for file in stored}


class _StoredFile(NamedTuple):
    """A file of a trial that the store lists: the trial's id and number, and what it is called."""

    trial_id: int
    number: int
    artifact_id: str
    filename: str


def _stored_files(connection: Connection, study_id: int) -> Iterator[_StoredFile]:
    attributes, trials = optuna_tables.SYSTEM_ATTRIBUTES, optuna_tables.TRIALS
    rows = connection.execute(
        sa.select(attributes.c.trial_id, trials.c.number, attributes.c.value_json)
        .join(trials, trials.c.trial_id == attributes.c.trial_id)
        .where(trials.c.study_id == study_id, attributes.c.key.startswith(KEY_PREFIX))
        .order_by(attributes.c.trial_id, attributes.c.trial_system_attribute_id)
    )
    for row in rows:
        names = _names(row.value_json)
        if names is not None:
            yield _StoredFile(row.trial_id, row.number, *names)


def _names(value_json: str) -> tuple[str, str] | None:
    """Id and name of a file from its attribute; the dashboard writes null when it deletes it."""
    meta = json.loads(json.loads(value_json))
    if not isinstance(meta, dict):
        return None
    return str(meta["artifact_id"]), str(meta["filename"])


class StoredArtifacts:
    """An artifact store for Optuna's dashboard that keeps no files: all is in the database.

    Parameters
    ----------
    folder : Path or None
        Where files that people upload are kept, and looked for first; None to take none.
    """

    def __init__(self, engine: Engine, folder: Path | None = None) -> None:
        self._engine = engine
        self._folder = folder

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a file; raises ArtifactNotFound where there is none."""
        if self._folder is not None and (self._folder / _safe(artifact_id)).is_file():
            return (self._folder / artifact_id).open("rb")
        attributes, trials = optuna_tables.SYSTEM_ATTRIBUTES, optuna_tables.TRIALS
        with reading(self._engine) as connection:
            row = connection.execute(
                sa.select(attributes.c.trial_id, attributes.c.value_json, trials.c.study_id)
                .join(trials, trials.c.trial_id == attributes.c.trial_id)
                .where(attributes.c.key == KEY_PREFIX + artifact_id)
            ).first()
            names = None if row is None else _names(row.value_json)
            if row is None or names is None:
                raise ArtifactNotFound(artifact_id)
            found = finished_trials(connection, row.study_id, [row.trial_id])
        try:
            return io.BytesIO(content(found[0], names[1]))
        except (IndexError, KeyError):
            raise ArtifactNotFound(artifact_id) from None

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Keep an uploaded file."""
        if self._folder is None:
            raise PermissionError("a folder must be named to take files; use --artifact-dir")
        write_whole(self._folder / _safe(artifact_id), content_body.read())

    def remove(self, artifact_id: str) -> None:
        """Forget an uploaded file; what is in the database goes with its trial."""
        if self._folder is not None:
            (self._folder / _safe(artifact_id)).unlink(missing_ok=True)


def _safe(artifact_id: str) -> str:
    if Path(artifact_id).name != artifact_id or artifact_id in {"", ".", ".."}:
        raise ArtifactNotFound(artifact_id)
    return artifact_id
