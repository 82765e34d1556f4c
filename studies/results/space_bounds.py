"""Whether a configuration lies at an end of its space, beyond which a better one may lie."""

import math
from dataclasses import dataclass
from typing import Literal

from aesearch.studies.results.records import Document
from aesearch.studies.spec.dimensions import Choices, Dimension, Params
from aesearch.studies.spec.space import SpaceSpec

NEAR = 0.02  # of a range, on its own scale, counts as its end

# At their lower end these are as good as switched off; a larger code usually errs less.
_ENDS_ALREADY = {
    ("dropout", "lower"),
    ("weight_decay", "lower"),
    ("corruption_level", "lower"),
    ("encoding_dim", "upper"),
}


@dataclass(frozen=True)
class Edge(Document):
    """A parameter that lies at one end of what was searched, ``low`` to ``high``."""

    name: str
    value: float | int
    end: Literal["lower", "upper"]
    low: float | int
    high: float | int


def edges(params: Params, space: SpaceSpec) -> list[Edge]:
    """Find the parameters of a trial that lie at an end of their range or numeric choices.

    Ends that mean nothing, such as a dropout of 0 or the largest code, are left out.
    """
    dimensions, found = space.dimensions(), []
    for name, value in params.items():
        dimension = dimensions.get(name)
        ends = None if dimension is None else _ends(dimension)
        if dimension is None or ends is None or isinstance(value, str):
            continue
        end = _end(value, *ends, dimension)
        if end is not None and (name, end) not in _ENDS_ALREADY:
            found.append(Edge(name, value, end, *ends))
    return found


def _end(
    value: float, low: float, high: float, dimension: Dimension
) -> Literal["lower", "upper"] | None:
    """Which end a value lies at: a choice exactly, a point of a range within ``NEAR`` of it."""
    if isinstance(dimension, Choices):
        return "lower" if value == low else "upper" if value == high else None
    scale = math.log if dimension.log else float
    place = (scale(value) - scale(low)) / (scale(high) - scale(low))
    return "lower" if place <= NEAR else "upper" if place >= 1 - NEAR else None


def _ends(dimension: Dimension) -> tuple[float, float] | None:
    """Lower and upper end; None without two of them."""
    if not isinstance(dimension, Choices):
        low, high = dimension.low, dimension.high
    elif len(dimension.choices) > 2 and all(type(c) in (int, float) for c in dimension.choices):
        low, high = min(dimension.choices), max(dimension.choices)
    else:
        return None
    return (low, high) if low < high else None
