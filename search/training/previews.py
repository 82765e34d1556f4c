"""A strip of pictures that shows what a network does: originals above reconstructions."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from aesearch.studies.results.records import Picture

NAME = "reconstructions.png"
MAX_COLUMNS = 10
MAX_BYTES = 10_000
MAX_SIDE = 40  # pixels of the longest side; larger images are shrunk
_COLOURS = 64
_GAP = 1


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
    columns, channels, height, width = rows[0].shape
    scale = min(1.0, MAX_SIDE / max(width, height))
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    size = (columns * (across + _GAP) - _GAP, len(rows) * (down + _GAP) - _GAP)
    sheet = Image.new("RGB" if channels == 3 else "L", size, "white")
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            pixels = image.transpose(1, 2, 0) if channels == 3 else image[0]
            tile = Image.fromarray(np.ascontiguousarray(pixels))
            if scale < 1.0:
                tile = tile.resize((across, down), Image.Resampling.BOX)
            sheet.paste(tile, (column * (across + _GAP), row * (down + _GAP)))
    if channels == 3:
        sheet = sheet.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()
