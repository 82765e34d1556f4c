"""What becomes of the reconstruction when the input is corrupted; always against the clean image.

Gaussian and uniform noise are measured twice, clamped to [0, 1] and as they are. These are two
corruptions: on a black pixel clamped Gaussian noise is never negative, so that it turns a dark
image into a bright haze, where the same noise unclamped cancels out. A table must say which it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from aesearch.evaluation.metrics import batches, peak_signal_to_noise, squared_errors
from aesearch.models.autoencoder import Autoencoder
from aesearch.models.training.corruptions import CORRUPTIONS, corrupt
from aesearch.seeds import derive_seed
from aesearch.studies.results.evaluation import Corrupted

# Kinds whose values can leave [0, 1].
UNBOUNDED = ("gaussian", "uniform")


def corruption_seed(seed: int, corruption: str) -> int:
    """Seed of one kind: all its levels, clamped or not, scale the same draws."""
    return derive_seed(seed, "robustness", CORRUPTIONS.index(corruption))


def robustness(
    model: Autoencoder,
    images: np.ndarray,
    levels: Mapping[str, Sequence[float]],
    *,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> list[Corrupted]:
    """Measure the reconstruction of corrupted inputs against the clean originals.

    Parameters
    ----------
    model : Autoencoder
    images : ndarray, (sample, channel, height, width), uint8
    levels : mapping
        Levels by kind of corruption; see ``aesearch.models.corruptions``.
    seed : int
    check : callable
        Called between batches; may raise to stop.

    Returns
    -------
    list of Corrupted
        Unbounded noise has two rows a level, first clamped, then not.
    """
    return [
        _measured(model, images, corruption, level, clamped=clamped, seed=seed, check=check)
        for corruption, level, clamped in _rows(levels)
    ]


def _rows(levels: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, float, bool]]:
    for corruption, of_kind in levels.items():
        for level in of_kind:
            yield corruption, level, True
            if corruption in UNBOUNDED:
                yield corruption, level, False


def _measured(
    model: Autoencoder,
    images: np.ndarray,
    corruption: str,
    level: float,
    *,
    clamped: bool,
    seed: int,
    check: Callable[[], None],
) -> Corrupted:
    totals = torch.zeros(4, dtype=torch.float64)
    drawn = corruption_seed(seed, corruption)
    with torch.inference_mode():
        for first, clean in batches(images):
            check()
            inputs = corrupt(clean, corruption, level, drawn, clamp=clamped, first_sample=first)
            output, before = squared_errors(model(inputs), clean), squared_errors(inputs, clean)
            parts = (output, peak_signal_to_noise(output), before, peak_signal_to_noise(before))
            totals += torch.stack([part.sum() for part in parts])
    return Corrupted(corruption, float(level), clamped, *(totals / len(images)).tolist())
