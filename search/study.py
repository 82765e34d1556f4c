"""A study in a store, as Python has it: what the commands show, write and measure, without them."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from aesearch.artifacts.run_folder import write_run_folder
from aesearch.options import storage_or_default
from aesearch.outputs import ShownStudy
from aesearch.studies.errors import StudyNotFoundError
from aesearch.studies.report.stored import report_of
from aesearch.studies.results import frames
from aesearch.studies.results.output_files import (
    OutputError,
    default_folder,
    make_folder,
    write_whole,
)
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.results.summary import Summary, summary
from aesearch.studies.results.summary_text import summary_text
from aesearch.studies.store.contents import StudyContents, read_contents
from aesearch.studies.store.status import StudyStatus, statuses
from aesearch.studies.store.study_rows import existing_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from aesearch.evaluation.looks import Look
    from aesearch.models.autoencoder import Autoencoder
    from aesearch.studies.results.evaluation import Evaluation
    from aesearch.studies.results.records import ForeignTrial, TrialRecord
    from aesearch.studies.spec.sections import Objective
    from aesearch.studies.spec.study import StudySpec

_SHOWN = 5


def open_study(name: str | None = None, storage: str | Path | None = None) -> Study:
    """Open a study, finished or not; it is read in one transaction.

    Parameters
    ----------
    name : str, optional
        None for the only study of the store.
    storage : str or path, optional
        Database URL or SQLite file; None for ``AESEARCH_STORAGE``, or ``aesearch.db`` in the
        current folder.

    Raises
    ------
    StoreError
        There is no such store, or it is not ours.
    StudyNotFoundError
        There is no study of that name, or no name was given and there is not exactly one; those
        that there are are listed.

    Examples
    --------
    >>> study = aesearch.open_study("mnist")                    # doctest: +SKIP
    >>> study.trials().nsmallest(5, "value")                    # doctest: +SKIP
    >>> codes = study.model().encode(batch)                     # doctest: +SKIP
    """
    where = storage_or_default(storage)
    with existing_store(where) as engine:
        if name is None:
            found = [status.name for status in statuses(engine)]
            if len(found) != 1:
                listed = ", ".join(map(repr, found[:8])) or "none"
                raise StudyNotFoundError(
                    f"name must be given where there is not exactly one study, got none; "
                    f"there: {listed}"
                )
            name = found[0]
        contents = read_contents(engine, name)
    if "://" not in where:  # a notebook may change its folder later
        where = str(Path(where).expanduser().absolute())
    return Study(contents, where)


class Study:
    """A study as it was when it was opened; ``open_study`` makes one.

    Trials, summary and best are of that moment. Curves, files and the model are read from the
    store when they are asked for, each in one transaction. In a notebook it shows itself.

    Attributes
    ----------
    storage : str
        Database URL or SQLite file that it was read from.
    """

    def __init__(self, contents: StudyContents, storage: str) -> None:
        self._contents, self.storage = contents, storage

    @property
    def name(self) -> str:
        """The name that it has in its store."""
        return self._contents.row.name

    @property
    def spec(self) -> StudySpec:
        """Its specification; nothing in it is ``auto``."""
        return self._contents.spec

    @property
    def evaluation(self) -> Evaluation | None:
        """What the retrained model reached on the test set; None before that."""
        return self._contents.evaluation

    @property
    def best(self) -> TrialRecord | None:
        """The winner; before the choice the best trial so far; None where there is none."""
        snapshot = self._contents.snapshot
        if snapshot.chosen is not None:
            return snapshot.trials[snapshot.chosen]
        return next(iter(self.best_trials(1)), None)

    def best_trials(self, n: int = 10) -> list[TrialRecord]:
        """Give the ``n`` complete, stable trials with the lowest scores, the best first."""
        return eligible_trials(self._contents.snapshot.trials)[: max(n, 0)]

    def trials(self) -> pd.DataFrame:
        """One row per trial; the columns are those of ``aesearch.frames.trials``."""
        return frames.trials(self._contents.snapshot)

    def scores(self) -> pd.DataFrame:
        """One row per fold of each complete trial; see ``aesearch.frames.scores``."""
        return frames.scores(self._contents.snapshot)

    def front(self, objectives: Sequence[Objective] | None = None) -> pd.DataFrame:
        """One row per trial of the Pareto front, the smallest first.

        Parameters
        ----------
        objectives : sequence of str, optional
            ``mse`` and ``encoding_dim``, ``n_parameters`` or both; None for those of the study,
            and for mse and encoding_dim where it has no other than mse.

        Returns
        -------
        DataFrame
            ``number`` : int64.
            ``mse`` : float64; mean over folds, MSE per pixel.
            ``encoding_dim``, ``n_parameters`` : int64; size of the code, weights and biases.
            ``knee`` : bool; where the front bends most, which is at one trial or none.

        Raises
        ------
        SpecError
            Objectives that no study could have.
        """
        return frames.front(self._contents.snapshot, objectives)

    def curves(self) -> pd.DataFrame:
        """One row per trial, fold and epoch; see ``aesearch.frames.curves``."""
        return frames.curves(self._drawn().curves)

    def summary(self) -> Summary:
        """What was found; ``to_dict()`` gives it in plain values."""
        return summary(self._contents.snapshot, self._contents.evaluation)

    def printed(self, n: int = 10) -> ShownStudy:
        """Give what ``aesearch show --json`` prints: the summary, and the ``n`` best trials."""
        return ShownStudy.of(self.summary(), self.best_trials(n))

    def status(self) -> StudyStatus:
        """How far it is now, and who works on it."""
        with existing_store(self.storage) as engine:
            return statuses(engine, self.name)[0]

    def model(self) -> Autoencoder:
        """Give the retrained winner, on the CPU, in evaluation mode.

        Raises
        ------
        RunFailedError
            It has not been retrained and tested yet.
        """
        from aesearch.evaluation import looks  # noqa: PLC0415 - imports torch

        with existing_store(self.storage) as engine:
            contents = read_contents(engine, self.name, weights=True)
        return looks.stored_model(contents)

    def evaluate(
        self,
        *,
        noise: Mapping[str, float | Sequence[float]] | None = None,
        bootstrap: int | None = None,
        save: bool = False,
        dataset: str | Path | None = None,
        data_dir: str | Path | None = None,
        test: str | Path | None = None,
        labels: str | Path | None = None,
        groups: str | Path | None = None,
        noisy: str | Path | None = None,
        noisy_test: str | Path | None = None,
    ) -> Look:
        """Measure the retrained model on the test set once more; the store counts the look.

        Parameters
        ----------
        noise : mapping of str to float or sequence of float, optional
            Levels of ``gaussian``, ``uniform``, ``salt-and-pepper``, ``occlusion`` at which the
            images are corrupted; None for what the specification says.
        bootstrap : int, optional
            Resamples behind every interval; None for what the specification says.
        save : bool
            Keep this evaluation in the store, in the place of the one that is there.
        dataset, data_dir, test, labels, groups, noisy, noisy_test : optional
            Where the same images, and what lies beside them, are now; None for what the
            specification says. Others are refused.

        Raises
        ------
        RunFailedError
            It has not been retrained and tested yet.
        StudyMismatchError
            Other images.
        """
        from aesearch.evaluation import looks  # noqa: PLC0415 - imports torch

        changes = looks.changes_of(
            noise,
            bootstrap=bootstrap,
            dataset=dataset,
            data_dir=data_dir,
            test=test,
            labels=labels,
            groups=groups,
            noisy=noisy,
            noisy_test=noisy_test,
        )
        with existing_store(self.storage) as engine:
            return looks.evaluate_study(engine, self.name, changes, save=save)

    def report(self, path: str | Path | None = None) -> Path:
        """Write one self-contained HTML page: figures, tables, pictures.

        Parameters
        ----------
        path : path, optional
            File to write; one that is there is replaced. None for ``runs/<study>/report.html``.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        file = default_folder(self.name) / "report.html" if path is None else Path(path)
        if file.is_dir():
            raise OutputError(
                f"out must be a file, got the folder {str(file)!r}; "
                f"name {str(file / 'report.html')!r} for one in it"
            )
        make_folder(file.parent)
        write_whole(file, report_of(self._drawn()))
        return file

    def export(self, folder: str | Path | None = None) -> Path:
        """Write the run folder again: ``best.yaml``, model, tables, pictures.

        Parameters
        ----------
        folder : path, optional
            None for ``runs/<study>``.

        Raises
        ------
        RunFailedError
            Nothing was retrained yet; the tables are written all the same.
        OutputError
            A file cannot be written, or the folder holds the model of another study.
        """
        where = default_folder(self.name) if folder is None else Path(folder)
        with existing_store(self.storage) as engine:
            write_run_folder(engine, self.name, where)
        return where

    def __repr__(self) -> str:
        lines = [summary_text(self.summary())]
        if self._contents.row.stopped is not None:
            lines.append(f"The search ended early: {self._contents.row.stopped}")
        lines += _foreign_lines(self._contents.snapshot.foreign)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        numbers = [trial.number for trial in self.best_trials(_SHOWN)]
        shown = ["number", "value", "standard_error", *self.spec.space.dimensions()]
        best = self.trials().set_index("number", drop=False).loc[numbers]
        table = best.reindex(columns=shown).to_html(index=False, border=0) if numbers else ""
        return f"<pre>{escape(repr(self))}</pre>{table}{self._picture()}"

    def _picture(self) -> str:
        """Show reconstructions of test images, where there are any."""
        with existing_store(self.storage) as engine:
            contents = read_contents(engine, self.name, pictures=True)
        pictures = [p for p in contents.pictures if p.name.startswith("reconstructions")]
        if not pictures:
            return ""
        picture = pictures[0]
        data = base64.b64encode(picture.png).decode()
        return f'<img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}">'

    def _drawn(self) -> StudyContents:
        """Read the study with all that figures show, as it is now."""
        with existing_store(self.storage) as engine:
            return read_contents(engine, self.name, curves=True, pictures=True)


def _foreign_lines(foreign: Sequence[ForeignTrial]) -> list[str]:
    """Say what other programs added to the study, which counts for nothing."""
    enqueued = [trial for trial in foreign if trial.state == "waiting"]
    others = [trial for trial in foreign if trial.state != "waiting"]
    lines = []
    if enqueued:
        lines.append(f"Enqueued: {len(enqueued)}; they are the next trials that are asked for")
    if others:
        shown = ", ".join(f"{t.number} ({t.state})" for t in others[:_SHOWN])
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        lines.append(f"Of other programs, never chosen: trial {shown}{more}")
    return lines
