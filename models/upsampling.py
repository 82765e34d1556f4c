"""The 3x3, stride-2 transposed convolution as an ordinary convolution and a pixel shuffle.

On a CPU the transposed convolution, and with it the input gradient of the strided one, is
several times slower than an ordinary convolution. Both are the same map: with padding 1,

    y[2 i]     = k[1] x[i]
    y[2 i + 1] = k[2] x[i] + k[0] x[i + 1]

along each axis, so four 2x2 convolutions, one per parity of the output's row and column,
give the output in four interleaved parts.

References
----------
Shi et al.: Real-time single image and video super-resolution using an efficient sub-pixel
convolutional neural network (2016), equation 4.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


def upsampled(inputs: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Transposed convolution of stride 2, padding 1 and kernel 3, one per member.

    Parameters
    ----------
    inputs : Tensor, (sample, member * in_channel, height, width)
        Channels last in memory, as the result is.
    weight : Tensor, (member, in_channel, out_channel, 3, 3)
        As ``nn.ConvTranspose2d`` has it.
    bias : Tensor, (member, out_channel), optional
    size : tuple of int
        Height and width of the output; twice those of the input, or one less.

    Returns
    -------
    Tensor, (sample, member * out_channel, *size)
    """
    n_members, n_in, n_out = weight.shape[:3]
    n_samples, _, rows, columns = inputs.shape
    taps = weight.flatten(3) @ _parities(weight.dtype, weight.device)
    # Output channels in the order (parity, channel): interleaving the parts then copies
    # whole runs of channels.
    kernel = taps.unflatten(3, (4, 2, 2)).permute(0, 3, 2, 1, 4, 5)
    parts = F.conv2d(
        F.pad(inputs, (0, 1, 0, 1)),  # the x[i + 1] of the last row and column is zero
        kernel.reshape(n_members * 4 * n_out, n_in, 2, 2),
        None if bias is None else bias.repeat(1, 4).flatten(),
        groups=n_members,
    )
    # (sample, row, column, member, row parity, column parity, channel), a view.
    apart = parts.permute(0, 2, 3, 1).unflatten(3, (n_members, 2, 2, n_out))
    outputs = apart.permute(0, 1, 4, 2, 5, 3, 6).reshape(
        n_samples, 2 * rows, 2 * columns, n_members * n_out
    )
    height, width = size
    if outputs.shape[1:3] != (height, width):
        outputs = outputs[:, :height, :width].contiguous()
    images: Tensor = outputs.permute(0, 3, 1, 2)
    return images


@cache
def _parities(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Which of the 3x3 weights is which of the four 2x2 kernels': (9, 16), zeros and ones."""
    weight_of = {(0, 0): 1, (1, 0): 2, (1, 1): 0}  # (parity, tap) along one axis; (0, 1): none
    table = torch.zeros(9, 16, dtype=dtype)
    for (row_parity, row_tap), row in weight_of.items():
        for (column_parity, column_tap), column in weight_of.items():
            part = 2 * row_parity + column_parity
            table[3 * row + column, 4 * part + 2 * row_tap + column_tap] = 1.0
    return table.to(device)
