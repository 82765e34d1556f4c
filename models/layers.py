"""The layers of a population, each one ``nn`` layer for every member at once; no training here.

Two layouts of activations: *features* (member, sample, feature) around linear layers and
*maps* (sample, member * channel, height, width) around convolutions, channels last in
memory: with few channels that is up to twice as fast. A layer has a
``forward`` and a hand-written ``backward`` that writes the parameters' gradients straight
into the population's gradient buffer: no graph, no copies, nothing allocated per
parameter. Activations are overwritten in place where the layer before does not need them.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from aesearch.models.products import member_products
from aesearch.models.training.randomness import drop_thresholds, keep_mask, unit_hashes
from aesearch.models.upsampling import upsampled


class PopulationLayer(Protocol):
    """What a network of layers calls: ``forward`` once, then ``backward`` at most once."""

    def forward(self, inputs: Tensor, step_keys: Tensor | None) -> Tensor:
        """Outputs; ``step_keys`` (member,) int32 in a training step with dropout, else None."""
        ...

    def backward(self, gradient: Tensor, *, needs_input: bool) -> Tensor | None:
        """Gradient of the inputs from that of the outputs; parameters' gradients are written.

        ``gradient`` may be overwritten. Without ``needs_input`` the answer may be None.
        """
        ...


def channels_last(maps: Tensor) -> Tensor:
    """The same maps (sample, channel, height, width), channels last in memory."""
    maps = maps.contiguous(memory_format=torch.channels_last)
    _, n_channels, height, width = maps.shape
    # With one channel both layouts are the same memory, and only the strides tell torch
    # which one is meant.
    strides = (n_channels * height * width, 1, n_channels * width, n_channels)
    return maps.as_strided(maps.shape, strides)


class PopulationLinear:
    """Independent affine maps, one per member, as a single batched product.

    Member ``m`` computes what ``nn.Linear`` computes for that member alone; no arithmetic
    crosses the member axis.

    Parameters
    ----------
    weight, weight_gradient : Tensor, (member, out_feature, in_feature)
    bias, bias_gradient : Tensor, (member, out_feature)
        Views of the population's buffers; gradients None for evaluation only, the bias where
        the layer has none.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        weight_gradient: Tensor | None = None,
        bias_gradient: Tensor | None = None,
    ) -> None:
        self.weight, self.bias = weight, bias
        self.weight_gradient, self.bias_gradient = weight_gradient, bias_gradient
        self._inputs: Tensor | None = None

    def forward(self, inputs: Tensor, step_keys: Tensor | None) -> Tensor:  # noqa: ARG002
        """(member, sample, in_feature) to (member, sample, out_feature)."""
        self._inputs = None if self.weight_gradient is None else inputs
        return member_products(inputs, self.weight.transpose(1, 2), bias=self.bias)

    def backward(self, gradient: Tensor, *, needs_input: bool) -> Tensor | None:
        """(member, sample, out_feature) to (member, sample, in_feature)."""
        assert self._inputs is not None
        member_products(gradient.transpose(1, 2), self._inputs, out=self.weight_gradient)
        if self.bias_gradient is not None:
            torch.sum(gradient, dim=1, out=self.bias_gradient)
        self._inputs = None
        return member_products(gradient, self.weight) if needs_input else None


class PopulationConvolution:
    """Independent (transposed) convolutions, one per member, as one grouped convolution.

    But in bfloat16 on a CPU one after another: torch's grouped convolutions there mix
    neighbouring members where a member's channels are odd in number (a NaN of one reaches the
    next).

    Parameters
    ----------
    weight, weight_gradient : Tensor, (member, out_channel, in_channel, height, width)
        The first two in the other order where ``transposed``.
    bias, bias_gradient : Tensor, (member, out_channel)
        Views of the population's buffers; gradients None for evaluation only.
    stride, padding, output_padding : tuple of int, (height, width)
    transposed : bool
        ``nn.ConvTranspose2d`` instead of ``nn.Conv2d``.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        weight_gradient: Tensor | None = None,
        bias_gradient: Tensor | None = None,
        *,
        stride: tuple[int, int],
        padding: tuple[int, int],
        output_padding: tuple[int, int],
        transposed: bool,
    ) -> None:
        self.weight, self.bias = weight, bias
        self.weight_gradient, self.bias_gradient = weight_gradient, bias_gradient
        self._stride, self._padding, self._output_padding = stride, padding, output_padding
        self._transposed = transposed
        on_cpu = weight.device.type == "cpu"
        # Only there is the shuffled form the faster one.
        self._shuffles = (
            on_cpu and tuple(weight.shape[-2:]) == (3, 3) and (stride, padding) == ((2, 2), (1, 1))
        )
        self._half_on_cpu = on_cpu and weight.dtype == torch.bfloat16
        self._alone: list[PopulationConvolution] = []
        if self._half_on_cpu and len(weight) > 1:
            for member in range(len(weight)):
                own = slice(member, member + 1)
                self._alone.append(
                    PopulationConvolution(
                        weight[own],
                        bias[own],
                        None if weight_gradient is None else weight_gradient[own],
                        None if bias_gradient is None else bias_gradient[own],
                        stride=stride,
                        padding=padding,
                        output_padding=output_padding,
                        transposed=transposed,
                    )
                )
        self._inputs: Tensor | None = None
        self._grouped: Tensor | None = None

    def forward(self, inputs: Tensor, step_keys: Tensor | None) -> Tensor:  # noqa: ARG002
        """(sample, member * in_channel, h, w) to (sample, member * out_channel, h', w')."""
        if self._alone:
            parts = zip(self._alone, inputs.chunk(len(self._alone), 1), strict=True)
            return torch.cat([own.forward(channels_last(part), None) for own, part in parts], 1)
        self._inputs = None if self.weight_gradient is None else inputs
        # The members' weights lie apart in the buffer, so this copies (they are small).
        self._grouped = self.weight.flatten(0, 1)
        if not self._transposed:
            return self._strided(inputs, self.bias.flatten())
        if self._shuffles:
            height, width = (
                2 * n - 1 + more
                for n, more in zip(inputs.shape[2:], self._output_padding, strict=True)
            )
            return upsampled(inputs, self.weight, self.bias, (height, width))
        return F.conv_transpose2d(
            inputs,
            self._grouped,
            self.bias.flatten(),
            self._stride,
            self._padding,
            self._output_padding,
            groups=len(self.weight),
        )

    def backward(self, gradient: Tensor, *, needs_input: bool) -> Tensor | None:
        """(sample, member * out_channel, h', w') to (sample, member * in_channel, h, w)."""
        if self._alone:
            parts = zip(self._alone, gradient.chunk(len(self._alone), 1), strict=True)
            back = [
                own.backward(channels_last(part), needs_input=needs_input) for own, part in parts
            ]
            return (
                torch.cat([each for each in back if each is not None], 1) if needs_input else None
            )
        assert self.weight_gradient is not None
        assert self.bias_gradient is not None
        assert self._inputs is not None
        # Torch's own sum for a bias takes as long as the weight's gradient, and is less exact.
        self.bias_gradient.copy_(gradient.sum((0, 2, 3)).view(self.bias.shape))
        # A transposed convolution is the gradient of the ordinary one, and the other way round.
        small, large = (self._inputs, gradient) if self._transposed else (gradient, self._inputs)
        natively = needs_input and not self._transposed and not self._shuffles
        of_inputs: Tensor | None
        of_inputs, of_weight, _ = torch.ops.aten.convolution_backward(
            small,
            large,
            self._grouped,
            None,
            self._stride,
            self._padding,
            dilation=(1, 1),
            transposed=False,
            output_padding=(0, 0),
            groups=len(self.weight),
            output_mask=(natively, True, False),
        )
        self.weight_gradient.copy_(of_weight.view(self.weight.shape))
        if needs_input and self._transposed:
            of_inputs = self._strided(gradient, None)
        elif needs_input and self._shuffles:
            height, width = self._inputs.shape[2:]
            of_inputs = upsampled(gradient, self.weight, None, (height, width))
        self._inputs = self._grouped = None
        return of_inputs

    def _strided(self, maps: Tensor, bias: Tensor | None) -> Tensor:
        """The ordinary convolution, channels last."""
        assert self._grouped is not None
        if self._half_on_cpu and maps.shape[1] == 1:
            # One channel is the same memory in both layouts, and a seventh of the work in the
            # plain one, whose strides this gives it.
            maps = maps.squeeze(1).unsqueeze(1)
            outputs = F.conv2d(maps, self._grouped, bias, self._stride, self._padding)
            return channels_last(outputs)
        return F.conv2d(
            maps, self._grouped, bias, self._stride, self._padding, groups=len(self.weight)
        )


class PopulationReLU:
    """``nn.ReLU``, in place: the layer before it does not need its outputs.

    Parameters
    ----------
    keeps : bool
        Whether a ``backward`` may follow.
    """

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps
        self._outputs: Tensor | None = None

    def forward(self, inputs: Tensor, step_keys: Tensor | None) -> Tensor:  # noqa: ARG002
        """The positive part, of the same shape."""
        outputs = inputs.relu_()
        self._outputs = outputs if self._keeps else None
        return outputs

    def backward(self, gradient: Tensor, *, needs_input: bool) -> Tensor | None:  # noqa: ARG002
        """The gradient where the output is positive."""
        # Dropout may have scaled or zeroed the outputs in place: where it zeroed them it
        # has zeroed the gradient too, so their sign is still the answer.
        outputs, self._outputs = self._outputs, None
        torch.ops.aten.threshold_backward.grad_input(gradient, outputs, 0, grad_input=gradient)
        return gradient


class PopulationGELU:
    """``nn.GELU``, exact: the input times the normal distribution function of it.

    Parameters
    ----------
    keeps : bool
        Whether a ``backward`` may follow.
    """

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps
        self._inputs: Tensor | None = None

    def forward(self, inputs: Tensor, step_keys: Tensor | None) -> Tensor:  # noqa: ARG002
        """Activations, of the same shape; the inputs are kept."""
        self._inputs = inputs if self._keeps else None
        return F.gelu(inputs)

    def backward(self, gradient: Tensor, *, needs_input: bool) -> Tensor | None:  # noqa: ARG002
        """The gradient times the slope at the inputs."""
        inputs, self._inputs = self._inputs, None
        torch.ops.aten.gelu_backward.grad_input(gradient, inputs, grad_input=gradient)
        return gradient


class PopulationDropout:
    """Inverted dropout with a rate and a stream of random numbers for each member.

    ``nn.Dropout`` in law, not in its draws: what is dropped is a hash of (member, step,
    layer, sample, unit), see ``randomness``. In place, after a ReLU.

    Parameters
    ----------
    rates : Tensor, (member,), float64
        Probability that a unit is zeroed, in [0, 1); on the CPU.
    layer : int
        Number of this dropout layer in its network, from 0.
    like : Tensor
        Of the type and on the device of the activations.
    """

    def __init__(self, rates: Tensor, layer: int, like: Tensor) -> None:
        self._layer = layer
        self._thresholds = drop_thresholds(rates).to(like.device)
        self._scales = (1.0 / (1.0 - rates)).to(like.dtype).to(like.device)[:, None, None]
        self._units: Tensor | None = None
        self._factors: Tensor | None = None

    def forward(self, inputs: Tensor, step_keys: Tensor | None) -> Tensor:
        """Inputs in evaluation; each kept unit over its probability to be kept in training."""
        if step_keys is None:
            self._factors = None
            return inputs
        _, n_samples, n_units = inputs.shape
        if self._units is None:
            self._units = unit_hashes(n_units, inputs.device)
        kept = keep_mask(step_keys, self._layer, n_samples, self._units, self._thresholds)
        self._factors = kept * self._scales
        return inputs.mul_(self._factors)

    def backward(self, gradient: Tensor, *, needs_input: bool) -> Tensor | None:  # noqa: ARG002
        """The gradient times the same factors."""
        factors, self._factors = self._factors, None
        return gradient if factors is None else gradient.mul_(factors)


class PopulationSequence:
    """Layers one after another.

    Parameters
    ----------
    layers : list of PopulationLayer
    """

    def __init__(self, layers: list[PopulationLayer]) -> None:
        self._layers = layers

    def forward(self, inputs: Tensor, step_keys: Tensor | None) -> Tensor:
        """Outputs of the last layer."""
        for layer in self._layers:
            inputs = layer.forward(inputs, step_keys)
        return inputs

    def backward(self, gradient: Tensor, *, needs_input: bool) -> Tensor | None:
        """The gradient of the first layer's inputs."""
        flowing: Tensor | None = gradient
        for index in reversed(range(len(self._layers))):
            assert flowing is not None
            flowing = self._layers[index].backward(flowing, needs_input=needs_input or index > 0)
        return flowing


class PopulationShortcut:
    """Layers beside a linear map of the same inputs: the sum of both.

    Parameters
    ----------
    branch, linear : PopulationLayer
        Neither may overwrite its inputs.
    """

    def __init__(self, branch: PopulationLayer, linear: PopulationLayer) -> None:
        self._branch, self._linear = branch, linear

    def forward(self, inputs: Tensor, step_keys: Tensor | None) -> Tensor:
        """The branch's outputs plus the linear map's."""
        return self._linear.forward(inputs, step_keys).add_(self._branch.forward(inputs, step_keys))

    def backward(self, gradient: Tensor, *, needs_input: bool) -> Tensor | None:
        """Both have the same gradient of their outputs; theirs of the inputs are added."""
        # The linear map leaves the gradient as it is, the branch may not.
        past = self._linear.backward(gradient, needs_input=needs_input)
        through = self._branch.backward(gradient, needs_input=needs_input)
        if not needs_input:
            return None
        assert past is not None
        assert through is not None
        return past.add_(through)


class MapsToFeatures:
    """``nn.Flatten`` between convolutions and linear layers."""

    def __init__(self, n_members: int) -> None:
        self._n_members = n_members
        self._maps: torch.Size | None = None

    def forward(self, inputs: Tensor, step_keys: Tensor | None) -> Tensor:  # noqa: ARG002
        """(sample, member * channel, h, w) to (member, sample, channel * h * w)."""
        self._maps = inputs.shape
        return inputs.reshape(len(inputs), self._n_members, -1).transpose(0, 1)

    def backward(self, gradient: Tensor, *, needs_input: bool) -> Tensor | None:  # noqa: ARG002
        """(member, sample, channel * h * w) to (sample, member * channel, h, w)."""
        assert self._maps is not None
        return channels_last(gradient.transpose(0, 1).reshape(self._maps))


class FeaturesToMaps:
    """``nn.Unflatten`` between linear layers and convolutions."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape

    def forward(self, inputs: Tensor, step_keys: Tensor | None) -> Tensor:  # noqa: ARG002
        """(member, sample, channel * h * w) to (sample, member * channel, h, w)."""
        channel, height, width = self._shape
        n_members, n_samples, _ = inputs.shape
        return channels_last(
            inputs.transpose(0, 1).reshape(n_samples, n_members * channel, height, width)
        )

    def backward(self, gradient: Tensor, *, needs_input: bool) -> Tensor | None:  # noqa: ARG002
        """(sample, member * channel, h, w) to (member, sample, channel * h * w)."""
        n_members = gradient.shape[1] // self._shape[0]
        return gradient.reshape(len(gradient), n_members, -1).transpose(0, 1)
