"""How close reconstructions are, per image; averages and intervals are in ``intervals``.

=====  ====================================================  ===============
name   meaning                                               unit
=====  ====================================================  ===============
x      an intensity of the image                             [0, 1]
y      the same intensity of its reconstruction              [0, 1]
w      side of the window of the structural similarity       pixels, odd
=====  ====================================================  ===============

mse is the mean of (y - x)^2 over the values of an image; psnr is 10 log10(1 / mse) in dB, of an
mse of at least 1e-10, so that a perfect image counts 100 dB and not infinity; binary_accuracy is
the share of values with round(x) = round(y).
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# 100 dB: a thousand times closer than the eight bits of the images can tell.
SMALLEST_MSE = 1e-10
LARGEST_WINDOW = 7
_BATCH_VALUES = 1 << 22


def batches(images: np.ndarray, rows: np.ndarray | None = None) -> Iterator[tuple[int, Tensor]]:
    """Give the images in order, a few megabytes at a time: number of the first, intensities.

    Parameters
    ----------
    images : ndarray, (sample, channel, height, width), uint8
    rows : ndarray of int, (row,), optional
        Which of the images, in their order; None for all.

    Yields
    ------
    first : int
    batch : Tensor, (sample, channel, height, width), float32
        In [0, 1]. How many depends on the shape of an image only.
    """
    size = max(1, min(1000, _BATCH_VALUES // max(1, int(np.prod(images.shape[1:])))))
    for first in range(0, len(images) if rows is None else len(rows), size):
        part = slice(first, first + size)
        found = images[part] if rows is None else images[rows[part]]
        yield first, torch.from_numpy(found).float().div_(255)


def with_inputs(
    images: np.ndarray, inputs: np.ndarray | None, rows: np.ndarray | None = None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """As ``batches``, with what a model sees in the place of the images before them."""
    if inputs is None:
        yield from ((first, batch, batch) for first, batch in batches(images, rows))
        return
    both = zip(batches(inputs, rows), batches(images, rows), strict=True)
    yield from ((first, seen, batch) for (first, seen), (_, batch) in both)


def mean_squared_error(
    model: torch.nn.Module,
    images: np.ndarray,
    check: Callable[[], None] = lambda: None,
    *,
    inputs: np.ndarray | None = None,
) -> float:
    """Mean squared error per pixel of a model's reconstructions.

    Parameters
    ----------
    model : Module
        Maps (sample, channel, height, width) in [0, 1] to the same shape; on the CPU.
    images : ndarray, (sample, channel, height, width), uint8
    check : callable
        Called between batches; may raise to stop.
    inputs : ndarray, of the shape of ``images``, uint8, optional
        What the model sees in their place, such as noisy images; None for the images.
    """
    total = 0.0
    with torch.inference_mode():
        for _, seen, batch in with_inputs(images, inputs):
            check()
            total += (model(seen) - batch).square().sum(dtype=torch.float64).item()
    return total / images.size


def image_errors(
    model: torch.nn.Module, images: np.ndarray, check: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Mean squared error per pixel of each image: (sample,), float64.

    Parameters are those of ``mean_squared_error``.
    """
    found = np.empty(len(images))
    with torch.inference_mode():
        for first, batch in batches(images):
            check()
            errors = squared_errors(model(batch), batch)
            found[first : first + len(errors)] = errors.numpy()
    return found


def measured(
    reconstruct: Callable[[int, Tensor], Tensor],
    images: np.ndarray,
    check: Callable[[], None] = lambda: None,
    *,
    inputs: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Measure the reconstruction of every image.

    Parameters
    ----------
    reconstruct : callable(first, batch)
        Gives the reconstructions of a batch that starts at image ``first``.
    images : ndarray, (sample, channel, height, width), uint8
    check : callable
        Called between batches; may raise to stop.
    inputs : ndarray, of the shape of ``images``, uint8, optional
        What ``reconstruct`` is given in their place.

    Returns
    -------
    dict
        ``mse, psnr, binary_accuracy, ssim``: (sample,), float64; no ``ssim`` where images are
        too small for it.
    """
    # One array for all: small ones that are kept between large ones that are freed would leave
    # gaps that grow with the number of images.
    found: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for first, seen, batch in with_inputs(images, inputs):
            check()
            for name, values in image_metrics(reconstruct(first, seen), batch).items():
                kept = found.setdefault(name, np.empty(len(images)))
                kept[first : first + len(values)] = values.numpy()
    return found


def image_metrics(reconstructions: Tensor, images: Tensor) -> dict[str, Tensor]:
    """Measure each image against its reconstruction.

    Parameters
    ----------
    reconstructions, images : Tensor, (sample, channel, height, width), floating

    Returns
    -------
    dict
        ``mse, psnr, binary_accuracy``: (sample,), float64; ``ssim`` where it is defined.
    """
    mse = squared_errors(reconstructions, images)
    equal = reconstructions.round() == images.round()
    found = {
        "mse": mse,
        "psnr": peak_signal_to_noise(mse),
        "binary_accuracy": equal.flatten(1).double().mean(1),
    }
    if ssim_window(images.shape[-2], images.shape[-1]) is not None:
        found["ssim"] = structural_similarity(reconstructions, images)
    return found


def squared_errors(reconstructions: Tensor, images: Tensor) -> Tensor:
    """Mean squared error per pixel of each image: (sample,), float64."""
    return (reconstructions - images).square().flatten(1).mean(1, dtype=torch.float64)


def peak_signal_to_noise(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of mean squared errors, for intensities in [0, 1].

    An error below ``SMALLEST_MSE`` counts as that: 100 dB.
    """
    return -10.0 * mse.clamp(min=SMALLEST_MSE).log10()


def ssim_window(height: int, width: int) -> int | None:
    """Side of the window: 7, or the largest odd number that fits; None below 3 pixels."""
    side = min(LARGEST_WINDOW, height, width)
    side -= 1 - side % 2
    return side if side >= 3 else None


def structural_similarity(reconstructions: Tensor, images: Tensor) -> Tensor:
    """Mean structural similarity of each image to its reconstruction.

    Uniform windows of ``ssim_window`` pixels that lie inside the image, sample covariances, a data
    range of 1; the mean over windows and channels. So is scikit-image's default.

    Parameters
    ----------
    reconstructions, images : Tensor, (sample, channel, height, width), floating
        Height and width >= 3.

    Returns
    -------
    Tensor, (sample,), float64
        In [-1, 1]; 1 for equal images.

    References
    ----------
    Wang, Bovik, Sheikh and Simoncelli: Image quality assessment: from error visibility to
    structural similarity, 2004, equation 13, with K1 = 0.01 and K2 = 0.03.
    """
    window = ssim_window(images.shape[-2], images.shape[-1])
    assert window is not None, "images below 3 pixels have no structural similarity"
    # Doubles: a variance is a small difference of two large means.
    x, y = images.double(), reconstructions.double()

    def windowed(values: Tensor) -> Tensor:
        rows = F.avg_pool2d(values, (window, 1), stride=1)
        return F.avg_pool2d(rows, (1, window), stride=1)

    mean_x, mean_y = windowed(x), windowed(y)
    of_sample = window**2 / (window**2 - 1)
    variance_x = of_sample * (windowed(x * x) - mean_x * mean_x)
    variance_y = of_sample * (windowed(y * y) - mean_y * mean_y)
    covariance = of_sample * (windowed(x * y) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    similar = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similar /= (mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2)
    return similar.flatten(1).mean(1)
