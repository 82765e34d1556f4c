"""A strip of pictures that shows what a network does: originals above reconstructions."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from aesearch.evaluation.tiles import laid_out, png_bytes
from aesearch.studies.results.records import Picture

NAME = "reconstructions.png"
MAX_COLUMNS = 10
MAX_BYTES = 10_000
MAX_SIDE = 40  # pixels of the longest side; larger images are shrunk
_COLOURS = 64
_GAP, _WHITE = 1, 255


def reconstruction_strip(
    model: torch.nn.Module, images: npt.NDArray[np.uint8], corrupted: torch.Tensor | None = None
) -> Picture:
    """Draw images and their reconstructions as one small PNG; the same bytes every time.

    Pixels are not enlarged here: whoever shows the strip knows how large it should be.

    Parameters
    ----------
    model : Module
        Maps (sample, channel, height, width) in [0, 1] to the same shape; on the CPU.
    images : ndarray, (sample, channel, height, width), uint8
        At least one, of one or three channels; the first ``MAX_COLUMNS`` are shown, fewer
        where the file would be larger than ``MAX_BYTES``, but at least one.
    corrupted : Tensor or None, (sample, channel, height, width)
        What a network sees that learned to denoise: a row between the two; None where it
        sees the images themselves.
    """
    shown = images[:MAX_COLUMNS]
    dtype = next(model.parameters()).dtype
    with torch.inference_mode():
        seen = torch.from_numpy(shown).to(dtype).div_(255) if corrupted is None else corrupted
        seen = seen[:MAX_COLUMNS].to(dtype)
        output = _pixels(model(seen))
    rows = [shown, output] if corrupted is None else [shown, _pixels(seen), output]
    columns = len(shown)
    png = _png(rows)
    while len(png) > MAX_BYTES and columns > 1:
        columns = max(1, min(columns - 1, columns * MAX_BYTES // len(png)))
        png = _png([row[:columns] for row in rows])
    what, below = "a validation image", "its reconstruction"
    if columns > 1:
        what, below = f"{columns} validation images", "their reconstructions"
    between = "" if corrupted is None else ", then corrupted"
    return Picture(NAME, f"{what} of fold 0 above{between}, {below} below", png)


def _pixels(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = (
        images.clamp(0, 1).mul(255).round().to(torch.uint8).contiguous().numpy()
    )
    return pixels


def _png(rows: Sequence[npt.NDArray[np.uint8]]) -> bytes:
    canvas = laid_out(rows, sides=(1, MAX_SIDE), gap=_GAP, paper=_WHITE)
    return png_bytes(canvas, colours=_COLOURS)
