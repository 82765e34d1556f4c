"""What a store holds of the studies that reproduce a report: curves, trials, networks, images."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy.engine import Engine

from aesearch import model_file
from aesearch.models.autoencoder import Autoencoder
from aesearch.problem import Problem, check_same_data, load_problem
from aesearch.reproduction.reported import Measure
from aesearch.studies import retrain_results, store
from aesearch.studies.dashboard.drawing import draw_curves
from aesearch.studies.dashboard.finished import CurvePoint
from aesearch.studies.errors import AesearchError
from aesearch.studies.evaluation_results import read_evaluation, read_pictures
from aesearch.studies.records import Picture, TrialRecord

if TYPE_CHECKING:
    from aesearch.studies.spec import StudySpec

QUICK = "-quick"


class NotMeasuredError(AesearchError, LookupError):
    """A measurement on a study that is not in the store, or not finished."""


class Evidence:
    """One finished study, read once; the images are loaded when they are first asked for.

    Parameters
    ----------
    engine : Engine
    name : str
    data_dir : str or None
        Where the images are now; None for where they were.

    Raises
    ------
    NotMeasuredError
        The study is not finished.
    """

    def __init__(self, engine: Engine, name: str, data_dir: str | None) -> None:
        self.name = name
        self._data_dir = data_dir
        self._study = store.find_study(engine, name)
        self.snapshot = store.snapshot(engine, name)
        rows = retrain_results.retrained(engine, self._study) if self._study.retrain_key else []
        if not rows or any(row.test_mse is None for row in rows):
            raise NotMeasuredError(f"study {name!r} must be finished, got one that is not")
        self.spec: StudySpec = store.stored_spec(self._study)
        self.test_mse = np.array([row.test_mse for row in rows])
        self._weights = [row.weights for row in rows]
        self._curves = store.curves(engine, self._study)
        self._retrain_curves = retrain_results.retrain_curves(engine, self._study)
        self.evaluation = read_evaluation(engine, self._study)
        self._pictures = {each.name: each for each in read_pictures(engine, self._study)}

    @property
    def is_quick(self) -> bool:
        """Whether this is the small version, whose numbers mean nothing."""
        return self.name.endswith(QUICK)

    @property
    def facts(self) -> dict[str, Any]:
        """Data set, sizes, versions."""
        return self._study.facts

    @property
    def made_with(self) -> str:
        """Versions, device and precision."""
        versions = ", ".join(f"{name} {number}" for name, number in self.facts["versions"].items())
        return f"{versions}; {self.spec.compute.device}, {self.spec.compute.precision}"

    @cached_property
    def models(self) -> list[Autoencoder]:
        """The retrained networks, one per seed."""
        return [model_file.from_bytes(weights) for weights in self._weights]

    @cached_property
    def problem(self) -> Problem:
        """The images, checked to be those of the study."""
        data = self.spec.data
        if self._data_dir is not None:
            data = data.model_copy(update={"data_dir": self._data_dir})
        spec = self.spec.model_copy(update={"data": data})
        problem = load_problem(spec, device="cpu")
        check_same_data(problem, self.facts, self.name)
        return problem

    def trials(self, params: dict[str, Any]) -> list[TrialRecord]:
        """Trials with these parameters; the winner for none."""
        if not params:
            assert self.snapshot.chosen is not None, "a finished study has a winner"
            return [self.snapshot.trials[self.snapshot.chosen]]
        return [
            trial
            for trial in self.snapshot.trials
            if all(trial.params.get(name) == value for name, value in params.items())
        ]

    def trial(self, params: dict[str, Any]) -> TrialRecord:
        """Give the one trial with these parameters.

        Raises
        ------
        NotMeasuredError
            There are none, or several.
        """
        found = self.trials(params)
        if len(found) != 1:
            raise NotMeasuredError(
                f"trial must be one of study {self.name!r}, got {len(found)} with {params!r}"
            )
        return found[0]

    def fold_curves(self, trial: TrialRecord) -> np.ndarray:
        """Losses of a trial: (train or validation, fold, epoch); NaN where there are none."""
        losses = np.full((2, self.spec.search.folds, self.spec.training.epochs), np.nan)
        for number, fold, epoch, train, validation in self._curves:
            if number == trial.number:
                losses[:, fold, epoch - 1] = train, validation
        return losses

    @cached_property
    def seed_curves(self) -> np.ndarray:
        """Curves of the retraining: (curve, seed, epoch); NaN after their end.

        The curves are the training loss, the held-out loss and the held-out binary accuracy.
        """
        n_epochs = max(point.epoch for point in self._retrain_curves)
        curves = np.full((3, len(self.test_mse), n_epochs), np.nan)
        for seed, epoch, *values in self._retrain_curves:
            curves[:, seed, epoch - 1] = values
        return curves

    def picture(self, name: str) -> Picture:
        """Give a picture of the evaluation, or the winner's ``curves``.

        Raises
        ------
        NotMeasuredError
            The evaluation has no such picture.
        """
        if name == "curves":
            winner = self.trial({})
            points = [
                CurvePoint(fold, epoch, train, validation)
                for number, fold, epoch, train, validation in self._curves
                if number == winner.number
            ]
            drawn = draw_curves(points, f"{self.name}: MSE per pixel by epoch")
            return Picture(name, "Losses of the winner in the cross-validation.", drawn)
        if name not in self._pictures:
            raise NotMeasuredError(
                f"picture must be one of {sorted(self._pictures)} of study {self.name!r}, "
                f"got {name!r}"
            )
        return self._pictures[name]

    def position(self, measure: Measure, n_epochs: int) -> int:
        """Give the place of a measure's epoch in curves of so many epochs."""
        if measure.epoch is None:
            return n_epochs - 1
        if measure.epoch > n_epochs and not self.is_quick:
            raise NotMeasuredError(
                f"epoch must be <= {n_epochs} in study {self.name!r}, got {measure.epoch}"
            )
        return min(measure.epoch, n_epochs) - 1


class Evidences:
    """The studies of a store by the names that ``reported.yaml`` gives them.

    Parameters
    ----------
    engine : Engine
    data_dir : Path or None
        Where the images are now; None for where they were.
    quick : bool
        Take the small version of each study.

    Attributes
    ----------
    quick : bool
    """

    def __init__(self, engine: Engine, *, data_dir: Path | None, quick: bool) -> None:
        self._engine = engine
        self._data_dir = None if data_dir is None else str(data_dir)
        self.quick = quick
        self._names = set(store.study_names(engine))
        self._found: dict[str, Evidence] = {}

    def of(self, name: str) -> Evidence:
        """Give a study.

        Raises
        ------
        NotMeasuredError
            It is not there, or not finished.
        """
        full = name + QUICK if self.quick else name
        if full not in self._names:
            raise NotMeasuredError(f"study {full!r} must be in the store, got a store without it")
        if full not in self._found:
            self._found[full] = Evidence(self._engine, full, self._data_dir)
        return self._found[full]

    @property
    def made_with(self) -> list[str]:
        """With what the studies that were read so far were trained: versions, device, types."""
        return sorted({found.made_with for found in self._found.values()})
