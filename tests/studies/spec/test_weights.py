"""A network's weights are counted without building it, and what is too large is never searched."""

import pytest

from aesearch.models.autoencoder import build_autoencoder
from aesearch.studies.errors import SpecError
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.resolved import as_stored, resolve
from aesearch.studies.spec.weights import fits, fitted, grid_within, n_parameters

DIGITS, MNIST = (1, 8, 8), (1, 28, 28)
ONE_CODE = "space={defaults: false, encoding_dim: {choices: [6]}}"
CONV, CHANNELS = "model.architecture=conv", "model.conv.channels=[3, 5, 7]"


def resolved(*overrides, shape=DIGITS):
    """Give a resolved specification."""
    return resolve(load_spec(overrides=overrides), image_shape=shape, n_train=1000, device="cpu")


def sizes_of(spec):
    """Give the sizes of the code that are searched."""
    return list(spec.space.encoding_dim.choices)


@pytest.mark.parametrize(
    ("shape", "overrides"),
    [
        (DIGITS, ["model.dense.hidden=[24, 12]"]),
        (DIGITS, ["model.dense.hidden=[]", "model.shortcut=none"]),
        ((3, 9, 7), ["model.dense.hidden=[24]", "model.code_activation=relu"]),
        ((3, 9, 7), [CONV, CHANNELS]),
        (DIGITS, [CONV, CHANNELS, "model.shortcut=none", "model.conv.hidden=11"]),
        (MNIST, [CONV, "model.code_activation=relu"]),
    ],
)
def test_weights_are_those_of_the_network(shape, overrides):
    """Dense and convolutional, with a shortcut and without, of odd sides and in colours."""
    spec = resolved(ONE_CODE, *overrides, shape=shape)
    own = spec.configuration({"encoding_dim": 6})
    model = build_autoencoder(
        architecture=own.architecture,
        image_shape=shape,
        encoding_dim=own.encoding_dim,
        hidden=own.hidden,
        channels=own.channels,
        conv_hidden=own.conv_hidden,
        code_activation=own.code_activation,
        shortcut=own.shortcut,
        output=own.output,
    )
    assert n_parameters(own, shape) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("limit", "kept"), [(200_000, 4), (50_000, 2), (25_000, 1)])
def test_automatic_widths_are_the_widest_that_fit(limit, kept):
    """Around the largest code behind no narrower layer; larger codes are left out."""
    spec = resolved(f"search.max_parameters={limit}", shape=MNIST)
    first, second = spec.model.dense.hidden
    sizes = sizes_of(spec)
    assert sizes == [4, 8, 16, 32][:kept]
    assert second >= sizes[-1]
    params = {"encoding_dim": sizes[-1]}
    assert fits(spec, params, MNIST)
    wider = spec.model.dense.model_copy(update={"hidden": (first + 1, (first + 1) // 2)})
    wider = spec.model_copy(update={"model": spec.model.model_copy(update={"dense": wider})})
    assert not fits(wider, params, MNIST)


def test_what_fits_nowhere_is_left_out_of_the_space():
    """Sizes, widths and architectures; the others stay, in their order."""
    spec = resolved(
        "space.encoding_dim.choices=[32, 4, 64]",
        "space.hidden.choices=[512, 16, 24]",
        "space.architecture.choices=[dense, conv]",
        "search.max_parameters=9000",
    )
    assert sizes_of(spec) == [32, 4]
    assert spec.space.hidden.choices == ("16", "24")
    assert spec.space.architecture is None
    assert resolve(spec, image_shape=DIGITS, n_train=1000, device="cpu") == spec


@pytest.mark.parametrize(("step", "high"), [("", 20), (", step: 3", 19)])
def test_a_range_of_sizes_ends_where_nothing_fits(step, high):
    """The largest size has as many weights as are allowed at most, on the steps of the range."""
    wide = f"space.encoding_dim={{low: 4, high: 64{step}}}"
    hidden = "model.dense.hidden=[24]"
    exact = resolved(ONE_CODE, hidden).configuration({"encoding_dim": 20})
    limit = n_parameters(exact, DIGITS)
    spec = resolved(wide, hidden, f"search.max_parameters={limit}")
    assert (spec.space.encoding_dim.low, spec.space.encoding_dim.high) == (4, high)
    assert not fits(spec, {"encoding_dim": 21}, DIGITS)


@pytest.mark.parametrize(
    ("overrides", "least"),
    [
        (["model.dense.hidden=[512]"], r"71300, .* \(dense, hidden 512, encoding_dim 4\), got 900"),
        ([], r"1788, .* \(dense, hidden 8-4, encoding_dim 4\), got 900"),
        ([CONV], r"64837, .* \(conv, channels 16-32-64, encoding_dim 4\), got 900"),
    ],
)
def test_a_limit_below_every_network_is_refused(overrides, least):
    """The error names the least that would do, and of which network."""
    with pytest.raises(SpecError, match="max_parameters: must be >= " + least):
        resolved(*overrides, "search.max_parameters=900")
    enough = least.partition(",")[0]
    assert resolved(*overrides, f"search.max_parameters={enough}").search.max_parameters


def test_the_nearest_that_fits_changes_least_and_keeps_the_code():
    """Of two widths that fit, the wider; what has to stay stays, or nothing is found."""
    spec = resolved(
        "space.encoding_dim.choices=[4, 32]",
        "space.hidden.choices=[16, 24, 96]",
        "search.max_parameters=14000",
    )
    small = spec.default_configuration_params() | {"encoding_dim": 4, "hidden": "96"}
    assert fitted(spec, small, DIGITS) is small
    large = small | {"encoding_dim": 32}
    assert fitted(spec, large, DIGITS) == large | {"hidden": "24"}
    assert fitted(spec, large, DIGITS, keep=["hidden"]) is None


def test_another_architecture_has_its_own_dimensions():
    """Where no width of a dense network fits, a convolutional one is whole."""
    spec = resolved(
        "space.architecture.choices=[dense, conv]",
        "space.encoding_dim.choices=[4, 64]",
        "space.hidden.choices=[256]",
        "space.channels.choices=[4-4-4, 8-8-8]",
        "model.conv.hidden=16",
        "search.max_parameters=38000",
    )
    large = spec.default_configuration_params() | {"architecture": "dense", "encoding_dim": 64}
    found = fitted(spec, large, DIGITS)
    assert found["architecture"] == "conv"
    assert found["channels"] == "8-8-8"
    assert "hidden" not in found
    assert found["learning_rate"] == large["learning_rate"]


def test_a_grid_has_the_cells_that_fit_as_trials():
    """What is too large is no cell, and is counted as none."""
    sizes = "encoding_dim: {choices: [4, 32]}, hidden: {choices: [16, 96]}"
    space = f"space={{defaults: false, {sizes}, dropout: {{choices: [0.0, 0.1]}}}}"
    grid = ("search.sampler=grid", space)
    spec = resolved(*grid, "search.max_parameters=14000")
    cells = grid_within(spec, DIGITS)
    found = {(cell["encoding_dim"], cell["hidden"]) for cell in cells}
    assert found == {(4, "16"), (4, "96"), (32, "16")}
    assert spec.n_trials == len(cells) == 6
    assert resolved(*grid).n_trials == 8


def test_a_study_with_a_limit_goes_on_on_another_device():
    """What was left to auto is as it was begun, less what is too large there too."""
    sizes = "space.encoding_dim.choices=[4, 8, 512]"
    asked = load_spec(overrides=[sizes, "search.max_parameters=320000"])
    where = {"image_shape": MNIST, "n_train": 30_000}
    stored = resolve(asked, **where, device="cuda")
    assert stored.space.architecture.choices == ("dense", "conv")
    assert sizes_of(stored) == [4, 8]
    here = resolve(asked, **where, device="cpu")
    assert here.space.architecture is None
    assert as_stored(asked, here, stored, image_shape=MNIST).space == stored.space
