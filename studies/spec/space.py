"""What a search may vary: the dimensions by name, and their grid; no sampling happens here."""

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from aesearch.studies.errors import SpecError
from aesearch.studies.spec.dimensions import (
    ARCHITECTURES,
    Activation,
    Architecture,
    ChannelsChoice,
    Choices,
    CodeActivation,
    CorruptionLevelDimension,
    Dimension,
    Dropout,
    DropoutDimension,
    EncodingDim,
    EncodingDimDimension,
    HiddenChoice,
    LearningRate,
    LearningRateDimension,
    Optimizer,
    Params,
    Range,
    Schedule,
    Section,
    Shortcut,
    WeightDecay,
    WeightDecayDimension,
    When,
    hidden_name,
    hidden_widths,
)
from aesearch.studies.spec.problems import AUTO_TAG, CHOICES_TAG, Problem, broken, must

__all__ = [
    "ARCHITECTURES",
    "LARGEST_GRID",
    "SEARCHABLE",
    "Choices",
    "Dimension",
    "Range",
    "SpaceSpec",
    "hidden_name",
    "hidden_widths",
]

LARGEST_GRID = 100_000
# The least side of an image at which convolutions are searched without being asked for: on 8x8
# digits they took six times as long as dense networks and found nothing better, at 28x28 three
# times as long and their error was 4% to 17% lower (docs/decisions.md, 30).
LEAST_SIDE_FOR_CONV = 16
# So many training images at most on a CPU: 50 trials with 60,000 would take hours.
MOST_IMAGES_FOR_CONV = 20_000
ArchitectureDimension = Choices[Annotated[Architecture, Field(title="Architecture")]]


def _form(value: Any) -> str | None:
    return AUTO_TAG if isinstance(value, str) else CHOICES_TAG


_AutoOrArchitectures = Annotated[
    Annotated[ArchitectureDimension, Tag(CHOICES_TAG)] | Annotated[Literal["auto"], Tag(AUTO_TAG)],
    Discriminator(_form),
]


_OF_ONE_KIND = {"hidden": "dense", "channels": "conv"}
# Settings that somebody may look for here.
_NOT_SEARCHED = {
    "model": ("output", "initialization"),
    "training": ("momentum", "gamma", "factor", "averaging", "averaging_decay"),
    "retrain": ("patience", "min_delta", "max_epochs"),
}


class SpaceSpec(Section):
    """The dimensions of a search, by name; a name that is not given keeps its default dimension.

    The fields stand in the order in which a trial is suggested: the architecture first,
    because the others may depend on it.
    """

    REFUSED_KEYS: ClassVar[dict[str, str]] = {
        "epochs": "must not be searched, because all trials are compared at the same epoch; "
        "set training.epochs",
        "corruption": "must not be searched, because losses under different corruptions cannot "
        "be compared; set training.corruption",
        **{
            name: f"must not be searched; set {section}.{name}"
            for section, names in _NOT_SEARCHED.items()
            for name in names
        },
    }

    defaults: bool = Field(
        default=True,
        exclude=True,
        description="Whether names that are not given keep their default dimension; with false, "
        "only what is written here is searched.",
    )
    architecture: _AutoOrArchitectures | None = Field(
        default="auto",
        description="Architectures to choose from, dense and conv (as an option with a comma "
        "between them, or one alone). null keeps model.architecture; auto is both for images of "
        "at least 16 pixels a side, and on a CPU at most 20,000 of them, else null, and where "
        "model.architecture is conv.",
    )
    encoding_dim: EncodingDimDimension | None = Field(
        default=Choices[EncodingDim](choices=(4, 8, 16, 32)),
        description="Sizes of the code to choose from (as an option with a comma between them, or "
        "one alone). null keeps model.encoding_dim.",
    )
    learning_rate: LearningRateDimension | None = Field(
        default=Range[LearningRate](low=1e-3, high=8e-3, log=True),
        description="Learning rate; null keeps training.learning_rate.",
    )
    weight_decay: WeightDecayDimension | None = Field(
        default=Range[WeightDecay](low=0.03, high=1.0, log=True),
        description="Weight decay; null keeps training.weight_decay.",
    )
    dropout: DropoutDimension | None = Field(
        default=Range[Dropout](low=0.0, high=0.1),
        description="Dropout after each hidden layer, and after a relu code; null keeps "
        "model.dropout.",
    )
    hidden: Choices[HiddenChoice] | None = Field(
        default=None,
        description="Hidden widths of dense networks, such as 256-128 or none; applies to dense "
        "only. Null keeps model.dense.hidden.",
    )
    code_activation: Choices[Annotated[CodeActivation, Field(title="CodeActivation")]] | None = (
        Field(
            default=None,
            description="Activation of the code; null keeps model.code_activation.",
        )
    )
    corruption_level: CorruptionLevelDimension | None = Field(
        default=None,
        description="How strongly training images are corrupted; needs training.corruption. All "
        "trials are compared at training.validation_corruption_level. Null keeps "
        "training.corruption_level.",
    )

    optimizer: Choices[Annotated[Optimizer, Field(title="Optimizer")]] | None = Field(
        default=None,
        description="Optimizers; adamw, whose weight decay is another, not beside adam and sgd. "
        "training.momentum is that of sgd alone. Null keeps training.optimizer.",
    )
    schedule: Choices[Annotated[Schedule, Field(title="Schedule")]] | None = Field(
        default=None,
        description="Schedules of the learning rate; null keeps training.schedule.",
    )
    batch_size: Choices[Annotated[int, Field(ge=1, title="BatchSize")]] | None = Field(
        default=None,
        description="Images per gradient step; null keeps training.batch_size.",
    )
    activation: Choices[Annotated[Activation, Field(title="Activation")]] | None = Field(
        default=None,
        description="Activations of the layers before and behind the code; null keeps "
        "model.activation.",
    )
    channels: Choices[ChannelsChoice] | None = Field(
        default=None,
        description="Channels of the three convolutions, such as 16-32-64; applies to conv only. "
        "Null keeps model.conv.channels.",
    )
    shortcut: Choices[Annotated[Shortcut, Field(title="Shortcut")]] | None = Field(
        default=None,
        description="Whether networks start as PCA (pca) or from random weights (none), which is "
        "better for some small codes. Null keeps model.shortcut.",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_defaults(cls, raw: Any) -> Any:
        # Written out as nulls, so that the two spellings of one space are one specification.
        if not isinstance(raw, dict) or raw.get("defaults") is not False:
            return raw
        return {**dict.fromkeys(SEARCHABLE), **{k: v for k, v in raw.items() if k != "defaults"}}

    @model_validator(mode="after")
    def _conditions(self) -> "SpaceSpec":
        problems = []
        searched = self.architecture_dimension
        if searched is not None and searched.when is not None:
            given = list(searched.when.architecture)
            rule = "be null: the architecture cannot depend on itself"
            problems.append(must(rule, given, ("architecture", "when")))
        if self.hidden is not None and not self.hidden.applies("dense"):
            problems.append(must("include dense, the only kind that has it", "conv", ("hidden",)))
        if self.channels is not None and not self.channels.applies("conv"):
            problems.append(must("include conv, the only kind that has it", "dense", ("channels",)))
        if problems:
            raise broken(*problems)
        return self

    @property
    def architecture_dimension(self) -> ArchitectureDimension | None:
        """The architectures to choose from, if any; all that there are where that is ``auto``."""
        if self.architecture == "auto":
            return ArchitectureDimension(choices=ARCHITECTURES)
        return self.architecture

    def for_images(
        self, fixed: Architecture, *, side: int, n_train: int, device: str
    ) -> "SpaceSpec":
        """Decide what ``auto`` is.

        Parameters
        ----------
        fixed : str
            ``model.architecture``.
        side : int
            The shorter side of an image, in pixels.
        n_train : int
            Training images, all folds together.
        device : {"cpu", "cuda", "mps"}
        """
        if self.architecture != "auto":
            return self
        affordable = device != "cpu" or n_train <= MOST_IMAGES_FOR_CONV
        both = fixed == "dense" and side >= LEAST_SIDE_FOR_CONV and affordable
        return self.with_architecture(self.architecture_dimension if both else None, fixed)

    def with_architecture(
        self, dimension: ArchitectureDimension | Literal["auto"] | None, fixed: Architecture
    ) -> "SpaceSpec":
        """Search these architectures, and nothing that they do not have."""
        return self.model_copy(update={"architecture": dimension}).restricted(fixed)

    def dimensions(self) -> dict[str, Dimension]:
        """Give the searched dimensions by name, the architecture first."""
        found = {name: getattr(self, name) for name in SEARCHABLE}
        found["architecture"] = self.architecture_dimension
        return {name: dimension for name, dimension in found.items() if dimension is not None}

    def active(self, architecture: str) -> dict[str, Dimension]:
        """Give the dimensions a trial of this architecture has, in canonical order."""
        return {n: d for n, d in self.dimensions().items() if d.applies(architecture)}

    def restricted(self, fixed: Architecture) -> "SpaceSpec":
        """Drop conditions that always hold and dimensions that never apply.

        ``fixed`` is the architecture of every trial where none is searched.
        """
        searched = self.architecture_dimension
        possible = (fixed,) if searched is None else searched.choices
        changes: dict[str, Any] = {}
        for name, dimension in self.dimensions().items():
            where = [a for a in possible if dimension.applies(a)]
            if name in _OF_ONE_KIND:
                where = [a for a in where if a == _OF_ONE_KIND[name]]
            when = (
                None
                if len(where) == len(possible)
                else When.model_construct(architecture=tuple(where))
            )
            if name != "architecture":  # which may be auto still, and depends on nothing
                changes[name] = dimension.model_copy(update={"when": when}) if where else None
        return self.model_copy(update=changes)

    def grid_problems(self) -> list[Problem]:
        """State why the space has no grid, if it has none: paths start at the space."""
        rule = "have choices or step for sampler grid"
        problems = [
            Problem((name,), f"must {rule}, got a range")
            for name, dimension in self.dimensions().items()
            if dimension.n_grid is None
        ]
        if not problems and self.grid_size > LARGEST_GRID:
            rule = f"have at most {LARGEST_GRID} configurations for sampler grid"
            problems.append(must(rule, self.grid_size))
        return problems

    def grid(self) -> dict[str, list[Any]]:
        """List the values of each dimension.

        Raises
        ------
        SpecError
            If a dimension has neither choices nor a step, or the grid is very large.
        """
        problems = self.grid_problems()
        if problems:
            raise SpecError(
                "space", [".".join(("space", *map(str, p.path))) + f": {p.text}" for p in problems]
            )
        return {name: dimension.grid_values() for name, dimension in self.dimensions().items()}

    def _branches(self) -> Iterator[dict[str, Dimension]]:
        """Yield the active dimensions once per architecture, or once where none is searched."""
        searched = self.architecture_dimension
        if searched is None:
            yield self.dimensions()
        else:
            yield from (self.active(a) for a in searched.choices)

    @property
    def grid_size(self) -> int:
        """How many configurations the grid has, conditions respected; needs a grid."""
        return sum(
            math.prod(d.n_grid or 0 for name, d in branch.items() if name != "architecture")
            for branch in self._branches()
        )

    def grid_configurations(self) -> list[Params]:
        """List every configuration of the grid, conditional dimensions only where they apply.

        The order is fixed: architecture first, the last name varies fastest.

        Raises
        ------
        SpecError
            As ``grid``.
        """
        values = self.grid()
        found = []
        architectures = values.get("architecture", [None])
        for architecture, branch in zip(architectures, self._branches(), strict=True):
            own = values | ({"architecture": [architecture]} if architecture else {})
            names = list(branch)
            combinations = itertools.product(*(own[name] for name in names))
            found += [dict(zip(names, combination, strict=True)) for combination in combinations]
        return found


# Every name that a space may hold, in canonical order.
SEARCHABLE = tuple(name for name in SpaceSpec.model_fields if name != "defaults")
