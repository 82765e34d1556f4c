"""A study that learns to denoise: nested loops, one validation noise, the same retraining."""

import hashlib
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import safetensors.torch
import torch
from plain_network import PLAIN
from torch import nn

from aesearch.artifacts import model_file
from aesearch.data.study_data import load_problem
from aesearch.evaluation.evaluate import noise_levels
from aesearch.evaluation.metrics import mean_squared_error
from aesearch.models.autoencoder import build_autoencoder
from aesearch.models.training.corruptions import Corruption, corrupt, training_keys
from aesearch.models.training.randomness import minibatch_order, step_keys
from aesearch.seeds import derive_seed
from aesearch.studies.results.best_result import chosen_spec
from aesearch.studies.spec.load import diff, load_spec, spec_from_mapping, to_yaml
from aesearch.studies.spec.resolved import resolve
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store import retrain_results, study_rows
from aesearch.training.memory import images_for
from aesearch.training.retrain import retrain
from aesearch.training.retrain_key import retrain_key

DENOISING = (
    "training.corruption=gaussian",
    "training.corruption_level=0.4",
    "space.corruption_level.low=0.1",
    "space.corruption_level.high=0.6",
)

# Everything that a specification without settings meant in version 0.1.0.
FORMER = (
    *PLAIN,
    "model.conv.channels=[8, 16, 32]",
    "training.learning_rate=1.0e-03",
    "training.weight_decay=1.0e-05",
    "training.epochs=20",
    "retrain.max_epochs=200",
    "retrain.min_delta=1.0e-05",
    "retrain.min_delta_mode=absolute",
)


def resolved(*overrides):
    spec = load_spec(overrides=overrides)
    return resolve(spec, image_shape=(1, 8, 8), n_train=1437, device="cpu")


def nested_loops(problem, params, number):
    """One trial the way everybody writes it: for each fold, for each epoch, for each batch."""
    spec, images = problem.spec, problem.images
    training, configuration = spec.training, spec.configuration(params)
    clean = torch.from_numpy(images).float() / 255
    shape = tuple(clean.shape[1:])
    fixed = corrupt(
        clean,
        training.corruption,
        training.validation_corruption_level,
        derive_seed(spec.seed, "validation-corruption"),
    )
    level = torch.tensor(configuration.corruption_level, dtype=torch.float64)
    noise = Corruption(training.corruption, level, shape, clamp=True, like=clean)
    curves = np.zeros((spec.search.folds, training.epochs))
    for fold in range(spec.search.folds):
        seed = derive_seed(spec.seed, "member", number, fold)
        model = build_autoencoder(
            architecture=configuration.architecture,
            image_shape=shape,
            encoding_dim=configuration.encoding_dim,
            hidden=configuration.hidden,
            seed=seed,
        )
        optimizer = torch.optim.Adam(
            model.parameters(),
            lr=configuration.learning_rate,
            weight_decay=configuration.weight_decay,
        )
        train, validation = map(torch.from_numpy, problem.fold_indices(fold))
        step = 0
        for epoch in range(training.epochs):
            order = train[minibatch_order(seed, epoch, len(train))]
            for batch in order.split(training.batch_size):
                keys = training_keys(step_keys([seed], torch.tensor([[step]]))[0], len(batch))[0]
                inputs = noise.apply(clean[batch].flatten(1), keys).view(-1, *shape)
                optimizer.zero_grad()
                nn.functional.mse_loss(model(inputs), clean[batch]).backward()
                optimizer.step()
                step += 1
            with torch.no_grad():
                loss = nn.functional.mse_loss(model(fixed[validation]), clean[validation])
            curves[fold, epoch] = loss.item()
    return curves[:, -spec.search.score_epochs :].mean(axis=1)


def test_fold_scores_are_those_of_nested_loops(tmp_path, tiny_spec, create_study, work):
    """Trials that train at levels of their own are scored on the same corrupted images."""
    spec = tiny_spec(
        "space={architecture: null, dropout: null}",
        "search.pruner=none",
        "search.trials=3",
        *PLAIN,
        *DENOISING,
    )
    engine = create_study(tmp_path / "s.db", spec)
    work(engine, kinds=("search",))
    trials = study_rows.snapshot(engine, "digits").trials
    assert len({trial.params["corruption_level"] for trial in trials}) == 3
    assert trials[0].params["corruption_level"] == 0.4  # the default configuration comes first
    problem = load_problem(spec, device="cpu")
    looped = [nested_loops(problem, trial.params, trial.number) for trial in trials]
    # float32 sums in another order: batched products against single ones.
    np.testing.assert_allclose([t.fold_scores for t in trials], looped, rtol=2e-4)


def test_the_winner_is_retrained_from_its_file_alone(tmp_path, tiny_spec, create_study, work):
    """The file keeps the validation level beside the winner's own; the test number is clean."""
    spec = tiny_spec("search.trials=2", *DENOISING[:2], "space.corruption_level.choices=[0.1]")
    engine = create_study(tmp_path / "s.db", spec)
    work(engine)
    study = study_rows.find_study(engine, "digits")
    snapshot = study_rows.snapshot(engine, "digits")
    configuration = study_rows.stored_spec(study).configuration(
        snapshot.trials[snapshot.chosen].params
    )
    best = load_spec(text=to_yaml(chosen_spec(study_rows.stored_spec(study), configuration)))
    assert best.training.corruption_level == 0.1
    assert best.training.validation_corruption_level == 0.4
    problem = load_problem(best, device="cpu")
    again = retrain(
        problem,
        images_for(problem, "cpu"),
        problem.spec.configuration({}),
        range(2),
        on_epoch=lambda *_: None,
    )
    stored = retrain_results.retrained(engine, study)
    assert [seed.weights_sha256 for seed in again] == [row.weights_sha256 for row in stored]
    for row in stored:
        model = model_file.from_bytes(row.weights)
        assert row.test_mse == mean_squared_error(model, problem.test_images)


class _KilledError(Exception):
    """Stands for the death of a process."""


def test_a_killed_retraining_goes_on_to_the_same_weights(tiny_spec):
    """From the checkpoint of the second epoch; a corruption has no state to lose."""
    problem = load_problem(tiny_spec(*DENOISING), device="cpu")
    configuration = problem.spec.configuration({"architecture": "dense"})
    arguments = (problem, images_for(problem, "cpu"), configuration, range(2))
    whole = retrain(*arguments, on_epoch=lambda *_: None)
    saved = []

    def die(epoch, _n_members):
        if epoch == 3:
            raise _KilledError

    with pytest.raises(_KilledError):
        retrain(*arguments, on_epoch=die, save=lambda make: saved.append(make()))
    assert len(saved) == 2
    resumed = retrain(*arguments, on_epoch=lambda *_: None, restore=saved.pop)
    assert [seed.weights_sha256 for seed in resumed] == [seed.weights_sha256 for seed in whole]
    assert [seed.curve for seed in resumed] == [seed.curve for seed in whole]


def test_a_checkpoint_from_before_accuracies_were_kept_goes_on(tiny_spec):
    """To the same weights and losses; what was not counted is no number."""
    problem = load_problem(tiny_spec(*DENOISING), device="cpu")
    configuration = problem.spec.configuration({"architecture": "dense"})
    arguments = (problem, images_for(problem, "cpu"), configuration, range(2))
    saved = []
    whole = retrain(*arguments, on_epoch=lambda *_: None, save=lambda make: saved.append(make()))
    tensors = safetensors.torch.load(saved[1])
    tensors["curve"] = tensors["curve"][:, :2].contiguous()
    older = safetensors.torch.save(tensors)
    resumed = retrain(*arguments, on_epoch=lambda *_: None, restore=lambda: older)
    for seed, before in zip(resumed, whole, strict=True):
        assert seed.weights_sha256 == before.weights_sha256
        assert [point[:2] for point in seed.curve] == [point[:2] for point in before.curve]
        assert [math.isnan(point[2]) for point in seed.curve[:3]] == [True, True, False]


def test_a_study_from_before_there_were_corruptions_goes_on():
    """What its stored specification lacks is the default, and no difference."""
    now = resolved()
    document = now.model_dump(mode="json")
    document["training"] = {k: v for k, v in document["training"].items() if "corruption" not in k}
    del document["space"]["corruption_level"]
    assert spec_from_mapping(document, "the stored specification").model_dump() == now.model_dump()
    assert diff(spec_from_mapping(document, "the stored specification"), now) == []


def test_the_key_of_a_retraining_stays_as_it_is():
    """Else every model that is there would be trained once more: of version 0.1.0."""
    spec = resolved(*FORMER, "model.dense.hidden=[128]")
    key = retrain_key(spec, spec.configuration({}))
    assert key == "82673c84096a9932975e70a7e1903f7c0481c15d5b7363e8b2bb68ec71af9863"


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (("model.code_activation=relu", "model.dropout=0.2"), True),
        (("model.code_activation=relu", "model.dropout=0.2", "model.architecture=conv"), True),
        (("model.code_activation=relu", "model.dropout=0.2", "model.dense.hidden=[]"), False),
        (("model.code_activation=relu", "model.dropout=0.0"), False),
        (("model.code_activation=linear", "model.dropout=0.2"), False),
        (("model.architecture=conv", "compute.precision=bfloat16"), True),
        (("model.architecture=dense", "compute.precision=bfloat16"), False),
    ],
)
def test_networks_that_train_otherwise_got_another_key(overrides, changed):
    """Dropout came behind the ReLU of the code, and bfloat16 to convolutions: other weights."""
    spec = resolved(*FORMER, *overrides)
    configuration = spec.configuration({})
    assert (retrain_key(spec, configuration) != former_key(spec, configuration)) is changed


def former_key(spec, configuration):
    """The formula of version 0.1.0 before that."""
    parts = {
        "seed": spec.seed,
        "configuration": asdict(configuration),
        "training": spec.training.model_dump(mode="json", exclude={"epochs"}),
        "retrain": spec.retrain.model_dump(mode="json"),
        "compute": spec.compute.model_dump(mode="json"),
        "limit": spec.data.limit,
    }
    later = ("activation", "shortcut", "output", "initialization", "averaging")
    later += ("averaging_decay", "min_delta_mode")  # there were no such settings
    for name in ("optimizer", "schedule", "batch_size"):  # which were the study's alone
        del parts["configuration"][name]
    for section in ("configuration", "training", "retrain"):
        parts[section] = {
            k: v for k, v in parts[section].items() if "corruption" not in k and k not in later
        }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def test_a_retraining_from_before_there_were_corruptions_keeps_its_key():
    """Else weights that are there would be trained once more; the formula is that of then."""
    spec = resolved(*FORMER, "model.dense.hidden=[128]")
    configuration = spec.configuration({})
    assert retrain_key(spec, configuration) == former_key(spec, configuration)


@pytest.mark.parametrize(
    "override",
    [
        "training.corruption=uniform",
        "training.corruption_level=0.5",
        "training.corruption_clamp=false",
        "training.validation_corruption_level=0.5",
    ],
)
def test_a_retraining_is_named_by_its_corruption(override):
    """Other noise, other weights, another key."""
    one, other = resolved(DENOISING[0]), resolved(DENOISING[0], override)
    keys = {retrain_key(spec, spec.configuration({})) for spec in (one, other)}
    assert len(keys) == 2
    assert diff(one, other) != []


def test_the_level_of_the_validation_images_is_written_out():
    """Null takes the level of training, once and for all trials; nothing is made of nothing."""
    assert resolved(DENOISING[0]).training.validation_corruption_level == 0.3
    given = resolved(*DENOISING[:2], "training.validation_corruption_level=0.2")
    assert given.training.validation_corruption_level == 0.2
    assert StudySpec().training.corruption == "none"
    assert resolved().training.validation_corruption_level is None


@pytest.mark.parametrize(
    ("overrides", "levels"),
    [
        ((), {"gaussian": (0.1,), "uniform": (1.0,)}),
        (("training.corruption=uniform",), {"gaussian": (0.1,), "uniform": (0.3, 1.0)}),
        (
            ("training.corruption=gaussian", "training.corruption_level=0.1"),
            {"gaussian": (0.1,), "uniform": (1.0,)},
        ),
        (
            ("training.corruption=gaussian", "training.validation_corruption_level=0.05"),
            {"gaussian": (0.05, 0.1), "uniform": (1.0,)},
        ),
    ],
)
def test_a_denoiser_is_measured_on_what_it_was_trained_for(overrides, levels):
    """At the level at which its trials were compared, listed or not."""
    listed = ("evaluation.robustness.gaussian=[0.1]", "evaluation.robustness.uniform=[1.0]")
    found = noise_levels(resolved(*listed, *overrides))
    assert {kind: found[kind] for kind in levels} == levels
