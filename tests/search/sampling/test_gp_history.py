"""What a Gaussian process is shown: a value for every trial, from what is known of it."""

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from aesearch.sampling.gp_history import with_values
from aesearch.sampling.suggest import distributions, suggest
from aesearch.studies.results.stability import STABILITY
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.resolved import resolve


def trial(state, curve, value=None, *, unstable=False):
    """A trial with its losses from epoch 1 on."""
    constraint = 1.0 if unstable else -1.0 if state == TrialState.COMPLETE else None
    return create_trial(
        state=state,
        value=value,
        params={"x": len(curve) / 10},
        distributions={"x": FloatDistribution(0, 1)},
        intermediate_values=dict(enumerate(curve, start=1)),
        system_attrs={} if constraint is None else {STABILITY: constraint},
    )


COMPLETE = [
    trial(TrialState.COMPLETE, [0.8, 0.4, 0.2], 0.2),  # falls to a quarter from epoch 1
    trial(TrialState.COMPLETE, [0.6, 0.5, 0.3], 0.3),  # to a half
    trial(TrialState.COMPLETE, [0.9, 0.7, 0.1], 0.09),  # to a tenth
]


@pytest.mark.parametrize(
    ("curve", "value"),
    [
        ([0.8], 0.2),  # a quarter is the median
        ([9.0, 0.7], 0.7 * 0.5),  # from epoch 2: 1/2, 3/5 and 9/70
        ([0.1], 0.09),  # no better than the best
    ],
)
def test_a_pruned_trial_falls_like_the_others(curve, value):
    """By the median of what complete trials do from its last epoch to their end."""
    *others, found = with_values([*COMPLETE, trial(TrialState.PRUNED, curve, curve[-1])])
    assert others == COMPLETE
    assert found.state == TrialState.COMPLETE
    assert found.value == pytest.approx(value)
    assert found.params == {"x": len(curve) / 10}
    assert found.system_attrs == {STABILITY: -1.0}


def test_a_failed_trial_is_as_bad_as_the_worst():
    """Of the complete ones and of what is expected of the pruned ones."""
    failed = trial(TrialState.FAIL, [])
    found = with_values([*COMPLETE, failed])[-1]
    assert (found.value, found.system_attrs) == (0.3, {STABILITY: 1.0})
    pruned = trial(TrialState.PRUNED, [4.0], 4.0)
    assert with_values([failed, *COMPLETE, pruned])[0].value == pytest.approx(1.0)


def test_a_trial_whose_worker_died_is_judged_by_its_curve():
    """It did not diverge: nothing says that its parameters are bad."""
    found = with_values([*COMPLETE, trial(TrialState.FAIL, [0.8])])[-1]
    assert found.value == pytest.approx(0.2)
    assert found.system_attrs == {STABILITY: -1.0}
    diverged = with_values([*COMPLETE, trial(TrialState.FAIL, [0.8], unstable=True)])[-1]
    assert (diverged.value, diverged.system_attrs) == (0.3, {STABILITY: 1.0})


def test_where_nothing_is_complete_nothing_is_expected():
    """No trial shows how losses fall."""
    trials = [trial(TrialState.PRUNED, [0.5], 0.5), trial(TrialState.FAIL, [])]
    assert with_values(trials) == trials


def test_what_was_pruned_is_not_tried_again():
    """A small learning rate was pruned eight times: the next suggestions leave it alone."""
    spec = resolve(
        load_spec(
            overrides=(
                "search.sampler=gp",
                "training.epochs=20",
                "space.architecture.choices=[dense,conv]",
                "space.learning_rate={low: 1e-4, high: 1e-2, log: true}",
            )
        ),
        image_shape=(1, 8, 8),
        n_train=1000,
        device="cpu",
    )
    kinds = distributions(spec)
    finished = []
    for number in range(16):
        params = suggest(spec, 1000 + number, range(1, 2), [], [])[0]
        pruned = number % 2 == 1
        params["learning_rate"] = 1e-4 if pruned else 2e-3 * (1 + number / 16)
        loss = 0.1 if pruned else 0.02 - 0.0001 * number
        finished.append(
            create_trial(
                state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                value=loss,
                params=params,
                distributions=kinds,
                intermediate_values={1: loss} if pruned else {1: 2 * loss, 20: loss},
                system_attrs={} if pruned else {STABILITY: -1.0},
            )
        )
    suggested = suggest(spec, 20, range(16, 24), finished, [])
    assert min(params["learning_rate"] for params in suggested) > 5e-4
