"""Arrays in memory: what is accepted, what it becomes, and what is refused with which words."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from aesearch.data.arrays.images import ImageSet, as_image_set, make_image_set
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


GREY = random_pixels(12, 9, 11)
COLOUR = random_pixels(12, 3, 9, 11)
BINARY = GREY > 127


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        pytest.param(GREY, GREY[:, None], id="sample-height-width"),
        pytest.param(GREY[..., None], GREY[:, None], id="channel-last-1"),
        pytest.param(GREY[:, None], GREY[:, None], id="channel-first-1"),
        pytest.param(COLOUR, COLOUR, id="channel-first-3"),
        pytest.param(np.moveaxis(COLOUR, 1, 3), COLOUR, id="channel-last-3"),
        pytest.param(GREY[:, ::-1], GREY[:, None, ::-1], id="not contiguous"),
        pytest.param(GREY.astype(np.int64), GREY[:, None], id="int64"),
        pytest.param(GREY.astype(">u2"), GREY[:, None], id="big-endian uint16"),
        pytest.param(GREY / 255, GREY[:, None], id="float64"),
        pytest.param((GREY / 255).astype(np.float32), GREY[:, None], id="float32"),
        pytest.param((GREY / 255).astype(np.float16), GREY[:, None], id="float16"),
        pytest.param(BINARY, BINARY[:, None] * np.uint8(255), id="bool"),
        pytest.param(torch.from_numpy(COLOUR), COLOUR, id="tensor uint8"),
        pytest.param(torch.from_numpy(GREY / 255).requires_grad_(), GREY[:, None], id="tensor"),
        pytest.param(
            torch.from_numpy(BINARY).to(torch.bfloat16),
            BINARY[:, None] * np.uint8(255),
            id="tensor bfloat16",
        ),
        pytest.param(GREY.tolist(), GREY[:, None], id="nested lists"),
        pytest.param(torch.from_numpy(COLOUR).to_sparse(), COLOUR, id="sparse tensor"),
        pytest.param(list(torch.from_numpy(COLOUR)), COLOUR, id="list of tensors"),
        pytest.param(np.ma.masked_array(GREY), GREY[:, None], id="nothing masked"),
        pytest.param(GREY / 255 * 1.0000005, GREY[:, None], id="rounding above 1"),
        pytest.param(GREY / 255 - 1e-17, GREY[:, None], id="rounding below 0"),
    ],
)
def test_every_layout_and_dtype_becomes_the_same_uint8_images(array, expected):
    """All accepted forms of the same images give identical, contiguous uint8 pixels."""
    images = as_image_set(array).images
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous
    np.testing.assert_array_equal(images, expected)


def test_image_set_describes_itself():
    """Shape, count, name and labels are what was given."""
    labels = np.arange(12) % 3
    image_set = as_image_set(COLOUR, labels, name="mine")
    assert (image_set.name, image_set.image_shape, image_set.n_samples) == ("mine", (3, 9, 11), 12)
    assert image_set.labels.dtype == np.int64
    np.testing.assert_array_equal(image_set.labels, labels)
    assert image_set.test_images is None


def test_textual_labels_are_numbered_in_sorted_order():
    """Names become numbers, and the set remembers the names."""
    image_set = as_image_set(GREY, ["dog", "cat"] * 6)
    assert image_set.class_names == ("cat", "dog")
    np.testing.assert_array_equal(image_set.labels, [1, 0] * 6)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(pd.Series(["dog", "cat"] * 6), id="pandas text"),
        pytest.param(pd.Categorical(["dog", "cat"] * 6), id="categorical"),
        pytest.param(np.array(["dog", "cat"] * 6, dtype=object), id="objects"),
        pytest.param(np.array([b"dog", b"cat"] * 6), id="bytes"),
    ],
)
def test_text_of_every_kind_is_names(labels):
    """As a list of str."""
    image_set = as_image_set(GREY, labels)
    assert image_set.class_names == ("cat", "dog")
    np.testing.assert_array_equal(image_set.labels, [1, 0] * 6)


def test_bytes_that_are_no_ascii_are_read():
    """UTF-8 as it is; other bytes keep what can be read."""
    image_set = as_image_set(GREY, np.array(["Käfer".encode(), b"\xd6l"] * 6))
    assert image_set.class_names == ("Käfer", "\\xd6l")


def test_label_column_of_shape_sample_by_one_is_flattened():
    """MedMNIST and SVHN keep labels as a column."""
    image_set = as_image_set(GREY, np.arange(12.0)[:, None])
    np.testing.assert_array_equal(image_set.labels, np.arange(12))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(as_image_set(GREY[::-1]), id="another order"),
        pytest.param(as_image_set(GREY, np.zeros(12)), id="labels"),
        pytest.param(as_image_set(GREY.transpose(0, 2, 1)), id="another shape"),
        pytest.param(as_image_set(GREY ^ (np.arange(12)[:, None, None] == 3)), id="one bit"),
    ],
)
def test_fingerprint_tells_other_content(other: ImageSet):
    """The fingerprint depends on content: order, labels, shape and every bit."""
    assert other.fingerprint != as_image_set(GREY).fingerprint


def test_fingerprint_ignores_name_and_dtype():
    """The same images under another name and type are the same images."""
    renamed = as_image_set(GREY / 255, name="b")
    assert renamed.fingerprint == as_image_set(GREY, name="a").fingerprint


def with_value(value: float, index: tuple[int, ...]) -> np.ndarray:
    images = GREY / 255
    images[index] = value
    return images


def test_white_that_arithmetic_left_a_little_above_one_is_white():
    """Noise of the last bit of a float32 is no other range."""
    images = (GREY / 255).astype(np.float32)
    images[3, 2, 1] = np.nextafter(np.float32(1), np.float32(2))
    assert as_image_set(images).images[3, 0, 2, 1] == 255


def test_test_images_of_another_range_are_refused():
    """Else a network trained on masks as bool would be tested on next to black images."""
    with pytest.raises(DataError, match=r"test images must use the range 0\.\.255, got pixels"):
        make_image_set(
            name="masks", source="masks.npz", images=BINARY, test_images=BINARY.astype(np.uint8)
        )


@pytest.mark.parametrize(
    ("array", "words"),
    [
        pytest.param(
            with_value(np.nan, (7, 2, 4)),
            ["mine images", "1 NaN or infinite of 1188", "(7, 2, 4)"],
            id="NaN",
        ),
        pytest.param(with_value(-np.inf, (11, 8, 10)), ["(11, 8, 10)"], id="infinite"),
        pytest.param(GREY.astype(np.float32), ["[0, 1], got [0, 255]", "divide by 255"], id="255"),
        pytest.param(GREY / 170, ["[0, 1], got [0, 1.5]", "rescale them to"], id="a half more"),
        pytest.param(GREY / 127.5 - 1, ["got [-1, 1]", "rescale them to [0, 1]"], id="negative"),
        pytest.param(GREY[:1], ["at least 10 images, got 1"], id="one sample"),
        pytest.param(GREY[:0], ["at least 10 images, got 0"], id="no sample"),
        pytest.param(np.full((20, 8, 8), 7, np.uint8), ["every pixel 7 of 255"], id="constant"),
        pytest.param(BINARY.astype(np.uint8), ["only 0 and 1 of 255", "as bool"], id="0 and 1"),
        pytest.param(GREY.reshape(12, -1), ["got (12, 99)", "data.image_shape"], id="flattened"),
        pytest.param(random_pixels(2, 3, 4, 8, 8), ["got (2, 3, 4, 8, 8)"], id="five axes"),
        pytest.param(random_pixels(12, 7, 9), ["at least 8x8 pixels, got 7x9"], id="small"),
        pytest.param(
            random_pixels(12, 70, 9, 70), ["1 to 64 channels", "(12, 70, 9, 70)"], id="70"
        ),
        pytest.param(random_pixels(12, 9, 12, 9), ["tell its channels", "(12, 9, 12, 9)"], id="9"),
        pytest.param(np.repeat(GREY[:1], 12, axis=0), ["same image 12 times"], id="copies"),
        pytest.param(GREY // 12, ["from 0 to 21, nearly black", "data.white=21"], id="21 levels"),
        pytest.param(GREY / 255 * 0.015, ["up to 0.015", "5 of 256 levels"], id="dark floats"),
        pytest.param(GREY / 255 * 16, ["got [0, 16]", "data.white=16"], id="16 shades"),
        pytest.param(GREY * 16.0, ["got [0, 4080]", "data.white=4095"], id="12 bits"),
        pytest.param(
            np.ma.masked_greater(GREY, 200), ["masked ones", "array.filled(0)"], id="masked"
        ),
        pytest.param(GREY.astype(np.int16) - 5, ["int16 values from -5 to 250"], id="int16"),
        pytest.param(GREY.astype(np.uint32) * 2, ["0..255, got uint32 values"], id="wide"),
        pytest.param(GREY + 0j, ["dtype complex128"], id="complex"),
        pytest.param(GREY.astype(str), ["dtype <U3"], id="text"),
        pytest.param(GREY.astype(object), ["Python objects"], id="objects"),
        pytest.param([[[1, 2], [3]]], ["single shape"], id="ragged"),
    ],
)
def test_unusable_images_are_refused_with_what_was_found(array, words):
    """Each bad array is a DataError that names it, what was found, and a remedy."""
    with pytest.raises(DataError) as raised:
        as_image_set(array, name="mine")
    message = str(raised.value)
    assert [word for word in [*words, "mine", "must", "got", ";"] if word not in message] == []


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        pytest.param(np.zeros(11, int), "per image (12), got 11", id="length"),
        pytest.param(np.eye(12), "(sample,), got (12, 12)", id="one-hot"),
        pytest.param(np.r_[np.zeros(5), np.nan, np.zeros(6)], "got nan at sample 5", id="NaN"),
        pytest.param(np.full(12, 0.5), "got 0.5 at sample 0", id="fraction"),
        pytest.param(np.zeros(12, "M8[D]"), "got dtype datetime64[D]", id="dates"),
        pytest.param([None] * 12, "got None at sample 0", id="nothing"),
        pytest.param(
            np.array(["a", 1] * 6, object), "all numbers or all names, got 'a' beside 1", id="both"
        ),
        pytest.param(["a", 1] * 6, "all numbers or all names, got 'a' beside 1", id="both, listed"),
        pytest.param(
            np.full(12, 2**64 - 1, np.uint64), "64 bits, got 18446744073709551615", id="unsigned"
        ),
        pytest.param(np.full(12, -1e19), "64 bits, got -1e+19 at sample 0", id="large float"),
        pytest.param([2**64] * 12, "64 bits, got 18446744073709551616", id="large object"),
        pytest.param([["a"], ["b", "c"]] * 6, "lists of several lengths", id="ragged"),
    ],
)
def test_unusable_labels_are_refused(labels, words):
    """Labels must be one whole number or name per image."""
    with pytest.raises(DataError, match="labels") as raised:
        as_image_set(GREY, labels)
    assert words in str(raised.value)


def test_data_modules_import_nothing_heavy():
    """Reading images takes no torch, sklearn, pandas or SciPy."""
    program = (
        "import sys, aesearch.data.load, aesearch.data.split\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'pandas', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed.strip() == "[]"


PICTURES = [Image.fromarray(image) for image in GREY]


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        pytest.param(pd.Series(list(GREY)), None, id="Series of arrays"),
        pytest.param(pd.Series(PICTURES), None, id="Series of PIL images"),
        pytest.param(list(zip(PICTURES, range(12), strict=True)), range(12), id="PIL and label"),
        pytest.param(
            [(torch.from_numpy(image), "ab"[n % 2]) for n, image in enumerate(GREY)],
            [0, 1] * 6,
            id="tensor and name",
        ),
    ],
)
def test_images_in_columns_and_pairs(given, labels):
    """As a DataFrame has them, and as a list of what a dataset gives."""
    found = as_image_set(given)
    np.testing.assert_array_equal(found.images[:, 0], GREY)
    assert found.labels is None if labels is None else found.labels.tolist() == list(labels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"a list of images or a dataset, got NoneType; make a list of its images"),
        ({"images": GREY}, r"got dict; make a list"),
        ((image for image in GREY), r"got generator; make a list"),
        ("photos/", r"got str; a path is given as dataset"),
        (["a.png", "b.png"], r"got text, 'a\.png'; open image files first"),
        ([], r"got none in a list; give some"),
        (torch.zeros(12, 9, 9, device="meta"), r"must be a plain tensor, got .*meta"),
        (
            torch.nested.nested_tensor([torch.zeros(9, 9), torch.zeros(8, 9)], layout=torch.jagged),
            r"must be a plain tensor, got a nested one",
        ),
        (np.zeros((32, 32, 3, 100)), r"samples first: np\.moveaxis\(images, -1, 0\)"),
        (np.minimum(GREY, 254).astype(np.uint32) << 16, r"--set data\.white=16646144 "),
        (GREY / 255 * 15.93724, r"--set data\.white=15\.93724 "),
    ],
)
def test_what_is_no_array_of_images_is_told_what_helps(given, message):
    """With the value that is accepted then."""
    with pytest.raises(DataError, match=message):
        as_image_set(given)


def test_a_white_that_is_too_small_is_named():
    """Dividing by 255 would not help."""
    with pytest.raises(DataError, match=r"in 0\.\.100, got \[0, 255\]; give another white"):
        as_image_set(GREY, how=DataSpec(white=100.0))


def test_labels_that_no_file_takes_keep_what_can_be_read():
    """Half a character, as names from a disk may have."""
    assert as_image_set(GREY, ["caf\udce9", "tea"] * 6).class_names == ("caf\\udce9", "tea")
