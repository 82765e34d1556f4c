"""Pictures show the images they say they show, pixel by pixel, and the same bytes every time."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from aesearch.evaluation.pictures import draw_pictures
from aesearch.evaluation.tiles import GAP, LARGEST_SIDE, PAPER, SMALLEST_SIDE, tiled
from aesearch.models.autoencoder import build_autoencoder

LEVELS = {
    "gaussian": (0.1, 0.5, 1.0),
    "uniform": (),
    "salt-and-pepper": (0.2,),
    "occlusion": (0.5,),
}


def images_of(shape, n_samples, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n_samples, *shape), dtype=np.uint8)


def network(shape, encoding_dim=3):
    return build_autoencoder(
        architecture="dense", image_shape=shape, encoding_dim=encoding_dim, hidden=(8,)
    ).eval()


def pixels(png):
    """Read a PNG: (height, width, channel)."""
    found = np.asarray(Image.open(io.BytesIO(png)))
    return found[:, :, None] if found.ndim == 2 else found


def tile(png, shape, row, column):
    """Cut one tile out of a picture without wide gaps, and take the enlargement back."""
    channels, height, width = shape
    times = -(-SMALLEST_SIDE // max(height, width))
    top, left = row * (height * times + GAP), column * (width * times + GAP)
    cut = pixels(png)[top : top + height * times, left : left + width * times]
    assert cut.shape[2] == channels
    return cut[::times, ::times].transpose(2, 0, 1)


def draw(model, images, labels=None, *, names=None, levels=LEVELS, seed=0):
    batch = torch.from_numpy(images) / 255
    with torch.no_grad():
        errors = (model(batch) - batch).square().flatten(1).mean(1).numpy()
    drawn, omitted = draw_pictures(
        model, images, labels, names, errors=errors, levels=levels, seed=seed
    )
    return {picture.name: picture for picture in drawn}, errors, omitted


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (1, 28, 28)])
def test_tiles_are_whole_pixels_between_gaps(shape):
    """Every pixel becomes a square of equal pixels; gaps are neither black nor white."""
    rows = [images_of(shape, 4, seed) for seed in (0, 1)]
    png = tiled(rows)
    times = -(-SMALLEST_SIDE // max(shape[1:]))
    height, width = shape[1] * times, shape[2] * times
    assert pixels(png).shape == (2 * height + GAP, 4 * width + 3 * GAP, shape[0])
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            assert np.array_equal(tile(png, shape, row, column), image)
    first = pixels(png)[:height, :width]
    assert np.array_equal(first, rows[0][0].transpose(1, 2, 0).repeat(times, 0).repeat(times, 1))
    assert (pixels(png)[height : height + GAP] == PAPER).all()
    assert (pixels(png)[:, width : width + GAP] == PAPER).all()


def test_large_images_are_shrunk():
    """In proportion, to what still fits on a screen ten times."""
    png = tiled([images_of((3, 400, 200), 2)])
    assert pixels(png).shape == (LARGEST_SIDE, LARGEST_SIDE + GAP, 3)


@pytest.mark.parametrize(("shape", "encoding_dim"), [((1, 6, 6), 3), ((3, 5, 4), 1)])
def test_the_pictures_are_those_of_the_test_images(shape, encoding_dim):
    """Best, median and worst by error above their reconstructions; grey and in colour."""
    images, model = images_of(shape, 50), network(shape, encoding_dim)
    pictures, errors, _ = draw(model, images)
    order = np.argsort(errors)
    with torch.no_grad():
        outputs = (model(torch.from_numpy(images) / 255) * 255).round().numpy()
    expected = {"best": order[:10], "median": order[20:30], "worst": order[:-11:-1]}
    for name, numbers in expected.items():
        png = pictures[f"reconstructions-{name}"].png
        for column, number in enumerate(numbers):
            assert np.array_equal(tile(png, shape, 0, column), images[number]), name
            difference = tile(png, shape, 1, column) - outputs[number]
            assert np.abs(difference).max() <= 1, name  # a batch of another size rounds otherwise
    words = pictures["reconstructions-worst"].alt
    assert words.startswith("The 10 test images with the largest reconstruction errors")
    assert f"{errors.max():.3g}" in words


def test_corrupted_inputs_stand_between_originals_and_reconstructions():
    """Three rows, at the middle level; a kind without levels has no picture."""
    shape = (1, 8, 8)
    pictures, _, _ = draw(network(shape), images_of(shape, 30) // 2 + 100)
    assert set(pictures) == {
        *(f"reconstructions-{name}" for name in ("best", "median", "worst")),
        *(f"corruption-{kind}" for kind in ("gaussian", "salt-and-pepper", "occlusion")),
        *("samples", "interpolation"),
    }
    occluded = pictures["corruption-occlusion"]
    for column in range(10):
        assert np.array_equal(
            tile(occluded.png, shape, 0, column), tile(pictures["samples"].png, shape, 0, column)
        )
        assert (tile(occluded.png, shape, 1, column) == 0).sum() == 16
        assert (tile(occluded.png, shape, 2, column) > 0).all()
    assert "deviation 0.5, clamped" in pictures["corruption-gaussian"].alt


def test_an_interpolation_goes_from_one_reconstruction_to_the_other():
    """The images stand at the ends, apart; the decoded codes between them are evenly spaced."""
    shape = (1, 8, 8)
    images, model = images_of(shape, 20), network(shape)
    labels = np.arange(20) % 2
    pictures, _, omitted = draw(model, images, labels, names=["even", "odd"])
    picture = pictures["interpolation"]
    assert omitted == []
    drawn = pixels(picture.png)
    assert drawn.shape == (5 * 56 + 4 * GAP, 11 * 56 + 8 * GAP + 2 * 4 * GAP, 1)
    lefts = [0, *(56 + 4 * GAP + step * (56 + GAP) for step in range(9))]
    lefts.append(lefts[-1] + 56 + 4 * GAP)
    for row in range(5):
        top = row * (56 + GAP)
        cuts = [drawn[top : top + 56 : 7, left : left + 56 : 7, 0] for left in lefts]
        ends = []
        for cut in (cuts[0], cuts[-1]):
            (number,) = np.flatnonzero((images[:, 0] == cut).all(axis=(1, 2)))
            ends.append(int(number))
        assert labels[ends[0]] != labels[ends[1]]
        with torch.no_grad():
            left, right = model.encode(torch.from_numpy(images[ends]) / 255)
            codes = torch.stack([left + step / 8 * (right - left) for step in range(9)])
            expected = (model.decode(codes)[:, 0] * 255).round().numpy()
        # rounding of codes that were computed in another order
        assert np.abs(np.stack(cuts[1:-1]) - expected).max() <= 1
    _, _, classes = picture.alt.partition("Classes: ")
    assert len(classes.split(", ")) == 5
    assert set(classes.rstrip(".").split(", ")) <= {"even to odd", "odd to even"}


@pytest.mark.parametrize("labels", [None, np.zeros(20, int)])
def test_without_classes_any_two_images_are_a_pair(labels):
    """No labels, or a single class."""
    pictures, _, omitted = draw(network((1, 4, 4)), images_of((1, 4, 4), 20), labels)
    assert "interpolation" in pictures
    assert omitted == []


def test_a_single_test_image_is_enough():
    """Strips of one, and no interpolation, which is said."""
    pictures, _, omitted = draw(network((1, 4, 4)), images_of((1, 4, 4), 1))
    assert omitted == ["interpolation: there is one test image only"]
    assert pixels(pictures["samples"].png).shape == (2 * 56 + GAP, 56, 1)


def test_pictures_are_the_same_bytes_each_time_and_follow_the_seed():
    images, model = images_of((3, 6, 6), 40), network((3, 6, 6))
    labels = np.arange(40) % 4
    one, again, other = (draw(model, images, labels, seed=seed)[0] for seed in (0, 0, 1))
    assert one == again
    assert one["samples"] != other["samples"]
    assert one["reconstructions-best"] == other["reconstructions-best"]
