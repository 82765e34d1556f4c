"""Report 001's rule: only the end of training can make a trial unstable."""

import numpy as np
import pytest

from aesearch.studies.results.stability import (
    end_above_limit,
    end_window,
    relative_climb,
    unstable_reason,
)

FALLING = np.linspace(0.05, 0.01, 20)


def judged(*curves: np.ndarray, limit: float = 0.1, oscillation: float = 0.5) -> str | None:
    return unstable_reason(np.stack(curves), limit=limit, oscillation=oscillation)


@pytest.mark.parametrize(
    ("n_epochs", "window"), [(1, 1), (2, 2), (3, 3), (8, 3), (12, 3), (13, 4), (20, 5), (147, 37)]
)
def test_end_window_is_the_last_quarter_and_at_least_three_epochs(n_epochs, window):
    assert end_window(n_epochs) == window


def test_falling_curve_does_not_climb():
    assert relative_climb(FALLING) == 0.0


def test_climb_is_the_rise_above_an_earlier_low_over_the_median():
    assert relative_climb([4.0, 2.0, 3.0, 5.0, 1.0]) == pytest.approx((5.0 - 2.0) / 3.0)


def test_climb_from_a_perfect_loss_is_infinite_not_a_division_by_zero():
    assert relative_climb([0.0, 0.0, 1.0]) == np.inf


def test_loss_that_trembles_below_the_rounding_of_a_pixel_is_stable():
    """Images that PCA holds whole start without an error; what training adds is no instability."""
    trembling = np.tile([1e-9, 8e-7], 10)
    assert judged(trembling) is None
    assert judged(trembling * 10) is not None


def test_stable_folds_have_no_reason():
    assert judged(FALLING, FALLING * 1.1) is None


def test_winner_that_starts_at_the_black_image_and_leaves_is_stable():
    """A high learning rate sits at 0.11 for some epochs: facts about good configurations."""
    assert judged(np.concatenate([np.full(4, 0.112), np.linspace(0.04, 0.012, 16)])) is None


def test_final_loss_above_the_limit_names_fold_epoch_and_figures():
    reason = judged(FALLING, np.full(20, 0.1123))
    assert reason == "the loss of fold 1 ends at 0.1123 (epoch 20), above the limit 0.1"


@pytest.mark.parametrize(
    ("end", "limit"), [(0.1123, 0.1), (0.19, 0.1), (70.0, 1.0), (1.234e9, 0.05), (4.9e-6, 1e-6)]
)
def test_figures_of_a_high_final_loss_are_read_back(end, limit):
    """The store keeps the words only; where both are made, both are known."""
    reason = judged(np.full(20, limit / 2), np.full(20, end), limit=limit)
    assert end_above_limit(reason) == (end, limit)


@pytest.mark.parametrize("curve", [[0.02, 0.01, 0.05, 0.01], [np.nan, 0.2, 0.2, 0.2]])
def test_other_reasons_have_no_such_figures(curve):
    """An oscillation and a loss that is not finite say nothing of the limit."""
    reason = judged(np.array(curve))
    assert reason is not None
    assert end_above_limit(reason) is None


def test_loss_above_the_limit_before_the_last_epoch_is_not_a_high_final_loss():
    curve = np.linspace(0.2, 0.09, 20)
    assert judged(curve) is None


def test_jump_to_twice_the_loss_and_back_is_an_oscillation():
    """Learning rate 1e-2, convolutional: median 0.0074, minimum 0.0068, maximum 0.0150."""
    curve = np.full(147, 0.0074)
    curve[120], curve[130], curve[131] = 0.0068, 0.0150, 0.0100
    reason = judged(FALLING[:1].repeat(147), curve)
    assert reason == (
        "the loss of fold 1 oscillates: from 0.0068 (epoch 121) up to 0.015 (epoch 131), "
        "1.11 of the median 0.0074, above 0.5"
    )


def test_oscillation_before_the_end_does_not_count():
    curve = np.linspace(0.05, 0.01, 40)
    curve[10:20:2] *= 3.0
    assert judged(curve) is None


@pytest.mark.parametrize("n_epochs", [4, 20, 150, 2000])
def test_noise_of_five_percent_is_stable_however_long_the_training(n_epochs):
    noise = np.random.default_rng(n_epochs).uniform(0.95, 1.05, size=(3, n_epochs))
    assert unstable_reason(0.0074 * noise, limit=0.1, oscillation=0.5) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_loss_that_is_not_finite_is_unstable_at_any_epoch(bad):
    curve = FALLING.copy()
    curve[2] = bad
    assert judged(FALLING, curve) == f"the loss of fold 1 is {bad} at epoch 3"


def test_one_epoch_is_judged_by_its_loss_alone():
    assert judged(np.array([0.05])) is None


@pytest.mark.parametrize("shape", [(3,), (0, 5), (3, 0)])
def test_curves_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"curves must be a non-empty \(fold, epoch\) array"):
        unstable_reason(np.zeros(shape), limit=0.1, oscillation=0.5)
