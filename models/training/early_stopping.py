"""When a member of a population stops, and which of its weights are kept."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aesearch.models.training.population import Population

# Whether errors of the same images are lower than others, and not by chance.
ClearlyLower = Callable[[Tensor, Tensor], bool]


class EarlyStopping:
    """Stops members one by one, each with the weights of its best epoch.

    The weights kept are those of the lowest loss, however small the gain. Patience is more
    demanding: it counts epochs since the loss last fell by more than ``min_delta`` below
    the loss that last did so. A member that started as PCA must be clearly better than that
    (``restore``).

    Parameters
    ----------
    n_members : int
        Members of the population; where it is shortened, so is this (``keep``).
    patience : int
        Epochs without an improvement of more than ``min_delta`` after which a member
        stops; >= 1.
    min_delta : float
        Mean squared error per pixel, or a share of the loss; >= 0.
    relative : bool
        Whether it is a share.
    clearly_lower : callable(errors, others), optional
        Whether errors (sample,) are lower than others of the same images by more than chance
        explains; for members that start as PCA.

    Attributes
    ----------
    best_loss : Tensor, (member,), float64
        Infinite before the first finite loss.
    best_epoch : Tensor, (member,), int64
        From 1; 0 before the first finite loss, and where the start is best (``consider_start``).
    best_weights : Tensor, (member, n_parameters) or None
        None before the first loss.
    """

    def __init__(
        self,
        n_members: int,
        *,
        patience: int,
        min_delta: float,
        relative: bool = False,
        clearly_lower: ClearlyLower | None = None,
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience must be >= 1, got {patience!r}")
        if min_delta < 0:
            raise ValueError(f"min_delta must be >= 0, got {min_delta!r}")
        self._patience = patience
        self._min_delta = min_delta
        self._relative = relative
        self.best_loss = torch.full((n_members,), math.inf, dtype=torch.float64)
        self.best_epoch = torch.zeros(n_members, dtype=torch.int64)
        self.best_weights: Tensor | None = None
        self._reference_loss = self.best_loss.clone()
        self._reference_epoch = self.best_epoch.clone()
        self._clearly_lower = clearly_lower
        self._start_errors: Tensor | None = None  # (member, sample), NaN behind a member's last

    def consider_start(self, population: Population) -> None:
        """Measure untrained members that are PCA, so that none is kept that is worse.

        Patience does not count from here: a start may be hard to better in the first epochs.
        """
        errors = population.validation_errors()
        self._start_errors = pad_sequence(errors, batch_first=True, padding_value=math.nan)
        self._keep_better(population, torch.stack([own.mean() for own in errors]))

    def update(self, population: Population, losses: Tensor) -> None:
        """Take the losses of the epoch that ended, and stop members whose patience is over.

        Parameters
        ----------
        population : Population
        losses : Tensor, (member,)
            Validation losses; NaN (a frozen member) changes nothing.
        """
        losses = losses.double()
        self._keep_better(population, losses)
        # Infinite before the first loss, from which nothing is a share.
        needed = self._reference_loss * (1.0 - self._min_delta)
        clearly = losses < (needed if self._relative else self._reference_loss - self._min_delta)
        self._reference_loss = torch.where(clearly, losses, self._reference_loss)
        self._reference_epoch = torch.where(clearly, population.epoch, self._reference_epoch)
        over = population.epoch - self._reference_epoch >= self._patience
        population.stop(over.nonzero().flatten().tolist())

    def _keep_better(self, population: Population, losses: Tensor) -> None:
        better = losses < self.best_loss
        if self.best_weights is None:
            self.best_weights = population.all_weights()
        else:
            # A checkpoint's are on the CPU.
            self.best_weights = self.best_weights.to(population.device)
            for position in better.nonzero().flatten().tolist():
                self.best_weights[position] = population.weights(position)
        self.best_loss = torch.where(better, losses, self.best_loss)
        self.best_epoch = torch.where(better, population.epoch, self.best_epoch)

    def keep(self, positions: Sequence[int]) -> None:
        """Forget all members but those at ``positions``, as the population does."""
        rows = list(positions)
        self.best_loss, self.best_epoch = self.best_loss[rows], self.best_epoch[rows]
        self._reference_loss = self._reference_loss[rows]
        self._reference_epoch = self._reference_epoch[rows]
        if self.best_weights is not None:
            self.best_weights = self.best_weights[rows]
        if self._start_errors is not None:
            self._start_errors = self._start_errors[rows]

    def restore(self, population: Population) -> None:
        """Give every member the weights of its best epoch; none without a finite loss.

        A member that started as PCA becomes PCA again unless its best epoch is clearly better on
        its validation images. It then is PCA of all its images, those included, and its best
        epoch 0.
        """
        for position in self.best_loss.isfinite().nonzero().flatten().tolist():
            assert self.best_weights is not None
            population.set_weights(position, self.best_weights[position])
        if self._start_errors is None:
            return
        assert self._clearly_lower is not None, "members that start as PCA are judged by it"
        unclear = []
        for position, errors in enumerate(population.validation_errors()):
            start = self._start_errors[position, : len(errors)]
            if self.best_loss[position].isfinite() and not self._clearly_lower(errors, start):
                self.best_epoch[position] = 0
                self.best_loss[position] = start.mean()
                unclear.append(position)
        population.restart(unclear)

    def state(self) -> dict[str, Tensor]:
        """All that continues the stopping, as flat tensors on the CPU."""
        state = {
            "best_loss": self.best_loss.clone(),
            "best_epoch": self.best_epoch.clone(),
            "reference_loss": self._reference_loss.clone(),
            "reference_epoch": self._reference_epoch.clone(),
        }
        if self.best_weights is not None:
            state["best_weights"] = self.best_weights.cpu().clone()
        if self._start_errors is not None:
            state["start_errors"] = self._start_errors.clone()
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from a state of the same members."""
        self.best_loss = state["best_loss"].clone()
        self.best_epoch = state["best_epoch"].clone()
        self._reference_loss = state["reference_loss"].clone()
        self._reference_epoch = state["reference_epoch"].clone()
        weights = state.get("best_weights")
        self.best_weights = None if weights is None else weights.clone()
        errors = state.get("start_errors")
        self._start_errors = None if errors is None else errors.clone()
