"""What records say of the studies that reproduce a report: trials, curves, what was measured."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from aesearch.studies.errors import AesearchError
from aesearch.studies.spec.load import spec_from_mapping
from aesearch.studies.spec.quick import QUICK
from reproduction.record import RecordedTrial, StudyRecord, array
from reproduction.reported import Measure


class NotMeasuredError(AesearchError, LookupError):
    """A measurement on a study that was not run, or that its record does not have."""


class Evidence:
    """One finished study.

    Parameters
    ----------
    record : StudyRecord

    Attributes
    ----------
    name : str
    spec : StudySpec
        Resolved.
    test_mse : ndarray, (seed,)
    seed_curves : ndarray, (curve, seed, epoch)
        Training loss, held-out loss and held-out binary accuracy; NaN after their end.
    """

    def __init__(self, record: StudyRecord) -> None:
        self.record = record
        self.name = record.study
        self.spec = spec_from_mapping(record.spec, f"the record of study {self.name!r}")
        self.test_mse = array([seed.test_mse for seed in record.seeds])
        n_epochs = max(len(seed.train) for seed in record.seeds)
        self.seed_curves = np.full((3, len(record.seeds), n_epochs), np.nan)
        for index, seed in enumerate(record.seeds):
            for kind, curve in enumerate((seed.train, seed.validation, seed.accuracy)):
                self.seed_curves[kind, index, : len(curve)] = array(curve)
        # A measurement is asked of a study by the name in reported.yaml, without "-quick".
        self._measured = {_key(each.asked): array(each.values) for each in record.measured}

    @property
    def is_quick(self) -> bool:
        """Whether this is the small version, whose numbers mean nothing."""
        return self.name.endswith(QUICK)

    @property
    def made_with(self) -> str:
        """Versions, device and precision."""
        versions = ", ".join(f"{name} {number}" for name, number in self.record.versions.items())
        return f"{versions}; {self.spec.compute.device}, {self.spec.compute.precision}"

    @property
    def split(self) -> str:
        """Which images are in which fold, in a word: equal for the same split of the same."""
        return f"{self.record.dataset}, {self.spec.search.folds} folds, seed {self.spec.seed}"

    @property
    def winner(self) -> RecordedTrial:
        """The trial that was chosen."""
        return self.record.trials[self.record.chosen]

    def trials(self, params: dict[str, Any]) -> list[RecordedTrial]:
        """Trials with these parameters; the winner for none."""
        if not params:
            return [self.winner]
        return [
            trial
            for trial in self.record.trials
            if all(trial.params.get(name) == value for name, value in params.items())
        ]

    def trial(self, params: dict[str, Any]) -> RecordedTrial:
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

    def fold_curves(self, trial: RecordedTrial) -> np.ndarray:
        """Losses of a trial: (train or validation, fold, epoch); NaN where there are none."""
        return array([trial.train, trial.validation])

    def measured(self, asked: Measure) -> np.ndarray:
        """Give what was measured on the networks or the images.

        Raises
        ------
        NotMeasuredError
            It was not asked for when the record was made.
        """
        if _key(asked) not in self._measured:
            raise NotMeasuredError(
                f"the record of study {self.name!r} must hold {_key(asked)}, got one without; "
                "write it anew from a store with the study"
            )
        return self._measured[_key(asked)]

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
    """The studies that were recorded, by the names that ``reported.yaml`` gives them.

    Parameters
    ----------
    records : iterable of StudyRecord
    quick : bool
        Take the small version of each study.
    """

    def __init__(self, records: Iterable[StudyRecord], *, quick: bool) -> None:
        self.quick = quick
        self._found = {record.study: Evidence(record) for record in records}

    def of(self, name: str) -> Evidence:
        """Give a study.

        Raises
        ------
        NotMeasuredError
            It was not run.
        """
        full = name + QUICK if self.quick else name
        if full not in self._found:
            raise NotMeasuredError(f"study {full!r} must be recorded, got no record of it")
        return self._found[full]

    @property
    def made_with(self) -> list[str]:
        """With what the studies were trained: versions, device, types."""
        return sorted({found.made_with for found in self._found.values()})


def _key(asked: Measure) -> str:
    return asked.model_dump_json(exclude={"study"}, exclude_defaults=True)
