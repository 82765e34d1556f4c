"""Whether a configuration lies at an end of its space, beyond which a better one may lie."""

import math
from collections.abc import Mapping
from typing import Any

NEAR = 0.02  # of a range, on its own scale, counts as its end

# At their lower end these are as good as switched off; a larger code usually errs less.
_ENDS_ALREADY = {
    ("dropout", "lower"),
    ("weight_decay", "lower"),
    ("corruption_level", "lower"),
    ("encoding_dim", "upper"),
}


def edges(params: Mapping[str, Any], space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Find the parameters that lie at an end of their range or of their numeric choices.

    Parameters
    ----------
    params : mapping
        Of a trial.
    space : mapping
        The section ``space`` of its specification, as plain data.

    Returns
    -------
    list of dict
        ``name, value, end`` ("lower" or "upper"), ``low, high``; without ends that mean
        nothing, such as a dropout of 0 or the largest code.
    """
    found = []
    for name, value in params.items():
        ends = _ends(space.get(name))
        if ends is None or not isinstance(value, int | float):
            continue
        low, high = ends
        end = _end(value, low, high, space[name])
        if end is not None and (name, end) not in _ENDS_ALREADY:
            found.append({"name": name, "value": value, "end": end, "low": low, "high": high})
    return found


def _end(value: float, low: float, high: float, dimension: Mapping[str, Any]) -> str | None:
    """Which end a value lies at: a choice exactly, a point of a range within ``NEAR`` of it."""
    if dimension.get("choices") is not None:
        return {low: "lower", high: "upper"}.get(value)
    scale = math.log if dimension.get("log") else float
    place = (scale(value) - scale(low)) / (scale(high) - scale(low))
    return "lower" if place <= NEAR else "upper" if place >= 1 - NEAR else None


def _ends(dimension: Any) -> tuple[float, float] | None:
    """Lower and upper end; None without two of them."""
    if not isinstance(dimension, Mapping):
        return None
    choices = dimension.get("choices")
    if choices is None:
        low, high = dimension["low"], dimension["high"]
    elif len(choices) > 2 and all(type(choice) in (int, float) for choice in choices):
        low, high = min(choices), max(choices)
    else:
        return None
    return (low, high) if low < high else None
