"""A finished study as plain records, for what tells of one."""

from dataclasses import replace
from typing import Any

from aesearch.studies.results.records import RetrainRecord, StudySnapshot, TrialRecord
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.resolved import ResolvedSpec, resolve


def resolved_spec(*overrides: str, **of_image: Any) -> ResolvedSpec:
    """Resolve a specification as it would be for 1,438 images of 8x8."""
    image = {"image_shape": [1, 8, 8], "n_train": 1438, "device": "cpu"} | of_image
    return resolve(load_spec(overrides=overrides), **image)


# Of a study whose trials train for a fixed number of epochs.
FIXED = ("search.select=one-se", "training.epochs=20", "retrain.max_epochs=200")


def trial(number: int, *scores: float, **changes) -> TrialRecord:
    record = TrialRecord(
        number,
        "complete",
        params={"encoding_dim": 32, "learning_rate": 0.00123456},
        value=sum(scores) / len(scores),
        standard_error=0.00012,
        fold_scores=scores,
        epochs=20,
    )
    return replace(record, **changes)


FINISHED = StudySnapshot(
    name="pens",
    spec=resolved_spec(*FIXED),
    n_trials=6,
    trials=(
        trial(5, 0.010, 0.011, 0.012),
        trial(0, 0.012, 0.012, 0.013),
        trial(1, 0.013, 0.011, 0.014),
        trial(2, 0.2, 0.2, 0.2, unstable="the loss of fold 0 ends at 0.2"),
        TrialRecord(3, "failed", reason="loss nan\nat epoch 3"),
        TrialRecord(4, "pruned", value=0.05, reason="pruned at epoch 5"),
    ),
    retrains=(
        RetrainRecord(1, 78, 70, 50, 0.0111, "def", 0.0130),
        RetrainRecord(0, 77, 60, 41, 0.0110, "abc", 0.0110),
    ),
    chosen=0,
    test_looks=1,
    facts={
        "dataset": "digits",
        "image_shape": [1, 8, 8],
        "n_train_per_fold": 958,
        "n_validation_per_fold": 479,
    },
)
