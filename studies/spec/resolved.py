"""A specification in which nothing is ``auto`` any more: what depends on data and device is set."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal, TypeVar

from aesearch.studies.errors import SpecError
from aesearch.studies.spec.automatic import placement
from aesearch.studies.spec.dimensions import Choices, Shortcut
from aesearch.studies.spec.problems import validated
from aesearch.studies.spec.sections import (
    ComputeSpec,
    DenseSpec,
    ModelSpec,
    RetrainSpec,
    SearchSpec,
    TrainingSpec,
)
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.spec.weights import grid_within, space_within, widths_within

Spec = TypeVar("Spec", bound=StudySpec)

# Of the last epochs, in a trial's score: see docs/decisions.md for the measurement.
SCORE_EPOCHS = 3
# Up to so many values of an image a network may have a shortcut without being asked for.
LARGEST_SHORTCUT = 65_536
# Steps after which a network with a shortcut hardly gets better, and at which losers are known:
# docs/decisions.md has the measurement.
LONGEST_TRAINING = 5000
FIRST_RUNG = 150
# A Gaussian process takes a second per suggestion then; its cost grows with the third power.
LARGEST_GP = 500
# Weights of a dense network that nobody chose: 80 MB, of which training holds some ten copies.
_AUTOMATIC_WEIGHTS = 20_000_000


class ResolvedDense(DenseSpec):
    """Dense networks with known widths."""

    hidden: tuple[int, ...]


class ResolvedModel(ModelSpec):
    """A network of which all is known."""

    shortcut: Shortcut
    output: Literal["clamp", "sigmoid"]
    dense: ResolvedDense


class ResolvedTraining(TrainingSpec):
    """A training with a known size of its minibatches."""

    batch_size: int


class ResolvedSearch(SearchSpec):
    """A search with known sizes and rungs."""

    sampler: Literal["gp", "tpe", "random", "grid", "qmc"]
    warmup_epochs: int
    startup_trials: int
    score_epochs: int
    generation_size: int
    lookahead: int


class ResolvedRetrain(RetrainSpec):
    """A retraining with a known end."""

    max_epochs: int


class ResolvedCompute(ComputeSpec):
    """A known device, and how much trains together on it."""

    device: Literal["cpu", "cuda", "mps"]
    precision: Literal["float32", "bfloat16"]
    population: int
    threads: int


class ResolvedSpec(StudySpec):
    """A study of which everything is known; ``resolve`` makes one."""

    name: str
    model: ResolvedModel
    training: ResolvedTraining
    search: ResolvedSearch
    retrain: ResolvedRetrain
    compute: ResolvedCompute

    @property
    def trial_epochs(self) -> int:
        """Epochs of a trial on one fold, at most."""
        epochs = self.training.epochs
        return self.retrain.max_epochs if epochs == "auto" else epochs


def resolve(
    spec: StudySpec,
    *,
    image_shape: tuple[int, int, int],
    n_train: int,
    device: str,
    fast_bfloat16: bool = False,
) -> ResolvedSpec:
    """Replace every "auto" by a value that depends on the data and the device only.

    The level of corrupted validation images is written out too.

    Parameters
    ----------
    image_shape : (channel, height, width)
    n_train : int
        Training images, all folds together.
    device : {"cpu", "cuda", "mps"}
        What the caller decided on.
    fast_bfloat16 : bool
        Whether the CPU has bfloat16 products of its own.

    Returns
    -------
    ResolvedSpec
        Resolving it again changes nothing.

    Raises
    ------
    SpecError
        If there are more folds than training images, if no network is as small as asked for, or
        if what was automatic does not go with the rest: a warm-up longer than the training, or a
        space of which only the architecture was left, for images too small to search it.
    """
    if spec.search.max_parameters is not None:
        whole = resolve(
            without_limit(spec),
            image_shape=image_shape,
            n_train=n_train,
            device=device,
            fast_bfloat16=fast_bfloat16,
        )
        spec = _within_limit(spec, whole, image_shape)
    channels, height, width = image_shape
    pixels = channels * height * width
    if spec.search.folds > n_train:
        raise SpecError(
            "study",
            [f"search.folds: must be <= the {n_train} training images, got {spec.search.folds}"],
        )
    placed = placement(device=device, n_train=n_train, pixels=pixels, fast_bfloat16=fast_bfloat16)
    batch_size, max_epochs, epochs, first_rung = _lengths(spec, n_train)
    sampler = spec.search.sampler
    if sampler == "auto":
        sampler = "gp" if spec.search.trials <= LARGEST_GP else "tpe"
    automatic: dict[str, dict[str, Any]] = {
        "training": {"batch_size": batch_size},
        "retrain": {"max_epochs": max_epochs},
        "search": {
            "sampler": sampler,
            "startup_trials": (5 if sampler == "gp" else 10) + _n_first(spec),
            "warmup_epochs": first_rung,
            "score_epochs": 1 if spec.scores_delivery else min(SCORE_EPOCHS, epochs),
            "generation_size": placed.generation_size,
            "lookahead": placed.lookahead,
        },
        "compute": {
            "device": device,
            "precision": placed.precision,
            "population": placed.population,
            "threads": placed.threads,
        },
    }
    changes: dict[str, Any] = {
        section: _with_automatic(getattr(spec, section), values)
        for section, values in automatic.items()
    }
    if spec.training.corruption != "none" and spec.training.validation_corruption_level is None:
        # The winner's level replaces corruption_level in a best.yaml; this one must stay.
        changes["training"] = changes["training"].model_copy(
            update={"validation_corruption_level": spec.training.corruption_level}
        )
    # Half the values of an image and half of that, where a store takes so many weights.
    hidden = min(max(pixels // 2, 128), 2048, max(_AUTOMATIC_WEIGHTS // (2 * pixels), 2))
    dense = _with_automatic(spec.model.dense, {"hidden": (hidden, hidden // 2)})
    changes["model"] = spec.model.model_copy(
        update={"dense": dense, **_shortcut_and_output(spec, pixels)}
    )
    changes["space"] = spec.space.for_images(
        spec.model.architecture, side=min(height, width), n_train=n_train, device=device
    )
    if spec.name is None:
        changes["name"] = automatic_name(spec.data.dataset)
    raw = spec.model_copy(update=changes).model_dump()
    return validated(ResolvedSpec, raw, source="study")


def without_limit(spec: StudySpec) -> StudySpec:
    """Give a specification without ``search.max_parameters``."""
    return _changed(spec, "search", max_parameters=None)


def _within_limit(
    spec: StudySpec, whole: ResolvedSpec, image_shape: tuple[int, int, int]
) -> StudySpec:
    """Leave out of a specification what is too large; ``whole`` is it, resolved without limit."""
    whole = _changed(whole, "search", max_parameters=spec.search.max_parameters)
    if spec.model.dense.hidden == "auto":
        dense = whole.model.dense.model_copy(update={"hidden": widths_within(whole, image_shape)})
        whole = _changed(whole, "model", dense=dense)
    whole = whole.model_copy(update={"space": space_within(whole, image_shape)})
    spec = _changed(spec, "model", dense=whole.model.dense)
    if spec.search.sampler == "grid":
        n_all = len(grid_within(whole, image_shape))
        spec = _changed(spec, "search", trials=min(spec.search.trials, n_all))
    return spec.model_copy(update={"space": whole.space})


def _changed(spec: Spec, section: str, **values: Any) -> Spec:
    changed = getattr(spec, section).model_copy(update=values)
    return spec.model_copy(update={section: changed})


def _n_first(spec: StudySpec) -> int:
    """How many sizes of the code begin with the same configuration."""
    sizes = spec.space.encoding_dim
    return len(sizes.choices) if spec.scores_delivery and isinstance(sizes, Choices) else 0


def _lengths(spec: StudySpec, n_train: int) -> tuple[int, int, int, int]:
    """Give batch size, epochs of the retraining and of a trial, and epochs before the first rung.

    What was set stays as it is; the last counts from 0.
    """
    folds = spec.search.folds
    fixed = not spec.scores_delivery
    share, largest = (60, 1000) if fixed else (240, 256)
    batch_size = _given(spec.training.batch_size, min(max(n_train // share, 32), largest))
    n_steps = -(-n_train // batch_size)
    enough = 200 if fixed else min(max(LONGEST_TRAINING // n_steps, 20), 500)
    max_epochs = _given(spec.retrain.max_epochs, enough)
    if fixed:
        epochs = _given(spec.training.epochs, max_epochs)
        return batch_size, max_epochs, epochs, min(max(1, epochs // 20), epochs - 1)
    n_inner = n_train * (folds - 1) / folds * (1 - spec.retrain.holdout)
    steps_of_fold = max(1, round(n_inner / batch_size))
    return batch_size, max_epochs, max_epochs, min(-(-FIRST_RUNG // steps_of_fold), max_epochs - 1)


def _given(value: int | str, automatic: int) -> int:
    return automatic if isinstance(value, str) else value


def _shortcut_and_output(spec: StudySpec, pixels: int) -> dict[str, str]:
    """Make the shortcut and the output's activation concrete."""
    model, searched = spec.model, spec.space.code_activation
    shortcut, output = model.shortcut, model.output
    choices = () if spec.space.shortcut is None else spec.space.shortcut.choices
    if shortcut == "auto" and choices:
        shortcut = "pca" if "pca" in choices else "none"
    if shortcut == "auto":
        linear = "linear" in ((model.code_activation,) if searched is None else searched.choices)
        small = pixels <= LARGEST_SHORTCUT
        shortcut = "pca" if linear and small and output != "sigmoid" else "none"
    if output == "auto":
        output = "clamp" if "pca" in (shortcut, *choices) else "sigmoid"
    return {"shortcut": shortcut, "output": output}


def automatic_name(dataset: str) -> str:
    """Name of a study that was given none: that of its images."""
    return PurePath(dataset).stem.lower().strip(". ")[:200] or "study"


def as_stored(
    asked: StudySpec,
    resolved: ResolvedSpec,
    stored: StudySpec,
    *,
    image_shape: tuple[int, int, int],
) -> ResolvedSpec:
    """Give what was left to "auto" the value that the stored study has.

    A study goes on as it was begun, also on a machine or with a version that would choose
    otherwise today.

    Parameters
    ----------
    asked : StudySpec
        As it was given.
    resolved : StudySpec
        The same, resolved here and now.
    stored : StudySpec
        Of the study that is to go on.
    image_shape : (channel, height, width)
    """
    changes: dict[str, Any] = {}
    for section in ("training", "search", "retrain", "compute"):
        given, kept = getattr(asked, section), getattr(stored, section)
        changes[section] = _as_kept(given, getattr(resolved, section), kept)
    changes["model"] = _as_kept(asked.model, resolved.model, stored.model)
    if asked.model.dense.hidden == "auto":
        changes["model"] = changes["model"].model_copy(update={"dense": stored.model.dense})
    if asked.space.architecture == "auto":
        changes["space"] = asked.space.with_architecture(
            stored.space.architecture, asked.model.architecture
        )
    kept = resolved.model_copy(update=changes)
    if asked.space.architecture == "auto" and kept.search.max_parameters is not None:
        kept = kept.model_copy(update={"space": space_within(kept, image_shape)})
    return kept


def _as_kept(given: Any, resolved: Any, kept: Any) -> Any:
    """Take what was left to "auto" in a section from another one."""
    automatic = [name for name in type(given).model_fields if getattr(given, name) == "auto"]
    return resolved.model_copy(update={name: getattr(kept, name) for name in automatic})


def _with_automatic(section: Any, values: Mapping[str, Any]) -> Any:
    update = {name: value for name, value in values.items() if getattr(section, name) == "auto"}
    return section.model_copy(update=update)
