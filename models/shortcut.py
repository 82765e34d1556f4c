"""What a network that starts as PCA has beside stock layers: a mean taken off, a linear way past.

With ``u = image - mean``, the encoder is ``code = W_e u + f(u)`` and the decoder
``W_d code + b + g(code)``. ``W_e`` and ``W_d`` start as the principal components of the training
images and ``b`` as their mean; the last layers of ``f`` and ``g`` start at zero. So the network
starts as PCA, and learns from there what PCA cannot.
"""

import torch
from torch import Tensor, nn

from aesearch.models.principal import Principal


class Centre(nn.Module):
    """Takes a fixed mean off: of the training images, never trained.

    Parameters
    ----------
    shape : tuple of int
        Of one sample.

    Attributes
    ----------
    mean : Tensor, ``shape``
        A buffer; zero until it is set.
    """

    mean: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """(sample, *shape) to (sample, *shape)."""
        return inputs - self.mean


class Shortcut(nn.Module):
    """Layers beside a linear map of the same input: the sum of both.

    Parameters
    ----------
    branch : nn.Sequential
        The layers; the weights and biases of the last one that has any become zero, so that
        the sum is the linear map until it is trained.
    linear : nn.Linear or nn.Sequential
        The map; a sequence where it has to change the shape too.
    """

    def __init__(self, branch: nn.Sequential, linear: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.linear = linear
        for parameter in self._last():
            nn.init.zeros_(parameter)

    def forward(self, inputs: Tensor) -> Tensor:
        """Give the branch's output plus the linear map's."""
        outputs: Tensor = self.branch(inputs) + self.linear(inputs)
        return outputs

    def _last(self) -> list[nn.Parameter]:
        last = next(layer for layer in reversed(self.branch) if list(layer.parameters()))
        return list(last.parameters())

    @property
    def is_linear(self) -> bool:
        """Whether the sum is the linear map yet: the last of the layers is zero."""
        return not any(bool(parameter.any()) for parameter in self._last())

    @property
    def weights(self) -> nn.Linear:
        """The linear map's one layer with weights."""
        return next(part for part in self.linear.modules() if isinstance(part, nn.Linear))


def set_mean(encoder: nn.Sequential, mean: Tensor) -> None:
    """Set what an encoder with a shortcut takes off its images: (pixel,)."""
    (centre,) = (layer for layer in encoder if isinstance(layer, Centre))
    with torch.no_grad():
        centre.mean.copy_(mean.view(centre.mean.shape))


def start_at(encoder: nn.Sequential, decoder: nn.Sequential, principal: Principal) -> None:
    """Give encoder and decoder the mean and the components that they start at.

    Parameters
    ----------
    encoder, decoder : nn.Sequential
        Of a network with shortcuts.
    principal : Principal
        With as many components as the code has units.
    """
    set_mean(encoder, principal.mean)
    (inwards,) = (layer for layer in encoder if isinstance(layer, Shortcut))
    (outwards,) = (layer for layer in decoder if isinstance(layer, Shortcut))
    with torch.no_grad():
        inwards.weights.weight.copy_(principal.components)
        outwards.weights.weight.copy_(principal.components.t())
        outwards.weights.bias.copy_(principal.mean)


def is_pca(encoder: nn.Sequential, decoder: nn.Sequential) -> bool:
    """Whether a network has shortcuts and is what it started as."""
    shortcuts = [layer for layer in (*encoder, *decoder) if isinstance(layer, Shortcut)]
    return bool(shortcuts) and all(shortcut.is_linear for shortcut in shortcuts)
