"""The rules by which a figure agrees with ours and a claim holds; nothing is measured here."""

import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from aesearch.studies.results.selection import corrected_resampled_t_test
from reproduction.measures import Values
from reproduction.reported import Relation

TOLERANCE = 0.1
DEVIATIONS = 2.0
SIGNIFICANCE = 0.05

Agreement = Literal[
    "agrees",
    "within our spread",
    "ours is better",
    "ours is worse",
    "the same",
    "another",
    "diverged",
]
Outcome = Literal["holds", "fails", "open"]

NUMBER_RULE = (
    "**agrees**: ours and the reported figure differ by no more than a tenth of the reported error "
    "or half a unit of the last reported digit. A tenth of the error of a binary accuracy a is a "
    "tenth of 1 - a; of a PSNR, of the mean squared error that it stands for. **within our "
    "spread**: by more than that, but by no more than two standard deviations of ours, so that "
    "another training could have given it. Outside of both **ours is better** or **ours is "
    "worse**. A count or a choice is **the same** or **another**; another choice is **not told "
    "apart** where the t-test of the claims leaves it open which of the two has the lower loss"
)
CLAIM_RULE = (
    "one or more comparisons of means, each of which holds or fails. It is **open** where a t-test "
    f"does not tell the sides apart (p >= {SIGNIFICANCE:g}): of the differences where both are of "
    "the same networks or of the same folds, else Welch's; with folds, both corrected for their "
    "overlap (Nadeau and Bengio, 2003). One figure beside another is compared as it is. *Near* "
    "holds where the means are within a tenth of the larger, whatever their spread, and fails "
    "where they are further apart and the test tells them apart; accuracies and PSNRs are near if "
    "the errors are that they stand for, 1 - a and the mean squared error. **yes**: all hold; "
    "**no**: some fail and none holds; **open**: none is clear; **partly**: the rest"
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
    rounded = difference <= 0.5 * 10.0**exponent
    if rounded or abs(their_error - our_error) <= TOLERANCE * their_error:
        return "agrees"
    if difference <= DEVIATIONS * values.deviation:
        return "within our spread"
    return "ours is better" if our_error < their_error else "ours is worse"


def outcome(left: Values, relation: Relation, right: Values, *, metric: str = "mse") -> Outcome:
    """Say whether one comparison holds, by ``CLAIM_RULE``."""
    difference = left.mean - right.mean
    if not math.isfinite(difference):
        return "open"
    if relation == "near":
        one, other = error_of(metric, left.mean), error_of(metric, right.mean)
        if abs(one - other) <= TOLERANCE * max(abs(one), abs(other)):
            return "holds"
        return "fails" if clear(left, right) else "open"
    if difference == 0:
        return "open" if left.deviation or right.deviation else "fails"
    if not clear(left, right):
        return "open"
    return "holds" if (difference > 0) == (relation == "above") else "fails"


def clear(left: Values, right: Values) -> bool:
    """Whether the means of two sides can be told apart, by ``CLAIM_RULE``.

    References
    ----------
    Welch, B. L., "The generalization of Student's problem when several different population
    variances are involved", Biometrika 34, 1947.
    """
    from scipy.stats import ttest_ind_from_stats

    n_left, n_right = len(left.values), len(right.values)
    if max(n_left, n_right) == 1:
        return True
    paired = n_left == n_right and left.spread == right.spread
    same = left.split == right.split if left.spread == "folds" else left.study == right.study
    if min(n_left, n_right) == 1 or (paired and same):
        # One figure stands for all of the other side.
        differences = left.values - right.values
        folds = "folds" in (left.spread, right.spread)
        overlap = _overlap(len(differences)) if folds else 0.0
        _, p = corrected_resampled_t_test(differences, n_train=1.0, n_test=overlap)
        return p < SIGNIFICANCE
    if left.deviation == right.deviation == 0.0:
        return left.mean != right.mean
    sides = (left.mean, _widened(left), n_left, right.mean, _widened(right), n_right)
    return bool(ttest_ind_from_stats(*sides, equal_var=False).pvalue < SIGNIFICANCE)


def _overlap(n_folds: int) -> float:
    """Test over training images of a fold, which is scored on one part and trained on the rest."""
    return 1 / (n_folds - 1)


def _widened(values: Values) -> float:
    """Standard deviation whose share in the mean's is corrected for the overlap of folds."""
    n_values = len(values.values)
    overlap = _overlap(n_values) if values.spread == "folds" else 0.0
    return values.deviation * math.sqrt(1 + n_values * overlap)


def claim_verdict(outcomes: Sequence[Outcome]) -> str:
    """Sum the comparisons of a claim up in a word, with how many hold where they differ."""
    counts = Counter(outcomes)
    n_all = len(outcomes)
    if counts["holds"]:
        word = "yes" if counts["holds"] == n_all else "partly"
    else:
        word = "no" if counts["fails"] else "open"
    if n_all in counts.values():
        return word
    hold = f"{word}: {counts['holds']} of {n_all} hold"
    return f"{hold}, {counts['open']} open" if counts["open"] else hold
