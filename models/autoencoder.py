"""One autoencoder as a plain ``nn.Module``; how many of them train together lives elsewhere."""

import copy
from collections.abc import Callable, Sequence
from math import prod, sqrt
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from aesearch.models.conv import conv_layers
from aesearch.models.dense import dense_layers
from aesearch.models.shortcut import Centre, Shortcut

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}
OUTPUTS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "clamp": lambda: nn.Hardtanh(0.0, 1.0),
}


class BuildArguments(TypedDict, total=False):
    """The arguments of :func:`build_autoencoder` but seed and dtype; JSON can hold them.

    Of ``hidden``, ``channels`` and ``conv_hidden`` those that the architecture reads.
    """

    architecture: str
    image_shape: list[int]
    encoding_dim: int
    dropout: float
    code_activation: str
    activation: str
    shortcut: str
    output: str
    initialization: str
    hidden: list[int]
    channels: list[int]
    conv_hidden: int


def nothing() -> None:
    """Find nothing; unlike a lambda it can be pickled with its network."""


class Autoencoder(nn.Module):
    """An encoder and a decoder of stock layers: images to codes and back to images.

    Parameters
    ----------
    encoder, decoder : nn.Sequential
        Of ``nn`` layers, with what is in ``shortcut`` where there is one; the decoder ends
        with a sigmoid, or cuts its output to [0, 1].
    configuration : BuildArguments
        What rebuilds this network.

    Attributes
    ----------
    find_calibration : callable
        Gives its errors on ordinary images, None where nobody knows them; nothing here calls it.
    """

    def __init__(
        self, encoder: nn.Sequential, decoder: nn.Sequential, configuration: BuildArguments
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self._configuration = configuration
        self.find_calibration: Callable[[], Any] = nothing

    @property
    def configuration(self) -> BuildArguments:
        """The flat arguments that rebuild this network, a fresh dict that JSON can hold."""
        return copy.deepcopy(self._configuration)

    @property
    def architecture(self) -> str:
        """``"dense"`` or ``"conv"``."""
        return str(self._configuration["architecture"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, height, width) of the images."""
        channel, height, width = self._configuration["image_shape"]
        return channel, height, width

    @property
    def encoding_dim(self) -> int:
        """Width of the code."""
        return int(self._configuration["encoding_dim"])

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
        codes: Tensor = self.encoder(images)
        return codes

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
        images: Tensor = self.decoder(codes)
        return images

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
    activation: str = "relu",
    shortcut: str = "none",
    output: str = "sigmoid",
    initialization: str = "torch",
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> Autoencoder:
    """Build an autoencoder whose weights are a function of its arguments and ``seed``.

    The weights are drawn in float32 and then cast, so that one seed gives one network in every
    precision. The global random state is neither used nor changed. A network with a shortcut
    starts as PCA once ``shortcut.start_at`` has given it mean and components.

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
        In [0, 1); after the activation of each linear layer, also that of a ``relu`` code.
    code_activation : {"linear", "relu"}
    activation : {"relu", "gelu"}
        Of the layers before and behind the code.
    shortcut : {"none", "pca"}
        ``pca``: linear maps from the image to the code and back, beside the layers.
    output : {"sigmoid", "clamp"}
        How the decoder's output gets into [0, 1].
    initialization : {"torch", "he"}
        Of the weights: torch's default, or normal with the variance 2 / fan-in and biases of 0.
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
        For an unknown choice, a width below 1, a dropout outside [0, 1), an image shape that is
        not three sizes, or a shortcut around a ``relu`` code or with a sigmoid behind it.

    References
    ----------
    He et al.: Delving deep into rectifiers (2015), equation 10.
    """
    shape = _checked_shape(image_shape)
    _check_choice("code_activation", code_activation, ("linear", "relu"))
    _check_choice("architecture", architecture, ("dense", "conv"))
    _check_choice("activation", activation, tuple(ACTIVATIONS))
    _check_choice("shortcut", shortcut, ("none", "pca"))
    _check_choice("output", output, tuple(OUTPUTS))
    _check_choice("initialization", initialization, ("torch", "he"))
    if shortcut == "pca" and (code_activation, output) != ("linear", "clamp"):
        raise ValueError(
            "shortcut must be none unless code_activation is linear and output is clamp, got "
            f"'pca' with {code_activation!r} and {output!r}"
        )
    _check_width("encoding_dim", encoding_dim)
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
    configuration: BuildArguments = {
        "architecture": architecture,
        "image_shape": list(shape),
        "encoding_dim": int(encoding_dim),
        "dropout": float(dropout),
        "code_activation": code_activation,
        "activation": activation,
        "shortcut": shortcut,
        "output": output,
        "initialization": initialization,
    }
    shared: dict[str, Any] = {
        "encoding_dim": int(encoding_dim),
        "dropout": float(dropout),
        "code_activation": code_activation,
        "activation": ACTIVATIONS[activation],
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
                parts = dense_layers(n_pixels=prod(shape), hidden=configuration["hidden"], **shared)
            else:
                parts = conv_layers(
                    image_shape=shape,
                    channels=configuration["channels"],
                    conv_hidden=configuration["conv_hidden"],
                    **shared,
                )
            if initialization == "he":
                _initialize_he([*parts[0], *parts[1]])
            whole = _with_shortcut if shortcut == "pca" else _without_shortcut
            encoder, decoder = whole(*parts, configuration)
        finally:
            torch.set_default_dtype(default_dtype)
    network = Autoencoder(encoder, decoder, configuration)
    return network if dtype is None else network.to(dtype)


def _without_shortcut(
    encoder: list[nn.Module], decoder: list[nn.Module], configuration: BuildArguments
) -> tuple[nn.Sequential, nn.Sequential]:
    output = OUTPUTS[configuration["output"]]()
    if configuration["architecture"] == "conv":
        return nn.Sequential(*encoder), nn.Sequential(*decoder, output)
    unflatten = nn.Unflatten(1, tuple(configuration["image_shape"]))
    return nn.Sequential(nn.Flatten(), *encoder), nn.Sequential(*decoder, output, unflatten)


def _with_shortcut(
    encoder: list[nn.Module], decoder: list[nn.Module], configuration: BuildArguments
) -> tuple[nn.Sequential, nn.Sequential]:
    shape, encoding_dim = tuple(configuration["image_shape"]), configuration["encoding_dim"]
    output = OUTPUTS[configuration["output"]]()
    unflatten = nn.Unflatten(1, shape)
    inwards = nn.Linear(prod(shape), encoding_dim, bias=False)
    outwards = nn.Linear(encoding_dim, prod(shape))
    branches = nn.Sequential(*encoder), nn.Sequential(*decoder)
    if configuration["architecture"] == "conv":
        # Images come as maps, and the linear maps know features only.
        inwards_of_maps = nn.Sequential(nn.Flatten(), inwards)
        outwards_to_maps = nn.Sequential(outwards, unflatten)
        return (
            nn.Sequential(Centre(shape), Shortcut(branches[0], inwards_of_maps)),
            nn.Sequential(Shortcut(branches[1], outwards_to_maps), output),
        )
    return (
        nn.Sequential(nn.Flatten(), Centre((prod(shape),)), Shortcut(branches[0], inwards)),
        nn.Sequential(Shortcut(branches[1], outwards), output, unflatten),
    )


def _initialize_he(layers: Sequence[nn.Module]) -> None:
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            # Of a transposed convolution: a pixel of the output sees one input in a stride.
            fan_in: float = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):
                fan_in = layer.weight[:, 0].numel() / prod(layer.stride)
            nn.init.normal_(layer.weight, std=sqrt(2.0 / fan_in))
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


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
