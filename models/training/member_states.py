"""What a population remembers of each member: weights, their average, optimiser state, status.

Rows of members that train lie together, one batch for the step; those of members that
train no more are parked beside it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aesearch.models.training.optimisers import Optimiser

STATUSES = ("training", "diverged", "stopped")


class MemberStates:
    """The members' states by position, and the batch of those that train.

    Parameters
    ----------
    weights : Tensor, (member, n_parameters)
        Taken over, not copied.
    new_optimiser : callable
        From the weights (live member, n_parameters) and the positions of these members to
        an optimiser that has taken no step.
    averaged : bool
        Whether a moving average of the weights is kept; then it is what a member is, to
        everybody but the training step.

    Attributes
    ----------
    member_ids : list of int
        By position: the position in the members that the population was made of.
    status : list of str
        By position, one of ``STATUSES``.
    steps : Tensor, (member,), int64
        Steps of the optimiser taken, by position.
    live : list of int
        Positions of the members that train: the rows of ``weights`` and of the buffers.
    weights : Tensor, (live member, n_parameters)
    average : Tensor, (live member, n_parameters), or None
    optimiser : Optimiser
        Of the live members.
    """

    def __init__(
        self,
        weights: Tensor,
        new_optimiser: Callable[[Tensor, list[int]], Optimiser],
        *,
        averaged: bool,
    ) -> None:
        n_members = len(weights)
        self.member_ids = list(range(n_members))
        self.status = ["training"] * n_members
        self.steps = torch.zeros(n_members, dtype=torch.int64)
        self._new_optimiser = new_optimiser
        self._parked: dict[int, Tensor] = {}
        average = weights.clone() if averaged else None
        self._join(list(range(n_members)), weights, average, {})

    @property
    def kept(self) -> Tensor:
        """What counts of the live members: the average, or the weights where there is none."""
        return self.weights if self.average is None else self.average

    def row(self, position: int) -> Tensor:
        """A member's parameters (n_parameters,), averaged where that is asked for; a copy."""
        if position in self._parked:
            return self._parked[position].clone()
        return self.kept[self.live.index(position)].clone()

    def rows(self) -> Tensor:
        """Every member's :meth:`row`: (member, n_parameters)."""
        rows = self.kept.new_empty(len(self.status), self.kept.shape[1])
        for position in range(len(rows)):
            rows[position] = self.row(position)
        return rows

    def set_row(self, position: int, row: Tensor) -> None:
        """Replace a member's parameters, the average too."""
        if position in self._parked:
            self._parked[position] = row.to(self.weights, copy=True)
            return
        self.weights[self.live.index(position)].copy_(row)
        self.kept[self.live.index(position)].copy_(row)

    def park(self, positions: Sequence[int], status: str) -> None:
        """Freeze live members as they are, under a status."""
        for position in positions:
            self._parked[position] = self.row(position)
            self.status[position] = status
        stay = [row for row, position in enumerate(self.live) if position not in self._parked]
        self._join_rows([self.live[row] for row in stay], stay)

    def keep(self, positions: Sequence[int]) -> None:
        """Forget all members but those at ``positions``, which take that order."""
        stay = [self.live.index(position) for position in positions if position in self.live]
        live = [new for new, old in enumerate(positions) if old in self.live]
        self._parked = {
            new: self._parked[old] for new, old in enumerate(positions) if old in self._parked
        }
        self.member_ids = [self.member_ids[position] for position in positions]
        self.status = [self.status[position] for position in positions]
        self.steps = self.steps[list(positions)]
        self._join_rows(live, stay)

    def dump(self) -> dict[str, Tensor]:
        """Everything, flat and on the CPU, for :meth:`load`."""
        dumped = {
            "member_ids": torch.tensor(self.member_ids),
            "status": torch.tensor([STATUSES.index(status) for status in self.status]),
            "steps": self.steps.clone(),
            "weights": self.rows().cpu(),
        }
        if self.average is not None:
            # Beside what counts of all members, what the live ones go on from.
            dumped["training_weights"] = self.weights.cpu().clone()
        for name, buffer in self.optimiser.buffers.items():
            dumped[f"optimizer.{name}"] = buffer.cpu().clone()
        return dumped

    def load(self, dumped: dict[str, Tensor]) -> None:
        """Take over what :meth:`dump` gave; the same members must be there."""
        self.status = [STATUSES[code] for code in dumped["status"].tolist()]
        self.steps = dumped["steps"].clone()
        weights = dumped["weights"].to(self.weights, copy=True)
        live = [p for p, status in enumerate(self.status) if status == "training"]
        self._parked = {p: weights[p].clone() for p in range(len(weights)) if p not in live}
        buffers = {name: dumped[f"optimizer.{name}"] for name in self.optimiser.buffers}
        if self.average is None:
            self._join(live, weights[live], None, buffers)
        else:
            training = dumped["training_weights"].to(self.weights, copy=True)
            self._join(live, training, weights[live], buffers)

    def _join_rows(self, live: list[int], rows: list[int]) -> None:
        """Make the batch of the members at ``live``, which have these rows in the present one."""
        buffers = {name: buffer[rows] for name, buffer in self.optimiser.buffers.items()}
        average = None if self.average is None else self.average[rows]
        self._join(live, self.weights[rows], average, buffers)

    def _join(
        self,
        live: list[int],
        weights: Tensor,
        average: Tensor | None,
        buffers: dict[str, Tensor],
    ) -> None:
        self.live, self.weights, self.average = live, weights, average
        self.optimiser = self._new_optimiser(weights, live)
        for name, buffer in buffers.items():
            self.optimiser.buffers[name].copy_(buffer)
