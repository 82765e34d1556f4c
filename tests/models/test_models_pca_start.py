"""A network with a shortcut starts as PCA of its own training images, and is itself in a crowd."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import ttest_rel
from sklearn.decomposition import PCA
from torch.nn import functional as F

from aesearch.models import principal
from aesearch.models.autoencoder import build_autoencoder
from aesearch.models.principal import principal_components
from aesearch.models.shortcut import start_at
from aesearch.models.training.early_stopping import EarlyStopping
from aesearch.models.training.population import Member, Population
from aesearch.models.training.randomness import minibatch_order
from aesearch.training.members import clearly_lower

N_IMAGES = 70
NETWORK = {
    "channels": (3, 4, 5),
    "conv_hidden": 9,
    "code_activation": "linear",
    "activation": "gelu",
    "shortcut": "pca",
    "output": "clamp",
    "initialization": "torch",
}
SETTINGS = {
    **NETWORK,
    "optimizer": "adamw",
    "momentum": 0.0,
    "schedule": "none",
    "gamma": 0.8,
    "factor": 0.5,
    "patience": 1,
    "averaging": 0.9,
    "epochs": 6,
    "batch_size": 16,
    "precision": "float64",
}
BOTH = pytest.mark.parametrize("architecture", ["dense", "conv"])


def random_images(shape=(1, 9, 11), seed=1):
    generator = torch.Generator().manual_seed(seed)
    # Some pixels never change, as the border of digits.
    images = torch.randint(0, 256, (N_IMAGES, *shape), dtype=torch.uint8, generator=generator)
    images[:, :, 0] = 0
    return images


def member(number, **changes):
    order = torch.randperm(N_IMAGES, generator=torch.Generator().manual_seed(number))
    arguments = {
        "seed": 100 + number,
        "learning_rate": 2e-3 * (1 + number),
        "weight_decay": 0.1 * number,
        "dropout": 0.0,
        "encoding_dim": 2 + 3 * number,
        "hidden": (12 + 3 * number, 7),
        "train_indices": order[: 50 - number],
        "validation_indices": order[50:],
    }
    return Member(**arguments | changes)


@BOTH
@pytest.mark.parametrize("shape", [(1, 9, 11), (3, 8, 8), (1, 5, 7)])
def test_an_untrained_network_is_pca(architecture, shape):
    """Of each member's own training images, as scikit-learn has it, cut to [0, 1]."""
    images = random_images(shape)
    members = [member(0), member(1), member(2)]
    population = Population(members, images, architecture=architecture, **SETTINGS)
    pixels = images.double().div(255)
    for position, one in enumerate(members):
        rows = pixels.flatten(1).numpy()
        pca = PCA(one.encoding_dim, svd_solver="full").fit(rows[one.train_indices])
        expected = pca.inverse_transform(pca.transform(rows)).clip(0, 1)
        with torch.no_grad():
            found = population.extract(position)(pixels).flatten(1)
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_an_image_that_is_held_out_changes_no_weight():
    """Neither where a network starts, nor after an epoch."""
    one = member(1)
    images, changed = random_images(), random_images()
    changed[one.validation_indices] = 255 - changed[one.validation_indices]
    rows = []
    for those in (images, changed):
        population = Population([one], those, architecture="dense", **SETTINGS)
        population.run_epoch()
        rows.append(population.weights(0))
    assert torch.equal(*rows)


def test_a_code_wider_than_the_images_are_many_starts_with_what_there_is():
    """Components without variance are zero, and nothing is NaN."""
    one = member(0, encoding_dim=60, train_indices=torch.arange(20))
    population = Population([one], random_images(), architecture="dense", **SETTINGS)
    weights = population.extract(0).encoder[2].linear.weight
    assert weights[:19].abs().sum(1).min() > 0.9
    assert not weights[19:].any()
    losses = population.run_epoch()
    assert math.isfinite(losses.validation[0])


def test_the_subspace_of_large_images_agrees_with_the_exact_components(monkeypatch):
    """The randomised solver finds the same leading components, signs included."""
    generator = torch.Generator().manual_seed(3)
    factors = torch.randn(N_IMAGES, 4, generator=generator) @ torch.randn(
        4, 60, generator=generator
    )
    images = (factors * 25 + 128).clamp(0, 255).to(torch.uint8)
    indices = torch.arange(N_IMAGES)
    exact = principal_components(images, indices, 4)
    monkeypatch.setattr(principal, "LARGEST_EXACT", 10)
    found = principal_components(images, indices, 4)
    torch.testing.assert_close(found.components, exact.components, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.mean, exact.mean)


@BOTH
def test_members_train_as_in_a_plain_loop(architecture):
    """Shortcut, GELU, clamp, AdamW and the average of the weights, held against autograd."""
    images = random_images()
    pixels = images.double().div(255)
    members = [member(0), member(1), member(2)]
    population = Population(members, images, architecture=architecture, **SETTINGS)
    epochs = [population.run_epoch() for _ in range(2)]
    for position, one in enumerate(members):
        losses, network = trained_alone(one, images, architecture, n_epochs=2)
        found = [losses.validation[position].item() for losses in epochs]
        assert found == pytest.approx(losses, rel=1e-9)
        averaged = population.extract(position)
        for name, weight in network.state_dict().items():
            torch.testing.assert_close(averaged.state_dict()[name], weight, msg=name)
        measured = population.measure([position], [one.validation_indices])
        with torch.no_grad():
            held_out = pixels[one.validation_indices]
            assert measured.item() == pytest.approx(F.mse_loss(averaged(held_out), held_out).item())


class _Clamp(torch.autograd.Function):
    """Cuts to [0, 1], with a slope of 0.01 outside."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values.clamp(0, 1)

    @staticmethod
    def backward(ctx, gradient):
        (values,) = ctx.saved_tensors
        return gradient * torch.where((values < 0) | (values > 1), 0.01, 1.0)


def trained_alone(one, images, architecture, *, n_epochs):
    """Validation losses and the averaged network of a plain loop."""
    arguments = dict(
        **NETWORK,
        architecture=architecture,
        image_shape=images.shape[1:],
        encoding_dim=one.encoding_dim,
        hidden=one.hidden,
        seed=one.seed,
    )
    network, averaged = build_autoencoder(**arguments), build_autoencoder(**arguments)
    rows = images.flatten(1)
    start_at(
        network.encoder,
        network.decoder,
        principal_components(rows, one.train_indices, one.encoding_dim),
    )
    network.double()
    averaged.double().load_state_dict(network.state_dict())
    last = next(i for i, m in enumerate(network.decoder) if isinstance(m, torch.nn.Hardtanh))
    network.decoder[last] = torch.nn.Identity()
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=one.learning_rate, weight_decay=one.weight_decay
    )
    pixels, losses, step = images.double().div(255), [], 0
    for epoch in range(n_epochs):
        order = one.train_indices[minibatch_order(one.seed, epoch, len(one.train_indices))]
        for indices in order.split(SETTINGS["batch_size"]):
            optimiser.zero_grad()
            F.mse_loss(_Clamp.apply(network(pixels[indices])), pixels[indices]).backward()
            optimiser.step()
            decay = min(SETTINGS["averaging"], (1 + step) / (10 + step))
            with torch.no_grad():
                pairs = zip(averaged.parameters(), network.parameters(), strict=True)
                for kept, weight in pairs:
                    kept.lerp_(weight, 1 - decay)
            step += 1
        held_out = pixels[one.validation_indices]
        with torch.no_grad():
            losses.append(F.mse_loss(averaged(held_out), held_out).item())
    return losses, averaged


def curved_images():
    """A bright bar that moves: one number says where, and no line through the pixels does."""
    columns = torch.linspace(0, 10, N_IMAGES)[:, None, None, None]
    bar = torch.exp(-((torch.arange(11.0) - columns) ** 2) / 2)
    return (255 * bar.expand(N_IMAGES, 1, 9, 11)).round().to(torch.uint8)


def stopped_early(members, images, architecture, *, n_epochs, **settings):
    """A population after ``n_epochs`` with its best weights, and what stopped it."""
    settings = SETTINGS | {"epochs": n_epochs, "architecture": architecture} | settings
    population = Population(members, images, **settings)
    stopping = EarlyStopping(
        len(members), patience=n_epochs, min_delta=0.0, clearly_lower=clearly_lower
    )
    stopping.consider_start(population)
    while population.epoch < n_epochs and "training" in population.status:
        stopping.update(population, population.run_epoch().validation)
    best = stopping.best_weights.clone()
    stopping.restore(population)
    return population, stopping, best


@BOTH
def test_what_is_not_clearly_better_than_its_start_is_pca_of_all_its_images(architecture):
    """Of noise nothing can be learned; the images that stopped the training serve at last."""
    members = [member(0), member(1, learning_rate=3.0)]
    images = random_images()
    population, stopping, _ = stopped_early(members, images, architecture, n_epochs=3)
    both = [torch.cat([one.train_indices, one.validation_indices]).sort().values for one in members]
    everything = [
        replace(one, train_indices=indices) for one, indices in zip(members, both, strict=True)
    ]
    expected = Population(everything, images, architecture=architecture, **SETTINGS)
    assert stopping.best_epoch.tolist() == [0, 0]
    assert population.status == ["stopped", "stopped"]
    fresh = Population(members, images, architecture=architecture, **SETTINGS)
    losses = fresh.measure([0, 1], [one.validation_indices for one in members])
    torch.testing.assert_close(stopping.best_loss, losses, rtol=1e-12, atol=0)
    pixels = images.double().div(255)
    for position in range(2):
        assert torch.equal(population.weights(position), expected.weights(position))
        with torch.no_grad():
            found = population.extract(position)(pixels)
            assert torch.equal(found, expected.extract(position)(pixels))
        measured = population.measure([position], [torch.arange(N_IMAGES)])
        assert measured.item() == pytest.approx(F.mse_loss(found, pixels).item(), rel=1e-12)


@BOTH
def test_a_network_that_is_clearly_better_than_its_start_keeps_its_best_epoch(architecture):
    """Beside one that learns nothing, and that is the same as when it trains alone."""
    learner = member(0, learning_rate=1e-2, weight_decay=0.0, encoding_dim=1)
    idle = member(0, learning_rate=0.0, encoding_dim=1)
    images = curved_images()
    population, stopping, best = stopped_early([learner, idle], images, architecture, n_epochs=40)
    assert stopping.best_epoch[0] > 0
    assert stopping.best_epoch[1] == 0
    assert torch.equal(population.weights(0), best[0])
    assert not torch.equal(population.weights(1), best[1])
    for position, one in enumerate((learner, idle)):
        alone, alone_stopping, _ = stopped_early([one], images, architecture, n_epochs=40)
        assert alone_stopping.best_epoch[0] == stopping.best_epoch[position]
        torch.testing.assert_close(alone.weights(0), population.weights(position))


@BOTH
@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_errors_of_single_images_are_those_of_the_plain_network(architecture, precision):
    """Whatever the number of images that each member has, frozen or not."""
    settings = SETTINGS | {"precision": precision, "architecture": architecture}
    members = [member(0), member(1, validation_indices=torch.arange(3)), member(2)]
    population = Population(members, random_images(), **settings)
    population.run_epoch()
    population.stop([2])
    for position, (one, found) in enumerate(
        zip(members, population.validation_errors(), strict=True)
    ):
        network = population.extract(position)
        pixels = random_images()[one.validation_indices].to(population.weights(0).dtype)
        pixels = pixels.div(255)
        with torch.no_grad():
            errors = (network(pixels) - pixels).square().flatten(1).mean(1).double()
        torch.testing.assert_close(found, errors, rtol=1e-5, atol=1e-9)
        assert found.mean().item() == pytest.approx(
            population.measure([position], [one.validation_indices]).item(), rel=1e-6
        )


def test_clearly_lower_is_a_paired_t_test():
    """One-sided, at 1%; one image alone tells nothing."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        n = int(torch.randint(2, 40, (), generator=generator))
        others = torch.rand(n, dtype=torch.float64, generator=generator)
        gains = torch.randn(n, dtype=torch.float64, generator=generator) * 0.1 + 0.05
        p = ttest_rel(others - gains, others, alternative="less").pvalue
        assert clearly_lower(others - gains, others) == (p < 0.01)
    assert not clearly_lower(torch.zeros(1), torch.ones(1))
    assert clearly_lower(torch.zeros(9), torch.ones(9))
    assert not clearly_lower(torch.ones(9), torch.ones(9))


@BOTH
def test_a_start_is_remembered_across_a_stop(architecture):
    """Of members of different numbers of images, also where one was dropped before."""
    images = random_images()
    members = [member(0), member(1, validation_indices=torch.arange(3)), member(2)]
    rows = []
    for interrupted in (False, True):
        population = Population(members, images, architecture=architecture, **SETTINGS)
        stopping = EarlyStopping(3, patience=5, min_delta=0.0, clearly_lower=clearly_lower)
        stopping.consider_start(population)
        stopping.update(population, population.run_epoch().validation)
        population.keep([2, 1])
        stopping.keep([2, 1])
        if interrupted:
            state, kept = population.state(), stopping.state()
            population = Population(members, images, architecture=architecture, **SETTINGS)
            population.load_state(state)
            stopping = EarlyStopping(2, patience=5, min_delta=0.0, clearly_lower=clearly_lower)
            stopping.load_state(kept)
        stopping.restore(population)
        rows.append(population.all_weights())
    assert torch.equal(*rows)


@BOTH
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_poisoned_member_changes_no_bit_of_the_others(architecture, precision):
    """NaN in all weights of one member; the averages of the others stay torch.equal."""
    settings = SETTINGS | {"architecture": architecture, "precision": precision}
    rows = []
    for poisoned in (False, True):
        population = Population([member(0), member(1), member(2)], random_images(), **settings)
        population.run_epoch()
        if poisoned:
            population.set_weights(1, torch.full_like(population.weights(1), math.nan))
        population.run_epoch()
        rows.append([population.weights(0), population.weights(2)])
    assert all(torch.equal(clean, beside) for clean, beside in zip(*rows, strict=True))


@BOTH
def test_a_resumed_population_goes_on_bit_for_bit(architecture):
    """Also where one member is frozen: weights, averages and means come back."""
    settings = SETTINGS | {"architecture": architecture}
    members = [member(0), member(1), member(2)]
    straight = Population(members, random_images(), **settings)
    straight.run_epoch()
    straight.stop([0])
    state = straight.state()
    resumed = Population(members, random_images(), **settings)
    resumed.load_state(state)
    for population in (straight, resumed):
        population.keep([2, 0])
        population.run_epoch()
    assert all(torch.equal(straight.weights(p), resumed.weights(p)) for p in range(2))
    pixels = random_images().double().div(255)
    with torch.no_grad():
        assert torch.equal(straight.extract(1)(pixels), resumed.extract(1)(pixels))


@pytest.mark.parametrize("largest_exact", [2048, 10])
def test_images_are_taken_a_few_at_a_time(monkeypatch, largest_exact):
    """A training part as a whole would be a copy of its own in every process of a large set."""
    taken, select = [], torch.Tensor.index_select

    def noted(images, dim, indices):
        taken.append(len(indices))
        return select(images, dim, indices)

    monkeypatch.setattr(torch.Tensor, "index_select", noted)
    monkeypatch.setattr(principal, "_ROWS", 16)
    monkeypatch.setattr(principal, "LARGEST_EXACT", largest_exact)
    images = torch.randint(0, 256, (150, 20), dtype=torch.uint8)
    indices = torch.arange(0, 150, 2)
    found = principal_components(images, indices, 3)
    assert max(taken) == 16
    mean = images[indices].double().mean(0) / 255
    torch.testing.assert_close(found.mean, mean)
