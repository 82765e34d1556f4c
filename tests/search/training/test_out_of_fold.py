"""Errors that calibrate: of images that the network which makes them never saw."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from aesearch.data.study_data import load_problem
from aesearch.evaluation.metrics import image_errors
from aesearch.models.autoencoder import build_autoencoder
from aesearch.studies.results import calibration as calibrations
from aesearch.training import out_of_fold
from aesearch.training.members import build_member, build_population
from aesearch.training.memory import images_for
from aesearch.training.out_of_fold import calibrate, out_of_fold_errors


@pytest.fixture(scope="module")
def problem(tiny_spec):
    spec = tiny_spec("retrain.max_epochs=3", "search.folds=3", "data.limit=120")
    return load_problem(spec, device="cpu")


def network_of(problem):
    return build_autoencoder(
        architecture="dense", image_shape=problem.image_shape, encoding_dim=2, hidden=(4,)
    ).eval()


def test_no_network_saw_the_images_that_it_is_measured_on(problem):
    """Each error is finite; the images of one fold changed, the other folds' networks change."""
    configuration = problem.spec.configuration({})
    before = out_of_fold_errors(problem, configuration)
    assert before.shape == (len(problem.images),)
    assert (before > 0).all()
    # Poison: what fold 0 holds out decides its own errors, and the networks of the others only.
    changed, others = np.split(problem.fold_indices(0)[1], 2)
    images = problem.images.copy()
    images[changed] = 255 - images[changed]
    after = out_of_fold_errors(replace(problem, images=images), configuration)
    same = before == after
    assert not same[changed].any()
    assert same[others].all()
    assert not same[problem.fold_of_sample != 0].any()


def test_one_population_or_one_network_at_a_time_is_the_same(problem):
    """To rounding, as everywhere."""
    configuration = problem.spec.configuration({})
    alone = problem.spec.model_copy(
        update={"compute": problem.spec.compute.model_copy(update={"population": 1})}
    )
    together = out_of_fold_errors(problem, configuration)
    np.testing.assert_allclose(
        out_of_fold_errors(replace(problem, spec=alone), configuration), together, rtol=1e-3
    )


def test_few_images_are_calibrated_out_of_fold_and_scaled(problem):
    """All training images, at the scale of the delivered network."""
    configuration, model = problem.spec.configuration({}), network_of(problem)
    found = calibrate(model, problem, configuration)
    assert found.source == "out-of-fold"
    errors = out_of_fold_errors(problem, configuration)
    held_out = problem.holdout_indices()[1]
    delivered = image_errors(model, problem.images[held_out])
    scale = np.linalg.norm(delivered) / np.linalg.norm(errors[held_out])
    np.testing.assert_allclose(found.errors, np.sort(errors * scale), rtol=1e-5)
    assert found.oddest == tuple(np.argsort(-errors)[:10].tolist())


@pytest.mark.parametrize("enough", [5, 2000])
def test_pca_of_all_images_is_measured_as_pca_of_those_not_held_out(tiny_spec, monkeypatch, enough):
    """What is held out of the training is not held out of it."""
    monkeypatch.setattr(out_of_fold, "ENOUGH_HELD_OUT", enough)
    words = ("retrain.max_epochs=3", "search.folds=3", "data.limit=120", "model.shortcut=pca")
    problem = load_problem(tiny_spec(*words, "model.output=clamp"), device="cpu")
    configuration = problem.spec.configuration({})
    train, held_out = problem.holdout_indices()
    images = images_for(problem, "cpu")
    member = build_member(configuration, 7, train, held_out)
    population = build_population(problem, images, [member], configuration, epochs=1)
    unseeing = image_errors(population.extract(0), problem.images[held_out])
    population.restart([0])
    model = population.extract(0)
    found = calibrate(model, problem, configuration)
    assert (image_errors(model, problem.images[held_out]).mean()) < unseeing.mean()
    if enough == 5:
        np.testing.assert_allclose(found.errors, np.sort(unseeing), rtol=1e-5)
    else:
        errors = out_of_fold_errors(problem, configuration)
        scale = np.linalg.norm(unseeing) / np.linalg.norm(errors[held_out])
        np.testing.assert_allclose(found.errors, np.sort(errors * scale), rtol=1e-5)


def test_many_held_out_images_are_enough(problem, monkeypatch):
    """Then no network is trained for it."""
    monkeypatch.setattr(out_of_fold, "ENOUGH_HELD_OUT", 5)
    monkeypatch.setattr(out_of_fold, "out_of_fold_errors", None)
    model = network_of(problem)
    found = calibrate(model, problem, problem.spec.configuration({}))
    held_out = problem.holdout_indices()[1]
    assert found.source == "held-out"
    expected = np.sort(image_errors(model, problem.images[held_out]))
    np.testing.assert_allclose(found.errors, expected, rtol=1e-5)
    assert set(found.oddest) <= set(held_out.tolist())
    fingerprints = calibrations.image_fingerprints(problem.images[held_out])
    assert set(found.images.tolist()) == set(fingerprints.tolist())


def test_a_model_without_calibration_is_delivered_all_the_same(problem, monkeypatch, caplog):
    """A network of a fold that diverges, or finds no memory, costs the p-values alone."""
    configuration = problem.spec.configuration({})
    broken = network_of(problem)
    for weights in broken.parameters():
        weights.data.fill_(torch.nan)

    def no_memory(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for networks in (lambda *_: [(0, broken)], no_memory):
        caplog.clear()
        monkeypatch.setattr(out_of_fold, "fold_networks", networks)
        assert calibrate(network_of(problem), problem, configuration) is None
        assert "get no p-values" in caplog.text


def test_what_stops_it_is_heard(problem):
    """An interruption reaches the caller between two epochs."""

    class StopError(Exception):
        pass

    def stop():
        raise StopError

    with pytest.raises(StopError):
        out_of_fold_errors(problem, problem.spec.configuration({}), stop)
