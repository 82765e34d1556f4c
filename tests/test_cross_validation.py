"""The stored fold scores are those of nested loops in plain PyTorch."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold
from torch import nn

from aesearch.data.load import load
from aesearch.data.split import folds, split_test
from aesearch.heartbeat import Heartbeat
from aesearch.models.autoencoder import build_autoencoder
from aesearch.models.randomness import minibatch_order
from aesearch.seeds import derive_seed
from aesearch.studies import store


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
            seed=seed,
        )
        optimizer = torch.optim.Adam(
            model.parameters(),
            lr=configuration.learning_rate,
            weight_decay=configuration.weight_decay,
        )
        train = torch.from_numpy(np.flatnonzero(fold_of_sample != fold))
        validation = torch.from_numpy(np.flatnonzero(fold_of_sample == fold))
        for epoch in range(training.epochs):
            order = train[minibatch_order(seed, epoch, len(train))]
            for batch in order.split(training.batch_size):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x[batch]), x[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = nn.functional.mse_loss(model(x[validation]), x[validation])
            curves[fold, epoch] = loss.item()
    return curves[:, -spec.search.score_epochs :].mean(axis=1)


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_fold_scores_are_those_of_nested_loops(
    tmp_path, tiny_spec, create_study, work, architecture
):
    """Trials of a study, trained as populations, score as if each fold were trained alone."""
    spec = tiny_spec(
        f"model.architecture={architecture}",
        "space={architecture: null, dropout: null}",
        "search.pruner=none",
        "search.trials=3",
    )
    engine = create_study(tmp_path / "s.db", spec)
    work(engine, kinds=("search",))
    snapshot = store.snapshot(engine, "digits")
    resolved = store.stored_spec(store.find_study(engine, "digits"))
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
        "training.epochs=4",
        "compute.population=2",
    )
    engine = create_study(tmp_path / "s.db", spec)
    work(engine, kinds=("search",))
    epochs = [progress["epoch"] for progress in said]
    assert epochs == sorted(epochs)
    assert epochs[-1] == 4 == said[0]["n_epochs"]
    trials = store.snapshot(engine, "digits").trials
    assert {trial.params["architecture"] for trial in trials} == {"dense", "conv"}
    assert said[0]["n_members"] == 6 * spec.search.folds
    assert (said[-1]["n_members"] < said[0]["n_members"]) is (pruner == "halving")
