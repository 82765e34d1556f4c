"""Some images of a set side by side, as a network will see them."""

from pathlib import Path

import numpy as np

from aesearch.data.images import ImageSet
from aesearch.inference.pictures import sheet
from aesearch.studies.results.output_files import write_whole

MOST_DRAWN = 64


def draw_sheet(image_set: ImageSet, path: Path) -> int:
    """Draw images at equal distances over the whole set, so that every class is there.

    Returns
    -------
    int
        How many.
    """
    n_drawn = min(MOST_DRAWN, image_set.n_samples)
    chosen = np.arange(n_drawn) * image_set.n_samples // n_drawn
    write_whole(path, sheet(image_set.images[chosen] / np.float32(255)))
    return n_drawn
