"""Corruptions have the distribution they claim, and depend on an image's key only."""

import math

import pytest
import torch

from aesearch.models.training.corruptions import CORRUPTIONS, Corruption, corrupt, image_keys
from aesearch.models.training.randomness import step_keys

EACH = pytest.mark.parametrize("corruption", CORRUPTIONS)
LEVELS = {"gaussian": 0.5, "uniform": 0.8, "salt-and-pepper": 0.3, "occlusion": 0.5}


def gray(n_images, shape=(1, 28, 28), dtype=torch.float64, device="cpu"):
    """Images of one gray: what is changed can be seen, and nothing is cut off by chance."""
    return torch.full((n_images, *shape), 0.5, dtype=dtype, device=device)


def random_images(n_images, shape=(3, 9, 11), dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.rand((n_images, *shape), dtype=dtype, generator=generator)


@EACH
@pytest.mark.parametrize("size", [1, 7, 40])
def test_an_image_is_corrupted_by_its_number_however_it_is_batched(corruption, size):
    """Bit for bit: in one batch, in batches of seven, one by one."""
    images = random_images(40)
    whole = corrupt(images, corruption, LEVELS[corruption], 3)
    parts = [
        corrupt(part, corruption, LEVELS[corruption], 3, first_sample=size * number)
        for number, part in enumerate(images.split(size))
    ]
    assert torch.equal(torch.cat(parts), whole)


@EACH
def test_the_seed_decides_and_the_images_stay(corruption):
    """Equal seeds, equal results; other seeds, other results; no argument is written to."""
    images = random_images(5)
    before = images.clone()
    first = corrupt(images, corruption, LEVELS[corruption], 3)
    assert torch.equal(corrupt(images, corruption, LEVELS[corruption], 3), first)
    assert not torch.equal(corrupt(images, corruption, LEVELS[corruption], 4), first)
    assert torch.equal(images, before)


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_devices_and_types_draw_the_same(corruption, dtype, device):
    """The CPU in float64 is the witness: on a device bit for bit, in float32 to its precision."""
    images = random_images(6, dtype=dtype)
    got = corrupt(images.to(device), corruption, LEVELS[corruption], 3)
    assert got.dtype == dtype
    assert torch.equal(got.cpu(), corrupt(images, corruption, LEVELS[corruption], 3))
    expected = corrupt(images.double(), corruption, LEVELS[corruption], 3)
    torch.testing.assert_close(got.cpu().double(), expected, atol=1e-6, rtol=0)


@EACH
def test_each_member_has_its_own_level(corruption):
    """Levels along the member axis are as many corruptions of one level, in both layouts."""
    levels = torch.tensor([0.0, 0.25, 0.6, 1.0], dtype=torch.float64)
    images = random_images(20).view(4, 5, -1)
    keys = image_keys(3, torch.arange(20)).view(4, 5)
    settings = {"image_shape": (3, 9, 11), "clamp": False, "like": images}
    together = Corruption(corruption, levels[:, None], **settings).apply(images, keys)
    alone = [
        Corruption(corruption, level, **settings).apply(*own)
        for level, *own in zip(levels, images, keys, strict=True)
    ]
    assert torch.equal(together, torch.stack(alone))
    swapped = Corruption(corruption, levels, **settings).apply(images.transpose(0, 1), keys.t())
    assert torch.equal(swapped.transpose(0, 1), together)


@EACH
def test_level_zero_changes_nothing(corruption):
    """The clean image is where every level begins."""
    images = random_images(5)
    assert torch.equal(corrupt(images, corruption, 0.0, 3), images)


def test_gaussian_noise_is_normal_with_the_level_as_its_deviation():
    """Moments, and the share beyond one, two and three deviations, of 3.1 million draws."""
    noise = corrupt(gray(4000), "gaussian", 0.4, 3, clamp=False) - 0.5
    z = noise / 0.4
    assert abs(z.mean()) < 0.003  # five standard errors of the mean
    assert z.std().item() == pytest.approx(1.0, abs=0.003)
    assert (z**3).mean().item() == pytest.approx(0.0, abs=0.01)
    assert (z**4).mean().item() == pytest.approx(3.0, abs=0.03)
    shares = [(z > bound).double().mean().item() for bound in (1, 2, 3)]
    expected = [0.5 * math.erfc(bound / math.sqrt(2)) for bound in (1, 2, 3)]
    assert shares == pytest.approx(expected, rel=0.05)


def test_uniform_noise_is_added_between_zero_and_the_level():
    """U[0, level): mean, variance and both ends."""
    noise = corrupt(gray(4000), "uniform", 0.8, 3, clamp=False) - 0.5
    assert noise.min() >= 0
    assert noise.max() < 0.8
    assert noise.mean().item() == pytest.approx(0.4, abs=1e-3)
    assert noise.var().item() == pytest.approx(0.8**2 / 12, rel=5e-3)


@pytest.mark.parametrize("corruption", ["gaussian", "uniform"])
def test_clamping_cuts_the_same_noise_to_the_unit_interval(corruption):
    """Clamped is the clamp of unclamped, which does leave the interval."""
    images = random_images(5)
    unclamped = corrupt(images, corruption, 2.0, 3, clamp=False)
    assert unclamped.max() > 1
    assert torch.equal(corrupt(images, corruption, 2.0, 3), unclamped.clamp(0, 1))


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_salt_and_pepper_set_a_share_of_the_pixels_to_black_or_white(level):
    """Half of the share each; the other pixels keep their value; a pixel has all channels."""
    corrupted = corrupt(gray(1500, shape=(3, 28, 28)), "salt-and-pepper", level, 3)
    black, white = (corrupted == 0).double(), (corrupted == 1).double()
    assert black.mean().item() == pytest.approx(level / 2, abs=2e-3)
    assert white.mean().item() == pytest.approx(level / 2, abs=2e-3)
    assert ((corrupted == 0) | (corrupted == 1) | (corrupted == 0.5)).all()
    assert torch.equal(corrupted, corrupted[:, :1].expand_as(corrupted))


@pytest.mark.parametrize(
    ("shape", "level", "side"),
    [((1, 28, 28), 0.5, 14), ((3, 9, 11), 0.3, 3), ((1, 8, 8), 1.0, 8), ((1, 28, 28), 0.01, 0)],
)
def test_an_occlusion_is_one_black_square_inside(shape, level, side):
    """Of the stated side, in all channels, fully inside; everything else is as it was."""
    corrupted = corrupt(gray(50, shape=shape), "occlusion", level, 3)
    hidden = corrupted == 0
    assert (hidden | (corrupted == 0.5)).all()
    rows, columns = hidden.any(3).sum(2), hidden.any(2).sum(2)
    assert (rows == side).all()
    assert (columns == side).all()
    assert (hidden.sum((2, 3)) == side**2).all()


def test_an_occlusion_lies_anywhere_with_equal_odds():
    """A square of 14 in 28 has 15 places along each axis, and the axes are independent."""
    hidden = corrupt(gray(9000), "occlusion", 0.5, 3)[:, 0] == 0
    top, left = hidden.any(2).int().argmax(1), hidden.any(1).int().argmax(1)
    counts = torch.bincount(top * 15 + left, minlength=225).double()
    assert len(counts) == 225
    # Chi-square with 224 degrees of freedom: 224 +- 21; five deviations.
    assert ((counts - 40) ** 2 / 40).sum() < 330


def test_an_occlusion_may_hang_off_the_border_where_that_is_asked_for():
    """The centre of the square lies anywhere in the image: 8 of 28 rows of them reach row 0."""
    hidden = corrupt(gray(4000), "occlusion", 0.5, 3, overhang=True) == 0
    areas = hidden.sum((1, 2, 3))
    assert areas.max() == 14**2
    assert areas.min() == 7**2
    centre_covered = hidden[:, 0, 13:15, 13:15].double().mean().item()
    assert centre_covered == pytest.approx(0.25, abs=0.02)
    assert hidden[:, 0, 0, 0].double().mean().item() == pytest.approx((8 / 28) ** 2, abs=0.02)


def test_draws_of_images_pixels_and_seeds_are_uncorrelated():
    """Between neighbouring pixels, neighbouring images, and seeds, to 0.01."""

    def correlation(one, other):
        return torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()

    noise = corrupt(gray(400), "gaussian", 0.5, 3, clamp=False) - 0.5
    other = corrupt(gray(400), "gaussian", 0.5, 4, clamp=False) - 0.5
    found = [
        correlation(noise[..., 1:], noise[..., :-1]),
        correlation(noise[..., 1:, :], noise[..., :-1, :]),
        correlation(noise[1:], noise[:-1]),
        correlation(noise, other),
        correlation(noise.abs(), other.abs()),
    ]
    assert found == pytest.approx([0] * 5, abs=0.01)


def test_an_image_key_is_no_key_of_a_training_step():
    """Validation must not see what was trained on, even where a member has the study's seed."""
    steps = step_keys([3], torch.arange(1000)[:, None]).flatten()
    images = image_keys(3, torch.arange(1000))
    assert not set(steps.tolist()) & set(images.tolist())
    assert len(set(images.tolist())) == 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corruption": "blur"}, "corruption must be one of gaussian, .*, got 'blur'"),
        ({"level": -0.1}, "level must be >= 0 and finite for gaussian, got -0.1"),
        ({"level": math.nan}, "level must be >= 0 and finite for gaussian, got nan"),
        ({"corruption": "occlusion", "level": 1.5}, r"level must be in \[0, 1\] for occlusion"),
        ({"corruption": "salt-and-pepper", "level": 2.0}, r"in \[0, 1\] for salt-and-pepper"),
        ({"images": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}, "images must be floating .*uint8"),
        ({"images": torch.zeros(2, 8, 8)}, r"images must be floating .*\(2, 8, 8\)"),
    ],
)
def test_what_cannot_be_corrupted_is_refused_by_name(change, message):
    """The message names the argument, the rule and the value."""
    arguments = {"images": gray(2), "corruption": "gaussian", "level": 0.5, "seed": 3}
    with pytest.raises(ValueError, match=message):
        corrupt(**arguments | change)
