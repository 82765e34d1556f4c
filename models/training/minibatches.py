"""Which images a population sees in which step: each member's own order, as indices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aesearch.models.training.randomness import minibatch_order


@dataclass(frozen=True, eq=False)
class Minibatch:
    """How many samples each member has in a step: the same in every epoch.

    Steps that are alike in this share one object.

    Attributes
    ----------
    width : int
        Samples of the member with the most.
    counts : Tensor (member,) or int
        Samples of each member; an int where all have the same number. A member without
        samples has the count 1 here (its loss is 0, and it is in ``absent``).
    is_sample : Tensor, (member, width) or None
        One for a sample, zero for padding; None where nothing is padded.
    absent : Tensor, (member,), int64 or None
        Rows of the members that have no samples left; None where there are none.
    """

    width: int
    counts: Tensor | int
    is_sample: Tensor | None = None
    absent: Tensor | None = None


def training_order(seed: int, pool: Tensor, epoch: int) -> Tensor:
    """A member's training indices in the order of an epoch; drawn on the CPU."""
    return pool[minibatch_order(seed, epoch, len(pool))]


def padded_minibatches(
    sizes: Sequence[int], batch_size: int, device: torch.device, dtype: torch.dtype
) -> list[Minibatch]:
    """Cut each member's samples into minibatches, one for each step of an epoch.

    A member's minibatches are those of a loader of its own: ``batch_size`` samples each
    and the rest in the last. Where members have different numbers of samples, the shorter
    minibatch is padded; where one has no samples left, it is absent from the step.

    Parameters
    ----------
    sizes : sequence of int, (member,)
    batch_size : int
    device : torch.device
        Of the minibatches.
    dtype : torch.dtype
        Of ``is_sample`` and of ``counts`` where it is a tensor.

    Returns
    -------
    list of Minibatch
    """
    made: dict[tuple[int, ...], Minibatch] = {}
    minibatches = []
    for start in range(0, max(sizes), batch_size):
        counts = tuple(min(max(size - start, 0), batch_size) for size in sizes)
        if counts not in made:
            made[counts] = _minibatch(counts, device, dtype)
        minibatches.append(made[counts])
    return minibatches


def _minibatch(counts: Sequence[int], device: torch.device, dtype: torch.dtype) -> Minibatch:
    width = max(counts)
    if min(counts) == width:
        return Minibatch(width, width)
    own = torch.tensor(counts)
    absent = (own == 0).nonzero().flatten()
    return Minibatch(
        width,
        own.clamp(min=1).to(device, dtype),
        (torch.arange(width) < own[:, None]).to(device, dtype),
        absent.to(device) if len(absent) else None,
    )


def index_table(orders: Sequence[Tensor], batch_size: int) -> Tensor:
    """The images of each step of an epoch.

    Parameters
    ----------
    orders : sequence of Tensor, (member,) of (sample,), int64
    batch_size : int

    Returns
    -------
    Tensor, (step, member, batch_size), int64
        On the CPU. A row with fewer samples is padded at its end.
    """
    longest = max(len(order) for order in orders)
    n_steps = -(-longest // batch_size)
    table = torch.empty(len(orders), n_steps * batch_size, dtype=torch.int64)
    for row, order in zip(table, orders, strict=True):
        row[: len(order)] = order
        # The padding repeats the member's own first sample, so that nothing of a neighbour
        # can enter even an unused row.
        row[len(order) :] = order[0]
    return table.view(len(orders), n_steps, batch_size).transpose(0, 1).contiguous()


def intensities(rows_at: Callable[[Tensor], Tensor], places: Tensor, dtype: torch.dtype) -> Tensor:
    """The images of a minibatch, with intensities in [0, 1].

    Parameters
    ----------
    rows_at : callable
        From places (image,) to the bytes of their images (image, pixel).
    places : Tensor, (sample, member) or (member, sample), int64

    Returns
    -------
    Tensor, (sample, member, pixel) or (member, sample, pixel)
    """
    return rows_at(places.reshape(-1)).to(dtype).mul_(1.0 / 255.0).view(*places.shape, -1)
