"""A study as runs of an experiment tracker, whichever: one for each finished trial, one delivered.

What a run is called goes by what is in it, so that the same run written twice is one.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from aesearch.options import OptionError
from aesearch.studies.errors import AesearchError, RunFailedError
from aesearch.study import Study, open_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import aesearch
    from aesearch.studies.results.records import TrialRecord
    from aesearch.studies.spec.dimensions import Params

_FILES = ("best.yaml", "model.safetensors", "evaluation.json", "report.html")
_LOSSES = ("train_loss", "validation_loss")
_FINISHED = ("complete", "pruned", "failed")


class TrackerError(AesearchError, RuntimeError):
    """A tracker that is not installed, or did not take what was written to it."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is given of one trial, or of the delivered model.

    Attributes
    ----------
    kind : {"trial", "delivered"}
    params : dict
        What was searched, as it has it.
    metrics : dict of name to float
        Finite ones only.
    curves : list of (epoch, dict of name to float)
        Losses of each fold, by epoch, from 1.
    labels : dict of name to str
        Its state, and why it ended so.
    files : list of Path
    """

    study: str
    name: str
    kind: str
    params: Params
    metrics: dict[str, float]
    curves: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    @property
    def identity(self) -> str:
        """Hash of what makes it this run: equal for a run that is written again."""
        hashes = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.files
            if path.suffix == ".safetensors"
        }
        scores = {name: value for name, value in self.metrics.items() if name.startswith("score/")}
        text = json.dumps([self.study, self.name, self.params, scores, hashes], default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Tracked:
    """What ``log_study`` did.

    Attributes
    ----------
    project : str
        Where the runs are: the experiment of MLflow, the project of Weights & Biases.
    written, there : int
        Runs that were written, and those that were there before.
    """

    project: str
    written: int
    there: int


class Tracker(Protocol):
    """Where runs are written to."""

    def write(self, run: TrackedRun) -> bool:
        """Write a run; says whether it was new."""


def log_study(tracker: Callable[[str], Tracker], study: Study, project: str | None) -> Tracked:
    """Write all finished trials of a study, and its delivered model where there is one."""
    project = project or study.name
    target = tracker(project)
    new = [target.write(run) for run in trial_runs(study)]
    with tempfile.TemporaryDirectory() as folder:
        delivered = _delivered_run(study, Path(folder))
        if delivered is not None:
            new.append(target.write(delivered))
    return Tracked(project, new.count(True), new.count(False))


def opened(study: str | Study | aesearch.SearchResult, storage: str | None) -> Study:
    """Give the study that is meant, as it is in its store.

    Raises
    ------
    OptionError
        A store beside what has its own.
    """
    if isinstance(study, str):
        return open_study(study, storage)
    if storage is not None:
        raise OptionError(f"storage must be given beside a name only, got {storage!r}")
    return study if isinstance(study, Study) else study.study


def teller(
    tracker: Callable[[str], Tracker], study: str, storage: str | None, project: str | None
) -> Callable[[TrialRecord], None]:
    """Make an ``on_trial`` that writes each trial as it ends."""
    targets: list[Tracker] = []

    def tell(trial: TrialRecord) -> None:
        found = open_study(study, storage)
        if not targets:
            targets.append(tracker(project or found.name))
        for run in trial_runs(found, only=trial.number):
            targets[0].write(run)

    return tell


def trial_runs(study: Study, *, only: int | None = None) -> Iterator[TrackedRun]:
    """Give each finished trial of a study, with the curves and scores of its folds."""
    trials = study.trials()
    of_trial = dict(iter(study.curves().groupby("number")))
    searched = list(study.spec.space.dimensions())
    scores = [name for name in trials.columns if name.startswith("fold_")]
    for row in trials.to_dict("records"):
        if row["state"] not in _FINISHED or only not in (None, row["number"]):
            continue
        metrics = {"value": row["value"], "standard_error": row["standard_error"]}
        metrics |= {f"score/{name}": row[name] for name in scores} | {"epochs": row["epochs"]}
        labels = {name: row[name] for name in ("state", "unstable", "reason")}
        yield TrackedRun(
            study=study.name,
            name=f"trial {row['number']}",
            kind="trial",
            params={name: _plain(row[name]) for name in searched if pd.notna(row.get(name))},
            metrics=_finite(metrics),
            curves=_by_epoch(of_trial.get(row["number"])),
            labels={name: str(value) for name, value in labels.items() if pd.notna(value)},
        )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value  # of NumPy's types


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in metrics.items()
        if pd.notna(value) and math.isfinite(value)
    }


def _by_epoch(rows: pd.DataFrame | None) -> list[tuple[int, dict[str, float]]]:
    found: dict[int, dict[str, float]] = {}
    for row in [] if rows is None else rows.to_dict("records"):
        losses = {f"{name}/fold_{row['fold']}": row[name] for name in _LOSSES}
        found.setdefault(row["epoch"], {}).update(_finite(losses))
    return sorted(found.items())


def _delivered_run(study: Study, folder: Path) -> TrackedRun | None:
    """Give the retrained winner with its files, which are written to a folder; None before that."""
    try:
        study.export(folder)
    except RunFailedError:
        return None
    best, evaluation = study.best, study.evaluation
    assert best is not None, "only a winner is retrained"
    metrics: dict[str, float] = {}
    if evaluation is not None:
        reached = evaluation.metrics.overall.to_dict()
        for name, interval in reached.items():
            if isinstance(interval, dict):
                metrics |= {f"test/{name}": interval["mean"]}
        metrics["test/pca_mse"] = evaluation.pca.mse
    if best.value is not None:
        metrics["value"] = best.value
    return TrackedRun(
        study=study.name,
        name="delivered",
        kind="delivered",
        params=dict(best.params) | {"trial": best.number},
        metrics=_finite(metrics),
        files=[folder / name for name in _FILES if (folder / name).exists()],
    )
