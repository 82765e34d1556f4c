"""Whether a configuration lies at an end of its space, beyond which a better one may lie."""

import math
from collections.abc import Mapping
from typing import Any

NEAR = 0.02  # of a range, on its own scale, counts as its end

# At their lower end these are as good as switched off; a larger code always errs less.
_ENDS_ALREADY = {
    ("dropout", "lower"),
    ("weight_decay", "lower"),
    ("corruption_level", "lower"),
    ("encoding_dim", "lower"),
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
        low, high, log = ends
        scale = math.log if log else float
        place = (scale(value) - scale(low)) / (scale(high) - scale(low))
        end = "lower" if place <= NEAR else "upper" if place >= 1 - NEAR else None
        if end is not None and (name, end) not in _ENDS_ALREADY:
            found.append({"name": name, "value": value, "end": end, "low": low, "high": high})
    return found


def _ends(dimension: Any) -> tuple[float, float, bool] | None:
    """Lower end, upper end, and whether the scale is logarithmic; None without two ends."""
    if not isinstance(dimension, Mapping):
        return None
    choices = dimension.get("choices")
    if choices is None:
        low, high, log = dimension["low"], dimension["high"], bool(dimension.get("log"))
    elif len(choices) > 2 and all(type(choice) in (int, float) for choice in choices):
        low, high, log = min(choices), max(choices), False
    else:
        return None
    return (low, high, log) if low < high else None
