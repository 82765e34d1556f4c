"""How odd an error of reconstruction is: p-values against errors of images that nobody trained on.

========  ===========================================================================
symbol    meaning
========  ===========================================================================
e         mean squared error per pixel of an image, by the delivered network
c_1..c_n  calibration: such errors of ordinary images that the network never saw
o_i       error of image i by a network of the fold that holds it out
d_i       error of the held-out image i by the delivered network
========  ===========================================================================

p = (1 + #{i : c_i >= e}) / (n + 1), the marginal conformal p-value of Bates, Candès, Lei, Romano
and Sesia: Testing for outliers with conformal p-values, Annals of Statistics 51, 2023. An ordinary
image has p <= a with a probability of at most a, where it is exchangeable with those of the c_i.

Where the share of the training images that only stopped the training is large, c = d. Else the
c_i are out-of-fold errors of all training images, so that few images calibrate finely: c_i = s o_i,
with s the median of d_i / o_i, because the delivered network is trained on more images than those
of the folds and errs less. Measured in docs/decisions.md.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aesearch.studies.errors import AesearchError
from aesearch.studies.results.evaluation_files import CALIBRATION

# Held-out images that calibrate alone: a share of 0.05 of them is known to a tenth.
ENOUGH_HELD_OUT = 2000
MOST_ERRORS = 10_000
N_ODDEST = 10
THRESHOLDS = (0.01, 0.05)


class CalibrationError(AesearchError, ValueError):
    """A calibration that cannot be read."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Errors that a network makes on ordinary images that it never saw.

    Attributes
    ----------
    source : {"held-out", "out-of-fold"}
        Where they come from.
    errors : ndarray of float64, (image,), ascending
        Mean squared errors per pixel.
    weights_sha256 : str
        Of the network; another one errs differently.
    oddest : tuple of int
        Numbers of the training images with the largest errors, these first.
    """

    source: Literal["held-out", "out-of-fold"]
    errors: np.ndarray
    weights_sha256: str
    oddest: tuple[int, ...] = ()

    def document(self) -> dict[str, Any]:
        """Give it as plain values that JSON can hold."""
        return {
            "source": self.source,
            "weights_sha256": self.weights_sha256,
            "oddest": list(self.oddest),
            "errors": [float(f"{error:.6g}") for error in self.errors],
        }


def p_values(errors: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Say how odd errors are: the share of ordinary images that err as much or more.

    Parameters
    ----------
    errors : ndarray, (sample,)
    calibration : ndarray, (image,), ascending
        Errors of ordinary images that the network never saw; not empty.

    Returns
    -------
    ndarray of float64, (sample,)
        In [1 / (n + 1), 1]; see the head of this module.
    """
    n_images = len(calibration)
    n_smaller = np.searchsorted(calibration, errors, side="left")
    return (1.0 + n_images - n_smaller) / (n_images + 1.0)


def scaled_to(errors: np.ndarray, delivered: np.ndarray, of_folds: np.ndarray) -> np.ndarray:
    """Bring out-of-fold errors to the scale of the delivered network.

    Parameters
    ----------
    errors : ndarray, (image,)
        Out-of-fold errors of all images.
    delivered, of_folds : ndarray, (held-out image,)
        Errors of the held-out images, by the delivered network and by those of the folds.

    Returns
    -------
    ndarray, (image,)
    """
    both = (delivered > 0) & (of_folds > 0)
    return errors * np.median(delivered[both] / of_folds[both]) if both.any() else errors


def calibration_of(
    source: Literal["held-out", "out-of-fold"],
    errors: np.ndarray,
    numbers: np.ndarray,
    *,
    weights_sha256: str,
    seed: int,
) -> Calibration:
    """Keep of the errors of images as many as it takes.

    Parameters
    ----------
    errors : ndarray, (image,)
    numbers : ndarray of int, (image,)
        Which of the training images these are.
    seed : int
        Of the choice among more than ``MOST_ERRORS``.
    """
    oddest = numbers[np.argsort(-errors, kind="stable")[:N_ODDEST]]
    if len(errors) > MOST_ERRORS:
        errors = np.random.default_rng(seed).choice(errors, MOST_ERRORS, replace=False)
    return Calibration(source, np.sort(errors), weights_sha256, tuple(oddest.tolist()))


def from_document(document: Any, source: str = "the store") -> Calibration:
    """Read what ``Calibration.document`` gave.

    Raises
    ------
    CalibrationError
        It is none.
    """
    try:
        found = Calibration(
            document["source"],
            np.sort(np.asarray(document["errors"], np.float64)),
            str(document["weights_sha256"]),
            tuple(document["oddest"]),
        )
        usable = found.errors.ndim == 1 and len(found.errors) and np.isfinite(found.errors).all()
    except (KeyError, TypeError, ValueError):
        usable = False
    if not usable:
        raise CalibrationError(
            f"{source} must hold errors of ordinary images, as aesearch writes them, got something "
            "else; write it again with 'aesearch export STUDY', or delete it to score without "
            "p-values"
        )
    return found


def read_calibration(model: Path, weights_sha256: str) -> Calibration | None:
    """Read the calibration that lies beside a model file; None where there is none of this model.

    Raises
    ------
    CalibrationError
        The file cannot be read.
    """
    path = model.with_name(CALIBRATION)
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):  # of which from_document says what to do
        document = None
    found = from_document(document, str(path))
    return found if found.weights_sha256 == weights_sha256 else None


def shares_below(errors: np.ndarray, calibration: np.ndarray) -> list[dict[str, float]]:
    """Say which share of images has a p-value of at most 0.01 and 0.05."""
    found = p_values(errors, calibration)
    return [{"p_value": t, "share": float((found <= t).mean())} for t in THRESHOLDS]
