"""Images that are only looked at: read, described, and some of them drawn side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aesearch.data.arrays.images import ImageSet
from aesearch.data.load import load
from aesearch.data.readers.tree import SHEET_SUFFIX
from aesearch.inference.pictures import sheet
from aesearch.outputs import CheckedImages
from aesearch.settings import Options, study_spec
from aesearch.studies.results.output_files import check_output, write_whole

MOST_DRAWN = 64
_PAIRED_COLUMNS = 8


def checked(
    options: Options, overrides: Sequence[str], *, path: Path | None, force: bool
) -> tuple[CheckedImages, int]:
    """Read images as a study would, and draw some of them as a network will see them.

    Parameters
    ----------
    options, overrides
        As for ``study_spec``; ``dataset`` is among the options.
    path : Path or None
        The PNG to write; None for one that is named after the images, and replaced.
    force : bool
        Replace a PNG that exists.

    Returns
    -------
    CheckedImages
    int
        How many were drawn.
    """
    data = study_spec(options, overrides=overrides).data
    found = load(options["dataset"], options["data_dir"], how=data)
    drawn = path or Path(f"{found.name}{SHEET_SUFFIX}")
    check_output(drawn, is_folder=False, force=force or path is None, name="--sheet")
    n_drawn = draw_sheet(found, drawn)
    groups, test_images = found.groups, found.test_images
    described = CheckedImages(
        dataset=found.name,
        read=found.described,
        n_images=found.n_samples,
        image_shape=list(found.image_shape),
        classes=_sizes(found),
        n_groups=None if groups is None else len(np.unique(groups)),
        n_test=None if test_images is None else len(test_images),
        has_noisy=found.noisy is not None,
        notes=list(found.notes),
        fingerprint=found.fingerprint,
        sheet=str(drawn),
    )
    return described, n_drawn


def _sizes(image_set: ImageSet) -> dict[str, int]:
    """Count the images of each class, by its name or number."""
    if image_set.labels is None:
        return {}
    names = image_set.class_names or ()
    numbers, counts = np.unique(image_set.labels, return_counts=True)
    called = [names[n] if 0 <= n < len(names) else str(n) for n in numbers.tolist()]
    return dict(zip(called, counts.tolist(), strict=True))


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
