"""Images side by side as one PNG; which images these are is decided in ``pictures``."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

# Tiles are enlarged by whole numbers to about this many pixels, and shrunk above the second.
SMALLEST_SIDE = 56
LARGEST_SIDE = 160
GAP = 3
PAPER = 160  # neither black nor white: the edge of a tile is seen whatever is in it


def tiled(rows: Sequence[np.ndarray], *, parted_after: Sequence[int] = ()) -> bytes:
    """Lay images out in rows as a PNG, enlarged so that single pixels can be seen.

    Parameters
    ----------
    rows, parted_after
        As for ``laid_out``.
    """
    sides = (SMALLEST_SIDE, LARGEST_SIDE)
    canvas = laid_out(rows, sides=sides, gap=GAP, paper=PAPER, parted_after=parted_after)
    return png_bytes(canvas, optimize=True)


def laid_out(
    rows: Sequence[np.ndarray],
    *,
    sides: tuple[int, int],
    gap: int,
    paper: int,
    parted_after: Sequence[int] = (),
) -> np.ndarray:
    """Lay images out in rows on one canvas.

    Parameters
    ----------
    rows : sequence of ndarray, (tile, channel, height, width), uint8
        Top to bottom; all of one shape. Other than one or three channels are shown by their mean.
    sides : (int, int)
        Images with a longer side below the first are enlarged by whole numbers to about that,
        those above the second are shrunk to it.
    gap, paper : int
        Pixels between images, and their shade.
    parted_after : sequence of int
        Columns after which the gap is four times as wide.

    Returns
    -------
    ndarray, (height, width, channel), uint8
    """
    tiles = [[_resized(tile, *sides) for tile in displayable(row)] for row in rows]
    height, width, n_channels = tiles[0][0].shape
    lefts, left = [], 0
    for column in range(len(tiles[0])):
        lefts.append(left)
        left += width + gap * (4 if column in parted_after else 1)
    shape = (len(rows) * (height + gap) - gap, lefts[-1] + width, n_channels)
    canvas = np.full(shape, paper, dtype=np.uint8)
    for row, of_row in enumerate(tiles):
        top = row * (height + gap)
        for left, tile in zip(lefts, of_row, strict=True):
            canvas[top : top + height, left : left + width] = tile
    return canvas


def png_bytes(pixels: np.ndarray, *, colours: int | None = None, optimize: bool = False) -> bytes:
    """Write pixels (height, width, channel), uint8, as a PNG: equal pixels give equal bytes.

    Parameters
    ----------
    colours : int, optional
        Keep so many of a picture with three channels, which makes it smaller.
    optimize : bool
        Look longer for a smaller file.
    """
    is_grey = pixels.shape[2] == 1
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if is_grey else pixels))
    if colours is not None and not is_grey:
        picture = picture.quantize(colours, method=Image.Quantize.FASTOCTREE)
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=optimize)
    return content.getvalue()


def displayable(images: np.ndarray) -> np.ndarray:
    """Images (..., channel, height, width) with one or three channels: the mean of any others."""
    if images.shape[-3] in (1, 3):
        return images
    mean: np.ndarray = np.rint(images.mean(axis=-3, keepdims=True)).astype(np.uint8)
    return mean


def scale_of(height: int, width: int, smallest: int = SMALLEST_SIDE) -> int:
    """Whole number of times that an image of this size is enlarged."""
    return max(1, -(-smallest // max(height, width)))


def _resized(tile: np.ndarray, smallest: int, largest: int) -> np.ndarray:
    """Enlarge or shrink one image (channel, height, width) to (height, width, channel)."""
    channel_last = tile.transpose(1, 2, 0)
    height, width = channel_last.shape[:2]
    if max(height, width) <= largest:
        times = scale_of(height, width, smallest)
        return channel_last.repeat(times, axis=0).repeat(times, axis=1)
    share = largest / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX)) for plane in tile
    ]
    return np.stack(planes, axis=2)
