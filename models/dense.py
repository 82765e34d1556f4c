"""The layers of the dense autoencoder; what an autoencoder is lives in ``autoencoder``."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn


def dense_layers(
    *,
    image_shape: tuple[int, int, int],
    encoding_dim: int,
    hidden: Sequence[int],
    dropout: float,
    code_activation: str,
) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and mirrored decoder of fully connected layers.

    Each hidden layer is Linear, ReLU, Dropout, and so is the code where it has a ReLU. A
    linear code has neither.

    Parameters
    ----------
    image_shape : tuple of int, (channel, height, width)
    encoding_dim : int
        Width of the code; >= 1.
    hidden : sequence of int
        Widths from the image to the code; the decoder has them in reverse.
    dropout : float
        Probability that the unit of a ReLU is zeroed in training, in [0, 1).
    code_activation : {"linear", "relu"}

    Returns
    -------
    encoder : nn.Sequential
        (sample, channel, height, width) to (sample, encoding_dim).
    decoder : nn.Sequential
        (sample, encoding_dim) to (sample, channel, height, width) in [0, 1].
    """
    widths = (prod(image_shape), *hidden)
    encoder: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths):
        encoder += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(dropout)]
    encoder.append(nn.Linear(widths[-1], encoding_dim))
    if code_activation == "relu":
        encoder += [nn.ReLU(), nn.Dropout(dropout)]
    decoder: list[nn.Module] = []
    for fan_in, fan_out in pairwise((encoding_dim, *reversed(hidden))):
        decoder += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(dropout)]
    last = hidden[0] if hidden else encoding_dim
    decoder += [nn.Linear(last, widths[0]), nn.Sigmoid(), nn.Unflatten(1, image_shape)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)
