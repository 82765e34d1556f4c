"""Populations that learn to denoise: members alone, clean targets, fixed validation noise."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from aesearch.models.autoencoder import build_autoencoder
from aesearch.models.training.corruptions import CORRUPTIONS, Corruption, corrupt, training_keys
from aesearch.models.training.denoising import Denoising
from aesearch.models.training.device_images import DeviceImages
from aesearch.models.training.population import Member, Population
from aesearch.models.training.randomness import minibatch_order, step_keys

N_IMAGES = 60
NETWORK = {"channels": (3, 4, 5), "conv_hidden": 9, "code_activation": "linear"}
SETTINGS = {
    **NETWORK,
    "activation": "relu",
    "shortcut": "none",
    "output": "sigmoid",
    "initialization": "torch",
    "averaging": None,
    "optimizer": "adam",
    "momentum": 0.0,
    "schedule": "none",
    "gamma": 0.8,
    "factor": 0.5,
    "patience": 1,
    "epochs": 8,
    "batch_size": 16,
    "precision": "float64",
}
SEED = 77
BOTH = pytest.mark.parametrize("architecture", ["dense", "conv"])
EACH = pytest.mark.parametrize("corruption", CORRUPTIONS)


def denoising(corruption="gaussian", **changes):
    return Denoising(
        **{
            "corruption": corruption,
            "clamp": True,
            "validation_level": 0.4,
            "validation_seed": SEED,
        }
        | changes
    )


def random_images(shape=(1, 9, 11)):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (N_IMAGES, *shape), dtype=torch.uint8, generator=generator)


def mixed_members(n_members, **changes):
    """Members that differ in all that may differ, the level of the corruption too."""
    members = []
    for number in range(n_members):
        order = torch.randperm(N_IMAGES, generator=torch.Generator().manual_seed(number))
        n_train = 30 if number == 2 else 48 - number
        arguments = {
            "seed": 100 + number,
            "learning_rate": 3e-3 * (1 + number),
            "weight_decay": 1e-3 * number,
            "dropout": 0.0,
            "encoding_dim": 2 + number % 4,
            "hidden": (12 + 3 * (number % 2), 7),
            "train_indices": order[:n_train],
            "validation_indices": order[n_train:],
            "corruption_level": 0.15 * number,
        }
        members.append(Member(**arguments | changes))
    return members


@pytest.fixture
def build(device):
    """Build a population on the device, which learns to denoise unless told otherwise."""

    def build(members, images=None, **changes):
        images = random_images() if images is None else images
        settings = SETTINGS | {"denoising": denoising()} | changes
        images = DeviceImages(images, device, noisy=settings.pop("noisy", None))
        return Population(members, images, **settings)

    return build


def curves(population, n_epochs):
    """Losses as (member, epoch, train or validation)."""
    epochs = [population.run_epoch() for _ in range(n_epochs)]
    return torch.stack([torch.stack([e.train, e.validation], dim=-1) for e in epochs], dim=1)


def trained_alone(member, images, n_epochs, architecture, noise):
    """Train one member to denoise by a plain loop: its network and its losses per epoch."""
    network = build_autoencoder(
        **NETWORK,
        architecture=architecture,
        image_shape=images.shape[1:],
        encoding_dim=member.encoding_dim,
        hidden=member.hidden,
        seed=member.seed,
        dtype=torch.float64,
    )
    optimiser = torch.optim.Adam(
        network.parameters(), lr=member.learning_rate, weight_decay=member.weight_decay
    )
    clean = images.double() / 255
    # The validation images of a study are corrupted once, all of them, before anything is trained.
    fixed = corrupt(
        clean, noise.corruption, noise.validation_level, noise.validation_seed, clamp=noise.clamp
    )
    level = torch.tensor(member.corruption_level, dtype=torch.float64)
    own = Corruption(noise.corruption, level, images.shape[1:], clamp=noise.clamp, like=clean)
    losses, step = [], 0
    for epoch in range(n_epochs):
        pool = member.train_indices
        order = pool[minibatch_order(member.seed, epoch, len(pool))]
        total = 0.0
        for indices in order.split(SETTINGS["batch_size"]):
            keys = training_keys(step_keys([member.seed], torch.tensor([[step]]))[0], len(indices))
            inputs = own.apply(clean[indices].flatten(1), keys[0]).view(-1, *images.shape[1:])
            optimiser.zero_grad()
            loss = F.mse_loss(network(inputs), clean[indices])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(indices)
            step += 1
        held_out = member.validation_indices
        with torch.no_grad():
            validation = F.mse_loss(network(fixed[held_out]), clean[held_out]).item()
        losses.append((total / len(order), validation))
    return network, losses


def assert_trains_as_alone(population, images, n_epochs, architecture, noise):
    got = curves(population, n_epochs)
    alone = [
        trained_alone(member, images, n_epochs, architecture, noise)
        for member in population.members
    ]
    expected = torch.tensor([losses for _, losses in alone], dtype=torch.float64)
    # Tighter than the default: the loss of an untrained network hardly depends on its input.
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    for position, (network, _) in enumerate(alone):
        torch.testing.assert_close(population.extract(position).state_dict(), network.state_dict())


@EACH
@BOTH
@pytest.mark.parametrize("n_members", [1, 2, 5])
def test_population_is_its_members_trained_alone(build, corruption, architecture, n_members):
    """Own levels, widths, rates and set sizes; odd images of three channels."""
    images = random_images((3, 9, 11))
    noise = denoising(corruption)
    population = build(mixed_members(n_members), images, architecture=architecture, denoising=noise)
    assert_trains_as_alone(population, images, 3, architecture, noise)


@BOTH
def test_unclamped_noise_is_trained_on_as_it_is(build, architecture):
    """The other setting of the clamp, in training and validation."""
    images = random_images()
    noise = denoising(clamp=False, validation_level=1.5)
    population = build(mixed_members(3), images, architecture=architecture, denoising=noise)
    assert_trains_as_alone(population, images, 2, architecture, noise)


@BOTH
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_poisoned_member_changes_no_bit_of_the_others(build, architecture, precision):
    """NaN in all weights of one member; the others stay torch.equal."""
    changes = {"architecture": architecture, "precision": precision}
    clean, population = (build(mixed_members(5), **changes) for _ in range(2))
    population.set_weights(2, torch.full_like(population.weights(2), math.nan))
    expected, got = curves(clean, 1), curves(population, 1)
    others = [0, 1, 3, 4]
    assert torch.equal(got[others], expected[others])
    assert got[2].isnan().all()


@BOTH
def test_permuted_members_give_permuted_results(build, architecture):
    """Bit for bit: a level goes with its member."""
    members, order = mixed_members(5), [3, 0, 4, 2, 1]
    expected = curves(build(members, architecture=architecture), 2)
    permuted = build([members[p] for p in order], architecture=architecture)
    assert torch.equal(curves(permuted, 2), expected[order])


@BOTH
def test_a_neighbour_s_dropout_and_level_change_nothing(build, architecture):
    """A member beside others with other dropout and levels is what it is alone."""
    members = mixed_members(4)
    members = [
        dataclasses.replace(member, dropout=0.1 * number) for number, member in enumerate(members)
    ]
    together = curves(build(members, architecture=architecture), 3)
    alone = torch.cat([curves(build([m], architecture=architecture), 3) for m in members])
    torch.testing.assert_close(together, alone)


@BOTH
def test_kept_members_train_as_if_nothing_happened(build, architecture):
    """Members leave at a rung; levels and noise of the rest are what they were."""
    undisturbed, population = (build(mixed_members(5), architecture=architecture) for _ in "ab")
    curves(undisturbed, 1)
    curves(population, 1)
    population.keep([4, 1, 2])
    torch.testing.assert_close(curves(population, 2), curves(undisturbed, 2)[[4, 1, 2]])


@BOTH
def test_resumed_equals_uninterrupted(build, architecture):
    """Bit for bit: the noise has no state but the steps that a member has taken."""
    members = mixed_members(4)
    uninterrupted = build(members, architecture=architecture)
    killed, resumed = (build(members, architecture=architecture) for _ in range(2))
    curves(uninterrupted, 2)
    curves(killed, 2)
    resumed.load_state(killed.state())
    assert torch.equal(curves(resumed, 2), curves(uninterrupted, 2))


@BOTH
def test_training_noise_is_new_in_each_epoch_and_validation_noise_is_not(build, architecture):
    """With weights that do not move: the training loss does, the validation loss stays."""
    members = mixed_members(2, learning_rate=0.0, weight_decay=0.0, corruption_level=0.5)
    train, validation = curves(build(members, architecture=architecture), 3).unbind(-1)
    assert all(len(set(row)) == 3 for row in train.tolist())
    assert torch.equal(validation, validation[:, :1].expand_as(validation))


def test_validation_does_not_ask_at_which_level_a_member_trained(build):
    """One network, two levels: equal validation losses, else the easiest images would win."""
    member = mixed_members(1, learning_rate=0.0, weight_decay=0.0)[0]
    members = [dataclasses.replace(member, corruption_level=level) for level in (0.0, 2.0)]
    train, validation = curves(build(members, architecture="dense"), 1)[:, 0].unbind(-1)
    assert train[0] != train[1]
    assert validation[0] == validation[1]


@BOTH
def test_targets_are_clean_where_nothing_can_be_seen(build, architecture):
    """Every input all black: the best a network can do is the mean image, and its loss says so."""
    images = random_images((1, 9, 9))  # the square hides all of it
    member = mixed_members(1, learning_rate=0.0, corruption_level=1.0)[0]
    noise = denoising("occlusion", validation_level=1.0)
    population = build([member], images, architecture=architecture, denoising=noise)
    black = population.extract(0)(torch.zeros(1, 1, 9, 9, dtype=torch.float64))
    clean = images.double() / 255
    got = curves(population, 1)[0, 0]
    pools = (member.train_indices, member.validation_indices)
    expected = [F.mse_loss(black.expand(len(p), 1, 9, 9), clean[p]).item() for p in pools]
    assert got.tolist() == pytest.approx(expected)


@BOTH
def test_a_level_without_corruption_means_nothing(build, architecture):
    """Bit for bit what members without a level give."""
    plain = curves(
        build(mixed_members(3, corruption_level=0.0), architecture=architecture, denoising=None), 2
    )
    leveled = curves(build(mixed_members(3), architecture=architecture, denoising=None), 2)
    assert torch.equal(plain, leveled)


@pytest.mark.parametrize(
    ("noise", "level", "message"),
    [
        (denoising("blur"), 0.3, "corruption must be one of gaussian"),
        (denoising("occlusion"), 1.5, r"level must be in \[0, 1\] for occlusion, got 1.5"),
        (denoising(validation_level=-1.0), 0.3, "level must be >= 0 and finite"),
    ],
)
def test_impossible_corruptions_are_refused_by_name(build, noise, level, message):
    """Before anything is trained."""
    with pytest.raises(ValueError, match=message):
        build(mixed_members(1, corruption_level=level), architecture="dense", denoising=noise)


def trained_alone_on_pairs(member, images, noisy, n_epochs, architecture):
    """Train one member from noisy images to clean ones by a plain loop: its losses per epoch."""
    settings = {**NETWORK, "architecture": architecture, "hidden": member.hidden}
    network = build_autoencoder(
        **settings,
        image_shape=images.shape[1:],
        encoding_dim=member.encoding_dim,
        seed=member.seed,
        dtype=torch.float64,
    )
    optimiser = torch.optim.Adam(
        network.parameters(), lr=member.learning_rate, weight_decay=member.weight_decay
    )
    clean, seen = images.double() / 255, noisy.double() / 255
    losses = []
    for epoch in range(n_epochs):
        pool, total = member.train_indices, 0.0
        for batch in pool[minibatch_order(member.seed, epoch, len(pool))].split(16):
            optimiser.zero_grad()
            loss = F.mse_loss(network(seen[batch]), clean[batch])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        held_out = member.validation_indices
        with torch.no_grad():
            validation = F.mse_loss(network(seen[held_out]), clean[held_out]).item()
        losses.append((total / len(pool), validation))
    return network, losses


@BOTH
@pytest.mark.parametrize("n_members", [1, 4])
def test_noisy_images_are_seen_and_clean_ones_are_the_targets(build, architecture, n_members):
    """In training, in validation, and where single images are measured; as each member alone."""
    images = random_images((3, 9, 11))
    noisy = images.flip(0)
    how = {"architecture": architecture, "denoising": None, "noisy": noisy}
    population = build(mixed_members(n_members), images, **how)
    got = curves(population, 3)
    alone = [
        trained_alone_on_pairs(member, images, noisy, 3, architecture)
        for member in population.members
    ]
    expected = torch.tensor([losses for _, losses in alone], dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    for position, (network, losses) in enumerate(alone):
        torch.testing.assert_close(population.extract(position).state_dict(), network.state_dict())
        single = population.validation_errors()[position].mean().item()
        assert single == pytest.approx(losses[-1][1], rel=1e-10)


def test_a_member_starts_as_pca_of_the_clean_images(build):
    """Which is what a denoiser of drawn corruptions starts as."""
    images = random_images()
    how = {"architecture": "dense", "denoising": None, "shortcut": "pca", "output": "clamp"}
    noisy = build(mixed_members(2), images, noisy=images.flip(0), **how)
    assert torch.equal(noisy.all_weights(), build(mixed_members(2), images, **how).all_weights())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "denoising must be None beside noisy images"),
        ({"denoising": None, "noisy": random_images()[:5]}, r"got torch.uint8 \(5, 1, 9, 11\)"),
        ({"denoising": None, "noisy": random_images().float()}, "noisy must be uint8"),
    ],
)
def test_noisy_images_that_are_no_partners_are_refused(build, changes, message):
    """Before anything is trained."""
    how = {"architecture": "dense", "noisy": random_images()} | changes
    with pytest.raises(ValueError, match=message):
        build(mixed_members(1), **how)
