"""The reconstruction loss of a population, fused with the output's activation; nothing else.

========  ====================================================  ========
symbol    meaning                                               unit
========  ====================================================  ========
z         the network's outputs before their activation         —
y         the reconstruction: sigmoid(z), or z cut to [0, 1]    [0, 1]
x         the target image                                      [0, 1]
L         mean over samples and pixels of (y - x)^2             per pixel
s         slope of the activation: y (1 - y), or 1 inside       —
          [0, 1] and ``CLAMP_SLOPE`` outside
dL/dz     2 (y - x) s / (n_samples * n_pixels)                  —
========  ====================================================  ========
"""

import torch
from torch import Tensor

from aesearch.models.precision import sum_dtype

# Values of one image up to which a sum in float32 loses nothing that counts.
LARGE_IMAGE = 65_536


# Of a clamp outside [0, 1], for the gradient alone: a pixel that has left finds its way back.
CLAMP_SLOPE = 0.01


def squared_errors(
    outputs: Tensor,
    targets: Tensor,
    *,
    output: str,
    sample_first: bool,
    counts: Tensor | int | None,
    is_sample: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Each member's summed loss over its samples, and the gradient of its mean loss.

    Parameters
    ----------
    outputs : Tensor, (member, sample, pixel) or (sample, member, pixel)
        Before their activation; overwritten.
    targets : Tensor, of the same shape
        Intensities in [0, 1], in the type of the arithmetic.
    output : {"sigmoid", "clamp"}
        The activation.
    sample_first : bool
        Which of the two layouts.
    counts : Tensor (member,), int or None
        Samples over which each member's mean loss is taken, >= 1; None where no gradient
        is wanted.
    is_sample : Tensor, (member, sample), optional
        One for a sample, zero for padding, which counts for nothing.

    Returns
    -------
    sums : Tensor, (member,), of ``sum_dtype``
        Sum over samples of the mean squared error per pixel.
    gradient : Tensor or None
        Of the mean loss with respect to ``outputs``; of their layout and type.
    """
    n_pixels = targets.shape[-1]
    values = outputs.to(targets.dtype)
    reconstructions = values.sigmoid_() if output == "sigmoid" else values.clamp(0.0, 1.0)
    errors = reconstructions - targets
    if is_sample is not None:
        errors.mul_((is_sample.t() if sample_first else is_sample).unsqueeze(-1))
    exact = sum_dtype(errors.device)
    sums = _squares(errors).sum(0 if sample_first else 1, dtype=exact).div_(n_pixels)
    if counts is None:
        return sums, None
    if output == "sigmoid":
        gradient = torch.ops.aten.sigmoid_backward.grad_input(
            errors, reconstructions, grad_input=errors
        )
    else:
        # Ones where nothing was cut, else zeros: then the slopes.
        slopes = values.eq_(reconstructions).mul_(1.0 - CLAMP_SLOPE).add_(CLAMP_SLOPE)
        gradient = errors.mul_(slopes)
    scale = 2.0 / (counts * n_pixels)
    if isinstance(scale, Tensor):
        scale = scale.view(1, -1, 1) if sample_first else scale.view(-1, 1, 1)
    gradient.mul_(scale)
    return sums, gradient.to(outputs.dtype)


def sample_errors(outputs: Tensor, targets: Tensor, *, output: str, sample_first: bool) -> Tensor:
    """Each sample's mean squared error per pixel.

    Parameters
    ----------
    outputs, targets, output, sample_first
        As in :func:`squared_errors`; outputs are overwritten.

    Returns
    -------
    Tensor, (member, sample), of the type of ``targets`` or ``sum_dtype``
    """
    values = outputs.to(targets.dtype)
    values = values.sigmoid_() if output == "sigmoid" else values.clamp_(0.0, 1.0)
    errors = _squares(values.sub_(targets)).div_(targets.shape[-1])
    return errors.t() if sample_first else errors


def _squares(errors: Tensor) -> Tensor:
    """Sum of the squares of each sample's pixels; without the last axis."""
    # A norm is one pass, and its square root is undone on few values. Over the pixels of one
    # sample alone: a CPU adds up naively, and would lose a thousandth over many samples, or over
    # one that is very large.
    large = errors.shape[-1] > LARGE_IMAGE
    norms = torch.linalg.vector_norm(
        errors, dim=2, dtype=sum_dtype(errors.device) if large else None
    )
    squares: Tensor = norms.square_()
    return squares


def binary_accuracies(
    outputs: Tensor,
    targets: Tensor,
    *,
    output: str,
    sample_first: bool,
    is_sample: Tensor | None = None,
) -> Tensor:
    """Each member's share of pixels that round to the target's 0 or 1, summed over its samples.

    Parameters
    ----------
    outputs, targets, output, sample_first, is_sample
        As in :func:`squared_errors`, before it; nothing is overwritten.

    Returns
    -------
    Tensor, (member,), of ``sum_dtype``
    """
    half = 0.0 if output == "sigmoid" else 0.5
    right = ((outputs > half) == (targets > 0.5)).mean(-1, dtype=sum_dtype(outputs.device))
    if is_sample is not None:
        right.mul_(is_sample.t() if sample_first else is_sample)
    return right.sum(0 if sample_first else 1)
