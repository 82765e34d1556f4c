"""What the commands print with ``--json``, as types, and their JSON Schema.

``python -m aesearch.outputs`` prints the schema.
"""

import datetime as dt
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from aesearch.artifacts.best_file import Comparison
from aesearch.studies.results.best_result import Result
from aesearch.studies.results.evaluation import Evaluation
from aesearch.studies.results.records import Document, TrialCounts, TrialRecord
from aesearch.studies.results.summary import Summary
from aesearch.studies.spec.dimensions import Params
from aesearch.studies.store.status import StudyStatus, WorkerStatus


@dataclass(frozen=True)
class RunFiles(Document):
    """Paths of what a run leaves in its ``folder``."""

    folder: str
    best: str
    model: str
    study: str
    trials: str
    curves: str
    evaluation: str
    report: str

    @classmethod
    def of(cls, folder: Path) -> "RunFiles":
        """Name them."""
        names = ("best.yaml", "model.safetensors", "study.yaml", "trials.csv", "curves.csv")
        files = (folder / name for name in (*names, "evaluation.json", "report.html"))
        return cls(str(folder), *map(str, files))


@dataclass(frozen=True)
class FinishedStudy(Summary):
    """``aesearch run`` of one study."""

    files: RunFiles


@dataclass(frozen=True)
class FinishedSeries(Document):
    """``aesearch run`` of several studies."""

    studies: list[FinishedStudy]

    def to_dict(self) -> dict[str, Any]:
        """Give it in plain values."""
        return {"studies": [study.to_dict() for study in self.studies]}


@dataclass(frozen=True)
class Commands(Document):
    """What to type next: to work on a study, to follow it, to write its run folder."""

    work: str
    follow: str
    export: str


@dataclass(frozen=True)
class DetachedStudy(Document):
    """``aesearch run --detach`` of one study.

    Attributes
    ----------
    storage : str
        Without its password.
    finished, trials : int
        How many trials are finished, and how many there are.
    timeout : float or None
        Seconds from now on after which no trial is begun.
    """

    study: str
    storage: str
    finished: int
    trials: int
    timeout: float | None
    commands: Commands


@dataclass(frozen=True)
class DetachedSeries(Document):
    """``aesearch run --detach`` of several studies."""

    studies: list[DetachedStudy]


@dataclass(frozen=True)
class ListedStudy(Document):
    """One study of ``aesearch list``.

    Attributes
    ----------
    finished, trials : int
        How many trials are finished, and how many there are.
    value : float or None
        Of the winner, or of the best so far.
    """

    study: str
    dataset: str | None
    finished: int
    trials: int
    value: float | None
    state: str

    @classmethod
    def of(cls, study: StudyStatus) -> "ListedStudy":
        """List a study."""
        best = study.chosen or study.best
        value = None if best is None else best[1]
        return cls(study.name, study.dataset, study.finished, study.n_trials, value, study.state)


@dataclass(frozen=True)
class BestTrial(Document):
    """A trial and its value: the mean over folds of the validation MSE per pixel."""

    number: int
    value: float | None
    standard_error: float | None
    params: Params


@dataclass(frozen=True)
class ShownStudy(Summary):
    """``aesearch show``."""

    best_trials: list[BestTrial]

    @classmethod
    def of(cls, summary: Summary, best: Sequence[TrialRecord]) -> "ShownStudy":
        """Show a study with its best trials."""
        rows = [BestTrial(t.number, t.value, t.standard_error, t.params) for t in best]
        return cls(**vars(summary), best_trials=rows)


@dataclass(frozen=True)
class NumberAndValue(Document):
    """A trial by its number, and its value."""

    number: int
    value: float


@dataclass(frozen=True)
class StudyState(Document):
    """One study of ``aesearch status``; durations are seconds.

    Attributes
    ----------
    created : str
        Date and time in ISO 8601, UTC.
    finished : int
        How many trials are finished.
    best : NumberAndValue or None
        The stable complete trial with the lowest value.
    chosen : int or None
        Number of the winner.
    open_work : dict
        Units of work that are not done: of kind search, retrain, evaluate.
    trials_per_hour : float or None
        Of the last hour.
    seconds_left : float or None
        Until the search is over, at that rate.
    """

    study: str
    state: str
    dataset: str | None
    device: str
    created: str
    n_trials: int
    finished: int
    trials: TrialCounts
    best: NumberAndValue | None
    chosen: int | None
    open_work: dict[str, int]
    trials_per_hour: float | None
    seconds_left: float | None
    workers: list[WorkerStatus]

    @classmethod
    def of(cls, study: StudyStatus) -> "StudyState":
        """Tell how far a study is."""
        created = dt.datetime.fromtimestamp(study.created, dt.UTC)
        return cls(
            study=study.name,
            state=study.state,
            dataset=study.dataset,
            device=study.device,
            created=created.isoformat(timespec="seconds"),
            n_trials=study.n_trials,
            finished=study.finished,
            trials=study.trials,
            best=None if study.best is None else NumberAndValue(*study.best),
            chosen=None if study.chosen is None else study.chosen[0],
            open_work=study.open_work,
            trials_per_hour=study.trials_per_hour,
            seconds_left=study.seconds_left,
            workers=list(study.workers),
        )


@dataclass(frozen=True)
class StudyStates(Document):
    """``aesearch status``."""

    studies: list[StudyState]


@dataclass(frozen=True)
class EvaluatedModel(Evaluation):
    """``aesearch evaluate``.

    Attributes
    ----------
    test_looks : int
        How many times the test set was looked at, this one included.
    saved : bool
        Whether the store holds this evaluation now.
    files : list of str
        What was written to the folder of ``--out``.
    """

    test_looks: int
    saved: bool
    files: list[str]


@dataclass(frozen=True)
class TrainedFiles(Document):
    """Paths of what was trained."""

    best: str
    model: str


@dataclass(frozen=True)
class TrainedModel(Document):
    """``aesearch train``."""

    result: Result
    files: TrainedFiles

    def to_dict(self) -> dict[str, Any]:
        """Give it in plain values."""
        return {"result": self.result.to_dict(), "files": self.files.to_dict()}


@dataclass(frozen=True)
class CheckedImages(Document):
    """``aesearch data check``.

    Attributes
    ----------
    read : str
        One line: what was read, and what was left out.
    image_shape : list of int
        Channel, height, width.
    classes : dict
        Images of each class, by its name or number.
    n_groups : int or None
        Groups that are never divided.
    n_test : int or None
        Images of a test set of its own.
    has_noisy : bool
        Whether each image has a noisy one beside it.
    notes : list of str
        What was left out, and what was decided in reading.
    fingerprint : str
        The sha256 of all images and labels.
    sheet : str
        Where some of them are drawn.
    """

    dataset: str
    read: str
    n_images: int
    image_shape: list[int]
    classes: dict[str, int]
    n_groups: int | None
    n_test: int | None
    has_noisy: bool
    notes: list[str]
    fingerprint: str
    sheet: str


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema of what each command prints, by the name of the command."""
    types: dict[str, Any] = {
        "data check": CheckedImages,
        "evaluate": EvaluatedModel,
        "list": list[ListedStudy],
        "run": FinishedStudy | FinishedSeries,
        "run --detach": DetachedStudy | DetachedSeries,
        "show": ShownStudy,
        "status": StudyStates,
        "train": TrainedModel,
        "verify": Comparison,
    }
    named, definitions = TypeAdapter.json_schemas(
        [(name, "serialization", TypeAdapter(of_command)) for name, of_command in types.items()]
    )
    for name, definition in definitions["$defs"].items():
        # What a class inherits is described where it is declared.
        parents = getattr(globals().get(name), "__mro__", ())
        inherited = [inspect.getdoc(each) for each in reversed(parents) if is_dataclass(each)]
        for docstring in (*inherited, definition["description"]):
            _describe(definition, docstring or "")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What aesearch prints with --json",
        "description": "An object with the name of a command and what it prints.",
        "type": "object",
        "properties": {name: schema for (name, _), schema in named.items()},
        "additionalProperties": False,
        **definitions,
    }


def _describe(definition: dict[str, Any], docstring: str) -> None:
    """Give a type its summary, and each property what a docstring says of it."""
    summary, _, attributes = docstring.partition("\n\nAttributes\n")
    definition["description"] = " ".join(summary.split())
    names: list[str] = []
    for line in attributes.splitlines()[1:]:
        if not line.startswith(" "):
            names = line.partition(" : ")[0].split(", ")
            continue
        for name in names:
            described = definition["properties"][name]
            told = described.get("description", "")
            if line.strip() not in told:
                described["description"] = f"{told} {line.strip()}".strip()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
