"""Scores, choice and near-ties, against hand computation and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aesearch.studies.errors import RunFailedError
from aesearch.studies.results.records import TrialRecord
from aesearch.studies.results.selection import (
    choose,
    corrected_resampled_t_test,
    eligible_trials,
    fold_scores,
    indistinguishable,
    mean_and_standard_error,
    pooled_spread,
    with_pooled_errors,
)
from aesearch.studies.results.stability import unstable_reason


def complete(number: int, value: float, *, se: float = 0.001, **changes) -> TrialRecord:
    changes.setdefault("params", {"encoding_dim": 16})
    return TrialRecord(number, "complete", value=value, standard_error=se, **changes)


def by_code(default: int = 16):
    """Give the size of a trial's code, which those without a parameter have in common."""
    return lambda trial: (trial.params.get("encoding_dim", default),)


def test_fold_scores_average_the_last_epochs():
    curves = [[9.0, 3.0, 1.0], [9.0, 4.0, 6.0]]
    assert fold_scores(curves, 2).tolist() == [2.0, 5.0]


def test_fold_scores_of_a_short_training_average_all_of_it():
    assert fold_scores([[3.0, 1.0]], 5).tolist() == [2.0]


def test_fold_scores_need_an_epoch():
    with pytest.raises(ValueError, match="score_epochs must be >= 1, got 0"):
        fold_scores([[3.0, 1.0]], 0)


def test_standard_error_is_that_of_scipy():
    scores = [0.011, 0.014, 0.012]
    mean, standard_error = mean_and_standard_error(scores)
    assert mean == pytest.approx(np.mean(scores))
    assert standard_error == pytest.approx(stats.sem(scores))


def test_standard_error_of_one_fold_is_refused():
    with pytest.raises(ValueError, match="at least 2 folds"):
        mean_and_standard_error([0.1])


@pytest.mark.parametrize("rule", ["best", "one-se"])
def test_ties_go_to_the_lowest_number_in_any_order(rule):
    trials = [complete(5, 0.02), complete(3, 0.01), complete(2, 0.01), complete(4, 0.01)]
    assert choose(trials, rule, by_code()).number == 2


@pytest.mark.parametrize(
    "trial",
    [
        complete(0, 0.001, unstable="it oscillates"),
        complete(0, -math.inf),
        complete(0, math.nan),
        TrialRecord(0, "complete"),
        TrialRecord(0, "pruned", value=0.001),
        TrialRecord(0, "failed", value=0.001),
        TrialRecord(0, "running", value=0.001),
    ],
    ids=["unstable", "-inf", "nan", "no value", "pruned", "failed", "running"],
)
def test_trials_that_may_not_win_are_passed_over(trial):
    assert choose([trial, complete(1, 0.5)], "best", by_code()).number == 1


def test_best_ignores_the_encoding_dimension():
    trials = [
        complete(0, 0.0100, params={"encoding_dim": 32}),
        complete(1, 0.0105, params={"encoding_dim": 8}),
    ]
    assert choose(trials, "best", by_code()).number == 0


def test_one_se_takes_the_smallest_dimension_within_one_standard_error():
    trials = [
        complete(0, 0.0100, se=0.001, params={"encoding_dim": 32}),
        complete(1, 0.0109, params={"encoding_dim": 8}),
        complete(2, 0.0108, params={"encoding_dim": 8}),
        complete(3, 0.0120, params={"encoding_dim": 2}),
    ]
    assert choose(trials, "one-se", by_code()).number == 2


def test_one_se_includes_its_bound():
    trials = [
        complete(0, 0.25, se=0.25, params={"encoding_dim": 32}),
        complete(1, 0.5, params={"encoding_dim": 8}),
    ]
    assert choose(trials, "one-se", by_code()).number == 1


@pytest.mark.parametrize(("default", "chosen"), [(4, 1), (64, 0)])
def test_trial_without_an_encoding_dimension_has_the_default_one(default, chosen):
    trials = [complete(0, 0.0100), complete(1, 0.0101, params={})]
    assert choose(trials, "one-se", by_code(default)).number == chosen


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rule must be 'best', 'one-se' or 'knee', got 'worst'"):
        choose([complete(0, 0.1)], "worst", by_code())


def test_nothing_to_choose_says_how_trials_ended_and_the_three_main_reasons():
    trials = [
        TrialRecord(0, "failed", reason="out of memory"),
        TrialRecord(1, "failed", reason="loss nan at epoch 3"),
        TrialRecord(2, "failed", reason="loss nan at epoch 14"),
        TrialRecord(3, "pruned", reason="pruned at rung 5"),
        complete(4, 0.2, unstable="ends at 0.2"),
        TrialRecord(5, "waiting"),
    ]
    with pytest.raises(RunFailedError) as caught:
        choose(trials, "best", by_code())
    message = str(caught.value)
    assert message.startswith(
        "no completed trial to choose among 6 "
        "(3 failed, 1 pruned, 1 complete but unstable, 1 waiting); "
    )
    assert message.splitlines()[1:] == [
        "  - 2 like trial 1: loss nan at epoch 3",
        "  - 1 like trial 0: out of memory",
        "  - 1 like trial 3: pruned at rung 5",
    ]
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("state", "remedy"), [("waiting", "more time"), ("running", "more time"), ("failed", "lower")]
)
def test_nothing_to_choose_names_the_remedy_that_fits(state, remedy):
    """A search that was cut short needs time; one that failed needs another space."""
    with pytest.raises(RunFailedError, match=remedy):
        choose([TrialRecord(0, state)], "best", by_code())


def high(number: int, *ends: float, limit: float = 0.1) -> TrialRecord:
    """Make a trial whose folds end at these losses, above the limit."""
    reason = unstable_reason([[end] for end in ends], limit=limit, oscillation=0.5)
    return complete(number, max(ends), unstable=reason)


@pytest.mark.parametrize(
    ("smallest", "limit", "said", "raised"),
    [
        (0.19, 0.1, "was 0.19, above search.unstable_loss 0.1:", "0.25"),
        (0.1123, 0.1, "was 0.1123, above search.unstable_loss 0.1:", "0.15"),
        (0.12, 0.1, "was 0.12, above search.unstable_loss 0.1:", "0.15"),
        (0.95, 0.1, "was 0.95, above search.unstable_loss 0.1:", "1.5"),
        (4.9e-6, 1e-6, "was 4.9e-06, above search.unstable_loss 1e-06:", "6e-06"),
        (70.0, 0.1, "was 70, above search.unstable_loss 0.1:", "80"),
        (2e5, 0.1, "was 200000, above search.unstable_loss 0.1:", "250000"),
    ],
)
def test_trials_above_the_limit_name_it_and_one_that_lets_the_best_of_them_in(
    smallest, limit, said, raised
):
    """The worst fold of a trial decides; lower learning rates would make it worse."""
    trials = [
        high(0, 3 * smallest, limit=limit),
        high(1, smallest / 2, smallest, limit=limit),
        TrialRecord(2, "pruned", value=0.3, reason="pruned at epoch 5"),
        high(3, 2 * smallest, limit=limit),
    ]
    with pytest.raises(RunFailedError) as caught:
        choose(trials, "best", by_code())
    first = str(caught.value).splitlines()[0]
    assert said in first
    assert "train for more epochs, or begin a new study" in first
    assert first.endswith(f" with --set search.unstable_loss={raised}")
    assert smallest < float(raised) < 2 * smallest
    assert "learning rate" not in first


@pytest.mark.parametrize(
    "others",
    [
        [TrialRecord(n, "failed", reason="loss nan at epoch 3") for n in (1, 2)],
        [complete(n, 0.02, unstable="the loss of fold 0 oscillates: from 1 up") for n in (1, 2)],
    ],
    ids=["failed", "oscillation"],
)
def test_other_reasons_that_prevail_keep_their_remedy(others):
    """One trial above the limit beside two that swing or fail: the rates are too high."""
    with pytest.raises(RunFailedError, match="; lower the learning rates") as caught:
        choose([high(0, 0.19), *others], "best", by_code())
    assert "unstable_loss" not in str(caught.value)


def test_a_search_that_was_cut_short_needs_time_whatever_its_trials_lack():
    """Trials above the limit are no reason to raise it before the others have been tried."""
    with pytest.raises(RunFailedError, match="more time"):
        choose([high(0, 0.19), TrialRecord(1, "waiting")], "best", by_code())


def test_eligible_trials_are_sorted_by_value_then_number():
    trials = [complete(3, 0.01), complete(0, 0.02), complete(1, 0.01)]
    assert [trial.number for trial in eligible_trials(trials)] == [1, 3, 0]


def test_corrected_t_test_by_hand():
    """Differences 1, 2, 3: mean 2, s2 1; with 1/3 + 1/2 the statistic is 2 / sqrt(5/6).

    With two degrees of freedom, p = 1 - t / sqrt(2 + t^2).
    """
    t, p = corrected_resampled_t_test([1.0, 2.0, 3.0], n_train=200, n_test=100)
    assert t == pytest.approx(2.0 / math.sqrt(5.0 / 6.0))
    assert p == pytest.approx(1.0 - t / math.sqrt(2.0 + t * t))


@given(
    st.integers(min_value=2, max_value=12).flatmap(
        lambda k: st.tuples(*[st.lists(st.floats(0.01, 1.0), min_size=k, max_size=k)] * 2)
    )
)
def test_without_the_correction_it_is_the_paired_t_test(scores):
    a, b = (
        np.asarray(values) + np.arange(len(values)) * sign
        for sign, values in zip((0.5, -0.5), scores, strict=True)
    )
    t, p = corrected_resampled_t_test(a - b, n_train=100, n_test=0)
    expected = stats.ttest_1samp(a - b, 0.0)
    assert (t, p) == pytest.approx((expected.statistic, expected.pvalue))


def test_without_the_correction_it_is_ttest_rel():
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, 10))
    expected = stats.ttest_rel(a, b)
    assert corrected_resampled_t_test(a - b, n_train=9, n_test=0) == pytest.approx(
        (expected.statistic, expected.pvalue)
    )


def test_correction_scales_the_statistic_of_ttest_rel():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(2, 5))
    t, _ = corrected_resampled_t_test(a - b, n_train=400, n_test=100)
    factor = math.sqrt((1 / 5) / (1 / 5 + 100 / 400))
    assert t == pytest.approx(stats.ttest_rel(a, b).statistic * factor)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.0, 0.0, 0.0], (0.0, 1.0)),
        ([0.1, 0.1, 0.1], (math.inf, 0.0)),
        ([-0.1, -0.1, -0.1], (-math.inf, 0.0)),
    ],
)
def test_equal_differences_are_decided_without_a_division_by_zero(differences, expected):
    assert corrected_resampled_t_test(differences, n_train=2, n_test=1) == expected


@pytest.mark.parametrize(
    ("differences", "n_train", "n_test", "message"),
    [
        ([0.1], 2, 1, "at least 2 folds"),
        ([0.1, 0.2], 0, 1, "n_train must be > 0, got 0"),
        ([0.1, 0.2], 2, -1, "n_test must be >= 0, got -1"),
    ],
)
def test_t_test_refuses_what_it_cannot_test(differences, n_train, n_test, message):
    with pytest.raises(ValueError, match=message):
        corrected_resampled_t_test(differences, n_train=n_train, n_test=n_test)


def test_indistinguishable_lists_near_ties_by_value_without_the_winner():
    winner = complete(4, 0.020, fold_scores=(0.010, 0.020, 0.030))
    trials = [
        complete(0, 0.022, fold_scores=(0.015, 0.018, 0.033)),
        complete(1, 0.050, fold_scores=(0.040, 0.0501, 0.060)),
        complete(2, 0.021, fold_scores=(0.013, 0.018, 0.032)),
        complete(3, 0.020, fold_scores=(0.010, 0.020, 0.030), unstable="it oscillates"),
        TrialRecord(5, "pruned", value=0.02),
        winner,
    ]
    ties = indistinguishable(trials, winner, n_train=200, n_validation=100)
    assert [trial.number for trial, _ in ties] == [2, 0]
    spread = pooled_spread(trials)
    variance = spread.variance * (0.021**2 + 0.020**2) * (1 / 3 + 100 / 200)
    p = 2 * stats.t.sf((0.021 - 0.020) / math.sqrt(variance), spread.degrees)
    assert ties[0][1] == pytest.approx(p)


def test_clear_loser_on_every_fold_is_a_near_tie_only_below_its_p():
    winner = complete(0, 0.020, fold_scores=(0.0198, 0.0200, 0.0202))
    loser = complete(1, 0.050, fold_scores=(0.0496, 0.0501, 0.0503))
    trials = [winner, loser]
    assert indistinguishable(trials, winner, n_train=2, n_validation=1, alpha=1e-9) == [
        (loser, pytest.approx(0.0, abs=1e-4))
    ]
    assert indistinguishable(trials, winner, n_train=2, n_validation=1) == []


def test_equal_residuals_leave_the_test_of_two():
    """Each trial finds every fold equally hard, so nothing is left to pool."""
    winner = complete(0, 0.020, fold_scores=(0.010, 0.020, 0.030))
    other = complete(1, 0.040, fold_scores=(0.020, 0.040, 0.060))
    assert pooled_spread([winner, other]) is None
    ties = indistinguishable([winner, other], winner, n_train=2, n_validation=1)
    difference = np.subtract(other.fold_scores, winner.fold_scores)
    _, p = corrected_resampled_t_test(difference, n_train=2, n_test=1)
    assert ties == ([(other, p)] if p >= 0.05 else [])


@given(st.lists(st.lists(st.floats(0.5, 2.0), min_size=3, max_size=3), min_size=2, max_size=6))
def test_the_pooled_variance_is_that_of_least_squares(rows):
    """With one dummy variable per trial and per fold, on scores relative to their trial."""
    scores = np.array(rows)
    trials = [
        complete(i, float(row.mean()), fold_scores=tuple(row)) for i, row in enumerate(scores)
    ]
    n, k = scores.shape
    relative = (scores / scores.mean(axis=1, keepdims=True)).ravel()
    dummies = np.hstack([np.kron(np.eye(n), np.ones((k, 1))), np.kron(np.ones((n, 1)), np.eye(k))])
    fitted = dummies @ np.linalg.lstsq(dummies, relative, rcond=None)[0]
    wanted = ((relative - fitted) ** 2).sum() / ((n - 1) * (k - 1))
    spread = pooled_spread(trials)
    if spread is None:
        assert wanted < 1e-20
        return
    assert spread.degrees == (n - 1) * (k - 1)
    assert spread.variance == pytest.approx(wanted, rel=1e-6, abs=1e-25)
    for trial in with_pooled_errors(trials):
        wanted_error = trial.value * math.sqrt(spread.variance / k)
        assert trial.standard_error == pytest.approx(wanted_error)


def test_the_test_is_wrong_as_often_as_it_says():
    """Equal trials on folds of unequal hardness: told apart in about one case of twenty."""
    rng = np.random.default_rng(0)
    told_apart, cases = 0, 2000
    for _ in range(cases):
        hardness = 1 + 0.1 * rng.standard_normal(3)
        rows = 0.01 * hardness * (1 + 0.02 * rng.standard_normal((5, 3)))
        trials = [complete(i, row.mean(), fold_scores=tuple(row)) for i, row in enumerate(rows)]
        # Folds without a training set in common: the correction is for those that share one.
        ties = indistinguishable(trials, trials[0], n_train=1, n_validation=0)
        told_apart += trials[1].number not in {trial.number for trial, _ in ties}
    assert 0.03 < told_apart / cases < 0.07


def test_what_has_no_pooled_error_keeps_its_own():
    """Trials that are pruned, and the only one that is complete."""
    pruned = TrialRecord(1, "pruned", value=0.02, fold_scores=(0.02,))
    alone = complete(0, 0.02, fold_scores=(0.01, 0.02, 0.03))
    assert with_pooled_errors([alone, pruned]) == (alone, pruned)
    other = complete(2, 0.02, fold_scores=(0.011, 0.019, 0.03))
    found = with_pooled_errors([alone, pruned, other])
    assert found[1] == pruned
    assert found[0].standard_error < 0.001  # without what the folds have in common
