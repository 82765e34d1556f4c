"""The rules by which a figure agrees with ours and a claim holds; nothing is measured here."""

import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from aesearch.reproduction.measures import Values
from aesearch.reproduction.reported import Relation

TOLERANCE = 0.1
DEVIATIONS = 2.0

Agreement = Literal["agrees", "ours is better", "ours is worse", "the same", "another", "diverged"]
Outcome = Literal["holds", "fails", "open"]

NUMBER_RULE = (
    "**agrees**: ours and the reported figure differ by no more than the largest of two standard "
    "deviations of ours, a tenth of the reported error, and half a unit of the last reported "
    "digit. A tenth of the error of a binary accuracy a is a tenth of 1 - a; of a PSNR, of the "
    "mean squared error that it stands for. Outside of that **ours is better** or **ours is "
    "worse**. A count or a choice is **the same** or **another**"
)
CLAIM_RULE = (
    "a claim is one or more comparisons of means, each of which holds or fails; where the means "
    "differ by less than two standard deviations (of both sides together) it is **open**. "
    '"Near" holds within a tenth of the larger, or within two standard deviations. **yes**: all '
    "hold; **no**: all fail; **partly**: some hold; **open**: none is clear"
)


def error_of(metric: str, value: float) -> float:
    """Turn a figure into an error: the lower, the better, in proportion."""
    if metric == "psnr":
        return float(10 ** (-value / 10))
    return 1 - value if metric == "binary_accuracy" else value


def agreement(reported: str, values: Values, *, metric: str, exact: bool) -> Agreement:
    """Hold a figure of a report against ours by ``NUMBER_RULE``."""
    printed = Decimal(reported)
    theirs, ours = float(printed), values.mean
    if not math.isfinite(ours):
        return "diverged"
    if exact:
        return "the same" if math.isclose(theirs, ours) else "another"
    exponent = printed.as_tuple().exponent
    assert isinstance(exponent, int), "a figure is a number"
    difference = abs(theirs - ours)
    their_error, our_error = error_of(metric, theirs), error_of(metric, ours)
    near = difference <= max(DEVIATIONS * values.deviation, 0.5 * 10.0**exponent)
    if near or abs(their_error - our_error) <= TOLERANCE * their_error:
        return "agrees"
    return "ours is better" if our_error < their_error else "ours is worse"


def outcome(left: Values, relation: Relation, right: Values) -> Outcome:
    """Say whether one comparison holds, by ``CLAIM_RULE``."""
    difference = left.mean - right.mean
    if not math.isfinite(difference):
        return "open"
    scatter = DEVIATIONS * math.hypot(left.deviation, right.deviation)
    if relation == "near":
        largest = max(abs(left.mean), abs(right.mean))
        return "holds" if abs(difference) <= max(TOLERANCE * largest, scatter) else "fails"
    if abs(difference) < scatter:
        return "open"
    if relation == "above":
        return "holds" if difference > 0 else "fails"
    return "holds" if difference < 0 else "fails"


def claim_verdict(outcomes: Sequence[Outcome]) -> str:
    """Sum the comparisons of a claim up in a word, with how many hold where they differ."""
    counts = Counter(outcomes)
    for every, word in (("holds", "yes"), ("fails", "no"), ("open", "open")):
        if counts[every] == len(outcomes):
            return word
    hold = f"{counts['holds']} of {len(outcomes)} hold"
    word = "partly" if counts["holds"] else "no" if not counts["open"] else "open"
    return f"{word}: {hold}" + (f", {counts['open']} open" if counts["open"] else "")
