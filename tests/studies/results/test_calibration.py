"""p-values of errors: the formula, its false alarms, and the file that it is counted from."""

import json

import numpy as np
import pytest

from aesearch.studies.results.calibration import (
    MOST_ERRORS,
    CalibrationError,
    calibration_of,
    from_document,
    image_fingerprints,
    read_calibration,
    scaled_to,
    shares_below,
)
from aesearch.studies.results.evaluation import ShareBelow


def images_of(n_images, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n_images, 1, 3, 3), dtype=np.uint8)


def made(errors, seed=0):
    errors = np.asarray(errors, float)
    images = images_of(len(errors))
    return calibration_of(
        "out-of-fold",
        errors,
        np.arange(len(errors)),
        images,
        weights_sha256="abc",
        seed=seed,
    )


def test_a_p_value_is_the_share_of_ordinary_images_that_err_as_much():
    """Counted one by one, the new image with them; a tie counts against it."""
    ordinary = [0.4, 0.1, 0.2, 0.2, 0.3]
    errors = [0.0, 0.1, 0.2, 0.25, 0.4, 0.5]
    expected = [(1 + sum(c >= e for c in ordinary)) / 6 for e in errors]
    assert made(ordinary).p_values(np.array(errors)).tolist() == expected
    assert expected[-1] == pytest.approx(1 / 6)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.3])
def test_ordinary_images_raise_as_many_false_alarms_as_promised(level):
    """Over many calibrations, for errors of any distribution: a rank is uniform."""
    rng = np.random.default_rng(4)
    shares = []
    for _ in range(300):
        errors = rng.lognormal(sigma=2, size=1199)
        shares.append((made(errors[:999]).p_values(errors[999:]) <= level).mean())
    error = np.std(shares) / len(shares) ** 0.5
    assert np.mean(shares) == pytest.approx(level, abs=3 * error)
    assert error < level / 20


def test_an_image_of_the_calibration_is_held_against_the_others():
    """Whatever the network that trained on it says; a new one beside it against all."""
    images, ordinary = images_of(5), [0.4, 0.1, 0.2, 0.25, 0.3]
    calibration = made(ordinary)
    new = images_of(1, seed=1)
    asked = np.concatenate([images[[0, 2]], new])
    errors, p_values, is_known = calibration.judged(
        np.array([0.0, 0.0, 0.2]), image_fingerprints(asked)
    )
    assert is_known.tolist() == [True, True, False]
    assert errors.tolist() == [0.4, 0.2, 0.2]
    assert p_values.tolist() == pytest.approx([1 / 5, 4 / 5, 5 / 6])


def test_a_fingerprint_is_that_of_the_pixels():
    """As 8 bits, whether they come as bytes or as intensities."""
    images = images_of(50)
    found = image_fingerprints(images)
    assert len(set(found.tolist())) == 50
    as_floats = np.float32(images) / np.float32(255)
    assert image_fingerprints(as_floats).tolist() == found.tolist()


def test_out_of_fold_errors_come_to_the_scale_of_the_delivered_network():
    """By the squares of errors on images that neither saw; where there are none, not at all."""
    of_folds, delivered = np.array([0.0, 6, 8]), np.array([3.0, 4, 0])
    np.testing.assert_allclose(scaled_to(np.array([1.0, 3]), delivered, of_folds), [0.5, 1.5])
    unchanged = scaled_to(np.array([1.0, 3]), np.zeros(2), np.zeros(2))
    np.testing.assert_array_equal(unchanged, [1, 3])


def test_the_oddest_are_named_and_no_more_is_kept_than_it_takes():
    """Of many errors a part, drawn with the seed; the oddest are those of all."""
    errors = np.arange(MOST_ERRORS + 500) + 1.0
    calibration = made(errors)
    assert len(calibration.errors) == MOST_ERRORS
    assert calibration.oddest == tuple(range(MOST_ERRORS + 499, MOST_ERRORS + 489, -1))
    assert calibration.errors.tolist() == made(errors).errors.tolist()
    assert calibration.errors.tolist() != made(errors, seed=1).errors.tolist()


def test_it_is_read_as_it_was_written(tmp_path):
    """To the last digit, beside the model that it is of and beside no other."""
    calibration = made(np.random.default_rng(0).lognormal(size=30))
    (tmp_path / "calibration.json").write_text(json.dumps(calibration.document()))
    found = read_calibration(tmp_path / "model.safetensors", "abc")
    assert found.document() == calibration.document()
    assert read_calibration(tmp_path / "model.safetensors", "another") is None
    (tmp_path / "calibration.json").unlink()
    assert read_calibration(tmp_path / "model.safetensors", "abc") is None


@pytest.mark.parametrize(
    "change",
    [
        {"errors": []},
        {"errors": [2.0, 1.0, 3.0]},
        {"errors": [1.0, 2.0, float("nan")]},
        {"errors": ["a", "b", "c"]},
        {"errors": [1.0, 2.0]},
        {"images": [1, 2, -3]},
        {"images": None},
        {"oddest": 3},
    ],
)
def test_what_is_no_calibration_is_refused_by_name(change, tmp_path):
    """Damaged by hand or cut off; a model is never scored against nonsense."""
    document = made([1.0, 2.0, 3.0]).document()
    (tmp_path / "calibration.json").write_text(json.dumps(document | change))
    with pytest.raises(CalibrationError, match=r"calibration\.json must hold errors of ordinary"):
        read_calibration(tmp_path / "model.safetensors", "abc")
    with pytest.raises(CalibrationError, match="must hold"):
        from_document([1, 2])
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(CalibrationError, match="must hold"):
        read_calibration(tmp_path / "model.safetensors", "abc")


def test_shares_are_those_at_or_below_a_level():
    """What the report says of the test images."""
    found = shares_below(np.array([0.01, 0.02, 0.05, 0.9]))
    assert found == [ShareBelow(0.01, 0.25), ShareBelow(0.05, 0.75)]
