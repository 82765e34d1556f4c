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
    """Lay images out in rows, enlarged so that single pixels can be seen.

    Parameters
    ----------
    rows : sequence of ndarray, (tile, channel, height, width), uint8
        Top to bottom; all of one shape. Other than one or three channels are shown by their mean.
    parted_after : sequence of int
        Columns after which the gap is wide.

    Returns
    -------
    bytes
        A PNG, grey or in colour; equal images give equal bytes.
    """
    rows = [displayable(row) for row in rows]
    first = rows[0]
    n_columns, n_channels, height, width = first.shape
    tiles = [[_resized(tile) for tile in row] for row in rows]
    height, width = tiles[0][0].shape[:2]
    wide = GAP * 4
    lefts, left = [], 0
    for column in range(n_columns):
        lefts.append(left)
        left += width + (wide if column in parted_after else GAP)
    shape = (len(rows) * (height + GAP) - GAP, lefts[-1] + width, n_channels)
    canvas = np.full(shape, PAPER, dtype=np.uint8)
    for row, of_row in enumerate(tiles):
        top = row * (height + GAP)
        for left, tile in zip(lefts, of_row, strict=True):
            canvas[top : top + height, left : left + width] = tile
    content = io.BytesIO()
    picture = Image.fromarray(canvas[:, :, 0] if n_channels == 1 else canvas)
    picture.save(content, format="PNG", optimize=True)
    return content.getvalue()


def displayable(images: np.ndarray) -> np.ndarray:
    """Images (..., channel, height, width) with one or three channels: the mean of any others."""
    if images.shape[-3] in (1, 3):
        return images
    mean: np.ndarray = np.rint(images.mean(axis=-3, keepdims=True)).astype(np.uint8)
    return mean


def scale_of(height: int, width: int) -> int:
    """Whole number of times that an image of this size is enlarged."""
    return max(1, -(-SMALLEST_SIDE // max(height, width)))


def _resized(tile: np.ndarray) -> np.ndarray:
    """Enlarge or shrink one image (channel, height, width) to (height, width, channel)."""
    channel_last = tile.transpose(1, 2, 0)
    height, width = channel_last.shape[:2]
    if max(height, width) <= LARGEST_SIDE:
        times = scale_of(height, width)
        return channel_last.repeat(times, axis=0).repeat(times, axis=1)
    share = LARGEST_SIDE / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX)) for plane in tile
    ]
    return np.stack(planes, axis=2)
