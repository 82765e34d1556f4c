"""What a study is: its sections together, one trial's configuration, and "auto" made concrete."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from aesearch.studies.errors import SpecError
from aesearch.studies.spec.automatic import placement
from aesearch.studies.spec.dimensions import (
    SHARES,
    Choices,
    Range,
    Section,
    hidden_name,
    hidden_widths,
)
from aesearch.studies.spec.problems import Path, Problem, broken, must
from aesearch.studies.spec.sections import (
    ComputeSpec,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    RetrainSpec,
    SearchSpec,
    TrainingSpec,
)
from aesearch.studies.spec.space import SEARCHABLE, SpaceSpec

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
# Weights of a dense network that nobody chose: 400 MB, which any store takes.
_AUTOMATIC_WEIGHTS = 100_000_000


# What adam and sgd have where nothing else is said: adamw's decay does not enter the gradient.
L2_WEIGHT_DECAY = 1e-5
L2_WEIGHT_DECAYS: Mapping[str, Any] = {"low": 1e-7, "high": 1e-3, "log": True}


def adds_decay(training: Mapping[str, Any]) -> bool:
    """Whether the optimizer of a section ``training`` adds weight decay to the gradient."""
    return training.get("optimizer") in ("adam", "sgd")


# Which setting a dimension of the space stands in for.
SETTING_OF_DIMENSION = {
    "architecture": "model.architecture",
    "encoding_dim": "model.encoding_dim",
    "learning_rate": "training.learning_rate",
    "weight_decay": "training.weight_decay",
    "dropout": "model.dropout",
    "hidden": "model.dense.hidden",
    "code_activation": "model.code_activation",
    "corruption_level": "training.corruption_level",
}


class StudySpec(Section):
    """One study: what to search, on which images, how, and what happens with the winner."""

    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Name of the study; null takes the name of the data set.",
    )
    description: str = Field(default="", description="What the study is for, in free words.")
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(
        default=0, description="All randomness of the study follows from it; 0 to 2**32 - 1."
    )
    data: DataSpec = Field(default=DataSpec(), description="The images.")
    model: ModelSpec = Field(default=ModelSpec(), description="The network.")
    training: TrainingSpec = Field(default=TrainingSpec(), description="How it trains.")
    space: SpaceSpec = Field(
        default=SpaceSpec(), description="What is searched; the rest comes from model and training."
    )
    search: SearchSpec = Field(default=SearchSpec(), description="How it is searched.")
    retrain: RetrainSpec = Field(default=RetrainSpec(), description="How the winner is retrained.")
    evaluation: EvaluationSpec = Field(
        default=EvaluationSpec(), description="How the retrained model is measured."
    )
    compute: ComputeSpec = Field(default=ComputeSpec(), description="Where it is computed.")

    @model_validator(mode="before")
    @classmethod
    def _decay_of_the_optimizer(cls, raw: Any) -> Any:
        # AdamW's decay means little to the others, which add it to the gradient.
        training = raw.get("training") if isinstance(raw, dict) else None
        if isinstance(training, TrainingSpec):
            training = training.model_dump(exclude_unset=True)
        if not isinstance(training, dict) or not adds_decay(training):
            return raw
        completed = {**raw, "training": {"weight_decay": L2_WEIGHT_DECAY, **training}}
        space = raw.get("space", {})
        if isinstance(space, dict) and space.get("defaults") is not False:
            completed["space"] = {"weight_decay": dict(L2_WEIGHT_DECAYS), **space}
        return completed

    @field_validator("name")
    @classmethod
    def _printable_name(cls, name: str | None) -> str | None:
        if name is not None and not name.isprintable():
            raise broken(must("be printable text on one line", name))
        return name

    @field_validator("space")
    @classmethod
    def _canonical_space(cls, space: SpaceSpec, info: Any) -> SpaceSpec:
        model = info.data.get("model")
        return space if model is None else space.restricted(model.architecture)

    @model_validator(mode="after")
    def _sections_agree(self) -> "StudySpec":
        problems = list(_disagreements(self))
        if problems:
            raise broken(*problems)
        return self

    @property
    def scores_delivery(self) -> bool:
        """Whether a fold's score is the error of the network that would be delivered there."""
        return self.training.epochs == "auto"

    @property
    def trial_epochs(self) -> int:
        """Epochs of a trial on one fold, at most; of a resolved specification."""
        epochs = self.retrain.max_epochs if self.scores_delivery else self.training.epochs
        if epochs == "auto":
            raise ValueError("retrain.max_epochs must be a number, got 'auto'; call resolve first")
        return epochs

    @property
    def n_trials(self) -> int:
        """How many trials the study has: ``search.trials``, or the whole of a smaller grid."""
        trials = self.search.trials
        return min(trials, self.space.grid_size) if self.search.sampler == "grid" else trials

    def default_configuration_params(self) -> dict[str, Any]:
        """Give the unsearched configuration as parameters of the space: the first trial.

        A value outside its dimension moves to the nearest one inside.

        Returns
        -------
        dict
            A value for each dimension that the default architecture has, in the order of
            the space; hidden widths as a word.
        """
        wanted = {name: attrgetter(setting)(self) for name, setting in SETTING_OF_DIMENSION.items()}
        if not isinstance(wanted["hidden"], str):
            wanted["hidden"] = hidden_name(wanted["hidden"])
        architecture = self.space.architecture_dimension
        if architecture is not None:
            wanted["architecture"] = architecture.nearest(wanted["architecture"])
        active = self.space.active(str(wanted["architecture"]))
        return {name: dimension.nearest(wanted[name]) for name, dimension in active.items()}

    def configuration(self, params: Mapping[str, Any]) -> "Configuration":
        """Give the whole configuration of one trial: its parameters over the defaults.

        Parameters
        ----------
        params : Mapping
            By the names of the space; hidden widths as a word or a list.

        Raises
        ------
        ValueError
            If a name is unknown, or the hidden widths of a dense network are still ``auto``.
        """
        unknown = sorted(set(params) - set(SEARCHABLE))
        if unknown:
            raise ValueError(f"params must be named {', '.join(SEARCHABLE)}, got {unknown[0]!r}")
        model, training = self.model, self.training
        architecture = params.get("architecture", model.architecture)
        hidden = params.get("hidden", model.dense.hidden) if architecture == "dense" else ()
        if hidden == "auto":
            raise ValueError("model.dense.hidden must be widths, got 'auto'; call resolve first")
        code_activation = params.get("code_activation", model.code_activation)
        return Configuration(
            architecture=architecture,
            hidden=hidden_widths(hidden),
            encoding_dim=int(params.get("encoding_dim", model.encoding_dim)),
            dropout=float(params.get("dropout", model.dropout)),
            code_activation=code_activation,
            activation=model.activation,
            # A relu code that is searched beside a linear one: nothing leads past it.
            shortcut=model.shortcut if code_activation == "linear" else "none",
            output=model.output,
            initialization=_initialization(model.initialization, architecture),
            channels=model.conv.channels,
            conv_hidden=model.conv.hidden,
            learning_rate=float(params.get("learning_rate", training.learning_rate)),
            weight_decay=float(params.get("weight_decay", training.weight_decay)),
            corruption_level=float(params.get("corruption_level", training.corruption_level)),
        )


def _initialization(asked: str, architecture: str) -> str:
    if asked != "by-architecture":
        return asked
    return "he" if architecture == "conv" else "torch"


@dataclass(frozen=True)
class Configuration:
    """One network and how it trains, as far as members of a study differ.

    Attributes
    ----------
    hidden : tuple of int
        Hidden widths of a dense network; empty for none and for a conv network.
    channels, conv_hidden
        Channels of the three convolutions and the width after them; unused by dense networks.
    corruption_level : float
        Of the training images; unused where nothing is corrupted.
    """

    architecture: str
    hidden: tuple[int, ...]
    encoding_dim: int
    dropout: float
    code_activation: str
    activation: str
    shortcut: str
    output: str
    initialization: str
    channels: tuple[int, ...]
    conv_hidden: int
    learning_rate: float
    weight_decay: float
    corruption_level: float


def _disagreements(spec: StudySpec) -> list[Problem]:
    """List the rules between sections that do not hold."""
    search = spec.search
    problems = [*_epochs_disagreements(spec), *_shortcut_disagreements(spec.model, spec.space)]
    if spec.data.limit is not None and search.folds > spec.data.limit:
        rule = f"be <= data.limit ({spec.data.limit})"
        problems.append(must(rule, search.folds, ("search", "folds"), (("data", "limit"),)))
    problems += _corruption_disagreements(spec)
    retrain = spec.retrain
    if retrain.min_delta_mode == "relative" and retrain.min_delta >= 1:
        uses = (("retrain", "min_delta_mode"),)
        rule = "be < 1 for retrain.min_delta_mode relative"
        problems.append(must(rule, retrain.min_delta, ("retrain", "min_delta"), uses))
    if not spec.space.dimensions():
        model_path = (("model", "architecture"),)
        problems.append(must("search at least one name", "none", ("space",), model_path))
    elif search.sampler == "grid":
        problems += [
            problem._replace(path=("space", *problem.path))
            for problem in spec.space.grid_problems()
        ]
    return problems


def _epochs_disagreements(spec: StudySpec) -> list[Problem]:
    """List what does not go with the number of epochs of a trial."""
    search, epochs, name = spec.search, spec.training.epochs, "training.epochs"
    path: Path = ("training", "epochs")
    if epochs == "auto":
        epochs, name = spec.retrain.max_epochs, "retrain.max_epochs"
        path = ("retrain", "max_epochs")
    problems = []
    if epochs != "auto" and search.score_epochs != "auto" and search.score_epochs > epochs:
        rule = f"be <= {name} ({epochs})"
        problems.append(must(rule, search.score_epochs, ("search", "score_epochs"), (path,)))
    if epochs != "auto" and search.warmup_epochs != "auto" and search.warmup_epochs >= epochs:
        rule = f"be < {name} ({epochs})"
        problems.append(must(rule, search.warmup_epochs, ("search", "warmup_epochs"), (path,)))
    return problems


def _shortcut_disagreements(model: ModelSpec, space: SpaceSpec) -> list[Problem]:
    """List what does not go with a shortcut that was asked for."""
    if model.shortcut != "pca":
        return []
    codes: tuple[str, ...] = (model.code_activation,)
    if space.code_activation is not None:
        codes = space.code_activation.choices
    problems = []
    if "linear" not in codes:
        rule = "be none or auto for a relu code, which PCA does not have"
        uses = (("model", "code_activation"),)
        problems.append(must(rule, model.shortcut, ("model", "shortcut"), uses))
    if model.output == "sigmoid":
        rule = "be none or auto for model.output sigmoid, behind which it would not be PCA"
        uses = (("model", "output"),)
        problems.append(must(rule, model.shortcut, ("model", "shortcut"), uses))
    return problems


def _corruption_disagreements(spec: StudySpec) -> list[Problem]:
    """List what does not go with the corruption: a level of nothing, or above all of the image."""
    training, searched = spec.training, spec.space.corruption_level
    uses = (("training", "corruption"),)
    if training.corruption == "none":
        rule = "be null unless training.corruption is set"
        given = None if searched is None else searched.model_dump(mode="json", exclude_none=True)
        return [] if given is None else [must(rule, given, ("space", "corruption_level"), uses)]
    if training.corruption not in SHARES:
        return []
    levels: list[tuple[Path, Any]] = [
        (("training", "corruption_level"), training.corruption_level),
        (("training", "validation_corruption_level"), training.validation_corruption_level),
    ]
    if isinstance(searched, Range):
        levels.append((("space", "corruption_level", "high"), searched.high))
    elif searched is not None:
        levels.append((("space", "corruption_level", "choices"), max(searched.choices)))
    rule = f"be <= 1 for training.corruption {training.corruption}"
    return [must(rule, level, path, uses) for path, level in levels if (level or 0) > 1]


def resolve(
    spec: StudySpec,
    *,
    image_shape: tuple[int, int, int],
    n_train: int,
    device: str,
    fast_bfloat16: bool = False,
) -> StudySpec:
    """Replace every "auto" by a value that depends on the data and the device only.

    The level of corrupted validation images is written out too.

    Parameters
    ----------
    image_shape : (channel, height, width)
    n_train : int
        Training images, all folds together.
    device : {"cpu", "cuda"}
        What the caller decided on.
    fast_bfloat16 : bool
        Whether the CPU has bfloat16 products of its own.

    Returns
    -------
    StudySpec
        Resolving it again changes nothing.

    Raises
    ------
    SpecError
        If there are more folds than training images.
    """
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
    return spec.model_copy(update=changes)


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
    if shortcut == "auto":
        linear = "linear" in ((model.code_activation,) if searched is None else searched.choices)
        small = pixels <= LARGEST_SHORTCUT
        shortcut = "pca" if linear and small and output != "sigmoid" else "none"
    if output == "auto":
        output = "clamp" if shortcut == "pca" else "sigmoid"
    return {"shortcut": shortcut, "output": output}


def automatic_name(dataset: str) -> str:
    """Name of a study that was given none: that of its images."""
    return PurePath(dataset).stem.lower().strip(". ")[:200] or "study"


def as_stored(asked: StudySpec, resolved: StudySpec, stored: StudySpec) -> StudySpec:
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
    return resolved.model_copy(update=changes)


def _as_kept(given: Any, resolved: Any, kept: Any) -> Any:
    """Take what was left to "auto" in a section from another one."""
    automatic = [name for name in type(given).model_fields if getattr(given, name) == "auto"]
    return resolved.model_copy(update={name: getattr(kept, name) for name in automatic})


def _with_automatic(section: Any, values: Mapping[str, Any]) -> Any:
    update = {name: value for name, value in values.items() if getattr(section, name) == "auto"}
    return section.model_copy(update=update)
