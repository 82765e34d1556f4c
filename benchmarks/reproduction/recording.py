"""The record of a finished study, made from its store: curves, trials, networks, images."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy.engine import Engine

from aesearch.artifacts import model_file
from aesearch.data.study_data import Problem, check_same_data, load_problem
from aesearch.models.autoencoder import Autoencoder
from aesearch.studies.dashboard.drawing import draw_curves
from aesearch.studies.dashboard.finished import CurvePoint
from aesearch.studies.results.evaluation import Evaluation
from aesearch.studies.results.records import Picture, TrialRecord
from aesearch.studies.store import retrain_results, study_rows
from aesearch.studies.store.contents import read_contents
from reproduction.evidence import NotMeasuredError
from reproduction.networks import NETWORK_MEASURES, measure_networks
from reproduction.record import (
    Evaluated,
    RecordedMeasure,
    RecordedPicture,
    RecordedSeed,
    RecordedTrial,
    StudyRecord,
    numbers,
)
from reproduction.reported import Measure

if TYPE_CHECKING:
    from aesearch.studies.spec.study import StudySpec

CURVES = "curves"


class StoredStudy:
    """One finished study in a store; the images are loaded when they are first asked for.

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
        self._engine = engine
        self._data_dir = data_dir
        self._study = study_rows.find_study(engine, name)
        rows = retrain_results.retrained(engine, self._study) if self._study.retrain_key else []
        if not rows or any(row.test_mse is None for row in rows):
            raise NotMeasuredError(f"study {name!r} must be finished, got one that is not")
        self.spec: StudySpec = study_rows.stored_spec(self._study)
        self.seed = self.spec.seed
        self.facts: dict[str, Any] = self._study.facts
        self.test_mse = np.array([row.test_mse for row in rows])
        self._weights = [row.weights for row in rows]
        self._contents = read_contents(engine, name, curves=True, pictures=True)
        self._document = self._contents.evaluation

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

    @property
    def evaluation(self) -> Evaluation:
        """The document of the evaluation.

        Raises
        ------
        NotMeasuredError
            There is none.
        """
        if self._document is None:
            raise NotMeasuredError(
                f"study {self.name!r} must be evaluated, got one that is not; "
                f"run 'aesearch evaluate {self.name}'"
            )
        return self._document

    def record(
        self, asked: Iterable[Measure], shown: Iterable[str]
    ) -> tuple[StudyRecord, list[Picture]]:
        """Make the record, and the pictures that are shown of it."""
        snapshot = study_rows.snapshot(self._engine, self.name)
        assert snapshot.chosen is not None, "a finished study has a winner"
        curves = study_rows.curves(self._engine, self._study)
        pictures = self._pictures(shown, snapshot.chosen, curves)
        # A folder of this machine says nothing to anyone else.
        data = self.spec.data.model_copy(update={"data_dir": None})
        made = StudyRecord(
            study=self.name,
            spec=self.spec.model_dump(mode="json") | {"data": data.model_dump(mode="json")},
            versions=self.facts["versions"],
            dataset=self.facts["dataset"],
            image_shape=tuple(self.facts["image_shape"]),
            n_images=self.facts["n_images"],
            chosen=snapshot.chosen,
            evaluated=self._evaluated(),
            pictures=tuple(RecordedPicture(name=each.name, alt=each.alt) for each in pictures),
            measured=tuple(self._measured(asked)),
            trials=tuple(self._trial(trial, curves) for trial in snapshot.trials),
            seeds=tuple(self._seeds()),
        )
        return made, pictures

    def _evaluated(self) -> Evaluated | None:
        if self._document is None:
            return None
        return Evaluated(
            encoding_dim=self._document.encoding_dim,
            n_live_units=self._document.n_live_units,
            pca_mse=self._document.pca.mse,
        )

    def _pictures(
        self, shown: Iterable[str], chosen: int, curves: Sequence[tuple[Any, ...]]
    ) -> list[Picture]:
        stored = {each.name: each for each in self._contents.pictures}
        found = []
        for name in shown:
            if name == CURVES:
                points = [CurvePoint(*rest) for number, *rest in curves if number == chosen]
                drawn = draw_curves(points, f"{self.name}: MSE per pixel by epoch")
                alt = "Losses of the winner in the cross-validation."
                found.append(Picture(name, alt, drawn))
            elif name in stored:  # an evaluation that failed has none
                found.append(stored[name])
        return found

    def _measured(self, asked: Iterable[Measure]) -> Iterable[RecordedMeasure]:
        for each in asked:
            if each.of in NETWORK_MEASURES:
                try:
                    values = measure_networks(self, each)
                except NotMeasuredError:
                    continue
                yield RecordedMeasure(asked=each, values=numbers(values))

    def _trial(self, trial: TrialRecord, curves: Sequence[tuple[Any, ...]]) -> RecordedTrial:
        losses = np.full((2, self.spec.search.folds, self.spec.trial_epochs), np.nan)
        for number, fold, epoch, train, validation in curves:
            if number == trial.number:
                losses[:, fold, epoch - 1] = train, validation
        train_losses, validation_losses = (tuple(map(numbers, each)) for each in losses)
        return RecordedTrial(
            params=trial.params,
            value=trial.value,
            standard_error=trial.standard_error,
            fold_scores=numbers(trial.fold_scores),
            train=train_losses,
            validation=validation_losses,
        )

    def _seeds(self) -> Iterable[RecordedSeed]:
        points = self._contents.retrain_curves
        for index, test_mse in enumerate(self.test_mse):
            own = [point[2:] for point in points if point.seed_index == index]
            train, validation, accuracy = (numbers(each) for each in zip(*own, strict=True))
            yield RecordedSeed(
                test_mse=float(test_mse), train=train, validation=validation, accuracy=accuracy
            )
