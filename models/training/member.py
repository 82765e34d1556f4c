"""One member of a population: what its result depends on, and what an epoch says of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Member:
    """One network in training: all that its result depends on, the population's settings aside.

    Attributes
    ----------
    seed : int
        Of the weights, the minibatch order and dropout; >= 0.
    learning_rate, weight_decay : float
        >= 0.
    dropout : float
        In [0, 1).
    encoding_dim : int
        >= 1.
    hidden : tuple of int
        Hidden widths of a dense net; not read for a convolutional one.
    train_indices, validation_indices : Tensor, (sample,), int64
        Into the population's images; not empty.
    corruption_level : float
        Of the training images, where the population learns to denoise; see
        :mod:`aesearch.models.corruptions` for the unit of each kind.
    """

    seed: int
    learning_rate: float
    weight_decay: float
    dropout: float
    encoding_dim: int
    hidden: tuple[int, ...]
    train_indices: Tensor
    validation_indices: Tensor
    corruption_level: float = 0.0


@dataclass(frozen=True)
class EpochLosses:
    """Mean squared errors per pixel of one epoch; NaN for members that do not train (any more).

    Attributes
    ----------
    train : Tensor, (member,), float64
        Mean over the epoch's samples, each measured before the step that used it, with
        dropout and corruption.
    validation : Tensor, (member,), float64
        On each member's validation images after the epoch, without dropout; where the
        population learns to denoise they are corrupted, in every epoch and for every member
        in the same way.
    validation_accuracy : Tensor, (member,), float64
        Share of these images' pixels whose reconstruction rounds to the same 0 or 1 (binary
        accuracy); NaN unless asked for.
    """

    train: Tensor
    validation: Tensor
    validation_accuracy: Tensor


def check_one_of(name: str, value: str, choices: Collection[str]) -> None:
    """Raise ValueError, with the choices, for a value that is none of them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_population(members: Sequence[Member], n_images: int, architecture: str) -> None:
    """Raise ValueError for members that cannot make a population."""
    if not members:
        raise ValueError("members must not be empty, got []")
    depths = sorted({len(member.hidden) for member in members})
    if architecture == "dense" and len(depths) > 1:
        raise ValueError(
            f"hidden must have one depth in a population, got depths {depths}; "
            "train members of different depth in populations of their own"
        )
    for position, member in enumerate(members):
        for name in ("train_indices", "validation_indices"):
            indices = getattr(member, name)
            if not len(indices) or int(indices.min()) < 0 or int(indices.max()) >= n_images:
                raise ValueError(
                    f"{name} of member {position} must be in [0, {n_images}) and not empty, "
                    f"got {indices!r}"
                )
