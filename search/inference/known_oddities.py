"""Where INPUT itself says what is odd: classes, or the layout of MVTec's data sets.

That layout is ``train/good``, ``test/good``, ``test/<defect>``, and in ``ground_truth/<defect>``
a mask for each image, of its size, black where nothing is odd.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from aesearch.data.readers.folder import ORDINARY
from aesearch.inference.inputs import Input
from aesearch.studies.errors import AesearchError

_MASKS = ("{}_mask.png", "{}.png", "{}_mask.bmp", "{}.bmp")
# Of more pixels than these, equal distances apart, no more is learned.
_MOST_PIXELS = 10_000_000


class OrdinaryError(AesearchError, ValueError):
    """Classes that are called ordinary and are none."""


def test_folder(source: str) -> tuple[str, Path | None]:
    """Find the test images of an MVTec layout, and the folder of its masks.

    Parameters
    ----------
    source : str
        INPUT; the folder that holds ``test/`` and ``ground_truth/``, or its ``test/``.

    Returns
    -------
    source : str
        INPUT, or its ``test/``.
    masks : Path or None
        None where INPUT has no such layout.
    """
    path = Path(source).expanduser()
    if (path / "test").is_dir() and (path / "ground_truth").is_dir():
        return str(Path(source) / "test"), path / "ground_truth"
    beside = path.absolute().parent / "ground_truth"
    if path.is_dir() and path.absolute().name == "test" and beside.is_dir():
        return source, beside
    return source, None


class Masks:
    """Which pixels of images are odd, held against the errors of these pixels.

    Parameters
    ----------
    folder : Path
        ``ground_truth/`` of an MVTec layout.
    images : Input
        Its ``test/``.
    ordinary : tuple of str
        Classes that are not odd; empty for those called good, normal or ok.

    Attributes
    ----------
    n_left_out : int
        Images without a mask of their size.
    """

    def __init__(self, folder: Path, images: Input, ordinary: tuple[str, ...]) -> None:
        root = Path(images.source).expanduser()
        self._masks = [self._mask_of(folder, file.relative_to(root)) for file in images.files]
        self._is_ordinary = [
            file.relative_to(root).parts[0] in ordinary
            or (not ordinary and file.relative_to(root).parts[0].lower() in ORDINARY)
            for file in images.files
        ]
        _, *size = images.shape[:3]
        self._step = max(1, len(images.files) * int(np.prod(size)) // _MOST_PIXELS)
        self._squares: list[np.ndarray] = []
        self._is_odd: list[np.ndarray] = []
        self.n_left_out = 0

    @staticmethod
    def _mask_of(folder: Path, file: Path) -> Path | None:
        names = [folder / file.parent / pattern.format(file.stem) for pattern in _MASKS]
        return next((path for path in names if path.is_file()), None)

    def add(self, rows: slice, squares: np.ndarray) -> None:
        """Take the errors of the pixels of a range of images: (sample, height, width)."""
        for number, of_image in zip(range(rows.start, rows.stop), squares, strict=True):
            is_odd = self._read(number, of_image.shape)
            if is_odd is None:
                self.n_left_out += 1
            else:
                self._squares.append(of_image.ravel()[:: self._step])
                self._is_odd.append(is_odd.ravel()[:: self._step])

    def _read(self, number: int, shape: tuple[int, ...]) -> np.ndarray | None:
        path = self._masks[number]
        if path is None:
            return np.zeros(shape, bool) if self._is_ordinary[number] else None
        try:
            with Image.open(path) as image:
                mask = np.asarray(image.convert("L")) > 0
        except OSError:
            return None
        return mask if mask.shape == shape else None

    def area(self) -> float | None:
        """Give the area under the ROC curve of the pixels; None where they are all of one kind."""
        if not self._squares:
            return None
        return roc_area(np.concatenate(self._is_odd), np.concatenate(self._squares))


@dataclass(frozen=True)
class RocAreas:
    """How well errors tell the odd from the ordinary: areas under ROC curves.

    Attributes
    ----------
    images, pixels : float or None
        0.5 by chance, 1 where every odd one errs more than any ordinary one; None where nobody
        knows which are odd.
    ordinary : tuple of str
        Classes that are not odd.
    n_ordinary, n_odd : int
        Images.
    n_left_out : int
        Images of which no mask is known.
    """

    images: float | None = None
    pixels: float | None = None
    ordinary: tuple[str, ...] = ()
    n_ordinary: int = 0
    n_odd: int = 0
    n_left_out: int = 0

    @classmethod
    def of(
        cls, images: Input, errors: np.ndarray, ordinary: tuple[str, ...], masks: Masks | None
    ) -> "RocAreas":
        """Compare the errors of images of ordinary classes with those of all others.

        Raises
        ------
        OrdinaryError
            ``ordinary`` names a class that the images do not have.
        """
        names = class_names(images)
        check_ordinary(images, ordinary)
        there = dict.fromkeys(names.tolist())
        chosen = ordinary or tuple(name for name in there if name.lower() in ORDINARY)
        if not chosen:
            return cls()
        is_odd = ~np.isin(names, chosen)
        return cls(
            images=roc_area(is_odd, errors),
            pixels=None if masks is None else masks.area(),
            ordinary=chosen,
            n_ordinary=int((~is_odd).sum()),
            n_odd=int(is_odd.sum()),
            n_left_out=0 if masks is None else masks.n_left_out,
        )


def class_names(images: Input) -> np.ndarray:
    """Name of each image's class, (sample,): its number where it has no other; empty without."""
    if images.labels is None:
        return np.empty(0, str)
    if images.class_names:
        return np.array([images.class_names[label] for label in images.labels])
    names: np.ndarray = images.labels.astype(str)
    return names


def check_ordinary(images: Input, ordinary: tuple[str, ...]) -> None:
    """Refuse classes that the images do not have; raises OrdinaryError."""
    there = sorted(set(class_names(images).tolist()))
    missing = [name for name in ordinary if name not in there]
    if missing:
        listed = ", ".join(there[:20]) or "none: INPUT has no labels"
        raise OrdinaryError(
            f"ordinary must name classes of INPUT, got {', '.join(map(repr, missing))}; there: "
            f"{listed}"
        )


def roc_area(is_odd: np.ndarray, errors: np.ndarray) -> float | None:
    """Area under the ROC curve; None where all are odd or none is."""
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - a second of import time

    if is_odd.all() or not is_odd.any():
        return None
    return float(roc_auc_score(is_odd, errors))
