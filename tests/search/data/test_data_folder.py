"""Folders of images: order, classes, modes and sizes."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from aesearch.data.arrays.images import as_image_set
from aesearch.data.load import load
from aesearch.data.readers import folder
from aesearch.data.readers.files import read_path
from aesearch.studies.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 9, 10), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 9, 10, 3), dtype=np.uint8)


def save(images: np.ndarray, folder: Path, suffix: str = ".png", **options: Any) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}{suffix}" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path, **options)
    return paths


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".tiff"])
def test_lossless_files_hold_the_same_images(tmp_path, images, suffix):
    """A flat folder gives the images of its files, in the order of their names."""
    save(images, tmp_path / "flat", suffix)
    (tmp_path / "flat" / "notes.txt").write_text("not an image")
    (tmp_path / "flat" / "._000.png").write_bytes(b"left by macOS")
    image_set = load(tmp_path / "flat")
    assert image_set.fingerprint == as_image_set(images).fingerprint
    assert (image_set.name, image_set.labels) == ("flat", None)


def test_gif_of_greys_is_greyscale(tmp_path):
    """GIF stores a palette; grey ones give one channel, exactly."""
    save(GREY, tmp_path, ".gif")
    assert load(tmp_path).fingerprint == as_image_set(GREY).fingerprint


def test_webp_without_loss(tmp_path):
    """WebP is read too."""
    save(COLOUR, tmp_path, ".webp", lossless=True)
    assert load(tmp_path).fingerprint == as_image_set(COLOUR).fingerprint


def test_jpeg_is_read_approximately(tmp_path):
    """JPEG loses detail, not the picture."""
    ramps = np.stack(
        [np.roll(np.arange(0, 160, dtype=np.uint8).reshape(10, 16), i) for i in range(12)]
    )
    save(ramps, tmp_path, ".jpg")
    images = load(tmp_path).images[:, 0]
    assert images.shape == ramps.shape
    assert np.abs(images.astype(int) - ramps).mean() < 12


def test_photographs_are_turned_as_their_camera_says(tmp_path):
    """Orientation 6 of Exif: stored as a landscape, to be seen as a portrait."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save(GREY, tmp_path / "turned", ".png", exif=exif)
    upright = np.rot90(GREY, k=-1, axes=(1, 2))
    assert load(tmp_path / "turned").fingerprint == as_image_set(upright).fingerprint


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_turn_is_that_of_pil(tmp_path, orientation):
    """Against ``ImageOps.exif_transpose``, which writes all other notes anew."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = []
    for path in save(GREY, tmp_path / "turned", exif=exif):
        with Image.open(path) as image:
            upright.append(np.asarray(ImageOps.exif_transpose(image)))
    assert load(tmp_path / "turned").fingerprint == as_image_set(np.stack(upright)).fingerprint


def test_an_odd_note_of_a_camera_is_no_damage(tmp_path):
    """A width in letters says nothing about the image."""
    width_in_letters = struct.pack(">HHI4s", 0x0100, 2, 4, b"abc\0")
    orientation = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    notes = struct.pack(">H", 2) + width_in_letters + orientation + bytes(4)
    save(GREY, tmp_path, ".jpg", exif=b"Exif\0\0MM\0*" + struct.pack(">I", 8) + notes)
    assert load(tmp_path).images.shape == np.rot90(GREY, axes=(1, 2))[:, np.newaxis].shape


def test_sub_folders_are_classes(tmp_path):
    """Labels follow the sorted names of the sub-folders; empty and hidden ones do not count."""
    save(GREY[5:], tmp_path / "dog")
    save(GREY[:5], tmp_path / "cat" / "deeper")
    (tmp_path / "ant").mkdir()
    save(GREY, tmp_path / ".thumbnails")
    image_set = load(tmp_path)
    assert image_set.class_names == ("cat", "dog")
    assert image_set.fingerprint == as_image_set(GREY, [0] * 5 + [1] * 7).fingerprint


def test_train_and_test_folders_are_the_own_test_set(tmp_path):
    """train/ and test/ with the same classes give a pool and a test set."""
    save(GREY[:6], tmp_path / "train" / "a")
    save(GREY[6:], tmp_path / "train" / "b")
    save(GREY[:2], tmp_path / "test" / "a")
    save(GREY[:3], tmp_path / "test" / "b")
    image_set = load(tmp_path)
    np.testing.assert_array_equal(image_set.images[:, 0], GREY)
    np.testing.assert_array_equal(image_set.test_images[:, 0], GREY[[0, 1, 0, 1, 2]])
    assert image_set.test_labels.tolist() == [0, 0, 1, 1, 1]
    assert image_set.class_names == ("a", "b")


@pytest.mark.parametrize(
    ("first", "mode", "expected"),
    [
        pytest.param(GREY, "RGB", GREY, id="coloured greys among greys"),
        pytest.param(GREY, "LA", GREY, id="alpha among greys"),
        pytest.param(GREY, "I;16", GREY, id="wide integers among greys"),
        pytest.param(GREY, "P", GREY, id="grey palette"),
        pytest.param(COLOUR, "RGBA", COLOUR, id="alpha among colours"),
        pytest.param(COLOUR, "L", None, id="greys among colours"),
    ],
)
def test_modes_are_brought_to_the_first_images_mode(tmp_path, first, mode, expected):
    """Whatever can be converted without loss is."""
    paths = save(first, tmp_path)
    with Image.open(paths[4]) as image:
        image.load()
    if mode == "I;16":
        converted = Image.fromarray(first[4].astype(np.uint16))
    else:
        converted = image.convert(mode)
    converted.save(paths[4])
    images = load(tmp_path).images
    if expected is None:
        grey = np.asarray(converted)
        expected = first.copy()
        expected[4] = grey[..., None]
    np.testing.assert_array_equal(images, as_image_set(expected).images)


def test_a_folder_that_nobody_may_read_is_named(tmp_path, monkeypatch):
    """A disk's lost+found beside the pictures, say."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=f"{tmp_path} must be readable, got Permission denied"):
        read_path(tmp_path)


def test_more_than_fits_in_memory_is_told(tmp_path, monkeypatch):
    """With how much it would take, and what to do."""
    Image.new("RGB", (64, 32)).save(tmp_path / "a.png")
    Image.new("RGB", (64, 32)).save(tmp_path / "b.png")

    def refuse(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr(folder.np, "empty", refuse)
    with pytest.raises(DataError, match=r"2 images of 64x32 must fit in memory, got 0\.0 GiB"):
        read_path(tmp_path)


def test_one_bit_images_become_black_and_white(tmp_path):
    """Mode '1' is 0 and 255."""
    save(GREY > 127, tmp_path)
    np.testing.assert_array_equal(load(tmp_path).images[:, 0], (GREY > 127) * np.uint8(255))


def a_larger_image(folder: Path) -> str:
    paths = save(GREY, folder)
    Image.fromarray(np.zeros((12, 14), np.uint8)).save(paths[7])
    return f"{paths[7]} must have the size of {paths[0]}, 10x9 (width x height), got 14x12"


def a_text_file(folder: Path) -> str:
    path = save(GREY, folder)[3]
    path.write_text("no image")
    return f"{path} must be a readable image, got cannot identify"


def a_truncated_image(folder: Path) -> str:
    path = save(GREY, folder)[3]
    path.write_bytes(path.read_bytes()[:-60])
    return f"{path} must be a readable image, got"


def an_empty_image(folder: Path) -> str:
    path = save(GREY, folder)[3]
    path.write_bytes(b"")
    return f"{path} must be an image, got an empty file (0 bytes)"


def sixteen_bits(folder: Path) -> str:
    path = save(GREY, folder)[3]
    Image.fromarray(GREY[0].astype(np.uint16) * 257).save(path)
    return f"{path} must hold 8-bit intensities in 0..255, got values from"


def floats(folder: Path) -> str:
    path = save(GREY, folder, ".tif")[3]
    Image.fromarray(GREY[0].astype(np.float32)).save(path)
    return f"{path} must hold 8-bit intensities, got floats"


def nothing(folder: Path) -> str:
    (folder / "empty").mkdir()
    return f"{folder} must hold images (.png"


def images_beside_classes(folder: Path) -> str:
    save(GREY, folder)
    save(GREY, folder / "cat")
    return f"{folder} must hold images or class sub-folders, got both ('000.png' beside 'cat/')"


def other_classes_in_test(folder: Path) -> str:
    save(GREY, folder / "train" / "a")
    save(GREY, folder / "test" / "b")
    return f"{folder} must have the same classes in train/ and test/, got ('a',) and ('b',)"


def a_test_set_among_classes(folder: Path) -> str:
    for name in ("cat", "dog", "Test"):
        save(GREY, folder / name)
    return f"{folder} must hold train/ beside 'Test/', got Test, cat, dog"


def a_split_in_one_class(folder: Path) -> str:
    save(GREY, folder / "cat" / "train")
    save(GREY, folder / "cat" / "test")
    save(GREY, folder / "dog")
    return "a split in each of its classes or in none, got train/ and test/ in 'cat/' but not in"


def too_few(folder: Path) -> str:
    save(GREY[:9], folder)
    return f"{folder} must hold at least 10 images, got 9"


def too_small(folder: Path) -> str:
    save(GREY[:, :7, :7], folder)
    return f"{folder} must hold images of at least 8x8 pixels, got 7x7"


@pytest.mark.parametrize(
    "spoil",
    [
        a_larger_image,
        a_text_file,
        a_truncated_image,
        an_empty_image,
        sixteen_bits,
        floats,
        nothing,
        images_beside_classes,
        other_classes_in_test,
        a_test_set_among_classes,
        a_split_in_one_class,
        too_few,
        too_small,
    ],
)
def test_a_bad_folder_is_named(tmp_path, spoil):
    """The file or folder at fault is named, with what was expected and found."""
    words = spoil(tmp_path)
    with pytest.raises(DataError) as raised:
        load(tmp_path)
    assert words in str(raised.value)
    assert "; " in str(raised.value)
