"""How much memory a population takes on its device, from shapes alone; nothing is allocated here.

=========  =======================================================================
symbol     meaning
=========  =======================================================================
P          parameters of the network of the widest member
D          values of one image
w, c       bytes of a weight, of an activation
B          samples of a minibatch; E, of an evaluation's
o          values that a layer makes of one sample
=========  =======================================================================

A member keeps weights, their average, the optimiser's moments and the best weights so far (P w
each), the gradient (P c), with c < w a copy of the weights and of the average (P c each) and,
where it starts as PCA, its mean image (D w in three places). A step adds what is alive at its
fullest moment, which is either the loss (what the layers keep for the way back, the minibatch
and what the loss makes of it) or a layer on the way back (what is still kept, its gradients on
both sides). Everything has one row per member, so a population takes that many times as much.
Not counted: while members leave, the states of those that stay are there twice for a moment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from aesearch.models.autoencoder import Autoencoder
from aesearch.models.precision import PRECISIONS
from aesearch.models.shortcut import Centre, Shortcut

# Buffers of the size of the weights that an optimiser keeps.
MOMENTS = {"adam": 2, "adamw": 2, "sgd": 1}
# Share of a device's free memory that populations may fill: allocators round up, libraries
# for products and convolutions take work space, and others may use the device too.
USABLE = 0.8


@dataclass(frozen=True)
class MemberBytes:
    """Memory of one member.

    Attributes
    ----------
    state : int
        From the beginning of its population to the end.
    step : int
        On top of that in a step of the training, or of an evaluation.
    """

    state: int
    step: int


@dataclass(frozen=True)
class _Layer:
    """A layer of the plain network: values of one sample that come in, go out, and are kept.

    Attributes
    ----------
    beside : int
        Values of a shortcut that wait for this layer's.
    makes_gradient : bool
        Whether the gradient of the inputs is a tensor of its own.
    """

    inputs: int
    outputs: int
    kept: int
    beside: int
    makes_gradient: bool


def member_bytes(
    template: Autoencoder,
    *,
    optimizer: str,
    averaged: bool,
    precision: str,
    corrupted: bool,
    batch_size: int,
    evaluation_size: int,
    n_train: int,
    n_validation: int,
) -> MemberBytes:
    """Count the memory of a member whose network is the template.

    Parameters
    ----------
    template : Autoencoder
        As wide as the widest member; drops units where one member does.
    optimizer : {"adam", "adamw", "sgd"}
    averaged : bool
        Whether a moving average of the weights is kept.
    precision : {"float32", "float64", "bfloat16"}
    corrupted : bool
        Whether inputs are other images than the targets: corrupted, or noisy ones.
    batch_size, evaluation_size : int
        Samples of a minibatch in training and in an evaluation; not more than there are.
    n_train, n_validation : int
        Images of a member.
    """
    weight, activation = (dtype.itemsize for dtype in PRECISIONS[precision])
    n_parameters = sum(parameter.numel() for parameter in template.parameters())
    n_values = prod(template.image_shape)
    copied = weight != activation
    centred = isinstance(template.encoder[0], Centre) or isinstance(template.encoder[1], Centre)
    weights = n_parameters * weight
    state = weights * (2 + averaged + MOMENTS[optimizer])  # the best so far is the second
    state += n_parameters * activation * (1 + copied * (1 + averaged))
    state += 3 * centred * n_values * weight
    state += 8 * (n_train + n_validation)  # the tables of indices
    moments = _Moments(template, weight, activation, corrupted=corrupted, centred=centred)
    step = max(
        batch_size * max(moments.at_loss(), moments.on_the_way_back()),
        batch_size * moments.after() + copied * weights,
        evaluation_size * moments.evaluating(),
    )
    return MemberBytes(state, step)


class _Moments:
    """Bytes of one sample at the fullest moments of a step."""

    def __init__(
        self, template: Autoencoder, weight: int, activation: int, *, corrupted: bool, centred: bool
    ) -> None:
        self._layers = list(_layers(template))
        self._activation = activation
        self._convolves = template.architecture == "conv"
        n_values = prod(template.image_shape)
        image, self._gradient = n_values * weight, n_values * activation
        copied = weight != activation
        self._minibatch = image * (1 + corrupted)
        # What the first layer keeps where it is not the minibatch itself.
        self._first = self._gradient if copied or centred or self._convolves else 0
        self._outputs = self._layers[-1].outputs * activation
        # Errors, and reconstructions where they are not the outputs; those in the weights' type,
        # and the gradient in the other.
        clamped = isinstance(template.decoder[-1], nn.Hardtanh)
        self._errors = image * (1 + clamped + copied)
        self._cast = copied * self._gradient

    def at_loss(self) -> int:
        """What is kept, and what the loss makes of the outputs."""
        kept = sum(layer.kept for layer in self._layers[:-1]) * self._activation
        return self._minibatch + self._first + kept + self._outputs + self._errors + self._cast

    def on_the_way_back(self) -> int:
        """The most that is alive at a layer: what is kept before it, and its gradients."""
        kept = sum(layer.kept for layer in self._layers[:-1])
        most = 0
        for layer in reversed(self._layers):
            last = layer is self._layers[-1]
            # The gradient of the whole network's outputs stays as long as the step.
            own = 0 if last and not self._convolves else layer.outputs
            most = max(most, kept + own + layer.inputs * layer.makes_gradient)
            kept -= 0 if last else layer.kept
        return self.after() + self._first + most * self._activation

    def after(self) -> int:
        """What the step still holds while the weights move."""
        return self._minibatch + self._gradient

    def evaluating(self) -> int:
        """Nothing is kept: the minibatch, and one layer's inputs and outputs."""
        widest = max(layer.inputs + layer.outputs + layer.beside for layer in self._layers)
        forwards = self._first + widest * self._activation
        return self._minibatch + max(forwards, self._outputs + self._errors)


def _layers(template: Autoencoder) -> Iterator[_Layer]:
    """Layers in the order in which a sample passes them, without the output's activation."""
    sizes: dict[nn.Module, tuple[int, int]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        sizes[layer] = inputs[0].numel(), outputs.numel()

    hooks = [part.register_forward_hook(note) for part in template.modules()]
    try:
        with torch.no_grad():
            template(torch.zeros(1, *template.image_shape))
    finally:
        for hook in hooks:
            hook.remove()
    beside: dict[nn.Module, int] = {}
    summed = set()
    for part in template.modules():
        if isinstance(part, Shortcut):
            beside |= dict.fromkeys(part.branch, sizes[part][1])
            # Only its sum with the linear map's stays of a branch.
            summed.add(next(layer for layer in reversed(part.branch) if list(layer.parameters())))
    convolves = template.architecture == "conv"
    for layer, (inputs, outputs) in sizes.items():
        weighted = isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
        moved = isinstance(layer, nn.Flatten | nn.Unflatten) and convolves
        dropped = isinstance(layer, nn.Dropout) and layer.p > 0
        if weighted or moved or dropped or isinstance(layer, nn.GELU):
            kept = 0 if layer in summed else outputs
            waiting = beside.get(layer, 0)
            yield _Layer(inputs, outputs, kept, waiting, makes_gradient=weighted or moved)


def fitting_members(free_bytes: int, members: list[MemberBytes], *, recorded: bool) -> int:
    """How many of the members can train as one population in the free memory; at least one.

    All of them are there at once, in populations that train one after the other: of ``USABLE``
    of the free memory their states come off, and the rest is for the step of one population.
    Where steps are recorded it is there twice: the recordings keep theirs, and when members have
    left, the first step of those that stay is launched beside it.
    """
    left = USABLE * free_bytes - sum(member.state for member in members)
    steps = 2 if recorded else 1
    return max(1, int(left // (steps * max(member.step for member in members))))


def free_bytes(device: torch.device) -> int | None:
    """Memory of a device that this process could still take; None where nobody says."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return None
