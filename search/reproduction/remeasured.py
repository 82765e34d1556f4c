"""The test images through every retrained seed, clean or corrupted: what the store has of one only.

Nothing is chosen by these looks at the test set: they describe networks that were chosen before.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aesearch.evaluation.metrics import batches, image_metrics, squared_errors
from aesearch.evaluation.robustness import corruption_seed
from aesearch.models.corruptions import corrupt
from aesearch.reproduction.evidence import Evidence
from aesearch.reproduction.reported import Measure


def remeasured(evidence: Evidence, asked: Measure) -> list[float]:
    """Measure every seed's reconstructions against the clean test images.

    Returns
    -------
    list of float, one per seed
        Mean over the test images of the metric; the stored test errors where nothing is corrupted.
    """
    if asked.corruption is None and asked.metric == "mse":
        return [float(value) for value in evidence.test_mse]

    def of(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        if asked.metric == "mse":
            return lambda inputs, clean: squared_errors(model(inputs), clean)
        return lambda inputs, clean: image_metrics(model(inputs), clean)[asked.metric]

    return _means(evidence, asked, [of(model) for model in evidence.models])


def input_errors(evidence: Evidence, asked: Measure) -> list[float]:
    """Mean squared error per pixel of the corrupted test images themselves: one value."""
    return _means(evidence, asked, [squared_errors])


def _means(
    evidence: Evidence, asked: Measure, functions: Sequence[Callable[[Tensor, Tensor], Tensor]]
) -> list[float]:
    images = evidence.problem.test_images
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
                    corruption_seed(evidence.spec.seed, asked.corruption),
                    clamp=asked.clamp,
                    overhang=asked.overhang,
                    first_sample=first,
                )
            for index, function in enumerate(functions):
                totals[index] += float(function(inputs, clean).sum(dtype=torch.float64))
    return [total / len(images) for total in totals]
