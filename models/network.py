"""A population's network, stacked from plain modules; how it trains lives in ``population``."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from aesearch.models.autoencoder import Autoencoder
from aesearch.models.layers import (
    FeaturesToMaps,
    MapsToFeatures,
    PopulationConvolution,
    PopulationDropout,
    PopulationLayer,
    PopulationLinear,
    PopulationReLU,
    channels_last,
)


@dataclass(frozen=True)
class Slot:
    """Where one parameter lies in a member's row: ``row[start : start + prod(shape)]``."""

    start: int
    shape: tuple[int, ...]

    def of(self, rows: Tensor) -> Tensor:
        """View (..., *shape) of rows (..., n_parameters)."""
        return rows.narrow(-1, self.start, prod(self.shape)).unflatten(-1, self.shape)


class ParameterLayout:
    """Which column of a (member, n_parameters) buffer is which parameter of a plain module.

    The template is a plain module as wide, in every layer, as the widest member. A
    narrower member lies in the leading corner of each parameter and the rest is zero.
    This is exact: a padded unit has zero weights on both sides and no bias, hence a
    zero output, hence zero gradients, and stays zero under every optimiser here.

    Parameters
    ----------
    template : Autoencoder
    """

    def __init__(self, template: Autoencoder) -> None:
        self.template = template
        self.slots: dict[str, Slot] = {}
        start = 0
        for name, parameter in template.named_parameters():
            self.slots[name] = Slot(start, tuple(parameter.shape))
            start += parameter.numel()
        self.n_parameters = start

    def stack(self, modules: Sequence[Autoencoder], dtype: torch.dtype) -> Tensor:
        """The modules' parameters as rows: (member, n_parameters), on the CPU."""
        rows = torch.zeros(len(modules), self.n_parameters, dtype=dtype)
        for row, module in zip(rows, modules, strict=True):
            for name, parameter in module.named_parameters():
                _corner(self.slots[name].of(row), parameter).copy_(parameter.detach())
        return rows

    def unstack(self, row: Tensor, module: Autoencoder) -> None:
        """Copy a row (n_parameters,) into a plain module, cut to the module's widths."""
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(_corner(self.slots[name].of(row), parameter))


def _corner(padded: Tensor, parameter: Tensor) -> Tensor:
    """View of the leading corner of ``padded`` that has the shape of ``parameter``."""
    return padded[tuple(slice(size) for size in parameter.shape)]


class PopulationNetwork:
    """The members' networks as one: images to the inputs of the last sigmoid, and back.

    Each layer of the template becomes the layer that does the same for every member, so
    an architecture made of stock layers needs no code here.

    Parameters
    ----------
    layout : ParameterLayout
    weights : Tensor, (member, n_parameters)
    dropout : Tensor, (member,), float64
    gradient : Tensor, (member, n_parameters), optional
        Where ``backward`` writes; without it the network can only be evaluated.

    Attributes
    ----------
    sample_first : bool
        Layout of inputs and outputs: (sample, member * channel, height, width) where
        the first layer is a convolution, else (member, sample, pixel).
    """

    def __init__(
        self,
        layout: ParameterLayout,
        weights: Tensor,
        dropout: Tensor,
        gradient: Tensor | None = None,
    ) -> None:
        template = layout.template
        self.image_shape = template.image_shape
        self.n_members = len(weights)
        self.sample_first = not isinstance(template.encoder[0], nn.Flatten)
        named = [
            (f"{part}.{index}", layer)
            for part, sequence in (("encoder", template.encoder), ("decoder", template.decoder))
            for index, layer in enumerate(sequence)
        ]
        if not self.sample_first:
            # Images come as features and leave as features: neither end is needed.
            named = named[1:-1]
        assert isinstance(named[-1][1], nn.Sigmoid)  # fused with the loss: see losses
        self._layers: list[PopulationLayer] = []
        n_dropouts = 0
        for name, layer in named[:-1]:
            if isinstance(layer, nn.Dropout):
                if bool((dropout > 0).any()):
                    self._layers.append(PopulationDropout(dropout, n_dropouts, weights.dtype))
                n_dropouts += 1
            else:
                self._layers.append(_stacked(name, layer, layout, weights, gradient))

    def forward(self, inputs: Tensor, step_keys: Tensor | None = None) -> Tensor:
        """Reconstructions before the sigmoid, in the layout of ``inputs``.

        Parameters
        ----------
        inputs : Tensor, see ``sample_first``
            Intensities in [0, 1]; kept as they are.
        step_keys : Tensor, (member,), int32, optional
            Keys of a training step; without them nothing is dropped.
        """
        outputs = channels_last(inputs) if self.sample_first else inputs
        for layer in self._layers:
            outputs = layer.forward(outputs, step_keys)
        return outputs.contiguous() if self.sample_first else outputs

    def backward(self, gradient: Tensor) -> None:
        """Write the parameters' gradients, from that of ``forward``'s outputs (overwritten)."""
        flowing: Tensor | None = channels_last(gradient) if self.sample_first else gradient
        for index in reversed(range(len(self._layers))):
            assert flowing is not None
            flowing = self._layers[index].backward(flowing, needs_input=index > 0)


def _stacked(
    name: str,
    layer: nn.Module,
    layout: ParameterLayout,
    weights: Tensor,
    gradient: Tensor | None,
) -> PopulationLayer:
    """The population's layer for a stock layer of the template."""
    if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        slots = (layout.slots[f"{name}.weight"], layout.slots[f"{name}.bias"])
        views = [slot.of(weights) for slot in slots]
        if gradient is not None:
            views += [slot.of(gradient) for slot in slots]
        if isinstance(layer, nn.Linear):
            return PopulationLinear(*views)
        transposed = isinstance(layer, nn.ConvTranspose2d)
        assert isinstance(layer.padding, tuple)
        return PopulationConvolution(
            *views,
            stride=_pair(layer.stride),
            padding=_pair(layer.padding),
            output_padding=_pair(layer.output_padding),
            transposed=transposed,
        )
    if isinstance(layer, nn.ReLU):
        return PopulationReLU()
    if isinstance(layer, nn.Flatten):
        return MapsToFeatures(len(weights))
    if isinstance(layer, nn.Unflatten):
        channel, height, width = layer.unflattened_size
        return FeaturesToMaps((int(channel), int(height), int(width)))
    raise TypeError(f"{name} must be a layer that a population can stack, got {layer!r}")


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    height, width = sizes
    return height, width
