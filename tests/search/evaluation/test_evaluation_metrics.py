"""Metrics, intervals and the PCA baseline equal scikit-image's, scikit-learn's and plain loops."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from aesearch.evaluation.baseline import PrincipalComponents, pca_baseline
from aesearch.evaluation.intervals import bootstrap_intervals, metric_table
from aesearch.evaluation.metrics import batches, image_metrics, measured, ssim_window
from aesearch.studies.results.evaluation import Interval

skimage = pytest.importorskip("skimage.metrics")


def pair(shape, seed=0):
    """Random images and reconstructions that resemble them: (5, *shape), in [0, 1]."""
    rng = np.random.default_rng(seed)
    images = rng.random((5, *shape))
    return images, np.clip(images + rng.normal(0, 0.2, images.shape), 0, 1)


def bytes_like(shape, n_samples=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n_samples, *shape), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 7), (1, 8, 8), (3, 5, 12), (1, 3, 4)])
def test_metrics_equal_those_of_scikit_image(shape):
    """Per image, of one channel and of three, also where the window must be smaller than 7."""
    images, outputs = pair(shape)
    found = image_metrics(torch.from_numpy(outputs), torch.from_numpy(images))
    expected = {"mse": [], "psnr": [], "ssim": [], "binary_accuracy": []}
    for x, y in zip(images, outputs, strict=True):
        expected["mse"].append(skimage.mean_squared_error(x, y))
        expected["psnr"].append(skimage.peak_signal_noise_ratio(x, y, data_range=1))
        ssim = skimage.structural_similarity(
            x, y, data_range=1, channel_axis=0, win_size=ssim_window(*shape[1:])
        )
        expected["ssim"].append(ssim)
        expected["binary_accuracy"].append(np.mean(np.round(x) == np.round(y)))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.tensor(np.array(values)), msg=name)


@pytest.mark.parametrize("shape", [(1, 2, 9), (3, 9, 1)])
def test_an_image_of_two_pixels_has_no_structural_similarity(shape):
    """The other metrics are there all the same."""
    images, outputs = map(torch.from_numpy, pair(shape))
    assert image_metrics(outputs, images).keys() == {"mse", "psnr", "binary_accuracy"}


def test_a_perfect_image_counts_a_hundred_decibels():
    """Its error is zero; the mean over images stays a number."""
    images = torch.from_numpy(pair((1, 8, 8))[0])
    found = image_metrics(images, images)
    assert found["psnr"].tolist() == [100.0] * 5
    assert found["mse"].tolist() == [0.0] * 5
    torch.testing.assert_close(found["ssim"], torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 300, 300)])
def test_batches_are_all_images_once_in_order(shape):
    """Whatever fits into a batch, the numbers of the first images add up."""
    images = bytes_like(shape, 17)
    parts = list(batches(images))
    assert [first for first, _ in parts] == list(range(0, 17, len(parts[0][1])))
    together = torch.cat([batch for _, batch in parts])
    torch.testing.assert_close(together, torch.from_numpy(images) / 255.0)


def test_measuring_is_told_which_images_it_sees():
    """The batch that begins at image 1000 is that of images 1000 and on."""
    images = bytes_like((1, 4, 4), 1003)
    outputs = torch.from_numpy(bytes_like((1, 4, 4), 1003, seed=1)) / 255.0
    found = measured(lambda first, batch: outputs[first : first + len(batch)], images)
    difference = outputs.double() - torch.from_numpy(images).double() / 255
    expected = difference.square().flatten(1).mean(1).numpy()
    np.testing.assert_allclose(found["mse"], expected, rtol=1e-5)


def test_intervals_are_percentiles_of_resampled_means():
    """As a loop that draws one resample after the other from the same numbers."""
    values = np.random.default_rng(3).gamma(2.0, size=(30, 2))
    low, high = bootstrap_intervals(values, resamples=200, seed=5)
    drawn = np.random.default_rng(5).integers(30, size=(200, 30))
    means = np.array([values[rows].mean(axis=0) for rows in drawn])
    np.testing.assert_allclose(low, np.percentile(means, 2.5, axis=0))
    np.testing.assert_allclose(high, np.percentile(means, 97.5, axis=0))


def test_intervals_do_not_depend_on_how_many_fit_into_memory(monkeypatch):
    """Drawn one after the other, or all at once."""
    values = np.random.default_rng(3).gamma(2.0, size=(30, 2))
    at_once = bootstrap_intervals(values, resamples=50, seed=5)
    monkeypatch.setattr("aesearch.evaluation.intervals._DRAWS_AT_ONCE", 31)
    np.testing.assert_allclose(bootstrap_intervals(values, resamples=50, seed=5), at_once)


def test_the_table_has_a_row_for_each_class_that_is_there():
    """Means of a class are those of its images; names are used; one image has no spread."""
    found = {"mse": np.array([1.0, 2.0, 3.0, 10.0]), "psnr": np.arange(4.0)}
    found["binary_accuracy"] = np.zeros(4)
    labels = np.array([2, 0, 2, 5])
    table, omitted = metric_table(found, labels, ["ant", "bee", "cat"], resamples=20, seed=0)
    assert table.overall.n == 4
    assert table.overall.mse.mean == 4.0
    assert table.overall.ssim is None
    assert [(row.label, row.n, row.mse.mean) for row in table.per_class] == [
        ("ant", 1, 2.0),
        ("cat", 2, 2.0),
        ("5", 1, 10.0),
    ]
    assert table.per_class[2].mse == Interval(10.0, 10.0, 10.0)
    assert omitted == ["SSIM: the images have fewer than 3 pixels on a side"]


@pytest.mark.parametrize(
    ("labels", "reason"), [(None, "no labels"), (np.arange(300), "300 classes are more than 200")]
)
def test_classes_that_make_no_table_are_said(labels, reason):
    found = {name: np.ones(300) for name in ("mse", "psnr", "binary_accuracy", "ssim")}
    table, omitted = metric_table(found, labels, None, resamples=5, seed=0)
    assert table.per_class is None
    assert len(omitted) == 1
    assert reason in omitted[0]


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 4, 5)])
@pytest.mark.parametrize("encoding_dim", [1, 7])
def test_the_baseline_is_pca_of_the_training_images_clipped(shape, encoding_dim):
    """As scikit-learn's full decomposition in double precision, with a clip."""
    train, test = bytes_like(shape, 80), bytes_like(shape, 20, seed=1)
    pca = PCA(encoding_dim, svd_solver="full").fit(train.reshape(80, -1) / 255)
    flat = test.reshape(20, -1) / 255
    output = np.clip(pca.inverse_transform(pca.transform(flat)), 0, 1)
    found = pca_baseline(train, test, encoding_dim=encoding_dim, curve_dims=(1, 3), seed=0)
    assert found.encoding_dim == encoding_dim
    # float32 images against doubles
    assert found.mse == pytest.approx(np.mean((output - flat) ** 2), rel=1e-4)
    assert found.binary_accuracy == pytest.approx(np.mean(output.round() == flat.round()))
    at = {row.encoding_dim: row.mse for row in found.curve}
    assert sorted(at) == sorted({1, 3, encoding_dim})
    assert at[encoding_dim] == pytest.approx(found.mse)


def test_the_baseline_has_no_more_components_than_vary():
    """Then it is as good as it can be, and says how many it has; n images vary in n - 1 ways."""
    train = bytes_like((1, 3, 3), 20)
    by_pixels = pca_baseline(train, train, encoding_dim=50, seed=0)
    assert by_pixels.encoding_dim == 9
    assert by_pixels.mse < 1e-10
    few = pca_baseline(train[:5], train, encoding_dim=50, seed=0)
    assert few.encoding_dim == 4
    assert few.mse == pca_baseline(train[:5], train, encoding_dim=4, seed=0).mse


def test_too_many_training_images_are_thinned_out(monkeypatch):
    """The same ones each time, and their number is said."""
    train, test = bytes_like((1, 3, 3), 200), bytes_like((1, 3, 3), 20, seed=1)
    monkeypatch.setattr("aesearch.evaluation.baseline.LARGEST_TRAINING", 450)
    found = [pca_baseline(train, test, encoding_dim=2, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0].n_train == 50


def test_large_images_are_decomposed_at_random_but_close(monkeypatch):
    """The randomised solver, used above 4096 values, finds nearly the same subspace."""
    rng = np.random.default_rng(0)
    structure = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 64))
    train = (128 + 20 * structure).clip(0, 255).astype(np.uint8).reshape(300, 1, 8, 8)
    exact = pca_baseline(train, train, encoding_dim=3, seed=0)
    monkeypatch.setattr("aesearch.evaluation.baseline.LARGEST_COVARIANCE", 10)
    assert pca_baseline(train, train, encoding_dim=3, seed=0).mse == pytest.approx(
        exact.mse, rel=0.01
    )


def test_components_are_the_same_each_time():
    """No random number is drawn that has no seed."""
    train = bytes_like((1, 5, 5), 60)
    with threadpool_limits(1):
        one, other = (PrincipalComponents(train, 4, seed=0) for _ in range(2))
    batch = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.encode(batch), other.encode(batch))
    assert math.isfinite(float(one.encode(batch).sum()))
