"""The trained model as functions of arrays: equal to a plain loop, in every layout and batch."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save

import aesearch
from aesearch.artifacts import model_file
from aesearch.inference.layouts import ImageShapeError
from aesearch.models.autoencoder import build_autoencoder

# Sums in another order: the last bits of a float32.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


def dense(shape=(1, 9, 8), **settings):
    return build_autoencoder(
        architecture="dense", image_shape=shape, encoding_dim=5, hidden=(24,), seed=1, **settings
    )


def conv(shape=(3, 10, 9)):
    return build_autoencoder(
        architecture="conv", image_shape=shape, encoding_dim=4, channels=(3, 5), conv_hidden=12
    )


MODELS = {"dense, grey": dense(), "conv, colour": conv(), "dense, colour": dense((3, 8, 8))}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def pictures(model, n_samples=11):
    """Random uint8 images of a model's shape, channel first."""
    rng = np.random.default_rng(7)
    return rng.integers(0, 256, (n_samples, *model.image_shape), dtype=np.uint8)


def alone(model, images, part):
    """Put images through a model in the plainest way: one by one."""
    model.eval()
    with torch.no_grad():
        found = [part(torch.tensor(image[None] / 255.0).float()) for image in images]
    return torch.cat(found).numpy()


@every_model
@pytest.mark.parametrize("batch_size", [1, 2, 7, None])
def test_batches_compute_what_a_plain_loop_computes(model, batch_size):
    """Whatever the batch size; float32 in, float32 out."""
    images = pictures(model)
    codes = aesearch.encode(model, images, batch_size=batch_size)
    found = aesearch.reconstruct(model, images, batch_size=batch_size)
    assert codes.dtype == found.dtype == np.float32
    np.testing.assert_allclose(codes, alone(model, images, model.encode), **ROUNDING)
    np.testing.assert_allclose(found, alone(model, images, model), **ROUNDING)
    np.testing.assert_allclose(
        aesearch.decode(model, codes, batch_size=batch_size), found, **ROUNDING
    )


@every_model
def test_every_layout_is_the_same_images(model):
    """Codes are equal, and reconstructions come back in the layout that was given."""
    images = pictures(model)
    codes, found = aesearch.encode(model, images), aesearch.reconstruct(model, images)
    layouts = {
        "channel last": lambda array: np.moveaxis(array, 1, 3),
        "flat": lambda array: array.reshape(len(array), -1),
        "tensor": torch.from_numpy,
    }
    if model.image_shape[0] == 1:
        layouts["grey"] = lambda array: array[:, 0]
    for name, change in layouts.items():
        np.testing.assert_array_equal(aesearch.encode(model, change(images)), codes, err_msg=name)
        again = aesearch.reconstruct(model, change(images))
        np.testing.assert_array_equal(again, np.asarray(change(found)), err_msg=name)


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images.astype(np.int64),
        lambda images: images / 255,
        lambda images: (images / 255).astype(np.float32),
        lambda images: images.tolist(),
    ],
    ids=["int64", "float64", "float32", "lists"],
)
def test_every_dtype_is_the_same_images(change):
    """Integers of any width and floats in [0, 1] agree to rounding."""
    model = dense()
    images = pictures(model)
    codes = aesearch.encode(model, change(images))
    np.testing.assert_allclose(codes, aesearch.encode(model, images), **ROUNDING)


def test_binary_images_are_black_and_white():
    """False is 0 and True is 1."""
    model = dense()
    masks = pictures(model) > 127
    codes = aesearch.encode(model, masks)
    np.testing.assert_array_equal(codes, aesearch.encode(model, masks * np.uint8(255)))


def test_the_same_call_gives_the_same_bits_and_leaves_the_model_as_it_was():
    """Dropout is off while it runs, and training goes on afterwards."""
    model = dense(dropout=0.5).train()
    images = pictures(model)
    first = aesearch.encode(model, images)
    np.testing.assert_array_equal(aesearch.encode(model, images), first)
    assert model.training
    np.testing.assert_allclose(first, alone(model, images, model.encode), **ROUNDING)


def test_a_gpu_computes_in_float32_proper_and_is_left_as_it_was():
    """No tf32 and no race of kernels while a model is in use; afterwards what the process had."""
    cudnn, model, seen = torch.backends.cudnn, conv(), []

    def settings():
        precision = torch.get_float32_matmul_precision()
        return cudnn.deterministic, cudnn.allow_tf32, precision

    cudnn.deterministic, cudnn.allow_tf32 = False, True
    torch.set_float32_matmul_precision("high")
    try:
        model.encoder.register_forward_hook(lambda *_: seen.append(settings()))
        aesearch.encode(model, pictures(model))
        assert seen == [(True, False, "highest")]
        assert settings() == (False, True, "high")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_one_dark_image_is_no_binary_array():
    """An image whose largest value is 1 is known by the others, whatever the batches."""
    model = dense()
    images = pictures(model)
    images[3] = 0
    images[3, 0] = 1
    for function in (aesearch.encode, aesearch.reconstruct):
        alone = function(model, images, batch_size=1)
        np.testing.assert_allclose(alone, function(model, images), **ROUNDING)


@every_model
def test_a_line_of_codes_is_decoded(model):
    """Its ends are the reconstructions of the pair, its middle the decoded mean code."""
    images = pictures(model)
    lines = aesearch.interpolate(model, images, [(3, 7), (0, 10)], steps=5)
    assert lines.shape == (2, 5, *model.image_shape)
    codes, found = aesearch.encode(model, images), aesearch.reconstruct(model, images)
    for line, (start, end) in zip(lines, [(3, 7), (0, 10)], strict=True):
        np.testing.assert_allclose(line[0], found[start], **ROUNDING)
        np.testing.assert_allclose(line[-1], found[end], **ROUNDING)
        middle = aesearch.decode(model, (codes[[start]] + codes[[end]]) / 2)
        np.testing.assert_allclose(line[2], middle[0], **ROUNDING)


@pytest.mark.parametrize(
    "pairs",
    [
        np.array([[1, 2], [0, 2]], np.uint8),
        torch.tensor([[1, 2], [0, 2]]),
        [[np.int64(1), 2], np.array([0, 2])],
    ],
    ids=["array", "tensor", "mixed"],
)
def test_pairs_may_be_anything_that_is_an_array_of_integers(pairs):
    """The same lines as of a list of tuples."""
    model = dense()
    images = pictures(model)[:3]
    found = aesearch.interpolate(model, images, pairs, steps=3)
    np.testing.assert_array_equal(
        found, aesearch.interpolate(model, images, [(1, 2), (0, 2)], steps=3)
    )


def test_noise_that_was_not_cut_off_has_to_be_asked_for():
    """Floats outside [0, 1] are refused, or taken as they are with ``unclamped``."""
    model = dense()
    images = pictures(model) / 255 + np.float64(1.5)
    with pytest.raises(aesearch.AesearchError, match=r"float intensities in \[0, 1\], got \[1.5"):
        aesearch.reconstruct(model, images)
    with torch.no_grad():
        plain = model(torch.tensor(images).float())
    found = aesearch.reconstruct(model, images, unclamped=True)
    np.testing.assert_allclose(found, plain.numpy(), **ROUNDING)


def test_no_images_give_no_codes():
    """Nothing in, nothing out, in the right shape."""
    model = dense()
    assert aesearch.encode(model, np.zeros((0, 9, 8), np.uint8)).shape == (0, 5)
    assert aesearch.reconstruct(model, np.zeros((0, 72))).shape == (0, 72)


GREY = np.zeros((3, 9, 8))
BAD = {
    "size": ({"images": np.zeros((3, 8, 8))}, r"1 x 9 x 8, .* got shape \(3, 8, 8\)"),
    "channels": ({"images": np.zeros((3, 3, 9, 8))}, r"1 x 9 x 8, .* got shape \(3, 3, 9, 8\)"),
    "one image": ({"images": np.zeros((9, 8))}, r"got shape \(9, 8\)"),
    "NaN": ({"images": GREY + np.nan}, "finite intensities, got 216 NaN"),
    "0..255 floats": ({"images": GREY + 200.0}, r"got \[200, 200\]; divide by 255"),
    "negative": ({"images": GREY - 0.1}, r"got \[-0.1, -0.1\]"),
    "wide integers": ({"images": (GREY + 300).astype(int)}, r"in \[0, 255\], got \[300, 300\]"),
    "0 and 1": ({"images": (GREY > -1).astype(int)}, "only 0 and 1; give binary images as bool"),
    "text": ({"images": GREY.astype(str)}, "got dtype <U"),
    "objects": ({"images": GREY.astype(object)}, "Python objects"),
    "batch size": ({"images": GREY, "batch_size": 0}, "batch_size must be >= 1, got 0"),
    "device": ({"images": GREY, "device": "tpu"}, "device must be auto, cpu"),
    "model": ({"model": 3, "images": GREY}, "model must be an Autoencoder or the path"),
    "no model": ({"model": "no/where", "images": GREY}, "'no/where': no file"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("function", [aesearch.encode, aesearch.reconstruct])
def test_bad_arguments_are_named(function, arguments, message):
    """As AesearchError and as the ValueError that a caller would catch."""
    with pytest.raises(aesearch.AesearchError, match=message) as caught:
        function(**{"model": dense(), **arguments})
    assert isinstance(caught.value, ValueError)


def test_an_error_of_shape_tells_both_shapes():
    """Also as attributes."""
    with pytest.raises(ImageShapeError) as caught:
        aesearch.encode(conv(), np.zeros((2, 28, 28)))
    assert (caught.value.expected, caught.value.found) == ((3, 10, 9), (2, 28, 28))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((2, 4)), r"shape \(sample, 5\), the model's encoding_dim, got float64"),
        (np.zeros(5), r"got float64 of shape \(5,\)"),
        (np.full((2, 5), np.inf), "codes must be finite"),
    ],
)
def test_codes_that_are_none_are_named(codes, message):
    """Another width, another number of axes, infinite values."""
    with pytest.raises(ValueError, match=message):
        aesearch.decode(dense(), codes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": [(0, 3)]}, r"samples in 0..2, got 3 in \(0, 3\)"),
        ({"pairs": [(-1, 0)]}, r"samples in 0..2, got -1"),
        ({"pairs": np.array([[0, 3]])}, r"samples in 0..2, got 3 in \(0, 3\)"),
        ({"pairs": [(0, 10**30)]}, r"samples in 0..2, got 10{30} in"),
        ({"pairs": [(0, 1, 2)]}, r"two sample numbers each, whole ones, got \[\(0, 1, 2\)\]"),
        ({"pairs": [(0, 1), (2,)]}, r"two sample numbers each, .*\(2,\)"),
        ({"pairs": (3, 7)}, r"two sample numbers each, whole ones, got \(3, 7\)"),
        ({"pairs": np.arange(2)}, r"two sample numbers each, whole ones, got \[0, 1\]"),
        ({"pairs": 3}, "two sample numbers each, whole ones, got 3"),
        ({"pairs": [(1.5, 2)]}, r"two sample numbers each, whole ones, got \(1.5, 2\)"),
        ({"pairs": np.array([[0.0, 1.0]])}, r"whole ones, got \(0.0, 1.0\)"),
        ({"pairs": [("0", "1")]}, r"whole ones, got \('0', '1'\)"),
        ({"pairs": [(False, True)]}, r"whole ones, got \(False, True\)"),
        ({"pairs": [np.zeros((2, 2)), np.zeros((2, 3))]}, "two sample numbers each"),
        ({"pairs": np.zeros((0, 2), int)}, "pairs must not be empty"),
        ({"pairs": []}, "pairs must not be empty"),
        ({"pairs": [(0, 1)], "steps": 1}, "steps must be >= 2"),
    ],
)
def test_pairs_that_are_none_are_named(settings, message):
    """Samples that are not there, and lines without two ends."""
    with pytest.raises(ValueError, match=message):
        aesearch.interpolate(dense(), GREY, **settings)


@pytest.mark.parametrize("name", ["model.safetensors", "", "best.yaml"])
def test_a_model_is_found_by_its_file_its_folder_or_its_best_yaml(name, tmp_path):
    """``load`` and every function take any of the three."""
    model = dense()
    (tmp_path / "model.safetensors").write_bytes(model_file.to_bytes(model))
    images = pictures(model)
    codes = aesearch.encode(tmp_path / name, images)
    np.testing.assert_array_equal(codes, aesearch.encode(model, images))
    assert aesearch.load(str(tmp_path / name)).configuration == model.configuration


WHOLE = model_file.to_bytes(dense())
FOREIGN = {
    "no safetensors": (b"PK not a model", "must be a safetensors file"),
    "empty": (b"", "must be a safetensors file"),
    "truncated": (WHOLE[:-50], "must be a safetensors file"),
    "foreign": (save({"weight": torch.zeros(2)}), "must be written by aesearch"),
    "foreign metadata": (save({"w": torch.zeros(2)}, {"aesearch": "{"}), "as JSON, got '{'"),
    "not a mapping": (save({"w": torch.zeros(2)}, {"aesearch": "[1]"}), "its own configuration"),
    "other weights": (
        save({"w": torch.zeros(2)}, {"aesearch": json.dumps(dense().configuration)}),
        "its own configuration",
    ),
}


@pytest.mark.parametrize(("content", "message"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_no_model_is_named(content, message, tmp_path):
    """Damaged, foreign, or with the weights of something else."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(model_file.ModelFileError, match=message) as caught:
        aesearch.encode(path, GREY)
    assert str(path) in str(caught.value)


def test_the_real_digits_are_the_same_in_any_batch():
    """All 1,797 at once, and in batches that do not divide them."""
    from aesearch.data.load import load

    images = load("digits").images
    model = conv((1, 8, 8))
    codes = [aesearch.encode(model, images, batch_size=size) for size in (1797, 100, 7)]
    for one, other in pairwise(codes):
        np.testing.assert_allclose(one, other, **ROUNDING)
