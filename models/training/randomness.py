"""Random numbers that belong to one member: orders and masks; nothing here has a state.

A number is a hash of what it is for (member seed, step, layer, sample, unit), so a
neighbour cannot shift it, a resumed run needs no generator state, and the CPU and CUDA
draw the same.

======  =====================================================  ==================
symbol  meaning                                                shape
======  =====================================================  ==================
k       key of a member's step                                 (member,)
a       hash of (k, layer, sample)                             (member, sample)
b       hash of the unit's number                              (unit,)
h       hash of an element: mix(a xor b), uniform over int32   (member, sample, unit)
======  =====================================================  ==================
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B9


def signed(value: int) -> int:
    """The int32 with the low 32 bits of ``value``."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


_FIRST = signed(0x85EBCA6B)
_SECOND = signed(0xC2B2AE35)


def mix64(*words: int) -> int:
    """Hash integers to one in [0, 2^63).

    References
    ----------
    Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014), the
    finaliser of SplitMix64.
    """
    state = 0
    for word in words:
        state = (state + (word & _MASK64) + 0x9E3779B97F4A7C15) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return state >> 1


def minibatch_order(seed: int, epoch: int, n_samples: int) -> Tensor:
    """The order in which a member sees its training samples in an epoch.

    Parameters
    ----------
    seed : int
        The member's.
    epoch : int
        From 0.
    n_samples : int
        Samples of the member's training set.

    Returns
    -------
    Tensor, (n_samples,), int64
        A permutation of 0 … n_samples - 1, drawn on the CPU.
    """
    generator = torch.Generator()
    generator.manual_seed(mix64(seed, epoch))
    return torch.randperm(n_samples, generator=generator)


def scramble_(words: Tensor) -> Tensor:
    """Hash each int32 in place (a bijection whose output bits all depend on all input bits).

    References
    ----------
    Appleby: MurmurHash3 (2011), ``fmix32``.
    """
    # Torch shifts int32 arithmetically; the mask removes the copies of the sign.
    words.bitwise_xor_((words >> 16).bitwise_and_(0xFFFF)).mul_(_FIRST)
    words.bitwise_xor_((words >> 13).bitwise_and_(0x7FFFF)).mul_(_SECOND)
    return words.bitwise_xor_((words >> 16).bitwise_and_(0xFFFF))


def step_keys(seeds: Sequence[int], steps: Tensor) -> Tensor:
    """One key per member and step of an epoch.

    Parameters
    ----------
    seeds : sequence of int, (member,)
    steps : Tensor, (step, member), int64
        Optimiser steps that the member has taken before.

    Returns
    -------
    Tensor, (step, member), int32
    """
    keys = torch.tensor([signed(mix64(seed, 1)) for seed in seeds], dtype=torch.int32)
    return scramble_(scramble_(steps.to(torch.int32)) ^ keys)


def unit_hashes(n_units: int, device: torch.device) -> Tensor:
    """The b of the module's notation: (unit,), int32; the same however wide a layer is padded."""
    return scramble_(torch.arange(1, n_units + 1, dtype=torch.int32, device=device))


def drop_thresholds(dropout: Tensor) -> Tensor:
    """The int32 below which a fraction ``dropout`` of all int32 lies; same shape, in [0, 1)."""
    thresholds = (dropout.double() * 2.0**32).round() - 2.0**31
    return thresholds.clamp(max=2.0**31 - 1).to(torch.int32)


def keep_mask(
    keys: Tensor, layer: int, n_samples: int, units: Tensor, thresholds: Tensor
) -> Tensor:
    """Which units a dropout layer keeps in one step.

    Parameters
    ----------
    keys : Tensor, (member,), int32
        Of this step, from :func:`step_keys`.
    layer : int
        Number of the dropout layer in the network, from 0.
    n_samples : int
        Samples of the minibatch.
    units : Tensor, (unit,), int32
        From :func:`unit_hashes`.
    thresholds : Tensor, (member,), int32
        From :func:`drop_thresholds`.

    Returns
    -------
    Tensor, (member, sample, unit), bool
    """
    rows = sample_keys(keys, layer, n_samples)
    return hash_elements_(rows[:, :, None] ^ units) >= thresholds[:, None, None]


def sample_keys(keys: Tensor, layer: int, n_samples: int) -> Tensor:
    """The a of the module's notation.

    Parameters
    ----------
    keys : Tensor, (member,), int32
        Of a step, from :func:`step_keys`.
    layer : int
        Number of the layer in the network, from 0; below -1 for what is not a layer.
    n_samples : int
        Samples of the minibatch.

    Returns
    -------
    Tensor, (member, sample), int32
    """
    layer_keys = scramble_(keys + signed(_GOLDEN * (layer + 1)))
    samples = scramble_(torch.arange(n_samples, dtype=torch.int32, device=keys.device))
    return scramble_(layer_keys[:, None] ^ samples)


def hash_elements_(words: Tensor) -> Tensor:
    """Hash each a xor b in place: (..., unit), int32, of which the upper bits are good.

    Both operands are hashed already, so one multiply, shift, multiply of the full hash is
    enough; these are the only big tensors.
    """
    words.mul_(_FIRST)
    return words.bitwise_xor_((words >> 13).bitwise_and_(0x7FFFF)).mul_(_SECOND)
