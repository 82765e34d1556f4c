"""The reconstruction loss of a population, fused with the last sigmoid; nothing else.

========  ====================================================  ========
symbol    meaning                                               unit
========  ====================================================  ========
z         the network's outputs before the sigmoid              —
y         sigmoid(z), the reconstruction                        [0, 1]
x         the target image                                      [0, 1]
L         mean over samples and pixels of (y - x)^2             per pixel
dL/dz     2 (y - x) y (1 - y) / (n_samples * n_pixels)          —
========  ====================================================  ========
"""

import torch
from torch import Tensor

# Values of one image up to which a sum in float32 loses nothing that counts.
LARGE_IMAGE = 65_536


def squared_errors(
    logits: Tensor,
    targets: Tensor,
    *,
    sample_first: bool,
    counts: Tensor | int | None,
    is_sample: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Each member's summed loss over its samples, and the gradient of its mean loss.

    Parameters
    ----------
    logits : Tensor, (member, sample, pixel) or (sample, member, pixel)
        Overwritten.
    targets : Tensor, of the same shape
        Intensities in [0, 1], in the type of the arithmetic.
    sample_first : bool
        Which of the two layouts.
    counts : Tensor (member,), int or None
        Samples over which each member's mean loss is taken, >= 1; None where no gradient
        is wanted.
    is_sample : Tensor, (member, sample), optional
        One for a sample, zero for padding, which counts for nothing.

    Returns
    -------
    sums : Tensor, (member,), float64
        Sum over samples of the mean squared error per pixel.
    gradient : Tensor or None
        Of the mean loss with respect to ``logits``; of the layout and type of ``logits``.
    """
    n_pixels = targets.shape[-1]
    member_axis = 1 if sample_first else 0
    reconstructions = (
        logits.sigmoid_() if logits.dtype == targets.dtype else logits.to(targets.dtype).sigmoid_()
    )
    errors = reconstructions - targets
    if is_sample is not None:
        errors.mul_((is_sample.t() if sample_first else is_sample).unsqueeze(-1))
    # A norm is one pass, and its square root is undone on few values. Over the pixels of one
    # sample alone: a CPU adds up naively, and would lose a thousandth over many samples, or over
    # one that is very large.
    exact = torch.float64 if n_pixels > LARGE_IMAGE else None
    norms = torch.linalg.vector_norm(errors, dim=2, dtype=exact)
    sums = norms.square_().sum(1 - member_axis, dtype=torch.float64).div_(n_pixels)
    if counts is None:
        return sums, None
    gradient = torch.ops.aten.sigmoid_backward.grad_input(
        errors, reconstructions, grad_input=errors
    )
    scale = 2.0 / (counts * n_pixels)
    if isinstance(scale, Tensor):
        scale = scale.view(1, -1, 1) if sample_first else scale.view(-1, 1, 1)
    gradient.mul_(scale)
    return sums, gradient.to(logits.dtype)


def binary_accuracies(
    logits: Tensor, targets: Tensor, *, sample_first: bool, is_sample: Tensor | None = None
) -> Tensor:
    """Each member's share of pixels that round to the target's 0 or 1, summed over its samples.

    Parameters
    ----------
    logits, targets, sample_first, is_sample
        As in :func:`squared_errors`, before it; nothing is overwritten.

    Returns
    -------
    Tensor, (member,), float64
    """
    right = ((logits > 0) == (targets > 0.5)).mean(-1, dtype=torch.float64)
    if is_sample is not None:
        right.mul_(is_sample.t() if sample_first else is_sample)
    return right.sum(0 if sample_first else 1)
