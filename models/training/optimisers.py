"""Adam, AdamW and SGD for a population, each member with its own rates and step count.

======  ===============================================================  =========
symbol  meaning                                                          shape
======  ===============================================================  =========
w, g    weights and gradients, one row per member                        (m, p)
lr, wd  learning rate and weight decay                                   (m,)
t       the member's own step number, from 1                             (m,)
======  ===============================================================  =========

What depends on the step number alone is tabulated once per epoch (``tables``), so that
a step neither computes it nor asks the host for it.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor


class Optimiser(Protocol):
    """What the training step calls; one row of ``buffers`` per member."""

    buffers: dict[str, Tensor]

    def tables(self, learning_rates: Tensor, steps: Tensor) -> dict[str, Tensor]:
        """Tabulate an epoch.

        Parameters
        ----------
        learning_rates : Tensor, (member,), float64
            On the CPU, as the steps.
        steps : Tensor, (step, member), int64
            The member's own step number at each step of the epoch, from 1.

        Returns
        -------
        dict of Tensor, (step, ...)
            On the CPU; ``update`` takes a row of each.
        """
        ...

    def update(self, row: Mapping[str, Tensor], weights: Tensor, gradient: Tensor) -> None:
        """Take a step of the epoch, in place; ``gradient`` may be overwritten."""
        ...


def goes_by_member(device: torch.device) -> bool:
    """Whether one call per member pays: on a CPU; on a GPU all members go in one pass each."""
    return device.type == "cpu"


class Adam:
    """``torch.optim.Adam`` (L2 weight decay) or, decoupled, ``torch.optim.AdamW``, per member.

    Parameters
    ----------
    weights : Tensor, (member, n_parameters)
        Only its shape, type and device matter.
    weight_decay : Tensor, (member,), float64
        On the CPU.
    decoupled : bool
        Decay the weights themselves (AdamW) instead of adding to the gradient (Adam).

    References
    ----------
    Kingma, Ba: Adam: a method for stochastic optimization (2015), algorithm 1.
    Loshchilov, Hutter: Decoupled weight decay regularization (2019), algorithm 2.
    """

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, weights: Tensor, weight_decay: Tensor, *, decoupled: bool) -> None:
        self.buffers = {"mean": torch.zeros_like(weights), "square": torch.zeros_like(weights)}
        self._weight_decay = weight_decay
        self._decays: list[float] = weight_decay.tolist()
        self._decoupled = decoupled
        self._rates: list[float] = []
        self._by_member = goes_by_member(weights.device)

    def tables(self, learning_rates: Tensor, steps: Tensor) -> dict[str, Tensor]:
        """Tabulate what depends on the step number alone."""
        if self._by_member:
            self._rates = learning_rates.tolist()
            return {"number": steps.float()}
        # w -= lr/(1-b1^t) m / (sqrt(v)/sqrt(1-b2^t) + eps), with both sides of the
        # fraction multiplied by sqrt(1-b2^t): one pass over the weights less.
        root = (1.0 - self.beta2 ** steps.double()).sqrt()
        decay = self._weight_decay
        decay = 1.0 - learning_rates * decay if self._decoupled else decay
        tables = {
            "step_size": -learning_rates * root / (1.0 - self.beta1 ** steps.double()),
            "epsilon": self.epsilon * root,
            "decay": decay.expand_as(root),
        }
        dtype = self.buffers["mean"].dtype
        return {name: table.unsqueeze(-1).to(dtype) for name, table in tables.items()}

    def update(self, row: Mapping[str, Tensor], weights: Tensor, gradient: Tensor) -> None:
        """Take a step of the epoch, in place."""
        if self._by_member:
            self._update_rows(row["number"], weights, gradient)
        else:
            self._update_all(row, weights, gradient)

    def _update_rows(self, numbers: Tensor, weights: Tensor, gradient: Tensor) -> None:
        """Member by member with torch's fused kernel: one pass over memory instead of eight."""
        kernel = torch._fused_adamw_ if self._decoupled else torch._fused_adam_
        rows = zip(
            weights.unbind(),
            gradient.unbind(),
            self.buffers["mean"].unbind(),
            self.buffers["square"].unbind(),
            numbers.unbind(),
            self._rates,
            self._decays,
            strict=True,
        )
        for w, g, mean, square, number, learning_rate, weight_decay in rows:
            kernel(
                [w],
                [g],
                [mean],
                [square],
                [],
                [number],
                lr=learning_rate,
                beta1=self.beta1,
                beta2=self.beta2,
                weight_decay=weight_decay,
                eps=self.epsilon,
                amsgrad=False,
                maximize=False,
            )

    def _update_all(self, row: Mapping[str, Tensor], w: Tensor, g: Tensor) -> None:
        """All members at once, without asking the host for a number."""
        step_size, epsilon, decay = row["step_size"], row["epsilon"], row["decay"]
        m, v = self.buffers["mean"], self.buffers["square"]
        if any(self._decays) and self._decoupled:
            w.mul_(decay)
        elif any(self._decays):
            g.addcmul_(w, decay)
        m.lerp_(g, 1.0 - self.beta1)
        v.mul_(self.beta2).addcmul_(g, g, value=1.0 - self.beta2)
        torch.sqrt(v, out=g)
        torch.div(m, g.add_(epsilon), out=g)
        w.addcmul_(g, step_size)


class StochasticGradientDescent:
    """``torch.optim.SGD`` with momentum (no dampening, no Nesterov) and L2 weight decay.

    Parameters
    ----------
    weights : Tensor, (member, n_parameters)
        Only its shape, type and device matter.
    weight_decay : Tensor, (member,), float64
        On the CPU.
    momentum : float
        In [0, 1); one value for the population.
    """

    def __init__(self, weights: Tensor, weight_decay: Tensor, *, momentum: float) -> None:
        self.buffers = {"momentum": torch.zeros_like(weights)} if momentum else {}
        self._momentum = momentum
        decay = weight_decay.to(weights.dtype).to(weights.device)
        self._weight_decay = decay.unsqueeze(-1)
        self._decays = bool((weight_decay > 0).any())

    def tables(self, learning_rates: Tensor, steps: Tensor) -> dict[str, Tensor]:
        """Tabulate the epoch's learning rates; SGD does not know its step number."""
        step_size = -learning_rates.expand(steps.shape).unsqueeze(-1)
        return {"step_size": step_size.to(self._weight_decay.dtype)}

    def update(self, row: Mapping[str, Tensor], weights: Tensor, gradient: Tensor) -> None:
        """Take a step of the epoch, in place."""
        if self._decays:
            gradient.addcmul_(weights, self._weight_decay)
        if self._momentum:
            gradient = self.buffers["momentum"].mul_(self._momentum).add_(gradient)
        weights.addcmul_(gradient, row["step_size"])


OPTIMISERS: dict[str, Callable[[Tensor, Tensor, float], Optimiser]] = {
    "adam": lambda weights, decay, _: Adam(weights, decay, decoupled=False),
    "adamw": lambda weights, decay, _: Adam(weights, decay, decoupled=True),
    "sgd": lambda weights, decay, momentum: StochasticGradientDescent(
        weights, decay, momentum=momentum
    ),
}
