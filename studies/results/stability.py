"""Which trials are too unstable to be chosen, judged on their loss curves; nothing is chosen here.

| symbol | meaning |
|---|---|
| y | validation losses of one fold in the end window, in epoch order |
| climb | the largest rise of y above an earlier low, relative to the median of y |
"""

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Optuna's own key for a constraint: above zero, a trial is not feasible and never the best.
STABILITY = "constraints:stability"

END_FRACTION = 0.25  # of the epochs are "the end of training" ...
END_EPOCHS = 3  # ... and never fewer than this many, where there are as many
# The mean squared error of rounding a pixel to one of 256 levels, 1 / (12 * 255**2): a loss that
# rises by less has lost nothing that an image file could hold.
ROUNDING_ERROR = 1 / (12 * 255**2)

# Reads back what `unstable_reason` writes: the store keeps the words of a reason, no figures.
_ABOVE_LIMIT = re.compile(
    r"the (?:loss of fold \d+ ends at (\S+) \(epoch \d+\)|score of fold \d+ is (\S+)), "
    r"above the limit (\S+)"
)


def end_window(n_epochs: int) -> int:
    """Count the epochs that make up the end of training: the last quarter, at least three.

    Parameters
    ----------
    n_epochs : int
        Epochs trained; >= 1.

    Returns
    -------
    int
        In [1, ``n_epochs``].
    """
    return max(math.ceil(n_epochs * END_FRACTION), min(END_EPOCHS, n_epochs))


def relative_climb(losses: npt.ArrayLike) -> float:
    """Measure an oscillation: the largest rise above an earlier low, relative to the median.

    ``climb = max over i < j of (y[j] - y[i]) / median(y)``. A curve that only falls has 0, and
    so has one that rises by no more than `ROUNDING_ERROR` (1.3e-6): a network that PCA starts
    without an error trembles there. Noise of +-5% stays near 0.1 however long the curve is (a
    sum of rises would grow with the number of epochs); one jump to twice the loss and back has
    about 1.

    Parameters
    ----------
    losses : array_like, (epoch,)
        Finite losses, >= 0; at least one.

    Returns
    -------
    float
        >= 0; infinite where the loss rises and its median is 0.
    """
    values = np.asarray(losses, dtype=np.float64)
    climb = float(np.max(values - np.minimum.accumulate(values)))
    if climb <= ROUNDING_ERROR:
        return 0.0
    middle = float(np.median(values))
    return climb / middle if middle > 0.0 else math.inf


def unstable_reason(curves: npt.ArrayLike, *, limit: float, oscillation: float) -> str | None:
    """Say why a trial is unstable, or None: one bad fold is enough, and only the end counts.

    This is the rule of report 001 (discard a high loss or a strong oscillation on any
    split), judged at the end of training, because good configurations with a high
    learning rate sit at a high loss for some epochs and then leave it. In this order:

    1. any loss that is not finite, at any epoch;
    2. the loss of the last epoch above ``limit`` on any fold (the worst is named);
    3. `relative_climb` over the last quarter of the epochs (`end_window`) above
       ``oscillation`` on any fold (the worst is named).

    Parameters
    ----------
    curves : array_like, (fold, epoch)
        Validation losses, mean squared error per pixel.
    limit : float
        Highest final loss of a stable fold.
    oscillation : float
        Highest climb of a stable fold, as a fraction of the median loss.

    Returns
    -------
    str or None
        Names the fold (from 0, as in the tables), the epoch (from 1) and the figures.

    Raises
    ------
    ValueError
        If ``curves`` is not a non-empty (fold, epoch) array.
    """
    losses = np.asarray(curves, dtype=np.float64)
    if losses.ndim != 2 or losses.size == 0:
        raise ValueError(
            f"curves must be a non-empty (fold, epoch) array, got shape {losses.shape!r}"
        )
    n_epochs = losses.shape[1]

    broken = np.argwhere(~np.isfinite(losses))
    if len(broken):
        fold, epoch = (int(index) for index in broken[0])
        return f"the loss of fold {fold} is {losses[fold, epoch]} at epoch {epoch + 1}"

    final = losses[:, -1]
    fold = int(np.argmax(final))
    if final[fold] > limit:
        return (
            f"the loss of fold {fold} ends at {final[fold]:.4g} (epoch {n_epochs}), "
            f"above the limit {limit:g}"
        )

    end = losses[:, n_epochs - end_window(n_epochs) :]
    climbs = [relative_climb(curve) for curve in end]
    fold = int(np.argmax(climbs))
    if climbs[fold] > oscillation:
        rises = end[fold] - np.minimum.accumulate(end[fold])
        top = int(np.argmax(rises))
        low = int(np.argmin(end[fold][: top + 1]))
        first = n_epochs - end.shape[1] + 1
        return (
            f"the loss of fold {fold} oscillates: from {end[fold][low]:.4g} (epoch {first + low}) "
            f"up to {end[fold][top]:.4g} (epoch {first + top}), {climbs[fold]:.2f} of the median "
            f"{np.median(end[fold]):.4g}, above {oscillation:g}"
        )
    return None


def score_above_limit(scores: Sequence[float], *, limit: float) -> str | None:
    """Say why a trial that is scored by its kept weights is unstable, or None.

    Only a score above the limit counts: what a loss did after the epoch whose weights are kept
    is nothing that is delivered.

    Parameters
    ----------
    scores : sequence of float, (fold,)
        Mean squared errors per pixel.
    limit : float
        Highest score of a stable fold.
    """
    fold = int(np.argmax(scores))
    if scores[fold] <= limit:
        return None
    return f"the score of fold {fold} is {scores[fold]:.4g}, above the limit {limit:g}"


def end_above_limit(reason: str | None) -> tuple[float, float] | None:
    """Give the final loss and the limit of a reason that is a high final loss; None for another.

    Parameters
    ----------
    reason : str or None
        As `unstable_reason` gave it.

    Returns
    -------
    (loss, limit) or None
        To four and six significant digits; the loss is that of the worst fold.
    """
    found = None if reason is None else _ABOVE_LIMIT.fullmatch(reason)
    return None if found is None else (float(found[1] or found[2]), float(found[3]))
