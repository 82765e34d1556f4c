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

An image i of the calibration itself is held against the others: p = #{j : c_j >= c_i} / n. So the
images that a network was trained on are judged by a network that was not.

Where the share of the training images that only stopped the training is large, c = d. Else the
c_i are out-of-fold errors of all training images, so that few images calibrate finely: c_i = s o_i
with s^2 = sum d_i^2 / sum o_i^2 over the held-out images, because the delivered network trains on
more images than those of the folds and errs less. Where that network is PCA of all training images,
PCA of those that are not held out gives the d_i. Squares, because large errors decide about what
is odd. Measured in docs/decisions.md, 40.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import numpy as np

from aesearch.studies.errors import AesearchError
from aesearch.studies.results.evaluation import ShareBelow
from aesearch.studies.results.evaluation_files import CALIBRATION

# Held-out images that calibrate alone: a share of 0.05 of them is known to a tenth.
ENOUGH_HELD_OUT = 2000
MOST_ERRORS = 20_000
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
    images : ndarray of uint32, (image,)
        Fingerprint of the image that each error is of: see ``image_fingerprints``.
    oddest : tuple of int
        Numbers of the training images with the largest errors, these first.
    """

    source: Literal["held-out", "out-of-fold"]
    errors: np.ndarray
    weights_sha256: str
    images: np.ndarray
    oddest: tuple[int, ...]

    def document(self) -> dict[str, Any]:
        """Give it as plain values that JSON can hold."""
        return {
            "source": self.source,
            "weights_sha256": self.weights_sha256,
            "oddest": list(self.oddest),
            "errors": self.errors.tolist(),
            "images": self.images.tolist(),
        }

    def p_values(self, errors: np.ndarray) -> np.ndarray:
        """Say how odd new images are: the share of ordinary ones that err as much or more.

        Parameters
        ----------
        errors : ndarray, (sample,)

        Returns
        -------
        ndarray of float64, (sample,)
            In [1 / (n + 1), 1]; see the head of this module.
        """
        n_images = len(self.errors)
        n_smaller = np.searchsorted(self.errors, errors, side="left")
        return (1.0 + n_images - n_smaller) / (n_images + 1.0)

    def judged(
        self, errors: np.ndarray, images: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Say how odd images are, new ones and those of the calibration.

        Parameters
        ----------
        errors : ndarray, (sample,)
            Of the delivered network.
        images : ndarray of uint32, (sample,)
            Fingerprints.

        Returns
        -------
        errors : ndarray, (sample,)
            Those of the calibration for its own images.
        p_values : ndarray, (sample,)
        is_known : ndarray of bool, (sample,)
            Whether the calibration holds the image.
        """
        order = np.argsort(self.images, kind="stable")
        places = np.searchsorted(self.images, images, sorter=order)
        places = order[np.minimum(places, len(order) - 1)]
        is_known = self.images[places] == images
        found = np.where(is_known, self.errors[places], errors)
        n_smaller = np.searchsorted(self.errors, found, side="left")
        against_others = (len(self.errors) - n_smaller) / len(self.errors)
        return found, np.where(is_known, against_others, self.p_values(found)), is_known


def image_fingerprints(images: np.ndarray) -> np.ndarray:
    """Tell images apart: CRC-32 of the pixels of each, (sample,), uint32.

    Parameters
    ----------
    images : ndarray, (sample, channel, height, width)
        Intensities in [0, 1], or uint8.
    """
    if images.dtype != np.uint8:
        images = np.rint(images * 255).astype(np.uint8)
    return np.array([crc32(image.tobytes()) for image in images], np.uint32)


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
    if not (delivered.any() and of_folds.any()):
        return errors
    return errors * float(np.sqrt(np.mean(delivered**2) / np.mean(of_folds**2)))


def calibration_of(
    source: Literal["held-out", "out-of-fold"],
    errors: np.ndarray,
    numbers: np.ndarray,
    images: np.ndarray,
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
    images : ndarray, (training image, channel, height, width), uint8
    seed : int
        Of the choice among more than ``MOST_ERRORS``.
    """
    oddest = numbers[np.argsort(-errors, kind="stable")[:N_ODDEST]]
    if len(errors) > MOST_ERRORS:
        chosen = np.random.default_rng(seed).permutation(len(errors))[:MOST_ERRORS]
        errors, numbers = errors[chosen], numbers[chosen]
    order = np.argsort(errors, kind="stable")
    # As they are written: what is stored is what was used.
    rounded = np.array([float(f"{error:.6g}") for error in errors[order]])
    prints = image_fingerprints(images[numbers[order]])
    return Calibration(source, rounded, weights_sha256, prints, tuple(oddest.tolist()))


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
            np.asarray(document["errors"], np.float64),
            str(document["weights_sha256"]),
            np.asarray(document["images"], np.uint32),
            tuple(document["oddest"]),
        )
        usable = (
            found.errors.ndim == 1
            and found.errors.shape == found.images.shape
            and len(found.errors) > 0
            and bool((np.diff(found.errors) >= 0).all() and np.isfinite(found.errors).all())
        )
    except (KeyError, TypeError, ValueError, OverflowError):
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


def shares_below(found: np.ndarray) -> list[ShareBelow]:
    """Say which share of p-values is at most 0.01 and 0.05."""
    return [ShareBelow(level, float((found <= level).mean())) for level in THRESHOLDS]
