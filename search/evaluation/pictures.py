"""The pictures of an evaluation, each with words for those who cannot see it."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from aesearch.evaluation.intervals import class_name
from aesearch.evaluation.robustness import corruption_seed
from aesearch.evaluation.tiles import tiled
from aesearch.models.autoencoder import Autoencoder
from aesearch.models.training.corruptions import corrupt
from aesearch.seeds import derive_seed
from aesearch.studies.results.calibration import Calibration
from aesearch.studies.results.records import Picture

COLUMNS = 10
INTERPOLATION_ROWS = 5
INTERPOLATION_STEPS = 9

_LEVEL_WORDS = {
    "gaussian": "Gaussian noise of standard deviation {:g}, clamped to 0 to 1",
    "uniform": "uniform noise between 0 and {:g}, clamped to 0 to 1",
    "salt-and-pepper": "salt and pepper on a share of {:g} of the pixels",
    "occlusion": "a black square of {:g} of the shorter side",
}


def draw_pictures(
    model: Autoencoder,
    images: np.ndarray,
    labels: np.ndarray | None,
    class_names: Sequence[str] | None,
    *,
    errors: np.ndarray,
    levels: Mapping[str, Sequence[float]],
    seed: int,
    noisy: np.ndarray | None = None,
) -> tuple[list[Picture], list[str]]:
    """Draw what the numbers mean.

    Parameters
    ----------
    model : Autoencoder
    images : ndarray, (sample, channel, height, width), uint8
        The test set.
    labels : ndarray, (sample,), int, or None
    errors : ndarray, (sample,)
        Mean squared error of each image's reconstruction.
    levels : mapping
        Levels by kind of corruption; each kind is drawn at its middle level.
    seed : int
        Of the images that are drawn at random.
    noisy : ndarray, of the shape of ``images``, uint8, optional
        What the model sees in the place of each image.

    Returns
    -------
    pictures : list of Picture
        ``reconstructions-best``, ``-median``, ``-worst``, ``samples``, ``corruption-<kind>`` and
        ``interpolation``.
    omitted : list of str
    """
    rng = np.random.default_rng(derive_seed(seed, "pictures"))
    chosen = rng.choice(len(images), min(COLUMNS, len(images)), replace=False)
    pictures = _by_error(model, images, errors, noisy)
    words = f"{len(chosen)} random test images above their {_below(noisy)}."
    pictures.append(Picture("samples", words, _above(model, images, chosen, noisy)))
    for kind, of_kind in levels.items():
        if of_kind:
            level = of_kind[len(of_kind) // 2]
            pictures.append(_corrupted(model, images[chosen], kind, level, seed=seed))
    seen = images if noisy is None else noisy
    drawn, omitted = _interpolation(model, seen, labels, class_names, rng)
    return pictures + drawn, omitted


def draw_oddest(model: Autoencoder, images: np.ndarray, calibration: Calibration) -> Picture:
    """Draw the training images that a network which never saw them reconstructs worst.

    Parameters
    ----------
    model : Autoencoder
        What is drawn below them is its reconstruction, and where that errs.
    images : ndarray, (sample, channel, height, width), uint8
        All training images.
    """
    numbers = list(calibration.oddest)
    rows = reconstructed(model, images[numbers])
    errors = calibration.errors[::-1][: len(numbers)]
    words = (
        f"The {len(numbers)} oddest training images: {', '.join(map(str, numbers))}, counted from "
        f"0. Networks that did not train on them reconstruct them worst, with a mean squared "
        f"error of {errors.min():.3g} to {errors.max():.3g}. Below them the reconstructions, and "
        "the differences of both: the lighter, the larger."
    )
    differences = np.abs(images[numbers].astype(np.int16) - rows).astype(np.uint8)
    return Picture("oddest", words, tiled([images[numbers], rows, differences]))


def reconstructed(model: Autoencoder, images: np.ndarray) -> np.ndarray:
    """Reconstruct a few images (sample, channel, height, width), uint8 to uint8."""
    with torch.inference_mode():
        return _bytes_of(model(torch.from_numpy(images).float().div_(255)))


def _bytes_of(images: torch.Tensor) -> np.ndarray:
    return images.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()


def _below(noisy: np.ndarray | None) -> str:
    return "reconstructions" if noisy is None else "noisy partners and what is made of these"


def _above(
    model: Autoencoder, images: np.ndarray, chosen: np.ndarray, noisy: np.ndarray | None
) -> bytes:
    if noisy is None:
        return tiled([images[chosen], reconstructed(model, images[chosen])])
    return tiled([images[chosen], noisy[chosen], reconstructed(model, noisy[chosen])])


def _by_error(
    model: Autoencoder, images: np.ndarray, errors: np.ndarray, noisy: np.ndarray | None
) -> list[Picture]:
    order = np.argsort(errors, kind="stable")
    n_shown = min(COLUMNS, len(order))
    middle = (len(order) - n_shown) // 2
    parts = {
        "best": (order[:n_shown], "with the smallest reconstruction errors, best first"),
        "median": (order[middle : middle + n_shown], "in the middle when sorted by error"),
        "worst": (order[::-1][:n_shown], "with the largest reconstruction errors, worst first"),
    }
    return [
        Picture(
            f"reconstructions-{name}",
            f"The {n_shown} test images {which}, above their {_below(noisy)}: mean squared error "
            f"{errors[numbers].min():.3g} to {errors[numbers].max():.3g}.",
            _above(model, images, numbers, noisy),
        )
        for name, (numbers, which) in parts.items()
    ]


def _corrupted(
    model: Autoencoder, images: np.ndarray, kind: str, level: float, *, seed: int
) -> Picture:
    clean = torch.from_numpy(images).float().div_(255)
    with torch.inference_mode():
        inputs = corrupt(clean, kind, level, corruption_seed(seed, kind))
        outputs = model(inputs)
    words = (
        f"{len(images)} random test images; below them the same with "
        f"{_LEVEL_WORDS[kind].format(level)}; below these the reconstructions of the corrupted."
    )
    rows = [images, _bytes_of(inputs), _bytes_of(outputs)]
    return Picture(f"corruption-{kind}", words, tiled(rows))


def _interpolation(
    model: Autoencoder,
    images: np.ndarray,
    labels: np.ndarray | None,
    class_names: Sequence[str] | None,
    rng: np.random.Generator,
) -> tuple[list[Picture], list[str]]:
    if len(images) < 2:
        return [], ["interpolation: there is one test image only"]
    pairs = np.array([_pair(len(images), labels, rng) for _ in range(INTERPOLATION_ROWS)])
    share = torch.linspace(0, 1, INTERPOLATION_STEPS)[None, :, None]
    with torch.inference_mode():
        ends = torch.from_numpy(images[pairs.ravel()]).float().div_(255)
        left, right = model.encode(ends).unflatten(0, (-1, 2))[:, :, None].unbind(1)
        codes = (1 - share) * left + share * right
        between = _bytes_of(model.decode(codes.flatten(0, 1)))
    strips = between.reshape(INTERPOLATION_ROWS, INTERPOLATION_STEPS, *images.shape[1:])
    rows = [
        np.concatenate([images[[first]], strip, images[[last]]])
        for (first, last), strip in zip(pairs.tolist(), strips, strict=True)
    ]
    words = (
        f"{INTERPOLATION_ROWS} pairs of test images, one at each end of a row; between them the "
        f"decoded codes on the straight line from one code to the other, in {INTERPOLATION_STEPS} "
        "equal steps."
    )
    if labels is not None:
        named = [
            " to ".join(class_name(int(labels[number]), class_names) for number in pair)
            for pair in pairs.tolist()
        ]
        words += f" Classes: {', '.join(named)}."
    parted = (0, INTERPOLATION_STEPS)
    return [Picture("interpolation", words, tiled(rows, parted_after=parted))], []


def _pair(n_images: int, labels: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Draw two images, of different classes where there are any."""
    present = np.unique(labels) if labels is not None else np.empty(0)
    if len(present) < 2:
        return rng.choice(n_images, 2, replace=False)
    classes = rng.choice(present, 2, replace=False)
    return np.array([rng.choice(np.flatnonzero(labels == label)) for label in classes])
