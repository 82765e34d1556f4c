"""Pixels brought to a number of channels and to a size; which ones is the specification's."""

import numpy as np
from PIL import Image

from aesearch.studies.spec.sections import ResizeSpec

# Rec. 601 in 16-bit integers, as Pillow weighs red, green and blue.
_LUMA = np.array([19595, 38470, 7471], dtype=np.uint32)
_LEVELS = {"white": 255, "black": 0}


def level_of(background: str) -> int:
    """What a word for a background is in 0..255."""
    return _LEVELS[background]


def is_grey(image: np.ndarray) -> bool:
    """Whether red, green and blue are equal everywhere: (..., channel), three of them or one."""
    return bool((image == image[..., :1]).all())


def to_grey(image: np.ndarray) -> np.ndarray:
    """Luma of colours, as Pillow computes it: (..., 3) to (..., 1), uint8; greys stay."""
    weighed = image.astype(np.uint32) @ _LUMA
    return ((weighed + 0x8000) >> 16).astype(np.uint8)[..., np.newaxis]


def in_channels(image: np.ndarray, n_channels: int, colour: str) -> np.ndarray | None:
    """Bring an image (height, width, channel) to so many channels; None where colours are lost."""
    if image.shape[2] == n_channels:
        return image
    if image.shape[2] == 1 and n_channels == 3:
        return np.broadcast_to(image, (*image.shape[:2], 3))
    if image.shape[2] == 3 and n_channels == 1:
        if is_grey(image):
            return image[..., :1]
        return to_grey(image) if colour == "grey" else None
    return None


def resized(image: np.ndarray, resize: ResizeSpec, background: str) -> np.ndarray:
    """Bring an image to a square, each channel for itself.

    Parameters
    ----------
    image : ndarray of uint8, (height, width, channel)

    Returns
    -------
    ndarray of uint8, (side, side, channel)
        An image that has that size already is not changed.
    """
    height, width, n_channels = image.shape
    side = resize.side
    if (height, width) == (side, side):
        return image
    box, inner = (0, 0, width, height), (side, side)
    if resize.how == "crop":
        edge = min(height, width)
        left, top = (width - edge) // 2, (height - edge) // 2
        box = (left, top, left + edge, top + edge)
    elif resize.how == "fit":
        share = side / max(height, width)
        inner = (max(1, round(width * share)), max(1, round(height * share)))
    found = np.full((side, side, n_channels), level_of(background), dtype=np.uint8)
    left, top = (side - inner[0]) // 2, (side - inner[1]) // 2
    for channel in range(n_channels):
        plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
        # Shrinking averages over all pixels that a new one covers.
        scaled = plane.resize(inner, Image.Resampling.LANCZOS, box=box)
        found[top : top + inner[1], left : left + inner[0], channel] = np.asarray(scaled)
    return found
