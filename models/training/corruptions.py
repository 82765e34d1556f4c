"""Corruptions of images, each drawn from a key of its own; what trains on them is not here.

======  =====================================================  ==================
symbol  meaning                                                unit
======  =====================================================  ==================
x       an intensity of the clean image                        [0, 1]
l       the level                                              see below
h       hash of (image's key, pixel)                           uniform over int32
u, z    h as a number of U[0, 1), of N(0, 1)                   —
======  =====================================================  ==================

===============  ============================================================  ===============
corruption       corrupted intensity                                           level
===============  ============================================================  ===============
gaussian         x + l z, drawn for each channel                               [0, inf)
uniform          x + l u, drawn for each channel                               [0, inf)
salt-and-pepper  0 for a share l / 2 of the pixels, 1 for as many, else x;     [0, 1]
                 a pixel has all its channels
occlusion        0 in a square of side round(l * shorter side of the image),   [0, 1]
                 else x
===============  ============================================================  ===============

Clamped, the sum of the first two is cut to [0, 1]; the other two never leave it.
"""

from collections.abc import Sequence
from functools import cache
from math import isfinite

import torch
from torch import Tensor

from aesearch.models.training.randomness import (
    drop_thresholds,
    hash_elements_,
    mix64,
    sample_keys,
    scramble_,
    signed,
    unit_hashes,
)

CORRUPTIONS = ("gaussian", "uniform", "salt-and-pepper", "occlusion")

# Above level 1 there is nothing left to corrupt.
SHARES = ("salt-and-pepper", "occlusion")

# Cells of equal probability that the normal distribution is cut into.
_N_QUANTILES = 1 << 16


class Corruption:
    """One kind of corruption with a level for each member, or one for all images.

    Parameters
    ----------
    corruption : {"gaussian", "uniform", "salt-and-pepper", "occlusion"}
    levels : Tensor, float64
        On the CPU. Broadcast against the leading axes of the images: (member, 1) for images
        (member, sample, pixel), () for one level.
    image_shape : (channel, height, width)
    clamp : bool
        Whether gaussian and uniform noise is cut to [0, 1].
    like : Tensor
        Of the type and on the device of the images.
    overhang : bool
        Whether an occluding square may hang off the border: then its centre lies anywhere
        in the image, else the square lies inside.

    Raises
    ------
    ValueError
        For an unknown corruption or a level out of its range.
    """

    def __init__(
        self,
        corruption: str,
        levels: Tensor,
        image_shape: Sequence[int],
        *,
        clamp: bool,
        like: Tensor,
        overhang: bool = False,
    ) -> None:
        check_corruption(corruption, levels.flatten().tolist())
        self._image_shape = channels, height, width = tuple(image_shape)
        self._corruption = corruption
        self._clamp = clamp
        self._overhang = overhang
        levels = levels.double().unsqueeze(-1)
        self._levels = levels.to(like.dtype).to(like.device)
        self._black = drop_thresholds(levels / 2).to(like.device)
        self._changed = drop_thresholds(levels).to(like.device)
        self._sides = (levels * min(height, width)).round().long().to(like.device)
        if corruption == "salt-and-pepper":
            self._units = unit_hashes(height * width, like.device).repeat(channels)
        else:
            self._units = unit_hashes(channels * height * width, like.device)

    def apply(self, images: Tensor, keys: Tensor) -> Tensor:
        """Corrupt each image by what its key draws.

        Parameters
        ----------
        images : Tensor, (..., channel * height * width), floating
            Intensities in [0, 1]; kept as they are.
        keys : Tensor, (...), int32
            One per image: equal keys, equal draws.

        Returns
        -------
        Tensor, of the shape and type of ``images``
        """
        if self._corruption == "occlusion":
            maps = images.view(*keys.shape, *self._image_shape)
            return maps.masked_fill(self._hidden(keys), 0.0).view(images.shape)
        # Contiguous, so that the result has the layout of the images, not of the keys.
        words = hash_elements_(keys.contiguous().unsqueeze(-1) ^ self._units)
        if self._corruption == "salt-and-pepper":
            # One draw decides both: below the first threshold black, up to the second white.
            salted = images.masked_fill(words < self._changed, 1.0)
            return salted.masked_fill_(words < self._black, 0.0)
        if self._corruption == "gaussian":
            # A table and no logarithm or cosine: their last bits depend on the device and on
            # where in a vector an element lies, hence on the neighbours.
            quantiles = _normal_quantiles(images.dtype, images.device)
            cells = (words >> 16).add_(_N_QUANTILES // 2)
            noise = quantiles.index_select(0, cells.view(-1)).view(images.shape)
        else:
            # The upper 24 bits: as many as float32 holds exactly.
            noise = (words >> 8).add_(1 << 23).to(images.dtype).mul_(2.0**-24)
        noisy = noise.mul_(self._levels).add_(images)
        return noisy.clamp_(0.0, 1.0) if self._clamp else noisy

    def _hidden(self, keys: Tensor) -> Tensor:
        """Which pixels lie in the image's square: (..., 1, height, width), bool."""
        _, height, width = self._image_shape
        rows, columns = self._covered(keys + 1, height), self._covered(keys + 2, width)
        return (rows.unsqueeze(-1) & columns.unsqueeze(-2)).unsqueeze(-3)

    def _covered(self, keys: Tensor, size: int) -> Tensor:
        """Which places along an axis of the image the square covers: (..., size), bool."""
        share = (scramble_(scramble_(keys)).unsqueeze(-1) >> 8).long() + (1 << 23)  # of 2^24
        if self._overhang:
            first = ((share * size) >> 24) - self._sides // 2
        else:
            first = (share * (size - self._sides + 1)) >> 24
        places = torch.arange(size, device=keys.device)
        return (places >= first) & (places < first + self._sides)


def check_corruption(corruption: str, levels: Sequence[float]) -> None:
    """Raise ValueError for an unknown corruption or a level out of its range."""
    if corruption not in CORRUPTIONS:
        raise ValueError(f"corruption must be one of {', '.join(CORRUPTIONS)}, got {corruption!r}")
    for level in levels:
        if not isfinite(level) or level < 0 or (corruption in SHARES and level > 1):
            rule = "in [0, 1]" if corruption in SHARES else ">= 0 and finite"
            raise ValueError(f"level must be {rule} for {corruption}, got {level!r}")


def corrupt(
    images: Tensor,
    corruption: str,
    level: float,
    seed: int,
    *,
    clamp: bool = True,
    overhang: bool = False,
    first_sample: int = 0,
) -> Tensor:
    """Corrupt images; what an image becomes depends on the seed and its number only.

    Parameters
    ----------
    images : Tensor, (sample, channel, height, width), floating
        Intensities in [0, 1]; kept as they are.
    corruption : {"gaussian", "uniform", "salt-and-pepper", "occlusion"}
        See the module for what each does.
    level : float
        Standard deviation (gaussian), width of the interval (uniform), share of the pixels
        (salt-and-pepper), side of the square as a share of the image's (occlusion).
    seed : int
        Equal seeds, equal draws, on every device.
    clamp : bool
        Whether gaussian and uniform noise is cut to [0, 1].
    overhang : bool
        Whether an occluding square may hang off the border; see :class:`Corruption`.
    first_sample : int
        Number of the first image; a batch of images 100 to 199 passes 100 and gets what it
        gets among all.

    Returns
    -------
    Tensor, of the shape and type of ``images``

    Raises
    ------
    ValueError
        For images that are not floating or not of four axes, an unknown corruption, or a
        level out of its range.
    """
    if not images.is_floating_point() or images.ndim != 4:
        raise ValueError(
            "images must be floating (sample, channel, height, width), "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    levels = torch.tensor(level, dtype=torch.float64)
    how = {"clamp": clamp, "overhang": overhang}
    of_all = Corruption(corruption, levels, images.shape[1:], like=images, **how)
    numbers = torch.arange(first_sample, first_sample + len(images), device=images.device)
    corrupted = of_all.apply(images.flatten(1), image_keys(seed, numbers))
    return corrupted.view(images.shape)


def image_keys(seed: int, numbers: Tensor) -> Tensor:
    """Give the keys by which images are always corrupted in the same way.

    Parameters
    ----------
    seed : int
    numbers : Tensor, integer
        Number of each image in its data set.

    Returns
    -------
    Tensor, int32, of the shape of ``numbers``
    """
    return scramble_(scramble_(numbers.to(torch.int32)) ^ signed(mix64(seed, 2)))


def training_keys(step_keys: Tensor, n_samples: int) -> Tensor:
    """Give the keys of a training step: a sample is corrupted anew whenever it is seen.

    Parameters
    ----------
    step_keys : Tensor, (member,), int32
        From :func:`aesearch.models.training.randomness.step_keys`.
    n_samples : int
        Samples of the minibatch.

    Returns
    -------
    Tensor, (member, sample), int32
    """
    # The layers of a network count from 0, so that -2 is no layer's number.
    return sample_keys(step_keys, -2, n_samples)


@cache
def _normal_quantiles(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The middles, in probability, of cells that N(0, 1) is equally likely to fall into."""
    cells = (torch.arange(_N_QUANTILES, dtype=torch.float64) + 0.5) / _N_QUANTILES
    noise: Tensor = torch.special.ndtri(cells)
    return noise.to(dtype).to(device)
