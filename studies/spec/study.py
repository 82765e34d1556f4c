"""What a study is: its sections together, and one trial's configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from aesearch.studies.spec.dimensions import (
    SHARES,
    Params,
    Range,
    Section,
    channel_numbers,
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
    "optimizer": "training.optimizer",
    "schedule": "training.schedule",
    "batch_size": "training.batch_size",
    "activation": "model.activation",
    "channels": "model.conv.channels",
    "shortcut": "model.shortcut",
}


class StudySpec(Section):
    """One study: what to search, on which images, how, and what happens with the winner."""

    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Name of the study; null for the name of the data set.",
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
        if name is not None and not name.strip():
            raise broken(must("be more than blanks", name))
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

    def default_configuration_params(self) -> Params:
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
        wanted["channels"] = hidden_name(wanted["channels"])
        architecture = self.space.architecture_dimension
        if architecture is not None:
            wanted["architecture"] = architecture.nearest(wanted["architecture"])
        active = self.space.active(str(wanted["architecture"]))
        return {name: dimension.nearest(wanted[name]) for name, dimension in active.items()}

    def configuration(self, params: Params) -> "Configuration":
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
        architecture = str(params.get("architecture", model.architecture))
        hidden = params.get("hidden", model.dense.hidden) if architecture == "dense" else ()
        if hidden == "auto":
            raise ValueError("model.dense.hidden must be widths, got 'auto'; call resolve first")
        code_activation = str(params.get("code_activation", model.code_activation))
        batch_size = params.get("batch_size", training.batch_size)
        if batch_size == "auto":
            raise ValueError("training.batch_size must be known, got 'auto'; call resolve first")
        return Configuration(
            architecture=architecture,
            hidden=hidden_widths(hidden),
            encoding_dim=int(params.get("encoding_dim", model.encoding_dim)),
            dropout=float(params.get("dropout", model.dropout)),
            code_activation=code_activation,
            activation=str(params.get("activation", model.activation)),
            # A relu code that is searched beside a linear one: nothing leads past it.
            shortcut=str(params.get("shortcut", model.shortcut))
            if code_activation == "linear"
            else "none",
            output=model.output,
            initialization=_initialization(model.initialization, architecture),
            channels=channel_numbers(params.get("channels", model.conv.channels)),
            conv_hidden=model.conv.hidden,
            learning_rate=float(params.get("learning_rate", training.learning_rate)),
            weight_decay=float(params.get("weight_decay", training.weight_decay)),
            corruption_level=float(params.get("corruption_level", training.corruption_level)),
            optimizer=str(params.get("optimizer", training.optimizer)),
            schedule=str(params.get("schedule", training.schedule)),
            batch_size=int(batch_size),
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
    optimizer: str
    schedule: str
    batch_size: int


def _disagreements(spec: StudySpec) -> list[Problem]:
    """List the rules between sections that do not hold."""
    search = spec.search
    problems = [*_epochs_disagreements(spec), *_shortcut_disagreements(spec.model, spec.space)]
    if spec.data.limit is not None and search.folds > spec.data.limit:
        rule = f"be <= data.limit ({spec.data.limit})"
        problems.append(must(rule, search.folds, ("search", "folds"), (("data", "limit"),)))
    problems += _corruption_disagreements(spec)
    problems += _noisy_disagreements(spec)
    problems += _optimizer_disagreements(spec)
    if search.select == "knee" and search.objectives == ("mse",):
        rule = "be best or one-se unless search.objectives names a size, such as mse,encoding_dim"
        uses = (("search", "objectives"),)
        problems.append(must(rule, search.select, ("search", "select"), uses))
    retrain = spec.retrain
    if retrain.min_delta_mode == "relative" and retrain.min_delta >= 1:
        uses = (("retrain", "min_delta_mode"),)
        rule = "be < 1 for retrain.min_delta_mode relative"
        problems.append(must(rule, retrain.min_delta, ("retrain", "min_delta"), uses))
    if not spec.space.dimensions():
        model_path = (("model", "architecture"),)
        rule = "search at least one name, of one choice if need be (encoding_dim: {choices: [8]})"
        problems.append(must(rule, "none", ("space",), model_path))
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
    if spec.scores_delivery and search.score_epochs not in ("auto", 1):
        rule = "be left out (it is 1): the score is that of the one epoch whose weights are kept"
        uses = (("training", "epochs"),)
        problems.append(must(rule, search.score_epochs, ("search", "score_epochs"), uses))
    elif epochs != "auto" and search.score_epochs != "auto" and search.score_epochs > epochs:
        rule = f"be <= {name} ({epochs})"
        problems.append(must(rule, search.score_epochs, ("search", "score_epochs"), (path,)))
    if epochs != "auto" and search.warmup_epochs != "auto" and search.warmup_epochs >= epochs:
        rule = f"be < {name} ({epochs})"
        problems.append(must(rule, search.warmup_epochs, ("search", "warmup_epochs"), (path,)))
    return problems


def _shortcut_disagreements(model: ModelSpec, space: SpaceSpec) -> list[Problem]:
    """List what does not go with a shortcut that was asked for."""
    searched = space.shortcut is not None and "pca" in space.shortcut.choices
    if model.shortcut != "pca" and not searched:
        return []
    path: Path = ("space", "shortcut") if searched else ("model", "shortcut")
    asked = list(space.shortcut.choices) if searched and space.shortcut else model.shortcut
    codes: tuple[str, ...] = (model.code_activation,)
    if space.code_activation is not None:
        codes = space.code_activation.choices
    problems = []
    if "linear" not in codes:
        rule = "be none or auto for a relu code, which PCA does not have"
        uses = (("model", "code_activation"),)
        problems.append(must(rule, asked, path, uses))
    if model.output == "sigmoid":
        rule = "be none or auto for model.output sigmoid, behind which it would not be PCA"
        uses = (("model", "output"),)
        problems.append(must(rule, asked, path, uses))
    return problems


def _optimizer_disagreements(spec: StudySpec) -> list[Problem]:
    """List optimizers that do not go together: one decay cannot mean two things."""
    if spec.space.optimizer is None:
        return []
    searched, fixed = spec.space.optimizer.choices, spec.training.optimizer
    if len({adds_decay({"optimizer": name}) for name in (*searched, fixed)}) == 1:
        return []
    rule = f"be adamw alone or of adam and sgd, as training.optimizer is ({fixed})"
    uses = (("training", "optimizer"),)
    return [must(rule, list(searched), ("space", "optimizer"), uses)]


def _noisy_disagreements(spec: StudySpec) -> list[Problem]:
    """List what does not go with noisy images: a drawn corruption, or a test set without them."""
    data, uses = spec.data, (("data", "noisy"),)
    if data.noisy is None:
        rule = "be null unless data.noisy is set"
        path = ("data", "noisy_test")
        return [] if data.noisy_test is None else [must(rule, data.noisy_test, path, uses)]
    problems = []
    if spec.training.corruption != "none":
        rule = "be none beside data.noisy, which says what the network has to remove"
        problems.append(must(rule, spec.training.corruption, ("training", "corruption"), uses))
    if data.test is not None and data.noisy_test is None:
        rule = "be given beside data.noisy and data.test: a noisy image for each of the test"
        problems.append(must(rule, None, ("data", "noisy_test"), uses))
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
