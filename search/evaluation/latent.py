"""What the codes look like: how many units live, a map in two dimensions, how classes separate."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier

from aesearch.evaluation.metrics import batches
from aesearch.models.autoencoder import Autoencoder
from aesearch.seeds import derive_seed
from aesearch.studies.results.evaluation import Latent

NEIGHBOURS = 5
MOST_POINTS = 2000
MOST_NEIGHBOURS_OF = 10_000
# A unit whose code varies less than this share of the most varied one carries nothing.
LIVE_SHARE = 1e-3


def codes_of(
    model: Autoencoder, images: np.ndarray, check: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Codes of images (sample, channel, height, width), uint8: (sample, encoding_dim), float32."""
    found = []
    with torch.inference_mode():
        for _, batch in batches(images):
            check()
            found.append(model.encode(batch))
    return torch.cat(found).numpy()


def live_units(codes: np.ndarray) -> int:
    """Count the units whose code varies.

    Parameters
    ----------
    codes : ndarray, (sample, unit)

    Returns
    -------
    int
        Units whose standard deviation over the samples is above 0.001 of the largest one's.
        A ReLU unit that never fires has none.
    """
    deviation = codes.std(axis=0, dtype=np.float64)
    return int((deviation > LIVE_SHARE * deviation.max()).sum())


def latent_map(
    test_codes: np.ndarray,
    test_labels: np.ndarray | None,
    train_codes: np.ndarray | None,
    train_labels: np.ndarray | None,
    class_names: Sequence[str] | None,
    *,
    seed: int,
) -> tuple[Latent, list[str]]:
    """Project the test codes to two dimensions, and say in numbers how classes separate.

    Parameters
    ----------
    test_codes : ndarray, (test sample, unit)
    test_labels : ndarray, (test sample,), or None
    train_codes, train_labels : ndarray or None
        Of a part of the training images: the neighbours that classify the test codes.
    class_names : sequence of str or None

    Returns
    -------
    latent : Latent
        Of at most 2,000 test codes; ``knn_accuracy`` of at most 10,000.
    omitted : list of str
    """
    shown = sample(len(test_codes), MOST_POINTS, derive_seed(seed, "latent", 0))
    shares, points = _projected(test_codes)
    latent = Latent(
        explained_variance=shares,
        # Four digits are a fiftieth of a pixel on any map of them.
        points=[[float(f"{x:.4g}"), float(f"{y:.4g}")] for x, y in points[shown].tolist()],
        labels=None,
        class_names=None,
        silhouette=None,
        knn_accuracy=None,
        k=NEIGHBOURS,
    )
    if test_labels is None:
        return latent, ["silhouette and neighbour accuracy: the data set has no labels"]
    silhouette = accuracy = None
    k, omitted = NEIGHBOURS, []
    n_classes = len(np.unique(test_labels[shown]))
    if 2 <= n_classes < len(shown):
        silhouette = _silhouette(test_codes[shown], test_labels[shown])
    else:
        omitted.append(f"silhouette: {len(shown)} test images have {n_classes} classes")
    if train_codes is None or train_labels is None:
        omitted.append("neighbour accuracy: the training images have no labels")
    else:
        asked = sample(len(test_codes), MOST_NEIGHBOURS_OF, derive_seed(seed, "latent", 1))
        k = min(NEIGHBOURS, len(train_codes))
        accuracy = neighbour_accuracy(
            train_codes, train_labels, test_codes[asked], test_labels[asked], k=k
        )
    labelled = replace(
        latent,
        labels=test_labels[shown].tolist(),
        class_names=None if class_names is None else list(class_names),
        silhouette=silhouette,
        knn_accuracy=accuracy,
        k=k,
    )
    return labelled, omitted


def neighbour_accuracy(
    train_codes: np.ndarray,
    train_labels: np.ndarray,
    test_codes: np.ndarray,
    test_labels: np.ndarray,
    *,
    k: int,
) -> float:
    """Share of test codes whose ``k`` nearest training codes vote for their class."""
    classifier = KNeighborsClassifier(k, algorithm="brute").fit(train_codes, train_labels)
    return float((classifier.predict(test_codes) == test_labels).mean())


def sample(n_samples: int, limit: int, seed: int) -> np.ndarray:
    """Number at most ``limit`` of the samples, drawn without replacement; ascending."""
    if n_samples <= limit:
        return np.arange(n_samples)
    return np.sort(np.random.default_rng(seed).choice(n_samples, limit, replace=False))


def _projected(codes: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Shares of the variance and points of the first two principal axes, with zeros if one."""
    centred = codes.astype(np.float64)
    points, shares = np.zeros((len(codes), 2)), [0.0, 0.0]
    n_axes = min(2, *centred.shape)
    # Without any variance there are no axes, and every share is 0 / 0.
    if (centred != centred[0]).any():
        fitted = PCA(n_axes, svd_solver="full").fit(centred)
        points[:, :n_axes] = fitted.transform(centred)
        shares[:n_axes] = fitted.explained_variance_ratio_.tolist()
    return shares, points


def _silhouette(codes: np.ndarray, labels: np.ndarray) -> float:
    return float(silhouette_score(codes, labels))
