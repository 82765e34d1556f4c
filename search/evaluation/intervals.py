"""Averages over test images with bootstrap intervals, overall and per class."""

from collections.abc import Mapping, Sequence

import numpy as np

from aesearch.seeds import derive_seed
from aesearch.studies.results.evaluation import (
    METRICS,
    ClassMetrics,
    Interval,
    Metrics,
    TestMetrics,
)

# More classes than this are no table that anybody reads.
MOST_CLASSES = 200
_DRAWS_AT_ONCE = 1 << 22


def bootstrap_intervals(
    values: np.ndarray, *, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bound means by the 95% percentile interval of the bootstrap over images.

    Parameters
    ----------
    values : ndarray, (sample, metric), float64
        All metrics of an image are drawn together.
    resamples : int
        >= 1.
    seed : int

    Returns
    -------
    low, high : ndarray, (metric,)
        The 2.5th and 97.5th percentiles of the means of the resamples.

    References
    ----------
    Efron and Tibshirani: An Introduction to the Bootstrap, 1993, section 13.3.
    """
    n_samples = len(values)
    rng = np.random.default_rng(seed)
    step = max(1, _DRAWS_AT_ONCE // n_samples)
    means = []
    for start in range(0, resamples, step):
        n_rows = min(step, resamples - start)
        drawn = rng.integers(n_samples, size=(n_rows, n_samples))
        drawn += n_samples * np.arange(n_rows)[:, None]
        # How often each image was drawn: one product gives the means of all metrics.
        counts = np.bincount(drawn.ravel(), minlength=n_rows * n_samples)
        means.append(counts.reshape(n_rows, n_samples) @ values / n_samples)
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975), axis=0)
    return low, high


def averaged(found: Mapping[str, np.ndarray], *, resamples: int, seed: int) -> Metrics:
    """Average each metric over images, with its interval."""
    names = [name for name in METRICS if name in found]
    values = np.stack([found[name] for name in names], axis=1)
    low, high = bootstrap_intervals(values, resamples=resamples, seed=seed)
    intervals = {
        name: Interval(float(values[:, column].mean()), float(low[column]), float(high[column]))
        for column, name in enumerate(names)
    }
    return Metrics(
        n=len(values),
        mse=intervals["mse"],
        psnr=intervals["psnr"],
        binary_accuracy=intervals["binary_accuracy"],
        ssim=intervals.get("ssim"),
    )


def metric_table(
    found: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    class_names: Sequence[str] | None,
    *,
    resamples: int,
    seed: int,
) -> tuple[TestMetrics, list[str]]:
    """Average the metrics over all test images and over those of each class.

    Parameters
    ----------
    found : mapping
        Of ``metrics.measured``.
    labels : ndarray, (sample,), int, or None
    class_names : sequence of str or None
        What label 0, 1, … is called; None for the number.

    Returns
    -------
    table : TestMetrics
    omitted : list of str
        What is left out, and why. Each class is resampled within itself.
    """
    overall = averaged(found, resamples=resamples, seed=derive_seed(seed, "bootstrap"))
    omitted = [] if "ssim" in found else ["SSIM: the images have fewer than 3 pixels on a side"]
    if labels is None:
        omitted.append("per-class metrics: the data set has no labels")
        return TestMetrics(overall, None), omitted
    present = np.unique(labels)
    if len(present) > MOST_CLASSES:
        omitted.append(f"per-class metrics: {len(present)} classes are more than {MOST_CLASSES}")
        return TestMetrics(overall, None), omitted
    rows = []
    for position, label in enumerate(present.tolist(), start=1):
        of_class = {name: values[labels == label] for name, values in found.items()}
        row_seed = derive_seed(seed, "bootstrap", position)
        row = averaged(of_class, resamples=resamples, seed=row_seed)
        rows.append(ClassMetrics(label=class_name(label, class_names), **vars(row)))
    return TestMetrics(overall, rows), omitted


def class_name(label: int, class_names: Sequence[str] | None) -> str:
    """Name a class; its number where it has no name."""
    named = class_names is not None and 0 <= label < len(class_names)
    return class_names[label] if named and class_names is not None else str(label)
