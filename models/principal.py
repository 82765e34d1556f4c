"""Principal components of the images that a member trains on, where its network starts.

======  ==========================================================  ====================
symbol  meaning                                                     shape
======  ==========================================================  ====================
X       images of the training part less their mean                 (image, pixel)
C       X' X / image, their covariance                              (pixel, pixel)
V       eigenvectors of C by falling eigenvalue, one a row          (component, pixel)
======  ==========================================================  ====================

Equal images give equal components, whoever asks: the solvers use no random state of the process,
and of the two signs of a component the one is taken that makes its largest entry positive.

References
----------
Jolliffe: Principal component analysis (2002), section 1.1.
Halko, Martinsson, Tropp: Finding structure with randomness (2011), algorithms 4.4 and 5.1.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Up to so many pixels, or images, the decomposition is exact (in double precision).
LARGEST_EXACT = 2048
# Beyond, a random subspace with a fixed seed, so many directions wider than asked for.
OVERSAMPLING = 16
_POWER_ITERATIONS = 4
# Of the largest variance: directions with less than this hold nothing but rounding.
_NOTHING = 1e-10
_ROWS = 4096  # images that are made floating-point numbers at a time
_KEPT = 8  # training parts whose components a process remembers: folds, and the retraining


@dataclass(frozen=True)
class Principal:
    """Mean and first principal components of some images, in float64 on the CPU.

    Attributes
    ----------
    mean : Tensor, (pixel,)
        Intensities in [0, 1].
    components : Tensor, (component, pixel)
        Orthonormal, by falling variance; a component without variance is zero.
    """

    mean: Tensor
    components: Tensor


@dataclass(frozen=True)
class _Rows:
    """The images at some indices, a few thousand at a time: together they may be a large copy."""

    images: Tensor
    indices: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(image, pixel)."""
        return len(self.indices), self.images.shape[1]

    def parts(self) -> Iterator[Tensor]:
        """Give the images in order, uint8, on the CPU."""
        for part in self.indices.split(_ROWS):
            yield self.images.index_select(0, part).cpu()


_remembered: OrderedDict[tuple[bytes, int], Principal] = OrderedDict()


def principal_components(images: Tensor, indices: Tensor, n_components: int) -> Principal:
    """Mean and first components of the images at ``indices``; the same call is computed once.

    Parameters
    ----------
    images : Tensor, (image, pixel), uint8
        With 255 as the intensity 1; on any device.
    indices : Tensor, (sample,), int64
        Which of them count; not empty.
    n_components : int
        >= 1; those that the images do not have are zero.
    """
    rows = _Rows(images, indices.to(images.device))
    exact = min(rows.shape) <= LARGEST_EXACT
    # An exact decomposition has all components; a subspace is made for a number of them.
    width = 0 if exact else n_components
    digest = hashlib.sha256()
    for part in rows.parts():
        digest.update(part.contiguous().numpy().data)
    key = (digest.digest() + str(rows.shape).encode(), width)
    if key not in _remembered:
        _remembered[key] = _exact(rows) if exact else _randomised(rows, n_components)
        while len(_remembered) > _KEPT:
            _remembered.popitem(last=False)
    _remembered.move_to_end(key)
    found = _remembered[key]
    components = found.components[:n_components]
    missing = n_components - len(components)
    if missing:
        components = torch.cat([components, components.new_zeros(missing, components.shape[1])])
    return Principal(found.mean, components)


def _centred(rows: _Rows, mean: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """Images less their mean, a few thousand at a time."""
    for part in rows.parts():
        yield part.to(dtype).div_(255.0).sub_(mean.to(dtype))


def _mean(rows: _Rows) -> Tensor:
    # One tensor for all: small ones that are kept between large ones that are freed would leave
    # gaps as large as the images.
    sums = torch.zeros(rows.shape[1], dtype=torch.int64)
    for part in rows.parts():
        sums += part.sum(0, dtype=torch.int64)
    return sums.double().div_(255.0 * rows.shape[0])


def _exact(rows: _Rows) -> Principal:
    n_images, n_pixels = rows.shape
    mean = _mean(rows)
    if n_pixels <= n_images:
        covariance = torch.zeros(n_pixels, n_pixels, dtype=torch.float64)
        for centred in _centred(rows, mean, torch.float64):
            covariance.addmm_(centred.t(), centred)
        variances, vectors = torch.linalg.eigh(covariance)
        return Principal(mean, _ordered(variances.flip(0), vectors.flip(1).t()))
    centred = torch.cat(list(rows.parts())).double().div_(255.0).sub_(mean)
    variances, vectors = torch.linalg.eigh(centred @ centred.t())
    directions = vectors.flip(1).t() @ centred
    lengths = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    directions = torch.where(lengths > 0, directions / lengths, 0.0)
    return Principal(mean, _ordered(variances.flip(0), directions))


def _randomised(rows: _Rows, n_components: int) -> Principal:
    mean = _mean(rows)
    width = min(n_components + OVERSAMPLING, *rows.shape)
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(rows.shape[1], width, generator=generator, dtype=torch.float32)
    for _ in range(_POWER_ITERATIONS + 1):
        grown = torch.zeros_like(basis, dtype=torch.float64)
        for centred in _centred(rows, mean, torch.float32):
            grown += (centred.t() @ (centred @ basis)).double()
        basis = torch.linalg.qr(grown).Q.float()
    small = torch.zeros(width, width, dtype=torch.float64)
    for centred in _centred(rows, mean, torch.float32):
        projected = (centred @ basis).double()
        small.addmm_(projected.t(), projected)
    variances, vectors = torch.linalg.eigh(small)
    directions = (basis.double() @ vectors.flip(1)).t()
    return Principal(mean, _ordered(variances.flip(0), directions[:n_components]))


def _ordered(variances: Tensor, directions: Tensor) -> Tensor:
    """Fix the signs, and make directions without variance zero."""
    variances = variances[: len(directions)]
    largest = directions.abs().argmax(1, keepdim=True)
    signs = directions.gather(1, largest).sign()
    present = variances > max(float(variances[0]), 0.0) * _NOTHING
    return torch.where(present[:, None], directions * signs, 0.0).contiguous()
