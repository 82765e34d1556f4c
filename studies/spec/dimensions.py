"""One searched value: its bounds, its forms, when it applies; all of them are in space.py."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from aesearch.studies.spec.problems import CHOICES_TAG, RANGE_TAG, broken, must

Architecture = Literal["dense", "conv"]
CodeActivation = Literal["linear", "relu"]
Activation = Literal["relu", "gelu"]
Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["none", "exponential", "plateau", "cosine"]
Shortcut = Literal["pca", "none"]
Corruption = Literal["none", "gaussian", "uniform", "salt-and-pepper", "occlusion"]
# Their levels are shares of the image, so that 1 is all of it.
SHARES: tuple[Corruption, ...] = ("salt-and-pepper", "occlusion")
ARCHITECTURES: tuple[Architecture, ...] = ("dense", "conv")

# The bounds of each searchable number, shared by the model or training section and the space.
# The titles name the types in the JSON schema.
LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False, title="LearningRate")]
WeightDecay = Annotated[float, Field(ge=0, allow_inf_nan=False, title="WeightDecay")]
Dropout = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, title="Dropout")]
EncodingDim = Annotated[int, Field(ge=1, title="EncodingDim")]
CorruptionLevel = Annotated[float, Field(ge=0, allow_inf_nan=False, title="CorruptionLevel")]

Params = dict[str, float | int | str]
"""The parameters of one trial by the names of the space; hidden widths are a word."""

Value = TypeVar("Value")


class Section(BaseModel):
    """A frozen mapping of keys: nothing unknown, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def hidden_widths(value: str | float | Sequence[int]) -> tuple[int, ...]:
    """Read hidden widths from any of their spellings.

    Parameters
    ----------
    value : str, int or sequence of int
        ``"256-128"``, ``"392"``, ``392``, ``[256, 128]``; ``"none"`` or ``[]`` for no hidden layer.

    Raises
    ------
    ValueError
        If it is none of these, or a width is below 1.
    """
    if value == "none":
        return ()
    parts: Any = [value] if type(value) is int else value
    if isinstance(value, str):
        ascii_digits = value.replace("-", "").isdecimal() and value.isascii()
        parts = [int(p) if p else 0 for p in value.split("-")] if ascii_digits else [0]
    if not isinstance(parts, list | tuple) or any(type(p) is not int or p < 1 for p in parts):
        raise ValueError(
            f"hidden must be widths >= 1 such as 256-128, [256, 128] or none, got {value!r}"
        )
    return tuple(parts)


def hidden_name(widths: Sequence[int]) -> str:
    """Spell hidden widths as one word: ``"256-128"``, or ``"none"``."""
    return "-".join(map(str, widths)) or "none"


def _hidden_choice(value: Any) -> str:
    try:
        return hidden_name(hidden_widths(value))
    except ValueError:
        rule = "be widths >= 1 such as 256-128, [256, 128] or none"
        raise broken(must(rule, value)) from None


HiddenChoice = Annotated[
    str,
    BeforeValidator(_hidden_choice, json_schema_input_type=str | int | list[int]),
    Field(title="Hidden"),
]


def channel_numbers(value: Any) -> tuple[int, ...]:
    """Parse the channels of three convolutions: ``"16-32-64"``, or a list.

    Raises
    ------
    ValueError
        For anything but three whole numbers >= 1.
    """
    channels = hidden_widths(value)
    if len(channels) != 3:
        raise ValueError(f"channels must be three such as 16-32-64, got {value!r}")
    return channels


def _channels_choice(value: Any) -> str:
    try:
        return hidden_name(channel_numbers(value))
    except ValueError:
        raise broken(must("be three channels >= 1 such as 16-32-64", value)) from None


ChannelsChoice = Annotated[
    str,
    BeforeValidator(_channels_choice, json_schema_input_type=str | list[int]),
    Field(title="Channels"),
]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class When(Section):
    """The architectures a dimension applies to."""

    architecture: Annotated[
        tuple[Architecture, ...],
        Field(strict=False, min_length=1),
        BeforeValidator(_as_tuple, json_schema_input_type=Architecture | list[Architecture]),
    ] = Field(description="One architecture, or a list of them.")


class _Dimension(Section):
    when: When | None = Field(
        default=None,
        description="Suggest this only for these architectures; null for all of them.",
    )

    def applies(self, architecture: str) -> bool:
        """Whether a trial of this architecture has this dimension."""
        return self.when is None or architecture in self.when.architecture

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        titles = [getattr(m, "title", None) for m in getattr(params[0], "__metadata__", ())]
        return next((title for title in titles if title), "Name") + cls.__name__


class Range(_Dimension, Generic[Value]):
    """All numbers from ``low`` to ``high``, both included; whole ones if both are."""

    low: Value = Field(description="Smallest value.")
    high: Value = Field(description="Largest value; >= low.")
    log: bool = Field(default=False, description="Search the logarithm; needs low > 0.")
    step: Value | None = Field(
        default=None,
        description="Only low, low + step, ... up to high; must divide high - low. Not with log.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Range[Value]":
        low, high, step = Fraction(str(self.low)), Fraction(str(self.high)), self.step
        problems = []
        if low > high:
            problems.append(must(f"be <= high ({self.high})", self.low, ("low",)))
        if self.log and low <= 0:
            problems.append(must("be > 0 for log: true", self.low, ("low",)))
        if step is not None:
            if Fraction(str(step)) <= 0:
                problems.append(must("be > 0", step, ("step",)))
            elif self.log:
                problems.append(must("be null for log: true", step, ("step",)))
            elif low <= high and (high - low) % Fraction(str(step)):
                rule = f"divide high - low ({float(high - low):g})"
                problems.append(must(rule, step, ("step",)))
        if problems:
            raise broken(*problems)
        return self

    @property
    def integer(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int)

    @property
    def n_grid(self) -> int | None:
        """How many values the grid has; None for a range without step."""
        if self.step is None:
            return None
        span = Fraction(str(self.high)) - Fraction(str(self.low))
        return int(span / Fraction(str(self.step))) + 1

    def grid_values(self) -> list[Any]:
        """List low, low + step, ... up to high, without accumulated rounding; needs a step."""
        assert self.n_grid is not None
        low, step = Fraction(str(self.low)), Fraction(str(self.step))
        kind = int if self.integer else float
        return [kind(low + i * step) for i in range(self.n_grid)]

    def nearest(self, value: Any) -> Any:
        """Give the value of this dimension that is nearest to ``value``."""
        bounded: Any = min(max(value, self.low), self.high)
        if self.step is None:
            return bounded
        low, step = Fraction(str(self.low)), Fraction(str(self.step))
        index = round((Fraction(str(bounded)) - low) / step)
        return (int if self.integer else float)(low + index * step)


class Choices(_Dimension, Generic[Value]):
    """One of a list of values."""

    choices: Annotated[tuple[Value, ...], Field(strict=False, min_length=1)] = Field(
        description="The values to choose from; at least one, each once.",
    )

    @model_validator(mode="after")
    def _distinct(self) -> "Choices[Value]":
        repeated = [c for i, c in enumerate(self.choices) if c in self.choices[:i]]
        if repeated:
            raise broken(must("name each value once", repeated[0], ("choices",)))
        return self

    @property
    def n_grid(self) -> int:
        """How many values there are."""
        return len(self.choices)

    def grid_values(self) -> list[Any]:
        """List the choices in their order."""
        return list(self.choices)

    def nearest(self, value: Any) -> Any:
        """Give ``value`` if it is a choice, else the nearest number, else the first choice."""
        choices: tuple[Any, ...] = self.choices
        if value in choices or not isinstance(choices[0], int | float):
            return value if value in choices else choices[0]
        return min(choices, key=lambda choice: abs(choice - value))


Dimension = Range[Any] | Choices[Any]


def _form(value: Any) -> str | None:
    if isinstance(value, dict):
        return CHOICES_TAG if "choices" in value else RANGE_TAG
    if isinstance(value, Range):
        return RANGE_TAG
    return CHOICES_TAG if isinstance(value, Choices) else None


_IsRange, _IsChoices, _ByForm = Tag(RANGE_TAG), Tag(CHOICES_TAG), Discriminator(_form)
LearningRateDimension = Annotated[
    Annotated[Range[LearningRate], _IsRange] | Annotated[Choices[LearningRate], _IsChoices],
    _ByForm,
]
WeightDecayDimension = Annotated[
    Annotated[Range[WeightDecay], _IsRange] | Annotated[Choices[WeightDecay], _IsChoices],
    _ByForm,
]
DropoutDimension = Annotated[
    Annotated[Range[Dropout], _IsRange] | Annotated[Choices[Dropout], _IsChoices],
    _ByForm,
]
EncodingDimDimension = Annotated[
    Annotated[Range[EncodingDim], _IsRange] | Annotated[Choices[EncodingDim], _IsChoices],
    _ByForm,
]
CorruptionLevelDimension = Annotated[
    Annotated[Range[CorruptionLevel], _IsRange] | Annotated[Choices[CorruptionLevel], _IsChoices],
    _ByForm,
]
