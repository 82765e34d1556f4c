"""A study in MLflow: a run for each trial with its folds, and one for the delivered model.

Where it is written is MLflow's affair: ``MLFLOW_TRACKING_URI``, or ``tracking_uri`` here.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from aesearch.trackers import runs
from aesearch.trackers.runs import Tracked, TrackedRun, TrackerError

if TYPE_CHECKING:
    from collections.abc import Callable

    import aesearch
    from aesearch.studies.results.records import TrialRecord
    from aesearch.study import Study

_IDENTITY = "aesearch.run"  # a tag: which run of which study it is
_AT_ONCE = 1000  # metrics that MLflow takes in one request


def log_study(
    study: str | Study | aesearch.SearchResult,
    *,
    storage: str | None = None,
    project: str | None = None,
    tracking_uri: str | None = None,
) -> Tracked:
    """Write the finished trials of a study to MLflow, and its delivered model where there is one.

    A run has a tag that goes by study, trial, parameters and scores: one that is there is not
    written again. One that was interrupted is deleted and written anew, so one process at a time
    should write a study.

    Parameters
    ----------
    study : str, Study or SearchResult
        Its name, or what ``aesearch.open_study`` or ``aesearch.search`` returned.
    storage : str, optional
        Its store, beside a name; as for ``aesearch.open_study``.
    project : str, optional
        The experiment; None for the name of the study.
    tracking_uri : str, optional
        None for what MLflow is set to.

    Raises
    ------
    TrackerError
        MLflow is not installed, or does not answer.
    StoreError, StudyNotFoundError
    """
    found = runs.opened(study, storage)
    return runs.log_study(partial(_Experiment, tracking_uri), found, project)


def on_trial(
    study: str,
    *,
    storage: str | None = None,
    project: str | None = None,
    tracking_uri: str | None = None,
) -> Callable[[TrialRecord], None]:
    """Make what ``aesearch.search(on_trial=...)`` calls: each trial is in MLflow as it ends.

    It reads the study at each trial; ``log_study`` afterwards adds the delivered model, and trials
    that ended while nobody told.

    Parameters
    ----------
    study, storage, project, tracking_uri
        As for ``log_study``; the study is named as ``search`` is told.
    """
    return runs.teller(partial(_Experiment, tracking_uri), study, storage, project)


def _library() -> Any:
    try:
        import mlflow  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise TrackerError(
            f"MLflow must be installed to write to it, got none ({error}); run "
            "pip install 'aesearch[mlflow]'"
        ) from None
    return mlflow


class _Experiment:
    """An experiment of MLflow that runs are written to; no run of the user's own is touched."""

    def __init__(self, tracking_uri: str | None, name: str) -> None:
        self._mlflow = _library()
        self._refused = self._mlflow.exceptions.MlflowException
        try:
            self._client = self._mlflow.MlflowClient(tracking_uri=tracking_uri)
            experiment = self._client.get_experiment_by_name(name)
            self._id = (
                self._client.create_experiment(name)
                if experiment is None
                else experiment.experiment_id
            )
        except self._refused as error:
            raise _explained(error) from error

    def write(self, run: TrackedRun) -> bool:
        try:
            for there in self._client.search_runs(
                [self._id], filter_string=f"tags.`{_IDENTITY}` = '{run.identity}'"
            ):
                if there.info.status != "RUNNING":
                    return False
                self._client.delete_run(there.info.run_id)
            self._write(run)
        except self._refused as error:
            raise _explained(error) from error
        return True

    def _write(self, run: TrackedRun) -> None:
        entities, now = self._mlflow.entities, round(1000 * time.time())
        labels = {f"aesearch.{name}": text[:5000] for name, text in run.labels.items()}
        tags = {_IDENTITY: run.identity, "aesearch.study": run.study, "aesearch.kind": run.kind}
        name = f"{run.study} {run.name}"
        run_id = self._client.create_run(self._id, tags=tags | labels, run_name=name).info.run_id
        params = [entities.Param(name, str(value)) for name, value in run.params.items()]
        self._client.log_batch(run_id, params=params)
        metrics = [entities.Metric(name, value, now, 0) for name, value in run.metrics.items()]
        metrics += [
            entities.Metric(name, value, now, epoch)
            for epoch, losses in run.curves
            for name, value in losses.items()
        ]
        for start in range(0, len(metrics), _AT_ONCE):
            self._client.log_batch(run_id, metrics=metrics[start : start + _AT_ONCE])
        for file in run.files:
            self._client.log_artifact(run_id, str(file))
        failed = run.labels.get("state") == "failed"
        self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED")


def _explained(error: Exception) -> TrackerError:
    said = (str(error).strip().splitlines() or ["no reason given"])[0]
    said = re.sub(r"//[^/\s@]*@", "//***@", said)  # a URL may hold a password
    return TrackerError(f"MLflow must take what is written to it, got: {said}")
