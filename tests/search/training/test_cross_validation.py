"""The stored fold scores are those of nested loops in plain PyTorch."""

import copy

import numpy as np
import pytest
import torch
from plain_network import PLAIN
from sklearn.model_selection import KFold
from torch import nn

from aesearch.data.load import load
from aesearch.data.split import folds, split_test
from aesearch.models.autoencoder import build_autoencoder
from aesearch.models.principal import principal_components
from aesearch.models.shortcut import start_at
from aesearch.models.training.randomness import minibatch_order
from aesearch.seeds import derive_seed
from aesearch.studies.store import study_rows
from aesearch.workers.heartbeat import Heartbeat


class LeakyClamp(nn.Module):
    """Cuts to [0, 1], with a slope of 0.01 outside for the gradient alone."""

    def forward(self, values):
        """Outputs (image, ...) with the slope added to what is cut off."""
        cut = values.clamp(0, 1)
        slope = 0.01 * (values - cut)
        return cut + slope - slope.detach()


def nested_loops(images, spec, params, number):
    """One trial the way everybody writes it: for each fold, for each epoch, for each batch."""
    training = spec.training
    x = torch.from_numpy(images).float() / 255
    fold_of_sample = folds(len(images), spec.search.folds, spec.seed)
    curves = np.zeros((spec.search.folds, training.epochs))
    for fold in range(spec.search.folds):
        seed = derive_seed(spec.seed, "member", number, fold)
        configuration = spec.configuration(params)
        model = build_autoencoder(
            architecture=configuration.architecture,
            image_shape=images.shape[1:],
            encoding_dim=configuration.encoding_dim,
            hidden=configuration.hidden,
            channels=configuration.channels,
            conv_hidden=configuration.conv_hidden,
            activation=configuration.activation,
            shortcut=configuration.shortcut,
            output=configuration.output,
            initialization=configuration.initialization,
            seed=seed,
        )
        train = torch.from_numpy(np.flatnonzero(fold_of_sample != fold))
        if configuration.shortcut == "pca":
            pixels = torch.from_numpy(images).flatten(1)
            principal = principal_components(pixels, train, configuration.encoding_dim)
            start_at(model.encoder, model.decoder, principal)
        measured, steps = model, 0
        if training.averaging == "ema":
            measured = copy.deepcopy(model)
        if configuration.output == "clamp":
            last = next(i for i, m in enumerate(model.decoder) if isinstance(m, nn.Hardtanh))
            model.decoder[last] = LeakyClamp()
        optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer](
            model.parameters(),
            lr=configuration.learning_rate,
            weight_decay=configuration.weight_decay,
        )
        validation = torch.from_numpy(np.flatnonzero(fold_of_sample == fold))
        for epoch in range(training.epochs):
            order = train[minibatch_order(seed, epoch, len(train))]
            for batch in order.split(training.batch_size):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x[batch]), x[batch]).backward()
                optimizer.step()
                if training.averaging == "ema":
                    decay = min(training.averaging_decay, (1 + steps) / (10 + steps))
                    with torch.no_grad():
                        for mean, now in zip(
                            measured.parameters(), model.parameters(), strict=True
                        ):
                            mean.lerp_(now, 1 - decay)
                steps += 1
            with torch.no_grad():
                loss = nn.functional.mse_loss(measured(x[validation]), x[validation])
            curves[fold, epoch] = loss.item()
    return curves[:, -spec.search.score_epochs :].mean(axis=1)


@pytest.mark.parametrize("settings", [(), PLAIN], ids=["default", "plain"])
@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_fold_scores_are_those_of_nested_loops(
    tmp_path, tiny_spec, create_study, work, architecture, settings
):
    """Trials of a study, trained as populations, score as if each fold were trained alone."""
    spec = tiny_spec(
        f"model.architecture={architecture}",
        "space={architecture: null, dropout: null}",
        "search.pruner=none",
        "search.trials=3",
        *settings,
    )
    engine = create_study(tmp_path / "s.db", spec)
    work(engine, kinds=("search",))
    snapshot = study_rows.snapshot(engine, "digits")
    resolved = study_rows.stored_spec(study_rows.find_study(engine, "digits"))
    assert resolved.model.shortcut == ("none" if settings else "pca")
    images = split_test(
        load("digits"), test_fraction=spec.data.test_fraction, seed=spec.seed
    ).train_images[: spec.data.limit]
    stored = [trial.fold_scores for trial in snapshot.trials]
    looped = [nested_loops(images, resolved, t.params, t.number) for t in snapshot.trials]
    # float32 sums in another order: batched products against single ones.
    np.testing.assert_allclose(stored, looped, rtol=2e-4)


def test_folds_are_those_of_scikit_learn():
    """Fold f holds out what KFold's f-th split holds out."""
    fold_of_sample = folds(31, 4, seed=9)
    sizes = np.bincount(fold_of_sample)
    ours = [set(np.flatnonzero(fold_of_sample == fold)) for fold in range(4)]
    # The seed is derived, so any shuffled KFold of the same sizes is as good a witness.
    theirs = [len(test) for _, test in KFold(4, shuffle=True, random_state=0).split(range(31))]
    assert sizes.tolist() == theirs
    assert set().union(*ours) == set(range(31))


@pytest.mark.parametrize("pruner", ["none", "halving"])
def test_progress_never_goes_back(tmp_path, tiny_spec, create_study, work, monkeypatch, pruner):
    """A generation of two architectures trains in several populations, one after the other."""
    said = []
    monkeypatch.setattr(Heartbeat, "say", lambda _, **progress: said.append(progress))
    spec = tiny_spec(
        "search.sampler=random",
        "search.trials=6",
        "search.generation_size=6",
        f"search.pruner={pruner}",
        "space.architecture.choices=[dense, conv]",
        "training.epochs=4",
        "compute.population=2",
    )
    engine = create_study(tmp_path / "s.db", spec)
    work(engine, kinds=("search",))
    epochs = [progress["epoch"] for progress in said]
    assert epochs == sorted(epochs)
    assert epochs[-1] == 4 == said[0]["n_epochs"]
    trials = study_rows.snapshot(engine, "digits").trials
    assert {trial.params["architecture"] for trial in trials} == {"dense", "conv"}
    assert said[0]["n_members"] == 6 * spec.search.folds
    assert (said[-1]["n_members"] < said[0]["n_members"]) is (pruner == "halving")
