"""What is measured on the networks and images of a study when it is recorded.

==================  ===================================================================
name                what it gives
==================  ===================================================================
test                of every seed: mean over the test images of a metric of what it gives back
test_gap            of every seed: its error on the test images over that on the images that it
                    was retrained on; both without dropout
map_silhouette      of every seed: silhouette of the classes on the two principal axes of its
                    codes of 2,000 test images, in [-1, 1]
neighbour_accuracy  of every seed: share of its codes of the test images whose 5 nearest, of
                    10,000 training images, vote for their class
input               mean squared error of the corrupted test images themselves
parameters          parameters of the network
black               error of an image that is black everywhere
components          error of so many principal components
==================  ===================================================================

Nothing is chosen by these looks at the test set: they describe networks that were chosen before.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from aesearch.data.study_data import Problem
from aesearch.evaluation.evaluate import latent_space
from aesearch.evaluation.latent import codes_of
from aesearch.evaluation.metrics import (
    batches,
    image_metrics,
    mean_squared_error,
    squared_errors,
)
from aesearch.evaluation.robustness import corruption_seed
from aesearch.models.autoencoder import Autoencoder
from aesearch.models.training.corruptions import corrupt
from aesearch.studies.results.evaluation import Evaluation, Latent
from reproduction.evidence import NotMeasuredError
from reproduction.reported import Measure


class Retrained(Protocol):
    """What these measurements are made on.

    Attributes
    ----------
    test_mse : ndarray, (seed,)
    models : list of Autoencoder
        One per seed.
    problem : Problem
        The images.
    """

    name: str
    seed: int
    test_mse: np.ndarray

    @property
    def models(self) -> list[Autoencoder]: ...  # noqa: D102 - see the class

    @property
    def problem(self) -> Problem: ...  # noqa: D102 - see the class

    @property
    def evaluation(self) -> Evaluation:
        """The document of the evaluation; NotMeasuredError where there is none."""
        ...


def measure_networks(study: Retrained, asked: Measure) -> list[float]:
    """Measure what is asked for.

    Raises
    ------
    NotMeasuredError
        The study does not have it.
    """
    return [float(value) for value in NETWORK_MEASURES[asked.of](study, asked)]


def _test(study: Retrained, asked: Measure) -> Sequence[float]:
    """Every seed's reconstructions; the stored test errors where nothing is corrupted."""
    if asked.corruption is None and asked.metric == "mse":
        return list(study.test_mse)

    def of(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        if asked.metric == "mse":
            return lambda inputs, clean: squared_errors(model(inputs), clean)
        return lambda inputs, clean: image_metrics(model(inputs), clean)[asked.metric]

    return _means(study, asked, [of(model) for model in study.models])


def _test_gap(study: Retrained, _asked: Measure) -> Sequence[float]:
    train, _ = study.problem.holdout_indices()
    images = study.problem.images[train]
    return [
        test / mean_squared_error(model, images)
        for test, model in zip(study.test_mse, study.models, strict=True)
    ]


def _input(study: Retrained, asked: Measure) -> Sequence[float]:
    return _means(study, asked, [squared_errors])


def _means(
    study: Retrained, asked: Measure, functions: Sequence[Callable[[Tensor, Tensor], Tensor]]
) -> list[float]:
    images = study.problem.test_images
    totals = [0.0] * len(functions)
    with torch.inference_mode():
        for first, clean in batches(images):
            inputs = clean
            if asked.corruption is not None:
                inputs = corrupt(
                    clean,
                    asked.corruption,
                    asked.level,
                    # The draws of the study's own evaluation.
                    corruption_seed(study.seed, asked.corruption),
                    clamp=asked.clamp,
                    overhang=asked.overhang,
                    first_sample=first,
                )
            for index, function in enumerate(functions):
                totals[index] += float(function(inputs, clean).sum(dtype=torch.float64))
    return [total / len(images) for total in totals]


def _parameters(study: Retrained, _asked: Measure) -> Sequence[float]:
    return [sum(parameter.numel() for parameter in study.models[0].parameters())]


def _latents(study: Retrained) -> Iterator[Latent]:
    """Each seed's latent space as the evaluation describes that of one."""
    problem = study.problem
    if problem.test_labels is None or problem.labels is None:
        raise NotMeasuredError(f"study {study.name!r} must have classes, got images without")
    for model in study.models:
        yield latent_space(model, problem, codes_of(model, problem.test_images))[0]


def _map_silhouette(study: Retrained, _asked: Measure) -> Sequence[float]:
    from sklearn.metrics import silhouette_score

    return [
        silhouette_score(np.array(latent.points), np.array(latent.labels))
        for latent in _latents(study)
    ]


def _neighbour_accuracy(study: Retrained, _asked: Measure) -> Sequence[float]:
    return [latent.knn_accuracy for latent in _latents(study)]


def _black(study: Retrained, _asked: Measure) -> Sequence[float]:
    images = study.problem.test_images
    total = sum(float(batch.square().sum(dtype=torch.float64)) for _, batch in batches(images))
    return [total / images.size]


def _components(study: Retrained, asked: Measure) -> Sequence[float]:
    curve = {point.encoding_dim: point.mse for point in study.evaluation.pca.curve}
    if asked.dimension not in curve:
        raise NotMeasuredError(
            f"dimension must be one of {sorted(curve)} in study {study.name!r}, "
            f"got {asked.dimension!r}"
        )
    return [curve[asked.dimension]]


EVERY_SEED = frozenset({"test", "test_gap", "map_silhouette", "neighbour_accuracy"})
NETWORK_MEASURES: dict[str, Callable[[Retrained, Measure], Sequence[float]]] = {
    "test": _test,
    "test_gap": _test_gap,
    "input": _input,
    "parameters": _parameters,
    "map_silhouette": _map_silhouette,
    "neighbour_accuracy": _neighbour_accuracy,
    "black": _black,
    "components": _components,
}
