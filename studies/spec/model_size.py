"""How large the networks of a study become, and how large a store takes their weights."""

from itertools import pairwise
from math import prod
from typing import NamedTuple

from aesearch.studies.errors import SpecError
from aesearch.studies.spec.dimensions import hidden_name, hidden_widths
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.studies.spec.weights import linear_weights

# PostgreSQL gives bytes back as twice as many hexadecimal digits, in at most 2^30 bytes; SQLite
# takes 10^9 bytes. Something is left for what stands beside the weights.
LARGEST_WEIGHTS = {"postgresql": 500_000_000, "sqlite": 950_000_000}

_WEIGHT_BYTES = 4  # float32
_BEYOND_ALL = 1 << 53


def check_weights(spec: ResolvedSpec, pixels: int, backend: str) -> None:
    """Refuse networks whose weights the store could not keep, or not give back.

    Convolutional networks need no such limit: none that trains at all comes near it.

    Parameters
    ----------
    spec : ResolvedSpec
        Resolved.
    pixels : int
        Values of one image.
    backend : {"sqlite", "postgresql"}
        What the store is.

    Raises
    ------
    SpecError
        With the setting that makes them so large.
    """
    if "dense" not in _architectures(spec):
        return
    hidden = spec.space.hidden
    sizes = {
        widths: _dense_bytes((pixels, *widths, _largest_code(spec)))
        for widths in _dense_widths(spec)
    }
    widths = max(sizes, key=lambda key: sizes[key])
    limit = LARGEST_WEIGHTS[backend]
    if sizes[widths] <= limit:
        return
    path = "model.dense.hidden" if hidden is None else "space.hidden"
    kind = {"postgresql": "a PostgreSQL database", "sqlite": "an SQLite file"}[backend]
    rule = f"make networks of at most {limit // 10**6} MB, which is what {kind} keeps"
    got = f"{sizes[widths] // 10**6} MB with {hidden_name(widths)} units on {pixels:,} values"
    remedy = "give fewer units, smaller images, or --architecture conv"
    raise SpecError("study", [f"{path}: must {rule}, got {got} of an image; {remedy}"])


def _dense_bytes(widths: tuple[int, ...]) -> int:
    """Size of the encoder with these widths, and of its mirror image: weights and biases."""
    return _WEIGHT_BYTES * linear_weights(widths)


class NetworkSize(NamedTuple):
    """Size of the largest network that a study may train.

    Attributes
    ----------
    n_weights : int
    values_per_image : int
        Of all activations together.
    weights_applied : float
        Weights of convolutions, for each pixel of the image that they are applied at.
    """

    n_weights: int
    values_per_image: int
    weights_applied: float


def largest_network(spec: ResolvedSpec, image_shape: tuple[int, int, int]) -> NetworkSize:
    """Estimate the size of the largest network: weights and biases, activations for one image.

    Parameters
    ----------
    spec : ResolvedSpec
    image_shape : (channel, height, width)
    """
    pixels, code, kinds = prod(image_shape), _largest_code(spec), _architectures(spec)
    searched = () if spec.space.shortcut is None else spec.space.shortcut.choices
    shortcut = pixels * (2 * code + 1) if "pca" in (spec.model.shortcut, *searched) else 0
    found = [
        NetworkSize(
            _dense_bytes((pixels, *widths, code)) // _WEIGHT_BYTES + shortcut,
            3 * (pixels + sum(widths)),
            0.0,
        )
        for widths in (_dense_widths(spec) if "dense" in kinds else ())
    ]
    if "conv" in kinds:
        found.append(_conv_size(spec, image_shape, code, shortcut))
    return max(found, key=lambda size: size.n_weights)


def _conv_size(
    spec: ResolvedSpec, image_shape: tuple[int, int, int], code: int, shortcut: int
) -> NetworkSize:
    """Estimate a convolutional network: 3 x 3 kernels, each of three layers halves the sides."""
    channels, height, width = image_shape
    depths = (channels, *spec.model.conv.channels)
    kernels = [9 * one * other for one, other in pairwise(depths)]
    smallest = -(-height // 8) * -(-width // 8) * depths[-1]
    linear = spec.model.conv.hidden * (smallest + code)
    applied = sum(kernel / 4**layer for layer, kernel in enumerate(kernels, start=1))
    activations = sum(depth * height * width // 4**layer for layer, depth in enumerate(depths))
    return NetworkSize(2 * (sum(kernels) + linear) + shortcut, 6 * activations, 2 * applied)


def _architectures(spec: ResolvedSpec) -> tuple[str, ...]:
    dimension = spec.space.architecture_dimension
    return (spec.model.architecture,) if dimension is None else tuple(dimension.choices)


def _dense_widths(spec: ResolvedSpec) -> list[tuple[int, ...]]:
    hidden = spec.space.hidden
    if hidden is None:
        return [spec.model.dense.hidden]
    return [hidden_widths(name) for name in hidden.choices]


def _largest_code(spec: ResolvedSpec) -> int:
    code = spec.space.encoding_dim
    return spec.model.encoding_dim if code is None else int(code.nearest(_BEYOND_ALL))
