"""What runs on a GPU, checked where there is none: one device, no number asked for, recorded steps.

Shapes, types and devices are those of PyTorch's fake tensors; numbers are checked on the CPU, with
operations that are recorded and repeated as a CUDA graph's are. See ``pretend_gpu``.
"""

import pytest
import torch
from pretend_gpu import RecordedCalls, pretended_gpu

from aesearch.models.training import capture, optimisers
from aesearch.models.training.corruptions import CORRUPTIONS
from aesearch.models.training.denoising import Denoising
from aesearch.models.training.device_images import DeviceImages
from aesearch.models.training.early_stopping import EarlyStopping
from aesearch.models.training.population import Member, Population

N_IMAGES = 60
SETTINGS = {
    "architecture": "dense",
    "channels": (3, 4, 5),
    "conv_hidden": 9,
    "code_activation": "linear",
    "activation": "gelu",
    "shortcut": "none",
    "output": "sigmoid",
    "initialization": "torch",
    "averaging": None,
    "optimizer": "adam",
    "momentum": 0.9,
    "schedule": "cosine",
    "gamma": 0.8,
    "factor": 0.5,
    "patience": 1,
    "epochs": 12,
    "batch_size": 16,
    "precision": "float32",
}


def images(shape=(1, 9, 11)):
    """Random images."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (N_IMAGES, *shape), dtype=torch.uint8, generator=generator)


def members():
    """Members that differ in all that may differ; one trains on few images."""
    made = []
    for number in range(3):
        order = torch.randperm(N_IMAGES, generator=torch.Generator().manual_seed(number))
        n_train = 44 - number if number else 12
        made.append(
            Member(
                seed=100 + number,
                learning_rate=3e-3 * (1 + number),
                weight_decay=1e-3 * number,
                dropout=0.1 * number,
                encoding_dim=2 + number % 3,
                hidden=(12 + 3 * (number % 2), 7),
                train_indices=order[:n_train],
                validation_indices=order[n_train:],
                corruption_level=0.1 * (1 + number),
            )
        )
    return made


def population_of(device="cpu", *, noisy=None, n_resident=None, window=0, **changes):
    """Three members on a device."""
    where = DeviceImages(images(), device, noisy=noisy, n_resident=n_resident, window=window)
    return Population(members(), where, **SETTINGS | changes)


def live_through(population):
    """Everything that a population and its stopping go through; gives all that comes out."""
    stopping = EarlyStopping(
        population.n_members, patience=3, min_delta=1e-3, clearly_lower=lambda *_: False
    )
    if population.starts_as_pca:
        stopping.consider_start(population)
    came_out = []
    for epoch in range(4):
        losses = population.run_epoch(binary_accuracy=epoch > 1)
        came_out += [losses.train, losses.validation, losses.validation_accuracy]
        stopping.update(population, losses.validation)
        if epoch == 1:
            population.keep([2, 0])
            stopping.keep([2, 0])
        if epoch == 2:
            population.stop([1])
            state, stopped = population.state(), stopping.state()
            population.load_state(state)
            stopping.load_state(stopped)
            came_out += [*state.values(), *stopped.values()]
    stopping.restore(population)
    came_out.append(population.measure([1, 0], [torch.arange(30), torch.arange(9)]))
    for position in range(population.n_members):
        came_out += population.extract(position).state_dict().values()
    return came_out


NOISES = {
    kind: Denoising(kind, clamp=True, validation_level=0.2, validation_seed=7)
    for kind in CORRUPTIONS
}
START = {"shortcut": "pca", "output": "clamp", "averaging": 0.9}
KINDS = {
    "dense, adam": {},
    "conv, adamw": {"architecture": "conv", "optimizer": "adamw"},
    "dense, sgd, bfloat16": {"optimizer": "sgd", "precision": "bfloat16"},
    "conv, adam, bfloat16": {"architecture": "conv", "precision": "bfloat16"},
    "dense, adamw, shortcut": {**START, "optimizer": "adamw", "schedule": "plateau"},
    "conv, sgd, shortcut": {**START, "architecture": "conv", "optimizer": "sgd"},
    "dense, adam, gaussian": {"denoising": NOISES["gaussian"]},
    "dense, adamw, uniform": {"denoising": NOISES["uniform"], "optimizer": "adamw"},
    "dense, sgd, salt": {"denoising": NOISES["salt-and-pepper"], "optimizer": "sgd"},
    "conv, adam, occlusion": {"denoising": NOISES["occlusion"], "architecture": "conv"},
    "conv, adamw, relu": {
        "architecture": "conv",
        "optimizer": "adamw",
        "activation": "relu",
        "code_activation": "relu",
        "denoising": NOISES["gaussian"],
    },
    "dense, adam, noisy": {**START, "noisy": images().flip(0)},
    "conv, sgd, noisy": {"architecture": "conv", "optimizer": "sgd", "noisy": images().flip(0)},
}
NOISY = [kind for kind in KINDS if "noisy" in kind]
# Of 60 images; a step takes up to 58 of them, and of those that come and go more than half.
STREAMED = {
    "few stay": {"n_resident": 7, "window": 52},
    "none stays": {"n_resident": 0, "window": 58},
    "most stay": {"n_resident": 44, "window": 16},
}
EACH_KIND = pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)


@EACH_KIND
def test_a_gpu_gives_the_shapes_and_types_of_the_cpu(monkeypatch, changes):
    """Training, validation, stopping, compaction, checkpoint, extraction; on one device throughout.

    Operands of two devices raise, as does asking for a number; a step that copies raises too.
    """
    expected = live_through(population_of(**changes))
    with pretended_gpu(monkeypatch) as (_, place):
        found = live_through(population_of("cuda", **changes))
    assert [(t.shape, t.dtype) for t in found] == [(t.shape, t.dtype) for t in expected]
    assert place.recorded > 4


@pytest.mark.parametrize("captures", [True, False])
@pytest.mark.parametrize("kind", ["dense, adamw, shortcut", "conv, adamw, relu"])
def test_an_epoch_waits_for_the_device_as_often_however_many_steps_it_has(
    monkeypatch, kind, captures
):
    """What crosses between host and device does not grow with the steps."""

    def crossings(batch_size):
        with pretended_gpu(monkeypatch, captures=captures) as (device, _):
            population = population_of("cuda", batch_size=batch_size, **KINDS[kind])
            population.run_epoch()
            before = len(device.crossings)
            population.run_epoch()
        return device.crossings[before:]

    many, few = crossings(8), crossings(20)
    assert many == few
    assert 1 < len(many) < 15


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_an_apple_gpu_is_given_float32_only(monkeypatch, architecture):
    """It has no float64, and records nothing; everything else is as on any device."""
    for module in ("losses", "population"):
        monkeypatch.setattr(f"aesearch.models.training.{module}.sum_dtype", lambda _: torch.float32)
    changes = {"architecture": architecture, "denoising": NOISES["gaussian"], "averaging": 0.9}
    expected = live_through(population_of(**changes))
    with pretended_gpu(monkeypatch, captures=False, without_float64=True):
        found = live_through(population_of("cuda", **changes))
    assert [(t.shape, t.dtype) for t in found] == [(t.shape, t.dtype) for t in expected]


@EACH_KIND
def test_recorded_steps_give_the_numbers_of_steps_that_are_launched(monkeypatch, changes):
    """Bit for bit: recordings know no Python, so whatever a step took from there would stay old."""
    monkeypatch.setattr(optimisers, "goes_by_member", lambda _: False)
    launched = live_through(population_of(**changes))
    calls = RecordedCalls()
    monkeypatch.setattr(capture, "can_capture", lambda _: True)
    monkeypatch.setattr(capture, "place_of", lambda _: calls)
    recorded = live_through(population_of(**changes))
    assert len(calls.recordings) > 4
    for found, expected in zip(recorded, launched, strict=True):
        assert torch.equal(found.nan_to_num(nan=-1), expected.nan_to_num(nan=-1))


@pytest.mark.parametrize("kind", ["conv, sgd, shortcut", "dense, adam, gaussian", *NOISY])
@pytest.mark.parametrize("streamed", STREAMED.values(), ids=STREAMED)
@pytest.mark.parametrize("records", [False, True])
def test_images_that_come_and_go_give_the_numbers_of_those_that_stay(
    monkeypatch, kind, streamed, records
):
    """Bit for bit: launched, recorded, after members left, for corrupted and for noisy images."""
    if records:
        monkeypatch.setattr(optimisers, "goes_by_member", lambda _: False)
    expected = live_through(population_of(**KINDS[kind]))
    if records:
        calls = RecordedCalls()
        monkeypatch.setattr(capture, "can_capture", lambda _: True)
        monkeypatch.setattr(capture, "place_of", lambda _: calls)
    found = live_through(population_of(**KINDS[kind], **streamed))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.nan_to_num(nan=-1), other.nan_to_num(nan=-1))


@pytest.mark.parametrize("streamed", STREAMED.values(), ids=STREAMED)
def test_a_gpu_holds_no_more_images_than_it_has_places_for(monkeypatch, streamed):
    """And nothing crosses in a recorded step: images come between steps."""
    everything = KINDS["dense, adam, noisy"]
    with pretended_gpu(monkeypatch) as (device, place):
        images_ = DeviceImages(images(), "cuda", noisy=images().flip(0), **streamed)
        assert device.bytes == 2 * 99 * sum(streamed.values())
        settings = {name: value for name, value in everything.items() if name != "noisy"}
        live_through(Population(members(), images_, **SETTINGS | settings))
    assert place.recorded > 4


def test_a_window_that_is_too_small_for_a_step_is_memory_that_ran_out():
    """So that fewer members are tried, as for any other memory."""
    with pytest.raises(torch.OutOfMemoryError, match="at most 20 images"):
        population_of(n_resident=10, window=20)


def test_a_device_that_refuses_to_record_is_told_every_step(monkeypatch, caplog):
    """The numbers are the same; memory that runs out is no refusal."""

    class Refusing(RecordedCalls):
        def record(self, _function):
            raise self.error

    refusing = Refusing()
    refusing.error = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    expected = live_through(population_of())
    monkeypatch.setattr(capture, "can_capture", lambda _: True)
    monkeypatch.setattr(capture, "place_of", lambda _: refusing)
    found = live_through(population_of())
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.nan_to_num(nan=-1), other.nan_to_num(nan=-1))
    assert "the GPU records no steps (CUDA error: operation not permitted" in caplog.text
    refusing.error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        live_through(population_of())


def test_the_stand_in_notices(monkeypatch):
    """A number asked for in a step, an operand on the CPU, a copy: each raises."""
    forward = Population._inputs_and_targets

    def planted(what):
        def inputs_and_targets(population, row, width):
            inputs, targets = forward(population, row, width)
            return what(inputs), targets

        monkeypatch.setattr(Population, "_inputs_and_targets", inputs_and_targets)
        with pretended_gpu(monkeypatch):
            population = population_of("cuda")
            population.run_epoch()
            population.run_epoch()

    with pytest.raises(Exception, match="_local_scalar_dense"):
        planted(lambda inputs: inputs * inputs.sum().item())
    with pytest.raises(Exception, match="_local_scalar_dense"):
        planted(lambda inputs: inputs if inputs.sum() > 0 else -inputs)
    with pytest.raises(RuntimeError, match="same device"):
        planted(lambda inputs: inputs + torch.ones(inputs.shape))
    with pytest.raises(AssertionError, match="nothing may cross"):
        planted(lambda inputs: inputs + torch.ones(inputs.shape).to(inputs.device))
