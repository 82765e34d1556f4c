"""A strip of pictures that shows what a network does: originals above reconstructions."""

import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from aesearch.studies.search_results import Picture

NAME = "reconstructions.png"
MAX_COLUMNS = 10
MAX_BYTES = 10_000
MAX_SIDE = 40  # pixels of the longest side; larger images are shrunk
_COLOURS = 64
_GAP = 1


def reconstruction_strip(model: torch.nn.Module, images: npt.NDArray[np.uint8]) -> Picture:
    """Draw images and their reconstructions as one small PNG; the same bytes every time.

    Pixels are not enlarged here: whoever shows the strip knows how large it should be.

    Parameters
    ----------
    model : Module
        Maps (sample, channel, height, width) in [0, 1] to the same shape; on the CPU.
    images : ndarray, (sample, channel, height, width), uint8
        At least one, of one or three channels; the first ``MAX_COLUMNS`` are shown, fewer
        where the file would be larger than ``MAX_BYTES``, but at least one.
    """
    shown = images[:MAX_COLUMNS]
    dtype = next(model.parameters()).dtype
    with torch.inference_mode():
        batch = torch.from_numpy(shown).to(dtype).div_(255)
        output = model(batch).clamp_(0, 1).mul_(255).round_().to(torch.uint8).numpy()
    columns = len(shown)
    png = _png(shown, output)
    while len(png) > MAX_BYTES and columns > 1:
        columns = max(1, min(columns - 1, columns * MAX_BYTES // len(png)))
        png = _png(shown[:columns], output[:columns])
    what = "a validation image" if columns == 1 else f"{columns} validation images"
    below = "reconstruction" if columns == 1 else "reconstructions"
    return Picture(NAME, f"{what} of fold 0 above, {below} below", png)


def _png(originals: npt.NDArray[np.uint8], outputs: npt.NDArray[np.uint8]) -> bytes:
    columns, channels, height, width = originals.shape
    scale = min(1.0, MAX_SIDE / max(width, height))
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    size = (columns * (across + _GAP) - _GAP, 2 * down + _GAP)
    sheet = Image.new("RGB" if channels == 3 else "L", size, "white")
    for row, images in enumerate((originals, outputs)):
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
