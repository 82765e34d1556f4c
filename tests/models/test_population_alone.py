"""A population is its members trained alone: compared with a plain PyTorch loop, float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from aesearch.models.autoencoder import build_autoencoder
from aesearch.models.training.early_stopping import EarlyStopping
from aesearch.models.training.population import Member, Population
from aesearch.models.training.randomness import minibatch_order

N_IMAGES = 60
NETWORK = {"channels": (3, 4, 5), "conv_hidden": 9, "code_activation": "linear"}
SETTINGS = {
    **NETWORK,
    "architecture": "dense",
    "activation": "relu",
    "shortcut": "none",
    "output": "sigmoid",
    "initialization": "torch",
    "averaging": None,
    "optimizer": "adam",
    "momentum": 0.9,
    "schedule": "none",
    "gamma": 0.8,
    "factor": 0.5,
    "patience": 1,
    "epochs": 12,
    "batch_size": 16,
    "precision": "float64",
}


def random_images(shape=(1, 9, 11)):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (N_IMAGES, *shape), dtype=torch.uint8, generator=generator)


def mixed_members(n_members, **changes):
    """Members that differ in all that may differ; training sets of 32 to 48 of the images."""
    members = []
    for number in range(n_members):
        order = torch.randperm(N_IMAGES, generator=torch.Generator().manual_seed(number))
        n_train = 48 - number if number % 3 else 32 + number
        arguments = {
            "seed": 100 + number,
            "learning_rate": 3e-3 * (1 + number),
            "weight_decay": 1e-3 * number,
            "dropout": 0.0,
            "encoding_dim": 2 + number % 4,
            "hidden": (12 + 3 * (number % 2), 7),
            "train_indices": order[:n_train],
            "validation_indices": order[n_train:],
        }
        members.append(Member(**arguments | changes))
    return members


def population_of(members, images, device, **changes):
    return Population(members, images, **SETTINGS | {"device": device} | changes)


def optimiser_of(name, network, member):
    """The optimiser of torch.optim that a name stands for."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    extra = {"momentum": SETTINGS["momentum"]} if name == "sgd" else {}
    return kind(
        network.parameters(), lr=member.learning_rate, weight_decay=member.weight_decay, **extra
    )


def scheduler_of(name, optimiser, epochs):
    """The scheduler of torch.optim that a name stands for; its step takes the training loss."""
    lr_scheduler = torch.optim.lr_scheduler
    if name == "exponential":
        scheduler = lr_scheduler.ExponentialLR(optimiser, SETTINGS["gamma"])
    elif name == "cosine":
        scheduler = lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    elif name == "plateau":
        plateau = lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=SETTINGS["factor"], patience=SETTINGS["patience"]
        )
        return plateau.step
    else:
        return lambda _: None
    return lambda _: scheduler.step()


def trained_alone(member, images, n_epochs, **changes):
    """Train one member by a plain loop: its network and its (train, validation) per epoch."""
    settings = SETTINGS | changes
    network = build_autoencoder(
        **{name: settings[name] for name in NETWORK},
        architecture=settings["architecture"],
        image_shape=images.shape[1:],
        encoding_dim=member.encoding_dim,
        hidden=member.hidden,
        seed=member.seed,
        dtype=torch.float64,
    )
    optimiser = optimiser_of(settings["optimizer"], network, member)
    schedule = scheduler_of(settings["schedule"], optimiser, settings["epochs"])
    pixels = images.double() / 255
    losses = []
    for epoch in range(n_epochs):
        pool = member.train_indices
        order = pool[minibatch_order(member.seed, epoch, len(pool))]
        total = 0.0
        for indices in order.split(settings["batch_size"]):
            optimiser.zero_grad()
            loss = F.mse_loss(network(pixels[indices]), pixels[indices])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(indices)
        held_out = pixels[member.validation_indices]
        with torch.no_grad():
            validation = F.mse_loss(network(held_out), held_out).item()
        losses.append((total / len(order), validation))
        schedule(losses[-1][0])
    return network, losses


def assert_trains_as_alone(population, images, n_epochs, **changes):
    """Every member's losses and weights are those of the plain loop."""
    epochs = [population.run_epoch() for _ in range(n_epochs)]
    train = torch.stack([losses.train for losses in epochs], dim=1)
    validation = torch.stack([losses.validation for losses in epochs], dim=1)
    alone = [trained_alone(member, images, n_epochs, **changes) for member in population.members]
    expected = torch.tensor([losses for _, losses in alone], dtype=torch.float64)
    torch.testing.assert_close(train, expected[..., 0])
    torch.testing.assert_close(validation, expected[..., 1])
    for position, (network, _) in enumerate(alone):
        torch.testing.assert_close(population.extract(position).state_dict(), network.state_dict())


@pytest.mark.parametrize("n_members", [1, 2, 7])
@pytest.mark.parametrize("architecture", ["dense", "conv"])
@pytest.mark.parametrize("shape", [(1, 9, 11), (3, 8, 13)], ids=str)
def test_population_is_its_members_trained_alone(n_members, architecture, shape, device):
    """Mixed widths, rates, decays, seeds and set sizes; odd images, one and three channels."""
    images = random_images(shape)
    population = population_of(mixed_members(n_members), images, device, architecture=architecture)
    assert_trains_as_alone(population, images, 4, architecture=architecture)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["none", "exponential", "cosine", "plateau"])
def test_optimiser_and_schedule_are_those_of_torch_optim(optimizer, schedule, device):
    """More than fifty steps of each optimiser under each schedule."""
    images = random_images()
    members = mixed_members(3, learning_rate=0.03)
    changes = {"optimizer": optimizer, "schedule": schedule, "epochs": 18}
    population = population_of(members, images, device, **changes)
    assert_trains_as_alone(population, images, 18, **changes)


@pytest.mark.parametrize("code_activation", ["linear", "relu"])
@pytest.mark.parametrize("hidden", [(), (5,), (9, 8, 6)], ids=str)
def test_depths_and_code_activations(hidden, code_activation, device):
    """From the single hidden layer to three, with either code."""
    images = random_images()
    members = mixed_members(3, hidden=hidden)
    changes = {"code_activation": code_activation}
    population = population_of(members, images, device, **changes)
    assert_trains_as_alone(population, images, 3, **changes)


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_a_member_without_samples_left_takes_no_step(architecture, device):
    """One member has two minibatches an epoch, the other three: moments and counts stand still."""
    images = random_images()
    few, many = mixed_members(2)
    few = Member(**vars(few) | {"train_indices": torch.arange(20)})
    population = population_of([few, many], images, device, architecture=architecture)
    assert_trains_as_alone(population, images, 4, architecture=architecture)


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_binary_accuracy_is_the_share_of_equal_roundings(architecture, device):
    """Of each member's own validation images, which are padded to one length."""
    images = random_images()
    members = mixed_members(3)
    population = population_of(members, images, device, architecture=architecture)
    assert population.run_epoch().validation_accuracy.isnan().all()
    found = population.run_epoch(binary_accuracy=True).validation_accuracy
    for position, member in enumerate(members):
        pixels = images[member.validation_indices].double() / 255
        outputs = population.extract(position)(pixels)
        share = (outputs.round() == pixels.round()).double().mean().item()
        assert 0.3 < share < 0.9
        assert found[position].item() == pytest.approx(share, rel=1e-12)


def test_early_stop_is_the_run_cut_at_the_best_epoch(device):
    """Weights, best epoch and best loss of each member; members stop one by one."""
    images = random_images()
    members = mixed_members(4, learning_rate=0.05)
    population = population_of(members, images, device, epochs=40)
    stopping = EarlyStopping(4, patience=3, min_delta=1e-4)
    history = []
    while "training" in population.status:
        losses = population.run_epoch()
        history.append(losses.validation)
        stopping.update(population, losses.validation)
    stopping.restore(population)
    curves = torch.stack(history, dim=1)
    assert len(set(curves.isfinite().sum(1).tolist())) > 1  # they did not stop together
    for position, member in enumerate(members):
        best_epoch = int(curves[position].nan_to_num(nan=1.0).argmin()) + 1
        assert int(stopping.best_epoch[position]) == best_epoch
        assert stopping.best_loss[position] == curves[position, best_epoch - 1]
        network, _ = trained_alone(member, images, best_epoch)
        torch.testing.assert_close(population.extract(position).state_dict(), network.state_dict())


def test_patience_counts_from_the_last_clear_improvement(device):
    """A stream of gains below min_delta ends in a stop, with the weights of the lowest loss."""
    population = population_of(mixed_members(2), random_images(), device)
    stopping = EarlyStopping(2, patience=2, min_delta=0.01)
    statuses = []
    for losses in ([0.5, 0.5], [0.495, 0.4], [0.492, 0.3], [math.nan, 0.25]):
        population.run_epoch()
        stopping.update(population, torch.tensor(losses))
        statuses.append(list(population.status))
    assert statuses[1] == ["training", "training"]
    assert statuses[2] == ["stopped", "training"]
    assert statuses[3] == ["stopped", "training"]
    assert stopping.best_epoch.tolist() == [3, 4]
