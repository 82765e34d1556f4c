"""How numbers and words of a study are written for people."""

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # NumPy, which a command line has no need of
    from collections.abc import Sequence

    from aesearch.studies.results.records import TrialRecord


def kept_text(best_epoch: int, epochs: int) -> str:
    """Say which epoch's weights a retrained network has, out of how many."""
    if best_epoch == 0:
        return f"is PCA (none of {epochs} epochs is clearly better on the held-out images)"
    return f"best epoch {best_epoch} of {epochs}"


def value_text(value: float | None, standard_error: float | None = None) -> str:
    """Write a loss to the digits that its standard error leaves meaningful.

    Examples
    --------
    >>> value_text(0.0123449, 0.000121)
    '0.01234 ± 0.00012'
    >>> value_text(0.0119)
    '0.0119'
    """
    if value is None:
        return "no value"
    if standard_error is None or not math.isfinite(standard_error) or not math.isfinite(value):
        return f"{value:.4g}"
    if standard_error <= 0.0:
        return f"{value:.4g} ± 0"
    decimals = max(1 - math.floor(math.log10(standard_error)), 0)
    if decimals > 8:
        return f"{value:.4g} ± {standard_error:.2g}"
    return f"{value:.{decimals}f} ± {standard_error:.{decimals}f}"


def parameter_text(value: Any) -> str:
    """Write one hyperparameter: floats to four significant digits, everything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def one_line(text: str) -> str:
    """Keep text to one line and the terminal safe: control characters are shown, not sent."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in re.sub(r"\s*[\r\n]+\s*", " ", text)
    )


def counted(number: int, noun: str) -> str:
    """Write a number with its noun in the singular or plural."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def parameters_text(trial: "TrialRecord") -> str:
    """Write the parameters as ``name=value`` words."""
    return " ".join(f"{name}={parameter_text(value)}" for name, value in trial.params.items())


def trial_table(trials: "Sequence[TrialRecord]") -> str:
    """Write trials one below the other: number, value, parameters."""
    values = [value_text(trial.value, trial.standard_error) for trial in trials]
    numbers = [str(trial.number) for trial in trials]
    wide, wider = max(map(len, numbers)), max(map(len, values))
    return "\n".join(
        f"  {number:>{wide}}  {value:{wider}}  {parameters_text(trial)}"
        for number, value, trial in zip(numbers, values, trials, strict=True)
    )
