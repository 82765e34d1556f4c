"""What principal components of the same number reach: the number to hold an autoencoder against."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from aesearch.data.study_data import Problem
from aesearch.evaluation.metrics import measured, squared_errors, with_inputs
from aesearch.seeds import derive_seed
from aesearch.studies.results.evaluation import PcaBaseline, PcaPoint
from aesearch.studies.results.records import PcaOfSize
from aesearch.studies.spec.space import Range

# Up to so many values of an image the covariance matrix is decomposed exactly.
LARGEST_COVARIANCE = 4096
# A gigabyte of float32: more training images than fit are thinned out.
LARGEST_TRAINING = 1 << 28


class PrincipalComponents:
    """Principal components of training images, as encoder and decoder of any smaller dimension.

    Parameters
    ----------
    images : ndarray, (sample, channel, height, width), uint8
    encoding_dim : int
        Components at most; >= 1. There are never more than values of an image, and fewer
        than images.
    seed : int
        Of the images that are left out where there are too many, and of the randomised
        decomposition of images above 4096 values.

    Attributes
    ----------
    encoding_dim, n_train : int
        Components there are, and training images they were fitted on.
    """

    def __init__(self, images: np.ndarray, encoding_dim: int, *, seed: int) -> None:
        n_values = int(np.prod(images.shape[1:]))
        if (rows := _thinned(len(images), n_values, seed)) is not None:
            images = images[rows]
        flat = images.reshape(len(images), n_values).astype(np.float32)
        flat /= 255
        exact = n_values <= LARGEST_COVARIANCE
        self.n_train = len(images)
        # So many directions vary: any further one would be arbitrary.
        self.encoding_dim = min(encoding_dim, n_values, max(1, len(images) - 1))
        fitted = PCA(
            self.encoding_dim,
            svd_solver="covariance_eigh" if exact else "randomized",
            random_state=derive_seed(seed, "pca") % 2**32,
        ).fit(flat)
        self._mean = torch.from_numpy(fitted.mean_.astype(np.float32))
        self._components = torch.from_numpy(fitted.components_.astype(np.float32))

    def encode(self, images: Tensor) -> Tensor:
        """Codes (sample, encoding_dim) of images (sample, channel, height, width) in [0, 1]."""
        return (images.flatten(1) - self._mean) @ self._components.T

    def decode(self, codes: Tensor, shape: Sequence[int]) -> Tensor:
        """Images of the first components' codes, clipped to [0, 1]; ``shape`` of one image."""
        flat = codes @ self._components[: codes.shape[1]] + self._mean
        return flat.clamp_(0.0, 1.0).view(len(codes), *shape)


def pca_baseline(
    train: np.ndarray,
    test: np.ndarray,
    *,
    encoding_dim: int,
    curve_dims: Sequence[int] = (),
    seed: int,
    inputs: np.ndarray | None = None,
) -> PcaBaseline:
    """Reconstruct the test images from principal components of the training images.

    Parameters
    ----------
    train, test : ndarray, (sample, channel, height, width), uint8
    encoding_dim : int
        Of the autoencoder; the baseline has as many components, as far as there are.
    curve_dims : sequence of int
        Further dimensions whose error is wanted.
    inputs : ndarray, of the shape of ``test``, uint8, optional
        What is projected onto the components in the place of the test images: noisy ones.
    """
    wanted = sorted({encoding_dim, *curve_dims})
    components = PrincipalComponents(train, wanted[-1], seed=seed)
    dims = sorted({min(dim, components.encoding_dim) for dim in wanted})
    chosen = min(encoding_dim, components.encoding_dim)
    errors = dict.fromkeys(dims, 0.0)

    def reconstruct(first: int, seen: Tensor) -> Tensor:
        codes, batch = components.encode(seen), seen
        if inputs is not None:
            batch = torch.from_numpy(test[first : first + len(seen)]).float().div_(255)
        _add_errors(errors, components, codes, batch)
        return components.decode(codes[:, :chosen], batch.shape[1:])

    found = measured(reconstruct, test, inputs=inputs)
    means = {name: float(values.mean()) for name, values in found.items()}
    return PcaBaseline(
        encoding_dim=chosen,
        mse=means["mse"],
        psnr=means["psnr"],
        binary_accuracy=means["binary_accuracy"],
        ssim=means.get("ssim"),
        clipped=True,
        n_train=components.n_train,
        curve=[PcaPoint(dim, errors[dim] / len(test)) for dim in dims],
    )


def _add_errors(
    errors: dict[int, float], components: PrincipalComponents, codes: Tensor, batch: Tensor
) -> None:
    """Add the squared errors of a batch to those of each dimension."""
    for dim in errors:
        smaller = components.decode(codes[:, :dim], batch.shape[1:])
        errors[dim] += float(squared_errors(smaller, batch).sum())


def _thinned(n_images: int, n_values: int, seed: int) -> np.ndarray | None:
    """Choose as many images as fit; None where all do."""
    limit = max(2, LARGEST_TRAINING // n_values)
    if n_images <= limit:
        return None
    rng = np.random.default_rng(derive_seed(seed, "pca", 1))
    return np.sort(rng.choice(n_images, limit, replace=False))


def principal_components_by_fold(problem: Problem) -> list[PcaOfSize]:
    """What principal components reach on the folds, for each searched size of the code.

    Returns
    -------
    list of PcaOfSize
        Ascending; errors of the images that a fold holds out, by the components of its training
        part. Empty where the sizes are a range.
    """
    spec = problem.spec
    searched = spec.space.encoding_dim
    if isinstance(searched, Range):
        return []
    sizes = (spec.model.encoding_dim,) if searched is None else sorted(searched.choices)
    errors = dict.fromkeys(sizes, 0.0)
    for fold in range(spec.search.folds):
        # Rows, no copies: of a mapped set each part is larger than all else that is in memory.
        train, held_out = problem.fold_indices(fold)
        rows = _thinned(len(train), int(np.prod(problem.image_shape)), spec.seed)
        images = problem.images[train if rows is None else train[rows]]
        components = PrincipalComponents(images, sizes[-1], seed=spec.seed)
        curve = dict.fromkeys(sorted({min(size, components.encoding_dim) for size in sizes}), 0.0)
        with torch.inference_mode():
            for _, seen, batch in with_inputs(problem.images, problem.noisy, held_out):
                _add_errors(curve, components, components.encode(seen), batch)
        for size in sizes:
            errors[size] += curve[min(size, max(curve))] / len(held_out) / spec.search.folds
    return [{"encoding_dim": size, "mse": errors[size]} for size in sizes]
