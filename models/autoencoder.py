"""One autoencoder as a plain ``nn.Module``; how many of them train together lives elsewhere."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aesearch.models.conv import conv_layers
from aesearch.models.dense import dense_layers


class Autoencoder(nn.Module):
    """An encoder and a decoder of stock layers: images to codes and back to images.

    Parameters
    ----------
    encoder, decoder : nn.Sequential
        Of ``nn`` layers; the decoder ends with a sigmoid.
    configuration : dict
        The arguments of :func:`build_autoencoder` that rebuild this network (all but the
        seed and the dtype); values that JSON can hold.
    """

    def __init__(
        self, encoder: nn.Sequential, decoder: nn.Sequential, configuration: dict[str, Any]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self._configuration = configuration

    @property
    def configuration(self) -> dict[str, Any]:
        """The flat arguments that rebuild this network, a fresh dict that JSON can hold."""
        return {
            key: list(value) if isinstance(value, list) else value
            for key, value in self._configuration.items()
        }

    @property
    def architecture(self) -> str:
        """``"dense"`` or ``"conv"``."""
        return self._configuration["architecture"]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, height, width) of the images."""
        channel, height, width = self._configuration["image_shape"]
        return channel, height, width

    @property
    def encoding_dim(self) -> int:
        """Width of the code."""
        return self._configuration["encoding_dim"]

    def encode(self, images: Tensor) -> Tensor:
        """Codes of images.

        Parameters
        ----------
        images : Tensor, (sample, channel, height, width)
            Intensities in [0, 1].

        Returns
        -------
        Tensor, (sample, encoding_dim)
        """
        return self.encoder(images)

    def decode(self, codes: Tensor) -> Tensor:
        """Images of codes.

        Parameters
        ----------
        codes : Tensor, (sample, encoding_dim)

        Returns
        -------
        Tensor, (sample, channel, height, width)
            Intensities in [0, 1].
        """
        return self.decoder(codes)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions: ``decode(encode(images))``, of the shape of ``images``."""
        return self.decode(self.encode(images))


def build_autoencoder(
    *,
    architecture: str,
    image_shape: Sequence[int],
    encoding_dim: int,
    hidden: Sequence[int] = (392,),
    channels: Sequence[int] = (8, 16, 32),
    conv_hidden: int = 128,
    dropout: float = 0.0,
    code_activation: str = "linear",
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> Autoencoder:
    """Build an autoencoder whose weights are a function of its arguments and ``seed``.

    The weights are torch's own default initialisation, drawn in float32 and then cast, so
    that one seed gives one network in every precision. The global random state is
    neither used nor changed.

    Parameters
    ----------
    architecture : {"dense", "conv"}
        Dense reads ``hidden``; conv reads ``channels`` and ``conv_hidden``.
    image_shape : sequence of int, (channel, height, width)
    encoding_dim : int
        Width of the code; >= 1.
    hidden : sequence of int
        Hidden widths from the image to the code; empty for a single hidden layer, which
        is then the code itself.
    channels : sequence of int
        Output channels of the stride-2 convolutions; not empty.
    conv_hidden : int
        Width of the linear layer between convolutions and code; >= 1.
    dropout : float
        In [0, 1); after the ReLU of each linear layer, also that of a ``relu`` code.
    code_activation : {"linear", "relu"}
    seed : int
        >= 0.
    dtype : torch.dtype, optional
        Of the weights; float32 where it is not given.

    Returns
    -------
    Autoencoder
        On the CPU, in training mode.

    Raises
    ------
    ValueError
        For an unknown architecture or code activation, a width below 1, a dropout outside
        [0, 1), or an image shape that is not three sizes.
    """
    shape = _checked_shape(image_shape)
    _check_choice("code_activation", code_activation, ("linear", "relu"))
    _check_choice("architecture", architecture, ("dense", "conv"))
    _check_width("encoding_dim", encoding_dim)
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
    configuration: dict[str, Any] = {
        "architecture": architecture,
        "image_shape": list(shape),
        "encoding_dim": int(encoding_dim),
        "dropout": float(dropout),
        "code_activation": code_activation,
    }
    shared: dict[str, Any] = {
        "image_shape": shape,
        "encoding_dim": int(encoding_dim),
        "dropout": float(dropout),
        "code_activation": code_activation,
    }
    if architecture == "dense":
        for width in hidden:
            _check_width("hidden", width)
        configuration["hidden"] = [int(width) for width in hidden]
    else:
        if not channels:
            raise ValueError(f"channels must name at least one convolution, got {channels!r}")
        for channel in channels:
            _check_width("channels", channel)
        _check_width("conv_hidden", conv_hidden)
        configuration["channels"] = [int(channel) for channel in channels]
        configuration["conv_hidden"] = int(conv_hidden)

    default_dtype = torch.get_default_dtype()
    # devices=[] and the CPU generator alone: torch.manual_seed would also touch CUDA's.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        try:
            torch.set_default_dtype(torch.float32)
            if architecture == "dense":
                encoder, decoder = dense_layers(hidden=configuration["hidden"], **shared)
            else:
                encoder, decoder = conv_layers(
                    channels=configuration["channels"],
                    conv_hidden=configuration["conv_hidden"],
                    **shared,
                )
        finally:
            torch.set_default_dtype(default_dtype)
    network = Autoencoder(encoder, decoder, configuration)
    return network if dtype is None else network.to(dtype)


def _checked_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(
            f"image_shape must be (channel, height, width), each >= 1, got {image_shape!r}"
        )
    channel, height, width = image_shape
    return int(channel), int(height), int(width)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _check_width(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be >= 1, got {value!r}")
