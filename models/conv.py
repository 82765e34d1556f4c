"""The layers of the convolutional autoencoder; what an autoencoder is lives in ``autoencoder``."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from torch import nn


def halved(size: int) -> int:
    """Length of an axis after a 3-wide convolution of stride 2 and padding 1: ceil(size / 2)."""
    return (size + 1) // 2


def conv_layers(
    *,
    image_shape: tuple[int, int, int],
    encoding_dim: int,
    channels: Sequence[int],
    conv_hidden: int,
    dropout: float,
    code_activation: str,
    activation: Callable[[], nn.Module],
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Encoder of stride-2 convolutions and two linear layers, and its mirror image.

    The encoder is one (Conv2d 3x3, activation) per entry of ``channels``, then Linear,
    activation, Dropout, Linear; where the code has a ReLU, that and Dropout follow. The decoder
    is Linear, activation, Dropout, Linear, activation, then transposed convolutions whose output
    padding restores each size of the encoder exactly, odd or even.

    Parameters
    ----------
    image_shape : tuple of int, (channel, height, width)
    encoding_dim : int
        Width of the code; >= 1.
    channels : sequence of int
        Output channels of the convolutions, from the image to the code; not empty.
    conv_hidden : int
        Width of the linear layer between the convolutions and the code; >= 1.
    dropout : float
        Probability that a unit of a linear layer is zeroed in training, in [0, 1).
    code_activation : {"linear", "relu"}
    activation : callable
        Makes the activation that follows a layer.

    Returns
    -------
    encoder : list of nn.Module
        (sample, channel, height, width) to (sample, encoding_dim).
    decoder : list of nn.Module
        (sample, encoding_dim) to (sample, channel, height, width), before the output's
        activation.
    """
    shapes = [image_shape]
    for channel in channels:
        _, height, width = shapes[-1]
        shapes.append((channel, halved(height), halved(width)))
    n_features = prod(shapes[-1])

    encoder: list[nn.Module] = []
    for before, after in pairwise(shapes):
        encoder += [nn.Conv2d(before[0], after[0], 3, stride=2, padding=1), activation()]
    encoder += [nn.Flatten(), nn.Linear(n_features, conv_hidden), activation(), nn.Dropout(dropout)]
    encoder.append(nn.Linear(conv_hidden, encoding_dim))
    if code_activation == "relu":
        encoder += [nn.ReLU(), nn.Dropout(dropout)]

    decoder: list[nn.Module] = [nn.Linear(encoding_dim, conv_hidden), activation()]
    decoder += [nn.Dropout(dropout), nn.Linear(conv_hidden, n_features), activation()]
    decoder.append(nn.Unflatten(1, shapes[-1]))
    for before, after in zip(shapes[:0:-1], shapes[-2::-1], strict=True):
        # A transposed convolution gives 2 n - 1 of n; the one missing row of an even
        # size is the output padding.
        missing = (after[1] - 2 * before[1] + 1, after[2] - 2 * before[2] + 1)
        decoder.append(
            nn.ConvTranspose2d(before[0], after[0], 3, stride=2, padding=1, output_padding=missing)
        )
        decoder.append(activation())
    return encoder, decoder[:-1]
