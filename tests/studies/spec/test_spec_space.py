"""The space: merging with defaults, conditions, and the grid."""

import itertools

import pytest

from aesearch.studies.errors import SpecError
from aesearch.studies.spec.space import Choices, Range
from aesearch.studies.spec.study import StudySpec

DEFAULT_NAMES = ["architecture", "encoding_dim", "learning_rate", "weight_decay", "dropout"]


def space(fixed="dense", **dimensions):
    document = {"model": {"architecture": fixed}, "space": dimensions}
    return StudySpec.model_validate(document).space


def grid_space(**dimensions):
    return space(defaults=False, **dimensions)


def test_architecture_is_the_first_dimension():
    """The others may depend on it, so it is suggested before them."""
    found = space(code_activation={"choices": ["relu"]}, hidden={"choices": [[]]}).dimensions()
    assert list(found) == [*DEFAULT_NAMES, "hidden", "code_activation"]


def test_empty_space_is_the_default_space():
    assert space() == StudySpec().space
    assert list(space().dimensions()) == DEFAULT_NAMES


def test_null_removes_one_dimension_only():
    assert list(space(architecture=None).dimensions()) == DEFAULT_NAMES[1:]


def test_given_dimension_replaces_its_default_only():
    found = space(encoding_dim={"low": 2, "high": 64, "log": True}).dimensions()
    assert list(found) == DEFAULT_NAMES
    assert isinstance(found["encoding_dim"], Range)
    assert found["learning_rate"] == StudySpec().space.learning_rate


def test_without_defaults_only_what_is_written_is_searched():
    assert list(grid_space(dropout={"low": 0.0, "high": 0.3}).dimensions()) == ["dropout"]


def test_two_spellings_of_one_space_are_equal():
    """A study must not be refused because its space was written in another way."""
    nulls = dict.fromkeys(["architecture", "encoding_dim", "learning_rate", "weight_decay"])
    dropout = {"choices": [0.1, 0.2]}
    assert grid_space(dropout=dropout) == space(**nulls, dropout=dropout)


@pytest.mark.parametrize(
    ("name", "dimension", "integer"),
    [
        ("learning_rate", {"low": 1, "high": 2}, False),
        ("encoding_dim", {"low": 1, "high": 2}, True),
    ],
)
def test_type_of_a_range_follows_its_name(name, dimension, integer):
    found = space(**{name: dimension}).dimensions()[name]
    assert found.integer is integer
    assert isinstance(found.low, int) is integer


@pytest.mark.parametrize("when", ["conv", ["conv"]])
def test_conditional_dimension_applies_where_it_says(when):
    found = space(dropout={"choices": [0.0, 0.5], "when": {"architecture": when}})
    assert "dropout" in found.active("conv")
    assert "dropout" not in found.active("dense")


def test_hidden_applies_to_dense_only_without_saying_so():
    found = space(hidden={"choices": ["392"]})
    assert "hidden" in found.active("dense")
    assert "hidden" not in found.active("conv")


def test_dimension_of_an_architecture_that_never_comes_is_dropped():
    dropout = {"choices": [0.0, 0.5], "when": {"architecture": "conv"}}
    assert "dropout" not in space("dense", architecture=None, dropout=dropout).dimensions()


def test_condition_that_always_holds_is_dropped():
    dropout = {"choices": [0.0, 0.5], "when": {"architecture": "conv"}}
    found = space("conv", architecture=None, dropout=dropout).dimensions()["dropout"]
    assert isinstance(found, Choices)
    assert found.when is None


def test_grid_values_carry_no_rounding_error():
    """0.1 + 0.1 + 0.1 would be 0.30000000000000004."""
    found = grid_space(dropout={"low": 0.0, "high": 0.5, "step": 0.1})
    assert found.grid() == {"dropout": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]}


def test_grid_of_whole_numbers_is_whole():
    found = grid_space(encoding_dim={"low": 4, "high": 16, "step": 6})
    assert found.grid() == {"encoding_dim": [4, 10, 16]}
    assert {type(value) for value in found.grid()["encoding_dim"]} == {int}


def test_grid_is_the_product_in_order():
    found = grid_space(
        encoding_dim={"choices": [4, 8]}, dropout={"low": 0.0, "high": 0.2, "step": 0.1}
    )
    product = itertools.product([4, 8], [0.0, 0.1, 0.2])
    assert found.grid_configurations() == [{"encoding_dim": e, "dropout": d} for e, d in product]
    assert found.grid_size == 6


def test_grid_counts_conditional_dimensions_only_where_they_apply():
    found = grid_space(
        architecture={"choices": ["conv", "dense"]},
        hidden={"choices": ["none", "392", "256-128"]},
        dropout={"choices": [0.0, 0.5], "when": {"architecture": "conv"}},
    )
    assert found.grid_configurations() == [
        {"architecture": "conv", "dropout": 0.0},
        {"architecture": "conv", "dropout": 0.5},
        {"architecture": "dense", "hidden": "none"},
        {"architecture": "dense", "hidden": "392"},
        {"architecture": "dense", "hidden": "256-128"},
    ]
    assert found.grid_size == 5


def test_space_without_grid_names_every_range():
    with pytest.raises(SpecError) as caught:
        space(weight_decay=None).grid()
    assert caught.value.problems == [
        "space.learning_rate: must have choices or step for sampler grid, got a range",
        "space.dropout: must have choices or step for sampler grid, got a range",
    ]


def test_huge_grid_is_refused_without_being_listed():
    found = grid_space(weight_decay={"low": 0.0, "high": 1.0, "step": 5e-324})
    with pytest.raises(SpecError, match="must have at most 100000 configurations"):
        found.grid_configurations()
