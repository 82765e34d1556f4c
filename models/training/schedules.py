"""Learning-rate schedules of a population, one rate per member, stepped once an epoch."""

import math

import torch
from torch import Tensor

SCHEDULES = ("none", "exponential", "cosine", "plateau")


class Schedule:
    """Each member's learning rate, as ``torch.optim.lr_scheduler`` would set it.

    ``none``; ``exponential`` (``ExponentialLR``); ``cosine`` (``CosineAnnealingLR`` over all
    epochs, to 0); ``plateau`` (``ReduceLROnPlateau``, relative threshold 1e-4). The plateau is
    one of the member's own *training* loss: watching the validation loss would let the
    held-out part of a fold choose the learning rate that it then scores.

    Parameters
    ----------
    kind : {"none", "exponential", "cosine", "plateau"}
    learning_rates : Tensor, (member,), float64
        At the first epoch.
    epochs : int
        Length of the cosine.
    gamma : float
        Factor per epoch of ``exponential``.
    factor : float
        Factor of ``plateau``.
    patience : int
        Epochs without improvement that ``plateau`` lets pass.

    Raises
    ------
    ValueError
        For an unknown kind.
    """

    threshold = 1e-4
    smallest_change = 1e-8

    def __init__(
        self,
        kind: str,
        learning_rates: Tensor,
        *,
        epochs: int,
        gamma: float,
        factor: float,
        patience: int,
    ) -> None:
        if kind not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {kind!r}")
        self._kind = kind
        self._epochs = epochs
        self._gamma = gamma
        self._factor = factor
        self._patience = patience
        self._first = learning_rates.double().clone()
        self.state = {
            "learning_rate": self._first.clone(),
            "best": torch.full_like(self._first, math.inf),
            "n_bad": torch.zeros(len(self._first), dtype=torch.int64),
        }

    def learning_rates(self, epoch: int) -> Tensor:
        """Rates of an epoch (from 0): (member,), float64."""
        if self._kind == "exponential":
            return self._first * self._gamma**epoch
        if self._kind == "cosine":
            return self._first * (0.5 * (1.0 + math.cos(math.pi * epoch / self._epochs)))
        return self.state["learning_rate"]

    def observe(self, training_losses: Tensor) -> None:
        """Take the losses (member,) of the epoch that ended; a NaN is no improvement."""
        if self._kind != "plateau":
            return
        best, n_bad = self.state["best"], self.state["n_bad"]
        better = training_losses < best * (1.0 - self.threshold)
        best = torch.where(better, training_losses, best)
        n_bad = torch.where(better, 0, n_bad + 1)
        tired = n_bad > self._patience
        old = self.state["learning_rate"]
        new = torch.where(tired, old * self._factor, old)
        self.state = {
            "learning_rate": torch.where(old - new > self.smallest_change, new, old),
            "best": best,
            "n_bad": torch.where(tired, 0, n_bad),
        }

    def keep(self, positions: list[int]) -> None:
        """Drop all members but those at ``positions``."""
        self._first = self._first[positions]
        self.state = {name: values[positions] for name, values in self.state.items()}
