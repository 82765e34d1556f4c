"""Successive halving over a whole generation."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesearch.sampling.halving import halving_losers, halving_rungs

LOSSES = st.lists(st.floats(0, 1, allow_nan=False), max_size=12)


@given(own=LOSSES.filter(bool), older=LOSSES, factor=st.integers(2, 4))
def test_who_stays_has_few_enough_better_ones(own, older, factor):
    """A trial stays when fewer of all are strictly better than the best share holds."""
    losers = halving_losers(dict(enumerate(own)), older, reduction_factor=factor)
    everyone = own + older
    places = max(1, len(everyone) // factor)
    expected = [
        number for number, loss in enumerate(own) if sum(o < loss for o in everyone) >= places
    ]
    assert losers == expected


def test_the_order_within_a_generation_does_not_matter():
    """The first of a generation meets the same competition as the last."""
    losses = {4: 0.3, 5: 0.1, 6: 0.2, 7: 0.4, 8: 0.5, 9: 0.6}
    backwards = dict(reversed(losses.items()))
    forwards = halving_losers(losses, [], reduction_factor=3)
    assert forwards == [4, 7, 8, 9]
    assert set(halving_losers(backwards, [], reduction_factor=3)) == set(forwards)


def test_older_trials_raise_the_bar():
    """Alone a trial would stay; three better ones before it send it away."""
    assert halving_losers({7: 0.3}, [], reduction_factor=3) == []
    assert halving_losers({7: 0.3}, [0.1, 0.2, 0.25], reduction_factor=3) == [7]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_never_stays(loss):
    """Nor does it take a place among the others."""
    assert halving_losers({1: loss, 2: 0.5}, [loss], reduction_factor=2) == [1]


@pytest.mark.parametrize(
    ("warmup", "epochs", "factor", "rungs"),
    [
        (1, 20, 3, [1, 3, 9]),
        (2, 20, 3, [2, 6]),
        (1, 20, 2, [1, 2, 4, 8]),
        (10, 20, 2, [10]),
        (15, 20, 3, [15]),
        (1, 2, 3, [1]),
        (1, 1, 3, []),
    ],
)
def test_rungs_stop_at_half_of_the_epochs(warmup, epochs, factor, rungs):
    """A warm-up that was asked for is kept wherever it lies before the end."""
    assert halving_rungs(warmup, epochs, factor) == rungs
