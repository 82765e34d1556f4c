"""The small version of a study that shows in seconds whether it would run, and what it leaves."""

from typing import Any

from aesearch.studies.spec.resolved import automatic_name
from aesearch.studies.spec.study import StudySpec

IMAGES = 300
# So that the first, the fourth and the last epoch exist, and are not all the same.
EPOCHS = 5
SEEDS = 2
TRIALS = 9
BATCH_SIZE = 50
BOOTSTRAP = 50
LEVELS = 1
QUICK = "-quick"
LONGEST_NAME = 200 - len(QUICK)


def quick_spec(spec: StudySpec) -> StudySpec:
    """Make a study small: the same networks, space and methods, little data and few epochs.

    Parameters
    ----------
    spec : StudySpec

    Returns
    -------
    StudySpec
        Of the name ``<name>-quick``, so that it never stands in the way of the whole study. Its
        numbers mean nothing.
    """
    training, search, robustness = spec.training, spec.search, spec.evaluation.robustness
    batch_size: Any = training.batch_size
    changes: dict[str, Any] = {
        "name": (spec.name or automatic_name(spec.data.dataset))[:LONGEST_NAME] + QUICK,
        "data": _with(spec.data, limit=min(spec.data.limit or IMAGES, IMAGES)),
        "training": _with(
            training,
            epochs=_at_most(training.epochs, EPOCHS, of_auto="auto"),
            batch_size=batch_size if batch_size == "auto" else min(batch_size, BATCH_SIZE),
        ),
        "search": _with(
            search,
            trials=min(search.trials, TRIALS),
            score_epochs="auto",
            warmup_epochs="auto",
            # Nothing is learned in so few steps: no trial is set aside for it.
            unstable_loss=max(search.unstable_loss, 1.0),
        ),
        "retrain": _with(
            spec.retrain,
            seeds=min(spec.retrain.seeds, SEEDS),
            max_epochs=_at_most(spec.retrain.max_epochs, EPOCHS, of_auto=EPOCHS),
        ),
        "evaluation": _with(
            spec.evaluation,
            bootstrap=min(spec.evaluation.bootstrap, BOOTSTRAP),
            robustness=_with(
                robustness,
                **{kind: levels[:LEVELS] for kind, levels in robustness},
            ),
        ),
    }
    return StudySpec.model_validate(spec.model_copy(update=changes).model_dump(mode="json"))


def _at_most(value: int | str, largest: int, *, of_auto: int | str) -> int | str:
    return of_auto if isinstance(value, str) else min(value, largest)


def _with(section: Any, **changes: Any) -> Any:
    return section.model_copy(update=changes)
