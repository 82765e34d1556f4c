"""A population's network, stacked from plain modules; how it trains lives in ``population``."""

from collections.abc import Iterable, Sequence
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
    PopulationGELU,
    PopulationLayer,
    PopulationLinear,
    PopulationReLU,
    PopulationSequence,
    PopulationShortcut,
    channels_last,
)
from aesearch.models.shortcut import Centre, Shortcut


@dataclass(frozen=True)
class Slot:
    """Where one parameter lies in a member's row: ``row[start : start + prod(shape)]``."""

    start: int
    shape: tuple[int, ...]

    def of(self, rows: Tensor) -> Tensor:
        """View (..., *shape) of rows (..., n_parameters)."""
        part: Tensor = rows.narrow(-1, self.start, prod(self.shape)).unflatten(-1, self.shape)
        return part


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
    """The members' networks as one: images to what the output's activation gets, and back.

    Each layer of the template becomes the layer that does the same for every member, so
    an architecture made of stock layers needs no code here.

    Parameters
    ----------
    layout : ParameterLayout
    weights : Tensor, (member, n_parameters)
    dropout : Tensor, (member,), float64
        On the CPU.
    gradient : Tensor, (member, n_parameters), optional
        Where ``backward`` writes; without it the network can only be evaluated.
    means : Tensor, (member, pixel), optional
        What each member takes off its images; needed where the template has a shortcut.

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
        means: Tensor | None = None,
    ) -> None:
        template = layout.template
        self.image_shape = template.image_shape
        self.n_members = len(weights)
        self.sample_first = template.architecture == "conv"
        self._dtype = weights.dtype
        named = [
            (f"{part}.{index}", layer)
            for part, sequence in (("encoder", template.encoder), ("decoder", template.decoder))
            for index, layer in enumerate(sequence)
        ]
        if not self.sample_first:
            # Images come as features and leave as features: neither end is needed.
            named = named[1:-1]
        self._means: Tensor | None = None
        if isinstance(named[0][1], Centre):
            assert means is not None
            # Taken off before the first layer, which then knows that no input needs a gradient.
            named = named[1:]
            n_members, n_pixels = means.shape
            shape: tuple[int, ...] = (n_members, 1, n_pixels)
            if self.sample_first:
                channel, height, width = self.image_shape
                shape = (1, n_members * channel, height, width)
            self._means = means.reshape(shape)
        # The output's activation is fused with the loss: see losses.
        self._layers = _Stack(layout, weights, dropout, gradient).sequence(named[:-1])

    def forward(self, inputs: Tensor, step_keys: Tensor | None = None) -> Tensor:
        """Reconstructions before the output's activation, in the layout of ``inputs``.

        Parameters
        ----------
        inputs : Tensor, see ``sample_first``
            Intensities in [0, 1], in any type; kept as they are.
        step_keys : Tensor, (member,), int32, optional
            Keys of a training step; without them nothing is dropped.
        """
        outputs = inputs if self._means is None else inputs - self._means
        outputs = outputs.to(self._dtype)
        if self.sample_first:
            outputs = channels_last(outputs)
        outputs = self._layers.forward(outputs, step_keys)
        return outputs.contiguous() if self.sample_first else outputs

    def backward(self, gradient: Tensor) -> None:
        """Write the parameters' gradients, from that of ``forward``'s outputs (overwritten)."""
        self._layers.backward(
            channels_last(gradient) if self.sample_first else gradient, needs_input=False
        )


class _Stack:
    """Makes the population's layers of a template's, one after another: dropouts are counted."""

    def __init__(
        self, layout: ParameterLayout, weights: Tensor, dropout: Tensor, gradient: Tensor | None
    ) -> None:
        self._layout, self._weights, self._gradient = layout, weights, gradient
        self._dropout = dropout
        self._drops = bool((dropout > 0).any())
        self._n_dropouts = 0

    def sequence(self, named: Iterable[tuple[str, nn.Module]]) -> PopulationSequence:
        layers = (self._layer(name, layer) for name, layer in named)
        return PopulationSequence([layer for layer in layers if layer is not None])

    def _children(self, name: str, sequence: nn.Sequential) -> PopulationSequence:
        return self.sequence((f"{name}.{index}", layer) for index, layer in enumerate(sequence))

    def _layer(self, name: str, layer: nn.Module) -> PopulationLayer | None:
        """The population's layer for one of the template; None for a dropout that drops nothing."""
        if isinstance(layer, nn.Dropout):
            self._n_dropouts += 1
            if not self._drops:
                return None
            return PopulationDropout(self._dropout, self._n_dropouts - 1, self._weights)
        if isinstance(layer, nn.Sequential):
            return self._children(name, layer)
        if isinstance(layer, Shortcut):
            branch = self._children(f"{name}.branch", layer.branch)
            linear = self._layer(f"{name}.linear", layer.linear)
            assert linear is not None
            return PopulationShortcut(branch, linear)
        return self._with_weights(name, layer) or self._without_weights(name, layer)

    def _with_weights(self, name: str, layer: nn.Module) -> PopulationLayer | None:
        if not isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            return None
        weight, weight_gradient = self._views(f"{name}.weight")
        bias, bias_gradient = None, None
        if layer.bias is not None:
            bias, bias_gradient = self._views(f"{name}.bias")
        if isinstance(layer, nn.Linear):
            return PopulationLinear(weight, bias, weight_gradient, bias_gradient)
        assert bias is not None
        assert isinstance(layer.padding, tuple)
        return PopulationConvolution(
            weight,
            bias,
            weight_gradient,
            bias_gradient,
            stride=_pair(layer.stride),
            padding=_pair(layer.padding),
            output_padding=_pair(layer.output_padding),
            transposed=isinstance(layer, nn.ConvTranspose2d),
        )

    def _without_weights(self, name: str, layer: nn.Module) -> PopulationLayer:
        made: PopulationLayer | None = None
        if isinstance(layer, nn.ReLU):
            made = PopulationReLU(keeps=self._gradient is not None)
        elif isinstance(layer, nn.GELU):
            made = PopulationGELU(keeps=self._gradient is not None)
        elif isinstance(layer, nn.Flatten):
            made = MapsToFeatures(len(self._weights))
        elif isinstance(layer, nn.Unflatten):
            channel, height, width = layer.unflattened_size
            made = FeaturesToMaps((int(channel), int(height), int(width)))
        if made is None:
            raise TypeError(f"{name} must be a layer that a population can stack, got {layer!r}")
        return made

    def _views(self, name: str) -> tuple[Tensor, Tensor | None]:
        """A parameter, and where its gradient is written."""
        slot = self._layout.slots[name]
        return slot.of(self._weights), None if self._gradient is None else slot.of(self._gradient)


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    height, width = sizes
    return height, width
