"""The layers of the dense autoencoder; what an autoencoder is lives in ``autoencoder``."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


def dense_layers(
    *,
    n_pixels: int,
    encoding_dim: int,
    hidden: Sequence[int],
    dropout: float,
    code_activation: str,
    activation: Callable[[], nn.Module],
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Encoder and mirrored decoder of fully connected layers.

    Each hidden layer is Linear, activation, Dropout; where the code has a ReLU, that and
    Dropout follow it. A linear code has neither.

    Parameters
    ----------
    n_pixels : int
        Values of one image.
    encoding_dim : int
        Width of the code; >= 1.
    hidden : sequence of int
        Widths from the image to the code; the decoder has them in reverse.
    dropout : float
        Probability that a unit is zeroed in training, in [0, 1).
    code_activation : {"linear", "relu"}
    activation : callable
        Makes the activation of a hidden layer.

    Returns
    -------
    encoder : list of nn.Module
        (sample, pixel) to (sample, encoding_dim).
    decoder : list of nn.Module
        (sample, encoding_dim) to (sample, pixel), before the output's activation.
    """
    encoder: list[nn.Module] = []
    for fan_in, fan_out in pairwise((n_pixels, *hidden)):
        encoder += [nn.Linear(fan_in, fan_out), activation(), nn.Dropout(dropout)]
    encoder.append(nn.Linear(hidden[-1] if hidden else n_pixels, encoding_dim))
    if code_activation == "relu":
        encoder += [nn.ReLU(), nn.Dropout(dropout)]
    decoder: list[nn.Module] = []
    for fan_in, fan_out in pairwise((encoding_dim, *reversed(hidden))):
        decoder += [nn.Linear(fan_in, fan_out), activation(), nn.Dropout(dropout)]
    decoder.append(nn.Linear(hidden[0] if hidden else encoding_dim, n_pixels))
    return encoder, decoder
