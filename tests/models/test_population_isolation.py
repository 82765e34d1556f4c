"""Nothing crosses the member axis: poison, permutation, dropping members, stopping and resuming."""

import dataclasses
import math

import pytest
import torch

from aesearch.models.training.early_stopping import EarlyStopping
from aesearch.models.training.population import Member, Population

N_IMAGES = 60
SETTINGS = {
    "channels": (3, 4, 5),
    "conv_hidden": 9,
    "code_activation": "linear",
    "activation": "relu",
    "shortcut": "none",
    "output": "sigmoid",
    "initialization": "torch",
    "averaging": None,
    "optimizer": "adam",
    "momentum": 0.0,
    "schedule": "plateau",
    "gamma": 0.8,
    "factor": 0.5,
    "patience": 0,
    "epochs": 6,
    "batch_size": 16,
}
BOTH = pytest.mark.parametrize("architecture", ["dense", "conv"])
PRECISIONS = pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])


@pytest.fixture
def build(device):
    """Build a population of members on the device, over one set of random images."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (N_IMAGES, 1, 9, 11), dtype=torch.uint8, generator=generator)

    def build(members, **changes):
        return Population(members, images, **SETTINGS | {"device": device} | changes)

    return build


def mixed_members(n_members):
    """Members that differ in all that may differ; the third has fewer steps an epoch."""
    members = []
    for number in range(n_members):
        order = torch.randperm(N_IMAGES, generator=torch.Generator().manual_seed(number))
        n_train = 30 if number == 2 else 48 - number
        members.append(
            Member(
                seed=100 + number,
                learning_rate=3e-3 * (1 + number),
                weight_decay=1e-3 * number,
                dropout=0.1 * number,
                encoding_dim=2 + number % 4,
                hidden=(12 + 3 * (number % 2), 7),
                train_indices=order[:n_train],
                validation_indices=order[n_train:],
            )
        )
    return members


def curves(population, n_epochs):
    """Losses as (member, epoch, train or validation)."""
    epochs = [population.run_epoch() for _ in range(n_epochs)]
    return torch.stack([torch.stack([e.train, e.validation], dim=-1) for e in epochs], dim=1)


def poison(population, position):
    population.set_weights(position, torch.full_like(population.weights(position), math.nan))


@BOTH
@PRECISIONS
@pytest.mark.parametrize("poisoned", [0, 2, 4])
def test_a_poisoned_member_changes_no_bit_of_the_others(build, architecture, precision, poisoned):
    """NaN in all weights of one member in the middle of a run; the others stay torch.equal."""
    members = mixed_members(5)
    changes = {"architecture": architecture, "precision": precision}
    clean, population = build(members, **changes), build(members, **changes)
    assert torch.equal(curves(clean, 1), curves(population, 1))
    poison(population, poisoned)
    expected, got = curves(clean, 1), curves(population, 1)
    others = [p for p in range(5) if p != poisoned]
    assert torch.equal(got[others], expected[others])
    assert got[poisoned].isnan().all()
    assert population.status == ["diverged" if p == poisoned else "training" for p in range(5)]
    # One row less in each product may round differently: the poison is out, not the tolerance.
    later = curves(population, 2)
    tolerance = {"atol": 2e-2, "rtol": 0} if precision == "bfloat16" else {}
    torch.testing.assert_close(later[others], curves(clean, 2)[others], **tolerance)
    assert later[poisoned].isnan().all()


@BOTH
def test_a_learning_rate_that_explodes_is_a_status(build, architecture):
    """Divergence in training is found at the end of the epoch and is the member's alone."""
    members = mixed_members(3)
    members[1] = dataclasses.replace(members[1], learning_rate=1e38, weight_decay=1e38)
    population = build(members, architecture=architecture, optimizer="sgd")
    losses = curves(population, 3)
    assert population.status == ["training", "diverged", "training"]
    assert losses[1, 1:].isnan().all()
    assert losses[[0, 2]].isfinite().all()


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_a_population_of_diverged_members_goes_on(build, architecture):
    """With nobody left to train, an epoch passes and says NaN."""
    population = build(mixed_members(1), architecture=architecture)
    poison(population, 0)
    assert curves(population, 2).isnan().all()
    assert population.status == ["diverged"]
    assert population.epoch == 2


@BOTH
def test_permuted_members_give_permuted_results(build, architecture):
    """A member does not know its position: but for rounding at the end of a vector register."""
    members = mixed_members(5)
    order = [3, 0, 4, 2, 1]
    changes = {"architecture": architecture, "precision": "float64"}
    expected = curves(build(members, **changes), 3)
    permuted = build([members[p] for p in order], **changes)
    torch.testing.assert_close(curves(permuted, 3), expected[order], rtol=1e-12, atol=0.0)


@BOTH
def test_kept_members_train_as_if_nothing_happened(build, architecture):
    """Members leave at a rung; the rest agree with the undisturbed run."""
    members = mixed_members(5)
    changes = {"architecture": architecture, "precision": "float64"}
    undisturbed, population = build(members, **changes), build(members, **changes)
    curves(undisturbed, 1)
    curves(population, 1)
    population.keep([4, 1, 2])
    expected = curves(undisturbed, 2)
    torch.testing.assert_close(curves(population, 2), expected[[4, 1, 2]])
    population.keep([2])
    torch.testing.assert_close(curves(population, 2), curves(undisturbed, 2)[[2]])
    assert population.member_ids == [2]
    assert population.n_members == 1
    torch.testing.assert_close(
        population.extract(0).state_dict(), undisturbed.extract(2).state_dict()
    )


@BOTH
def test_a_neighbour_with_dropout_changes_nothing(build, architecture):
    """A member alone, and beside members with other dropout, widths and set sizes."""
    members = mixed_members(4)
    changes = {"architecture": architecture, "precision": "float64"}
    together = curves(build(members, **changes), 3)
    alone = torch.cat([curves(build([member], **changes), 3) for member in members])
    torch.testing.assert_close(together, alone)


@BOTH
@PRECISIONS
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_resumed_equals_uninterrupted(build, architecture, precision, optimizer):
    """Bit for bit, with dropout, a plateau, a dropped, a diverged and a stopped member."""
    changes = {
        "architecture": architecture,
        "precision": precision,
        "optimizer": optimizer,
        "momentum": 0.9,
    }
    members = mixed_members(6)

    def begun():
        population = build(members, **changes)
        curves(population, 1)
        poison(population, 5)
        curves(population, 1)
        population.stop([0])
        population.keep([5, 4, 3, 0, 2])
        return population

    uninterrupted, killed = begun(), begun()
    state = {name: value.clone() for name, value in killed.state().items()}
    assert all(value.is_contiguous() for value in state.values())
    resumed = build(members, **changes)
    resumed.load_state(state)
    assert (resumed.epoch, resumed.member_ids, resumed.status) == (
        2,
        [5, 4, 3, 0, 2],
        ["diverged", "training", "training", "stopped", "training"],
    )
    expected, got = curves(uninterrupted, 3), curves(resumed, 3)
    assert torch.equal(got.nan_to_num(nan=-1), expected.nan_to_num(nan=-1))
    final, expected_final = resumed.state(), uninterrupted.state()
    assert final.keys() == expected_final.keys()
    for name, value in final.items():
        assert torch.equal(value.nan_to_num(nan=-1), expected_final[name].nan_to_num(nan=-1))


def test_resumed_early_stopping_equals_uninterrupted(build):
    """The stopping's own state goes with the population's."""
    members = mixed_members(3)

    def advance(population, stopping, n_epochs):
        for _ in range(n_epochs):
            stopping.update(population, population.run_epoch().validation)

    whole = (
        build(members, architecture="dense", epochs=12),
        EarlyStopping(3, patience=2, min_delta=1e-3),
    )
    advance(*whole, 12)
    first = (
        build(members, architecture="dense", epochs=12),
        EarlyStopping(3, patience=2, min_delta=1e-3),
    )
    advance(*first, 5)
    second = (
        build(members, architecture="dense", epochs=12),
        EarlyStopping(3, patience=2, min_delta=1e-3),
    )
    second[0].load_state(first[0].state())
    second[1].load_state(first[1].state())
    advance(*second, 7)
    assert second[0].status == whole[0].status
    for name, value in whole[1].state().items():
        assert torch.equal(second[1].state()[name], value)


def test_stopped_members_keep_their_weights(build):
    """A stopped member reports NaN and keeps its weights."""
    population = build(mixed_members(3), architecture="dense")
    curves(population, 1)
    before = population.weights(1)
    population.stop([1])
    losses = curves(population, 1)
    assert losses[1].isnan().all()
    assert torch.equal(population.weights(1), before)
    assert population.status == ["training", "stopped", "training"]


def test_training_leaves_the_global_random_state_alone(build):
    """Neither used nor changed, with dropout."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    curves(build(mixed_members(3), architecture="conv"), 1)
    assert torch.equal(torch.rand(3), expected)


@BOTH
def test_extracted_module_gives_the_measured_loss(build, architecture):
    """A plain float32 module of the member's own widths, with its dropout, in evaluation mode."""
    members = mixed_members(4)
    population = build(members, architecture=architecture)
    losses = curves(population, 2)
    module = population.extract(3)
    assert module.encoding_dim == members[3].encoding_dim
    assert module.configuration["dropout"] == members[3].dropout
    assert not module.training
    images = population._images.rows.view(N_IMAGES, 1, 9, 11)[members[3].validation_indices] / 255
    assert images.dtype == torch.float32
    loss = (module(images) - images).square().mean().double()
    torch.testing.assert_close(loss, losses[3, -1, 1], atol=1e-7, rtol=1e-5)  # float32 sums


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "optimizer must be one of adam, adamw, sgd, got 'lion'"),
        ({"schedule": "step"}, "schedule must be one of"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(build, change, message):
    """The message names the setting, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        build(mixed_members(1), architecture="dense", **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": (3,)}, r"hidden must have one depth .* got depths \[1, 2\]"),
        ({"train_indices": torch.tensor([60])}, r"train_indices of member 1 must be in \[0, 60\)"),
        ({"validation_indices": torch.tensor([], dtype=torch.int64)}, "validation_indices of me"),
    ],
)
def test_members_that_cannot_share_a_population_are_refused(build, change, message):
    """The member is named."""
    members = mixed_members(2)
    members[1] = dataclasses.replace(members[1], **change)
    with pytest.raises(ValueError, match=message):
        build(members, architecture="dense")


@pytest.mark.parametrize("positions", [[], [0, 0], [-1], [2]])
def test_keep_refuses_positions_that_are_not_there(build, positions):
    """Also none and twice the same."""
    with pytest.raises(ValueError, match="positions must be"):
        build(mixed_members(2), architecture="dense").keep(positions)


def test_a_state_of_other_members_is_refused(build):
    """Too many members, or another network."""
    state = build(mixed_members(3), architecture="dense").state()
    with pytest.raises(ValueError, match="member_ids must be among"):
        build(mixed_members(2), architecture="dense").load_state(state)
    with pytest.raises(ValueError, match="weights must have"):
        build(mixed_members(3), architecture="conv").load_state(state)


def test_no_epoch_after_the_last(build):
    """The cosine would rise again."""
    population = build(mixed_members(1), architecture="dense", epochs=1)
    population.run_epoch()
    with pytest.raises(RuntimeError, match="epoch must be < 1"):
        population.run_epoch()


@BOTH
def test_bfloat16_follows_float32(build, architecture):
    """The compute copy is that of the weights of each step, not of the first."""
    members = [
        dataclasses.replace(member, learning_rate=0.02, weight_decay=0.0)
        for member in mixed_members(3)
    ]
    changes = {"architecture": architecture, "schedule": "none"}
    population = build(members, **changes, precision="bfloat16")
    rounded, exact = curves(population, 6), curves(build(members, **changes), 6)
    # Eight bits of mantissa against twenty-four.
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0)
    computed = population._states.weights.bfloat16()
    assert population._compute_weights.dtype == computed.dtype
    assert torch.equal(population._compute_weights, computed)
