"""What a study is made of: defaults, one trial's configuration, and what "auto" becomes."""

import dataclasses

import pytest
from pydantic import BaseModel

from aesearch.studies.errors import SpecError
from aesearch.studies.spec.automatic import Placement, placement
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.resolved import as_stored, resolve
from aesearch.studies.spec.sections import TrainingSpec
from aesearch.studies.spec.study import Configuration, StudySpec, hidden_name, hidden_widths


def study(**sections) -> StudySpec:
    return StudySpec.model_validate(sections)


def resolved(spec: StudySpec, shape=(1, 28, 28), n_train=60_000, device="cpu") -> StudySpec:
    return resolve(spec, image_shape=shape, n_train=n_train, device=device)


def automatic_paths(model: BaseModel, prefix: str = "") -> list[str]:
    found = []
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found += automatic_paths(value, f"{prefix}{name}.")
        elif value == "auto":
            found.append(prefix + name)
    return found


def test_default_first_trial_is_the_default_configuration():
    """Inside the default space, the first trial is model and training as they are."""
    assert StudySpec().default_configuration_params() == {
        "architecture": "dense",
        "encoding_dim": 16,
        "learning_rate": 3e-3,
        "weight_decay": 0.3,
        "dropout": 0.0,
    }


def test_a_specification_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        StudySpec().search.folds = 5


@pytest.mark.parametrize(
    ("sections", "name", "moved"),
    [
        ({"training": {"learning_rate": 1.0}}, "learning_rate", 8e-3),
        ({"training": {"weight_decay": 0.0}}, "weight_decay", 0.03),
        ({"model": {"encoding_dim": 100}}, "encoding_dim", 32),
        ({"model": {"encoding_dim": 5}}, "encoding_dim", 4),
        ({"space": {"dropout": {"low": 0.1, "high": 0.5, "step": 0.1}}}, "dropout", 0.1),
        (
            {
                "model": {"dropout": 0.34},
                "space": {"dropout": {"low": 0.1, "high": 0.5, "step": 0.1}},
            },
            "dropout",
            0.3,
        ),
        ({"space": {"encoding_dim": {"low": 20, "high": 40, "step": 5}}}, "encoding_dim", 20),
        ({"space": {"hidden": {"choices": ["256-128", 392]}}}, "hidden", "256-128"),
        (
            {
                "model": {"dense": {"hidden": [392]}},
                "space": {"hidden": {"choices": ["256-128", 392]}},
            },
            "hidden",
            "392",
        ),
        ({"space": {"code_activation": {"choices": ["relu"]}}}, "code_activation", "relu"),
        (
            {"model": {"architecture": "dense"}, "space": {"architecture": {"choices": ["conv"]}}},
            "architecture",
            "conv",
        ),
    ],
)
def test_default_moves_to_the_nearest_value_inside_the_space(sections, name, moved):
    value = study(**sections).default_configuration_params()[name]
    assert (value, type(value)) == (moved, type(moved))


def test_default_of_a_conv_study_has_no_dense_dimension():
    """What applies to dense only is not suggested for a conv network."""
    spec = study(model={"architecture": "conv"}, space={"hidden": {"choices": [392]}})
    assert "hidden" not in spec.default_configuration_params()


def test_configuration_takes_parameters_over_defaults():
    spec = resolved(study(model={"dropout": 0.25}))
    assert spec.configuration({"encoding_dim": 4, "hidden": "256-128"}) == Configuration(
        architecture="dense",
        hidden=(256, 128),
        encoding_dim=4,
        dropout=0.25,
        code_activation="linear",
        activation="gelu",
        shortcut="pca",
        output="clamp",
        initialization="torch",
        channels=(16, 32, 64),
        conv_hidden=128,
        learning_rate=3e-3,
        weight_decay=0.3,
        corruption_level=0.3,
        optimizer="adamw",
        schedule="none",
        batch_size=spec.training.batch_size,
    )


@pytest.mark.parametrize(
    ("asked", "dense", "conv"),
    [("by-architecture", "torch", "he"), ("torch", "torch", "torch"), ("he", "he", "he")],
)
def test_networks_start_by_their_architecture(asked, dense, conv):
    spec = resolved(study(model={"initialization": asked}))
    assert spec.configuration({"architecture": "dense"}).initialization == dense
    assert spec.configuration({"architecture": "conv"}).initialization == conv


@pytest.mark.parametrize(
    ("shape", "n_train", "device", "model", "searched"),
    [
        ((1, 8, 8), 1000, "cpu", "dense", None),
        ((1, 15, 200), 1000, "cuda", "dense", None),
        ((3, 16, 16), 1000, "cpu", "dense", ("dense", "conv")),
        ((1, 28, 28), 20_000, "cpu", "dense", ("dense", "conv")),
        ((1, 28, 28), 20_001, "cpu", "dense", None),
        ((1, 28, 28), 60_000, "cuda", "dense", ("dense", "conv")),
        ((1, 28, 28), 1000, "cpu", "conv", None),
    ],
)
def test_convolutions_are_searched_where_they_pay(shape, n_train, device, model, searched):
    """Unless something else is asked for; what they lack goes with them."""
    asked = study(
        model={"architecture": model},
        space={"hidden": {"choices": ["32"], "when": {"architecture": "dense"}}},
    )
    space = resolved(asked, shape=shape, n_train=n_train, device=device).space
    found = None if space.architecture is None else space.architecture.choices
    assert found == searched
    assert (space.hidden is None) == (model == "conv")
    if searched is None and space.hidden is not None:
        assert space.hidden.when is None
    both = study(space={"architecture": {"choices": ["conv", "dense"]}})
    assert resolved(both, shape=shape).space.architecture.choices == ("conv", "dense")
    assert resolved(study(space={"architecture": None}), shape=shape).space.architecture is None


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weight_decay_follows_the_optimizer(optimizer):
    """What suits AdamW would stop the others from learning, which add it to the gradient."""
    spec = study(training={"optimizer": optimizer})
    assert spec.training.weight_decay == 1e-5
    assert (spec.space.weight_decay.low, spec.space.weight_decay.high) == (1e-7, 1e-3)
    assert StudySpec(training=TrainingSpec(optimizer=optimizer)).training.weight_decay == 1e-5
    overrides = ["space.weight_decay.high=1e-4", f"training.optimizer={optimizer}"]
    assert load_spec(overrides=overrides).space.weight_decay.low == 1e-7
    told = study(
        training={"optimizer": optimizer, "weight_decay": 0.5},
        space={"defaults": False} | {"dropout": {"choices": [0]}},
    )
    assert told.training.weight_decay == 0.5
    assert told.space.weight_decay is None
    assert (
        study(space={"weight_decay": None}, training={"optimizer": "adam"}).space.weight_decay
        is None
    )


def test_configuration_of_conv_has_no_dense_widths():
    spec = StudySpec(training={"batch_size": 10})
    assert spec.configuration({"architecture": "conv"}).hidden == ()


def test_configuration_is_frozen():
    spec = StudySpec(training={"batch_size": 10})
    configuration = spec.configuration({"architecture": "conv"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        configuration.dropout = 0.5


def test_configuration_refuses_unknown_parameter():
    with pytest.raises(ValueError, match="got 'lr'"):
        StudySpec().configuration({"lr": 0.1})


def test_configuration_needs_resolved_widths():
    with pytest.raises(ValueError, match=r"model\.dense\.hidden must be widths, got 'auto'"):
        StudySpec().configuration({})


@pytest.mark.parametrize(
    ("value", "widths", "name"),
    [
        ("256-128", (256, 128), "256-128"),
        ([512, 256, 128, 64], (512, 256, 128, 64), "512-256-128-64"),
        ("392", (392,), "392"),
        (392, (392,), "392"),
        ("none", (), "none"),
        ([], (), "none"),
    ],
)
def test_hidden_widths_have_one_name(value, widths, name):
    assert hidden_widths(value) == widths
    assert hidden_name(widths) == name
    assert hidden_widths(name) == widths


@pytest.mark.parametrize(
    "value", ["", "0", "256-", "-5", "a-b", [0], [True], ["256"], 0, 1.5, None]
)
def test_hidden_widths_refuse_anything_else(value):
    with pytest.raises(ValueError, match="hidden must be widths >= 1"):
        hidden_widths(value)


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (2, 2), (20, 3)])
def test_a_short_training_scores_the_epochs_it_has(epochs, expected):
    """Auto never asks for more epochs than are trained."""
    assert resolved(study(training={"epochs": epochs})).search.score_epochs == expected


def test_resolve_leaves_no_auto():
    assert automatic_paths(StudySpec()) != []
    # How trials are scored, and how files are read: no number stands for it.
    reading = ["data.colour", "data.delimiter"]
    assert automatic_paths(resolved(StudySpec())) == [*reading, "training.epochs"]
    assert automatic_paths(resolved(study(training={"epochs": 2}))) == reading


def test_resolve_twice_changes_nothing():
    once = resolved(StudySpec())
    assert resolved(once, shape=(3, 32, 32), n_train=100, device="cuda") == once


def test_score_epochs_go_with_a_number_of_epochs_only():
    """Kept weights are scored once: a mean over epochs would be of no delivered network."""
    assert study(search={"score_epochs": 1}).search.score_epochs == 1
    assert study(training={"epochs": 20}, search={"score_epochs": 5}).search.score_epochs == 5


def test_resolve_keeps_what_is_given():
    spec = study(
        name="mine",
        model={"dense": {"hidden": "none"}, "output": "clamp", "shortcut": "none"},
        training={"batch_size": 7, "epochs": 9},
        space={"architecture": {"choices": ["conv", "dense"]}},
        retrain={"max_epochs": 8},
        search={"warmup_epochs": 0, "score_epochs": 2, "generation_size": 9, "lookahead": 3}
        | {"sampler": "random", "startup_trials": 4},
        compute={"device": "cpu", "precision": "bfloat16", "population": 11, "threads": 2},
    )
    assert resolved(spec, device="cuda").model_dump() == spec.model_dump()


@pytest.mark.parametrize(
    ("shape", "width"),
    [
        ((1, 8, 8), 128),
        ((1, 28, 28), 392),
        ((3, 32, 32), 1536),
        ((3, 64, 64), 813),  # from here on, 20 million weights
        ((3, 96, 96), 361),
        ((3, 512, 512), 12),
    ],
)
def test_hidden_widths_follow_pixels(shape, width):
    assert resolved(StudySpec(), shape=shape).model.dense.hidden == (width, width // 2)


@pytest.mark.parametrize(
    ("n_train", "by_steps", "by_epochs"),
    [(1437, 32, 32), (12_000, 50, 200), (60_000, 250, 1000), (240_000, 256, 1000)],
)
def test_batch_size_follows_training_images(n_train, by_steps, by_epochs):
    """Smaller ones where the training goes on until it gets no better."""
    assert resolved(StudySpec(), n_train=n_train).training.batch_size == by_steps
    fixed = study(training={"epochs": 20})
    assert resolved(fixed, n_train=n_train).training.batch_size == by_epochs


@pytest.mark.parametrize(
    ("epochs", "warmup"), [(1, 0), (2, 1), (20, 1), (39, 1), (40, 2), (100, 5)]
)
def test_warmup_is_a_twentieth_of_the_epochs(epochs, warmup):
    spec = study(training={"epochs": epochs}, search={"score_epochs": 1})
    assert resolved(spec).search.warmup_epochs == warmup


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("mnist", "mnist"),
        ("/data/Faces.npz", "faces"),
        ("photos/", "photos"),
        ("..", "study"),
        (".", "study"),
    ],
)
def test_name_follows_the_data_set(dataset, name):
    assert resolved(study(data={"dataset": dataset})).name == name


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"search": {"warmup_epochs": 900}}, r"warmup_epochs: must be < retrain.max_epochs \("),
        (
            {"space": {"defaults": False, "architecture": "auto"}},
            "space: must search at least one name, of one choice if need be",
        ),
    ],
)
def test_what_was_automatic_must_go_with_the_rest(sections, message):
    """As a problem of the specification, with its path."""
    spec = study(**sections)
    with pytest.raises(SpecError, match=message):
        resolved(spec, shape=(1, 8, 8), n_train=1438)


def test_resolve_refuses_more_folds_than_images():
    with pytest.raises(SpecError) as caught:
        resolved(study(search={"folds": 30}), n_train=29)
    assert caught.value.problems == ["search.folds: must be <= the 29 training images, got 30"]


@pytest.mark.parametrize(
    ("device", "n_train", "pixels", "expected"),
    [
        ("cpu", 1437, 64, Placement(64, 5, 2, 1)),
        ("cpu", 31_249, 64, Placement(64, 5, 2, 1)),
        ("cpu", 31_250, 64, Placement(1, 1, 4, 1)),
        ("cpu", 60_000, 784, Placement(1, 1, 4, 1)),
        ("cpu", 100, 4096, Placement(64, 5, 2, 1)),
        ("cpu", 100, 128 * 128, Placement(1, 1, 4, 1)),  # few images, but large networks
        ("cuda", 1437, 64, Placement(256, 10, 2, 1)),
        ("cuda", 60_000, 784, Placement(256, 10, 2, 1)),
        ("cuda", 100, 4096, Placement(256, 10, 2, 1)),
        ("mps", 60_000, 784, Placement(256, 10, 2, 1)),
        ("cuda", 100, 3 * 128 * 128, Placement(256, 2, 4, 1)),  # all members fit its memory
    ],
)
def test_placement_follows_its_table(device, n_train, pixels, expected):
    assert placement(device=device, n_train=n_train, pixels=pixels) == expected


def test_resolve_takes_the_placement():
    spec = resolved(StudySpec(), shape=(1, 8, 8), n_train=1437)
    assert (spec.search.generation_size, spec.search.lookahead) == (5, 2)
    assert (spec.compute.population, spec.compute.threads) == (64, 1)
    assert (spec.compute.device, spec.compute.precision) == ("cpu", "float32")


@pytest.mark.parametrize(
    ("device", "n_train", "fast", "precision"),
    [
        ("cpu", 60_000, True, "bfloat16"),
        ("cpu", 60_000, False, "float32"),
        ("cpu", 1437, True, "float32"),
        ("cuda", 60_000, True, "float32"),
    ],
)
def test_only_large_problems_on_a_fast_cpu_compute_in_bfloat16(device, n_train, fast, precision):
    """A precision that was asked for is kept all the same."""
    where = {"image_shape": (1, 28, 28) if n_train > 2000 else (1, 8, 8), "n_train": n_train}
    where |= {"device": device, "fast_bfloat16": fast}
    assert resolve(StudySpec(), **where).compute.precision == precision
    asked = StudySpec(compute={"precision": "float32"})
    assert resolve(asked, **where).compute.precision == "float32"


def test_what_was_left_to_auto_goes_on_as_it_was_begun():
    """A study made elsewhere, or by another version, is not another study for that."""
    where = {"image_shape": (1, 28, 28), "n_train": 60_000}
    asked = StudySpec(training={"batch_size": 500})
    stored = resolve(asked, **where, device="cuda")
    stored = stored.model_copy(
        update={"search": stored.search.model_copy(update={"warmup_epochs": 7})}
    )
    here = resolve(asked, **where, device="cpu", fast_bfloat16=True)
    assert here != stored
    assert as_stored(asked, here, stored, image_shape=(1, 28, 28)) == stored
    other = StudySpec(training={"batch_size": 400})
    here = resolve(other, **where, device="cpu")
    kept = as_stored(other, here, stored, image_shape=(1, 28, 28))
    assert kept.training.batch_size == 400


def test_placement_refuses_another_device():
    with pytest.raises(ValueError, match="device must be 'cpu', 'cuda' or 'mps', got 'tpu'"):
        placement(device="tpu", n_train=1, pixels=1)
