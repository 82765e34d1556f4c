"""The noise table's conventions equal a loop written by hand; codes and maps equal plain ones."""

from dataclasses import astuple

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from aesearch.evaluation.latent import codes_of, latent_map, live_units, neighbour_accuracy
from aesearch.evaluation.robustness import corruption_seed, robustness
from aesearch.models.autoencoder import build_autoencoder
from aesearch.models.training.corruptions import corrupt

LEVELS = {
    "gaussian": (0.3, 2.0),
    "uniform": (1.0,),
    "salt-and-pepper": (0.4,),
    "occlusion": (0.5,),
}


def network(shape, encoding_dim=3, **changes):
    return build_autoencoder(
        architecture="dense", image_shape=shape, encoding_dim=encoding_dim, hidden=(12,), **changes
    ).eval()


def images_of(shape, n_samples=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n_samples, *shape), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 5)])
def test_the_noise_table_is_a_plain_loop(shape):
    """One image after the other: corrupted input to the model, errors against the clean one."""
    model, images = network(shape), images_of(shape)
    rows = robustness(model, images, LEVELS, seed=4)
    expected = []
    for kind, levels in LEVELS.items():
        for level in levels:
            for clamped in (True, False) if kind in {"gaussian", "uniform"} else (True,):
                errors = []
                for number, image in enumerate(images):
                    clean = torch.from_numpy(image[None]) / 255
                    seed = corruption_seed(4, kind)
                    noisy = corrupt(clean, kind, level, seed, clamp=clamped, first_sample=number)
                    with torch.no_grad():
                        output = model(noisy)
                    mse = float(((output - clean) ** 2).double().mean())
                    before = float(((noisy - clean) ** 2).double().mean())
                    errors.append([mse, 10 * np.log10(1 / mse), before, 10 * np.log10(1 / before)])
                expected.append((kind, level, clamped, *np.mean(errors, axis=0)))
    found = [astuple(row) for row in rows]
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    # float32 batches against single images
    np.testing.assert_allclose([row[3:] for row in found], [row[3:] for row in expected], rtol=1e-5)


def test_the_inputs_own_error_is_that_of_the_noise():
    """Unclamped noise of deviation s has a mean square of s squared, and U[0, 1) of a third."""
    shape = (1, 16, 16)
    images = images_of(shape, 200)
    rows = robustness(network(shape), images, {"gaussian": (0.5,), "uniform": (1.0,)}, seed=0)
    own = {(row.corruption, row.clamped): row.input_mse for row in rows}
    # 51,200 draws: a relative standard error of 0.6% and 0.4%
    assert own["gaussian", False] == pytest.approx(0.25, rel=0.03)
    assert own["uniform", False] == pytest.approx(1 / 3, rel=0.03)
    assert own["gaussian", True] < 0.2
    assert own["uniform", True] < 0.2


def test_a_row_depends_on_no_other_row():
    """Own levels are drawn as they would be within the whole table."""
    shape = (1, 8, 8)
    model, images = network(shape), images_of(shape)
    alone = robustness(model, images, {"gaussian": (2.0,)}, seed=4)
    assert alone == robustness(model, images, LEVELS, seed=4)[2:4]


def test_stopping_is_asked_for_between_batches():
    """What the check raises goes through."""

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        robustness(network((1, 4, 4)), images_of((1, 4, 4)), LEVELS, seed=0, check=stop)


def test_units_that_never_vary_are_dead():
    """Constant units and those of a thousandth of the others' spread do not count."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(50, 4)) * np.array([1.0, 0.01, 0.0, 1e-4]) + 3.0
    assert live_units(codes) == 2
    assert live_units(np.zeros((5, 3))) == 0


def test_a_relu_unit_that_never_fires_is_dead():
    """As the codes of a real network say."""
    model = network((1, 4, 4), 3, code_activation="relu")
    (code,) = [layer for layer in model.encoder if getattr(layer, "out_features", 0) == 3]
    with torch.no_grad():
        code.bias.copy_(torch.tensor([5.0, -100.0, 5.0]))
    assert live_units(codes_of(model, images_of((1, 4, 4)))) == 2


def clusters(n_samples, seed):
    """Codes of three classes around three corners of a cube."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=n_samples)
    return (np.eye(3)[labels] * 2 + rng.normal(size=(n_samples, 3))).astype(np.float32), labels


def test_the_map_is_the_projection_on_two_principal_axes():
    """Shares of the variance from the eigenvalues of the covariance; points up to their sign."""
    codes, labels = clusters(60, 0)
    latent, omitted = latent_map(codes, labels, codes, labels, ("a", "b", "c"), seed=0)
    centred = codes - codes.mean(axis=0)
    _, values, axes = np.linalg.svd(centred.astype(float), full_matrices=False)
    np.testing.assert_allclose(
        latent.explained_variance, (values**2 / (values**2).sum())[:2], rtol=1e-6
    )
    # points are written to four digits
    np.testing.assert_allclose(
        np.abs(latent.points), np.abs(centred @ axes[:2].T), rtol=1e-3, atol=1e-5
    )
    assert latent.labels == labels.tolist()
    assert latent.class_names == ["a", "b", "c"]
    assert latent.silhouette == pytest.approx(silhouette_score(codes, labels))
    assert omitted == []


def test_neighbours_vote_as_in_a_plain_loop():
    """The five nearest training codes, the majority, the smaller label in a tie."""
    (train, train_labels), (test, test_labels) = clusters(80, 0), clusters(40, 1)
    hits = []
    for code, label in zip(test, test_labels, strict=True):
        nearest = np.argsort(((train - code) ** 2).sum(axis=1))[:5]
        hits.append(np.bincount(train_labels[nearest]).argmax() == label)
    found = neighbour_accuracy(train, train_labels, test, test_labels, k=5)
    assert found == pytest.approx(np.mean(hits))
    assert 0.5 < found < 1.0


@pytest.mark.parametrize(
    ("codes", "shares"),
    [
        (np.array([[1.0], [2.0], [4.0]], np.float32), [1.0, 0.0]),
        (np.full((4, 3), 2.0, np.float32), [0.0, 0.0]),
        (np.ones((1, 5), np.float32), [0.0, 0.0]),
    ],
    ids=["one unit", "dead units", "one image"],
)
def test_a_map_of_less_than_two_axes_has_zeros(codes, shares):
    """A code of one number, a dead code, a single image: two coordinates all the same."""
    latent, _ = latent_map(codes, None, None, None, None, seed=0)
    assert latent.explained_variance == shares
    assert np.shape(latent.points) == (len(codes), 2)
    assert not np.any([point[1] for point in latent.points])


def test_a_map_shows_at_most_two_thousand_points():
    """A seeded part of them, with the labels of these."""
    codes, labels = clusters(2500, 0)
    codes[:, 0] = 1000 * labels
    latent, _ = latent_map(codes, labels, codes[:100], labels[:100], None, seed=0)
    assert len(latent.points) == 2000
    first = np.array(latent.points)[:, 0]
    assert all(np.ptp(first[np.array(latent.labels) == label]) < 100 for label in range(3))


@pytest.mark.parametrize(
    ("labels", "train_labels", "reasons"),
    [
        (None, None, ["silhouette and neighbour accuracy: the data set has no labels"]),
        (np.zeros(10, int), np.zeros(10, int), ["silhouette: 10 test images have 1 classes"]),
        (np.arange(10), np.arange(10), ["silhouette: 10 test images have 10 classes"]),
        (np.arange(10) % 2, None, ["neighbour accuracy: the training images have no labels"]),
    ],
)
def test_what_cannot_be_measured_is_said(labels, train_labels, reasons):
    codes = clusters(10, 0)[0]
    latent, omitted = latent_map(codes, labels, codes, train_labels, None, seed=0)
    assert omitted == reasons
    assert (latent.silhouette is None) == any("silhouette" in reason for reason in reasons)
    assert (latent.knn_accuracy is None) == any("neighbour" in reason for reason in reasons)
