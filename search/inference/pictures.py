"""Images as PNG: one alone pixel for pixel, several on a sheet to look at."""

from math import ceil, sqrt

import numpy as np

from aesearch.evaluation.tiles import PAPER, displayable, png_bytes, tiled


def png(image: np.ndarray) -> bytes:
    """One image as a PNG file, pixel for pixel.

    Parameters
    ----------
    image : ndarray, (channel, height, width)
        Intensities in [0, 1], rounded to 8 bits; the mean of other than one or three channels.
    """
    return png_bytes(np.moveaxis(displayable(_pixels(image)), 0, 2))


def sheet(images: np.ndarray, n_columns: int | None = None) -> bytes:
    """Images from left to right and top to bottom on one PNG; small ones are enlarged.

    Parameters
    ----------
    images : ndarray, (sample, channel, height, width)
        Intensities in [0, 1]; not empty. One image alone is ``png``.
    n_columns : int, optional
        Images in a row; None for a sheet that is about square.
    """
    n_samples, _, height, width = images.shape
    if n_samples == 1:
        return png(images[0])
    n_columns = n_columns or ceil(sqrt(n_samples * height / width))
    rows = [_pixels(images[start : start + n_columns]) for start in range(0, n_samples, n_columns)]
    missing = n_columns - len(rows[-1])
    if missing and len(rows) > 1:
        blank = np.full((missing, *rows[-1].shape[1:]), PAPER, np.uint8)
        rows[-1] = np.concatenate([rows[-1], blank])
    return tiled(rows)


def _pixels(images: np.ndarray) -> np.ndarray:
    levels: np.ndarray = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return levels
