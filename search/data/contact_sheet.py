"""Some images of a set side by side, as a network will see them."""

from pathlib import Path

import numpy as np

from aesearch.data.arrays.images import ImageSet
from aesearch.inference.pictures import sheet
from aesearch.studies.results.output_files import write_whole

MOST_DRAWN = 64
_PAIRED_COLUMNS = 8


def draw_sheet(image_set: ImageSet, path: Path) -> int:
    """Draw images at equal distances over the whole set, so that every class is there.

    Each has its noisy one to the right, where there is one.

    Returns
    -------
    int
        How many.
    """
    n_drawn = min(MOST_DRAWN, image_set.n_samples)
    chosen = np.arange(n_drawn) * image_set.n_samples // n_drawn
    images, n_columns = image_set.images[chosen], None
    if image_set.noisy is not None:
        images = np.stack([images, image_set.noisy[chosen]], axis=1).reshape(-1, *images.shape[1:])
        n_columns = _PAIRED_COLUMNS
    write_whole(path, sheet(images / np.float32(255), n_columns))
    return n_drawn
