"""A ``best.yaml``: the chosen specification, and what it reached, its part ``result``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict

from aesearch.studies.results.evaluation import Evaluation
from aesearch.studies.results.records import Facts, RetrainRecord, StudySnapshot, TrialRecord
from aesearch.studies.results.summary import front_of
from aesearch.studies.spec.space import hidden_name
from aesearch.studies.spec.study import Configuration, StudySpec


class _Part(BaseModel):
    # What a later version adds must not make its files unreadable, and goes along.
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    def to_dict(self) -> dict[str, Any]:
        """Give it in plain values, as the file holds it: without what was never set."""
        return self.model_dump(exclude_unset=True)

    def __getitem__(self, name: str) -> Any:
        """Read a field as a key: until 0.2, for what was a dict in 0.1."""
        return getattr(self, name)


class CrossValidation(_Part):
    """What the trial reached on the folds: validation MSE per pixel."""

    mean: float | None = None
    standard_error: float | None = None
    per_fold: list[float] = []


class RetrainedResult(_Part):
    """One retrained seed; losses are mean squared errors per pixel, of its best epoch."""

    seed_index: int
    seed: int | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    validation_loss: float | None = None
    test_mse: float | None = None
    weights_sha256: str

    @classmethod
    def of(cls, seed: RetrainRecord) -> "RetrainedResult":
        """Take it from a seed that was retrained and tested."""
        return cls(**{name: getattr(seed, name) for name in cls.model_fields})


class TestResult(_Part):
    """The model on the test set.

    Attributes
    ----------
    mse : float
        Mean squared error per pixel of the exported seed, whose index is ``seed_index``.
    mean_over_seeds, standard_deviation : float
        Of all seeds; no deviation of one.
    looks : int
        How many times the test set was looked at, as far as anybody counts.
    mse_interval : [low, high]
        95% bootstrap interval; this and what follows are there once it was evaluated.
    psnr, binary_accuracy, ssim : float
        Means over images; None where undefined.
    n_live_units : int
        Numbers of the code that vary.
    pca_mse : float
        Of as many principal components.
    """

    __test__ = False  # nothing that pytest should collect

    mse: float
    seed_index: int
    mean_over_seeds: float | None = None
    standard_deviation: float | None = None
    looks: int
    mse_interval: list[float] | None = None
    psnr: float | None = None
    binary_accuracy: float | None = None
    ssim: float | None = None
    n_live_units: int | None = None
    pca_mse: float | None = None

    @classmethod
    def of(cls, seeds: Sequence[RetrainRecord], exported: int, looks: int) -> "TestResult":
        """Sum up seeds that were all tested, one of which is exported."""
        mse = {seed.seed_index: float(seed.test_mse or 0.0) for seed in seeds}
        tests = list(mse.values())
        return cls(
            mse=mse[exported],
            seed_index=exported,
            mean_over_seeds=float(np.mean(tests)),
            standard_deviation=float(np.std(tests, ddof=1)) if len(tests) > 1 else None,
            looks=looks,
        )

    def evaluated(self, evaluation: Evaluation) -> "TestResult":
        """Add the main numbers of an evaluation."""
        overall = evaluation.metrics.overall
        return self.model_copy(
            update={
                "mse_interval": [overall.mse.low, overall.mse.high],
                "psnr": overall.psnr.mean,
                "binary_accuracy": overall.binary_accuracy.mean,
                "ssim": overall.ssim and overall.ssim.mean,
                "n_live_units": evaluation.n_live_units,
                "pca_mse": evaluation.pca.mse,
            }
        )


class DataResult(_Part):
    """The images; see ``records.Facts``."""

    dataset: str | None = None
    image_shape: list[int] | None = None
    n_images: int | None = None
    n_test: int | None = None
    fingerprint: str
    split_sha256: str

    @classmethod
    def of(cls, facts: Facts) -> "DataResult":
        """Take it from what the store keeps of the images."""
        return cls.model_validate({k: v for k, v in facts.items() if k in cls.model_fields})


class FrontResult(_Part):
    """The Pareto front: numbers of its trials, the smallest first."""

    objectives: list[str]
    trials: list[int]


class Origin(_Part):
    """Which trial was trained, and what it reached on the folds; a plain specification has none.

    A study with several objectives has a ``front``.
    """

    study: str
    trial: int | None = None
    n_trials: int | None = None
    cross_validation: CrossValidation | None = None
    front: FrontResult | None = None

    @classmethod
    def of(cls, snapshot: StudySnapshot, trial: TrialRecord) -> "Origin":
        """Take it from a study."""
        found = front_of(snapshot)
        front: dict[str, Any] = {}
        if found is not None:
            numbers = [row.number for row in found.trials]
            front["front"] = FrontResult(objectives=found.objectives, trials=numbers)
        return cls(
            **front,
            study=snapshot.name,
            trial=trial.number,
            n_trials=snapshot.n_trials,
            cross_validation=CrossValidation(
                mean=trial.value,
                standard_error=trial.standard_error,
                per_fold=list(trial.fold_scores),
            ),
        )


class Result(Origin):
    """What was reached, by which seeds, on which images, with which versions."""

    retrained: list[RetrainedResult]
    test: TestResult
    data: DataResult
    versions: dict[str, str]

    @classmethod
    def of_seeds(
        cls,
        origin: Origin,
        seeds: Sequence[RetrainRecord],
        facts: Facts,
        *,
        exported: int,
        looks: int,
    ) -> "Result":
        """Sum up a retraining, of which the seed with the index ``exported`` is exported."""
        return cls(
            **origin.to_dict(),
            retrained=[RetrainedResult.of(seed) for seed in seeds],
            test=TestResult.of(seeds, exported, looks),
            data=DataResult.of(facts),
            versions=facts["versions"],
        )

    def evaluated(self, evaluation: Evaluation | None) -> "Result":
        """Add the main numbers of an evaluation, if there is one."""
        if evaluation is None:
            return self
        return self.model_copy(update={"test": self.test.evaluated(evaluation)})

    @property
    def origin(self) -> Origin:
        """The part that stays as it is when the same trial is trained again."""
        own = {"retrained", "test", "data", "versions"}
        return Origin.model_validate(self.model_dump(exclude_unset=True, exclude=own))

    @property
    def exported(self) -> RetrainedResult:
        """The seed whose model is exported."""
        return next(s for s in self.retrained if s.seed_index == self.test.seed_index)


def chosen_spec(spec: StudySpec, configuration: Configuration) -> StudySpec:
    """Give the spec whose defaults are the chosen configuration: ``train`` needs no more."""
    model = spec.model.model_dump()
    model |= {
        "architecture": configuration.architecture,
        "encoding_dim": configuration.encoding_dim,
        "dropout": configuration.dropout,
        "code_activation": configuration.code_activation,
        "shortcut": configuration.shortcut,
        "initialization": configuration.initialization,
        "activation": configuration.activation,
    }
    model["conv"]["channels"] = configuration.channels
    if configuration.architecture == "dense":
        model["dense"] = {"hidden": hidden_name(configuration.hidden)}
    document = spec.model_dump()
    document["model"] = model
    document["training"] |= {
        "learning_rate": configuration.learning_rate,
        "weight_decay": configuration.weight_decay,
        "corruption_level": configuration.corruption_level,
        "optimizer": configuration.optimizer,
        "schedule": configuration.schedule,
        "batch_size": configuration.batch_size,
    }
    return StudySpec.model_validate(document)


def best_yaml(spec_yaml: str, result: Result) -> str:
    """Join the chosen spec and what came of it into one file.

    Parameters
    ----------
    spec_yaml : str
        ``chosen_spec`` as YAML.
    result : Result
        Without times, so that the same study gives the same bytes.
    """
    head = (
        "# The best configuration of a study, and what it reached.\n"
        "#   aesearch train best.yaml     retrains it from this file alone\n"
        "#   aesearch verify best.yaml    retrains it and compares the test number\n"
    )
    tail = yaml.safe_dump({"result": result.to_dict()}, sort_keys=False, allow_unicode=True)
    return head + spec_yaml + tail
