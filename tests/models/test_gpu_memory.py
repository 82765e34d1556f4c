"""The memory of a population, from shapes, against what fake tensors of a GPU add up to."""

from math import prod

import pytest
import torch
from pretend_gpu import pretended_gpu

from aesearch.models.training.denoising import Denoising
from aesearch.models.training.device_images import DeviceImages
from aesearch.models.training.early_stopping import EarlyStopping
from aesearch.models.training.memory import MemberBytes, fitting_members, member_bytes
from aesearch.models.training.population import Member, Population, evaluation_size

N_MEMBERS = 3
SETTINGS = {
    "architecture": "dense",
    "channels": (8, 16, 32),
    "conv_hidden": 128,
    "code_activation": "linear",
    "activation": "gelu",
    "shortcut": "pca",
    "output": "clamp",
    "initialization": "torch",
    "averaging": 0.999,
    "optimizer": "adamw",
    "momentum": 0.9,
    "schedule": "none",
    "gamma": 0.8,
    "factor": 0.5,
    "patience": 1,
    "epochs": 4,
    "precision": "float32",
}
PLAIN = {"shortcut": "none", "output": "sigmoid", "averaging": None, "activation": "relu"}
NOISE = Denoising("gaussian", clamp=True, validation_level=0.2, validation_seed=7)
CASES = {
    "digits": ((1, 8, 8), (128, 64), 32, {}),
    "mnist": ((1, 28, 28), (392, 196), 250, {}),
    "mnist, bfloat16": ((1, 28, 28), (392, 196), 250, {"precision": "bfloat16"}),
    "mnist, plain, large batch": ((1, 28, 28), (392,), 1000, PLAIN | {"optimizer": "adam"}),
    "mnist, noise, sgd": ((1, 28, 28), (392,), 250, {"denoising": NOISE, "optimizer": "sgd"}),
    "mnist, noisy": ((1, 28, 28), (16,), 1000, PLAIN | {"noisy": True}),
    "colour": ((3, 32, 32), (512, 256), 64, {}),
    "conv": ((1, 28, 28), (), 250, {"architecture": "conv", "channels": (16, 32, 64)}),
    "conv, plain": ((3, 32, 32), (), 256, PLAIN | {"architecture": "conv"}),
    "conv, bfloat16": ((1, 28, 28), (), 250, {"architecture": "conv", "precision": "bfloat16"}),
}


@pytest.mark.parametrize(
    ("case", "captures"), [*((case, False) for case in CASES), ("mnist", True), ("conv", True)]
)
def test_memory_from_shapes_is_that_of_fake_tensors(monkeypatch, case, captures):
    """At the fullest moment of two epochs: within a tenth; recorded steps from above."""
    shape, hidden, batch_size, changes = CASES[case]
    settings = SETTINGS | changes
    n_train, n_validation = 2 * batch_size + 9, max(300, batch_size)
    members = [
        Member(
            seed=seed,
            learning_rate=1e-3,
            weight_decay=0.1,
            dropout=0.1 if case == "mnist, plain, large batch" else 0.0,
            encoding_dim=16,
            hidden=hidden,
            train_indices=torch.arange(n_train),
            validation_indices=torch.arange(n_validation),
        )
        for seed in range(N_MEMBERS)
    ]
    with pretended_gpu(monkeypatch, captures=captures) as (device, _):
        images = torch.zeros((max(n_train, n_validation), *shape), dtype=torch.uint8).to("cuda")
        noisy = images.clone() if settings.pop("noisy", False) else None
        images = DeviceImages(images, "cuda", noisy=noisy)
        before = device.bytes
        population = Population(members, images, **settings, batch_size=batch_size)
        stopping = EarlyStopping(N_MEMBERS, patience=3, min_delta=0.0)
        device.peak_bytes = 0
        for _ in range(2):
            stopping.update(population, population.run_epoch().validation)
        found = device.peak_bytes - before
    said = member_bytes(
        population._layout.template,
        optimizer=settings["optimizer"],
        averaged=settings["averaging"] is not None,
        precision=settings["precision"],
        corrupted="denoising" in settings or images.has_noisy,
        batch_size=batch_size,
        evaluation_size=min(evaluation_size(batch_size, prod(shape)), n_validation),
        n_train=n_train,
        n_validation=n_validation,
    )
    if captures:
        assert N_MEMBERS * said.state < found < N_MEMBERS * (said.state + 2 * said.step)
    else:
        assert N_MEMBERS * (said.state + said.step) == pytest.approx(found, rel=0.1)


def test_members_fit_by_their_states_and_one_step():
    """All states are there at once, but one population's step at a time; one trains in any case."""
    many = [MemberBytes(state=10, step=100)] * 20
    assert fitting_members(1000, many, recorded=False) == 6  # (800 - 200) / 100
    assert fitting_members(1000, many, recorded=True) == 3
    assert fitting_members(1000, [MemberBytes(10, 50), MemberBytes(30, 100)], recorded=False) == 7
    assert fitting_members(100, many, recorded=False) == 1
