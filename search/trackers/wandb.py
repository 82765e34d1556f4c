"""A study in Weights & Biases: a run for each trial with its folds, and one for what is delivered.

Where it is written is W&B's affair: ``WANDB_MODE``, ``WANDB_DIR``, ``WANDB_ENTITY``.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aesearch.trackers import runs
from aesearch.trackers.runs import Tracked, TrackedRun, TrackerError

if TYPE_CHECKING:
    from collections.abc import Callable

    import aesearch
    from aesearch.studies.results.records import TrialRecord
    from aesearch.study import Study

_DONE = "aesearch-whole"  # in the folder of a run that was written to its end


def log_study(
    study: str | Study | aesearch.SearchResult,
    *,
    storage: str | None = None,
    project: str | None = None,
    folder: str | Path | None = None,
    mode: str | None = None,
) -> Tracked:
    """Write the finished trials of a study to W&B, and its delivered model where there is one.

    The id of a run goes by study, trial, parameters and scores. One whose folder is here and whole
    is not written again; one that the server has already is left as it is; and what two machines
    wrote offline is one run once it is synchronised.

    Parameters
    ----------
    study : str, Study or SearchResult
        Its name, or what ``aesearch.open_study`` or ``aesearch.search`` returned.
    storage : str, optional
        Its store, beside a name; as for ``aesearch.open_study``.
    project : str, optional
        None for the name of the study. Its runs are a group of that name.
    folder : path, optional
        Where W&B makes its folder ``wandb``; None for ``WANDB_DIR``, or the current one.
    mode : {"online", "offline"}, optional
        None for ``WANDB_MODE``.

    Raises
    ------
    TrackerError
        W&B is not installed, or does not answer.
    StoreError, StudyNotFoundError
    """
    found = runs.opened(study, storage)
    return runs.log_study(partial(_Project, folder, mode), found, project)


def on_trial(
    study: str,
    *,
    storage: str | None = None,
    project: str | None = None,
    folder: str | Path | None = None,
    mode: str | None = None,
) -> Callable[[TrialRecord], None]:
    """Make what ``aesearch.search(on_trial=...)`` calls: each trial is in W&B as it ends.

    It reads the study at each trial; ``log_study`` afterwards adds the delivered model, and trials
    that ended while nobody told.

    Parameters
    ----------
    study, storage, project, folder, mode
        As for ``log_study``; the study is named as ``search`` is told.
    """
    return runs.teller(partial(_Project, folder, mode), study, storage, project)


def _library() -> Any:
    try:
        import wandb  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise TrackerError(
            f"W&B must be installed to write to it, got none ({error}); run "
            "pip install 'aesearch[wandb]'"
        ) from None
    return wandb


class _Project:
    """A project of W&B that runs are written to; no run of the user's own is touched."""

    def __init__(self, folder: str | Path | None, mode: str | None, name: str) -> None:
        self._wandb = _library()
        self._folder = Path(folder or os.environ.get("WANDB_DIR") or ".").expanduser()
        self._mode, self._name = mode, name

    def write(self, run: TrackedRun) -> bool:
        name = f"{self._name} {run.identity}"  # W&B's ids are of a project, its folders are not
        run_id = hashlib.sha256(name.encode()).hexdigest()[:16]
        if any(self._folder.glob(f"*wandb/*run-*-{run_id}/{_DONE}")):
            return False
        try:
            return self._write(run, run_id)
        except (self._wandb.Error, OSError) as error:
            said = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise TrackerError(
                f"W&B must take what is written to it, got: {said}; WANDB_MODE=offline needs no "
                "server"
            ) from error

    def _write(self, run: TrackedRun, run_id: str) -> bool:
        target = self._wandb.init(
            project=self._name,
            id=run_id,
            name=run.name,
            group=run.study,
            job_type=run.kind,
            config={**run.params, **run.labels},
            dir=self._folder,
            mode=self._mode,
            resume="allow",
            reinit="create_new",
            settings=self._wandb.Settings(silent=True, console="off"),
        )
        new = not target.resumed
        if new:
            for epoch, losses in run.curves:
                target.log(losses, step=epoch)
            target.summary.update(run.metrics)
            if run.files:
                name = re.sub(r"[^\w.-]+", "-", run.study)
                artifact = self._wandb.Artifact(f"{name}-delivered", type="model")
                for file in run.files:
                    artifact.add_file(str(file))
                target.log_artifact(artifact)
        whole = Path(target.dir).parent / _DONE
        target.finish()
        whole.touch()
        return new
