"""Image files of every kind: depth, transparency, pages, colours, sizes; bad ones are listed."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aesearch.data.arrays import image_file
from aesearch.data.arrays.images import as_image_set
from aesearch.data.load import load
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 9, 10), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 9, 10, 3), dtype=np.uint8)


def how(**settings: Any) -> DataSpec:
    return DataSpec.model_validate(settings)


def save(folder: Path, images: Any, suffix: str = ".png", **options: Any) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}{suffix}" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        picture.save(path, **options)
    return paths


def deep_png(path: Path, values: np.ndarray, kind: int, *, interlaced: bool = False) -> None:
    """Write 16 bits a channel: kind 2 is RGB, 4 grey with alpha, 6 RGBA; Pillow cannot."""
    height, width, _ = values.shape
    rows = filtered(values)
    if interlaced:
        starts = ((0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0))
        steps = ((8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1))
        parts = [values[y::dy, x::dx] for (y, x), (dy, dx) in zip(starts, steps, strict=True)]
        rows = b"".join(filtered(part) for part in parts if part.size)

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, interlaced)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def filtered(values: np.ndarray) -> bytes:
    """Give the rows of an image as a PNG has them, by each of its five filters in turn."""
    before, found = None, []
    for number, row in enumerate(values.astype(">u2")):
        up_left, up = (np.zeros_like(row).tobytes(),) * 2 if before is None else before
        bytes_of_row = row.tobytes()
        shift = 2 * values.shape[2]
        left = bytes(shift) + bytes_of_row[:-shift]
        a, b, c, x = (np.frombuffer(part, np.uint8) for part in (left, up, up_left, bytes_of_row))
        a, b, c, x = (part.astype(int) for part in (a, b, c, x))
        far_a, far_b, far_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
        nearest = np.where((far_a <= far_b) & (far_a <= far_c), a, np.where(far_b <= far_c, b, c))
        kind = number % 5
        predicted = (0, a, b, (a + b) // 2, nearest)[kind]
        found.append(bytes([kind]) + ((x - predicted) % 256).astype(np.uint8).tobytes())
        before = left, bytes_of_row
    return b"".join(found)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "n_channels"), [(2, 3), (4, 2), (6, 4)])
def test_deep_values_are_read_to_the_last_bit(tmp_path, kind, n_channels, interlaced):
    """Colours, and whatever lies beside alpha; every filter, and pixels in another order."""
    values = RNG.integers(0, 65536, (23, 17, n_channels)).astype(np.uint16)
    deep_png(tmp_path / "a.png", values, kind, interlaced=interlaced)
    np.testing.assert_array_equal(image_file._deep_png(tmp_path / "a.png"), values)


def test_a_deep_file_that_is_cut_short_is_named(tmp_path):
    """As every other damaged file."""
    for number, image in enumerate(COLOUR):
        deep_png(tmp_path / f"{number:02}.png", image.astype(np.uint16) * 257, 2)
    whole = (tmp_path / "07.png").read_bytes()
    (tmp_path / "07.png").write_bytes(whole[:-120])
    with pytest.raises(DataError, match=r"07\.png must be a readable image"):
        load(tmp_path, how=how(white=65535.0))


@pytest.mark.parametrize(("kind", "n_channels"), [(2, 3), (4, 2), (6, 4)])
def test_deep_files_are_refused_and_never_cut(tmp_path, kind, n_channels):
    """16 bits of colour, or of grey beside alpha, which Pillow cuts to the high byte."""
    for number in range(12):
        deep_png(tmp_path / f"{number}.png", np.full((9, 9, n_channels), number, np.uint16), kind)
    with pytest.raises(DataError, match="got 16 bits in each of its channels") as raised:
        load(tmp_path)
    assert "data.white" in str(raised.value)


def test_deep_colours_are_scaled_by_the_white_that_is_said(tmp_path):
    """A 12-bit sensor in 16-bit files."""
    for number, image in enumerate(COLOUR):
        deep_png(tmp_path / f"{number:02}.png", image.astype(np.uint16) * 16, 2)
    images = load(tmp_path, how=how(white=4080.0)).images
    np.testing.assert_array_equal(images, np.moveaxis(COLOUR, 3, 1))


def test_deep_greys_and_floats_are_scaled_too(tmp_path):
    """16-bit PNG and float TIFF."""
    save(tmp_path / "wide", [image.astype(np.uint16) * 257 for image in GREY])
    wide = load(tmp_path / "wide", how=how(white=65535.0)).images
    np.testing.assert_array_equal(wide[:, 0], GREY)
    save(tmp_path / "float", [(image / 255).astype(np.float32) for image in GREY], ".tif")
    np.testing.assert_array_equal(load(tmp_path / "float", how=how(white=1.0)).images[:, 0], GREY)
    with pytest.raises(DataError, match=r"must hold intensities in 0\.\.255, got values from"):
        load(tmp_path / "wide", how=how(white=255.0))


def test_deep_tiff_is_no_other(tmp_path):
    """Pillow opens 16-bit RGB in TIFF as 8-bit colours."""
    tifffile = pytest.importorskip("tifffile")
    for number, image in enumerate(COLOUR):
        values = image.astype(np.uint16) * 257
        tifffile.imwrite(tmp_path / f"{number:02}.tif", values, photometric="rgb")
    with pytest.raises(DataError, match="got 16 bits"):
        load(tmp_path)
    images = load(tmp_path, how=how(white=65535.0)).images
    np.testing.assert_array_equal(images, np.moveaxis(COLOUR, 3, 1))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_of_many_channels(tmp_path, planar):
    """Five channels are read, all of them; Pillow drops two."""
    tifffile = pytest.importorskip("tifffile")
    many = RNG.integers(0, 256, (12, 9, 10, 5), dtype=np.uint8)
    for number, image in enumerate(many):
        tifffile.imwrite(
            tmp_path / f"{number:02}.tif",
            image if planar == "contig" else np.moveaxis(image, 2, 0),
            photometric="minisblack",
            planarconfig=planar,
        )
    np.testing.assert_array_equal(load(tmp_path).images, np.moveaxis(many, 3, 1))


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".png", ".webp"])
def test_further_pages_are_said(tmp_path, suffix):
    """Stacks and animations: the first page is read, the others are counted."""
    options = {"save_all": True, "append_images": [Image.fromarray(255 - GREY[0])] * 1}
    if suffix == ".webp":
        options["lossless"] = True
    save(tmp_path, GREY, suffix, **options)
    found = load(tmp_path)
    assert found.n_samples == 12
    assert "left out: 12 further pages" in found.described


def test_pages_are_images_or_channels_where_that_is_said(tmp_path):
    """A stack of three pages is three images, or one of three channels."""
    for number in range(12):
        pages = [Image.fromarray(GREY[number] // part) for part in (1, 2, 3)]
        pages[0].save(tmp_path / f"{number:02}.tif", save_all=True, append_images=pages[1:])
    images = load(tmp_path, how=how(pages="images")).images
    np.testing.assert_array_equal(
        images[:, 0], np.stack([GREY, GREY // 2, GREY // 3], 1).reshape(36, 9, 10)
    )
    channels = load(tmp_path, how=how(pages="channels")).images
    np.testing.assert_array_equal(channels, np.stack([GREY, GREY // 2, GREY // 3], 1))


def shapes_on_nothing() -> list[Image.Image]:
    """Black shapes on transparent ground: only their alpha differs."""
    pictures = []
    for number in range(12):
        values = np.zeros((9, 10, 4), np.uint8)
        values[: number % 8 + 1, :, 3] = 255
        pictures.append(Image.fromarray(values, "RGBA"))
    return pictures


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparent_pixels_are_laid_on_a_stated_colour(tmp_path, mode):
    """White, or black where that is said; in every mode that has alpha."""
    pictures = shapes_on_nothing()
    if mode == "P":
        pictures = [picture.quantize(4) for picture in pictures]
    elif mode != "RGBA":
        pictures = [picture.convert(mode) for picture in pictures]
    save(tmp_path, pictures, ".png" if mode != "PA" else ".tif")
    found = load(tmp_path)
    expected = np.full((9, 10), 255)
    expected[:1] = 0
    np.testing.assert_array_equal(found.images[0, 0], expected)
    assert "12 transparent images laid on white" in found.described
    with pytest.raises(DataError, match="every pixel 0"):
        load(tmp_path, how=how(background="black"))


def test_half_transparent_colours_are_mixed(tmp_path):
    """``rint(c a + background (1 - a))``."""
    values = np.concatenate([COLOUR, np.full((12, 9, 10, 1), 51, np.uint8)], axis=3)
    save(tmp_path, values)
    expected = np.rint(COLOUR * 0.2 + 255 * 0.8).astype(np.uint8)
    np.testing.assert_array_equal(load(tmp_path).images, np.moveaxis(expected, 3, 1))


@pytest.mark.parametrize("grey_one", [0, 5])
def test_one_grey_file_among_colours(tmp_path, grey_one):
    """Colours, whichever file comes first."""
    paths = save(tmp_path, COLOUR)
    Image.fromarray(GREY[0]).save(paths[grey_one])
    images = load(tmp_path).images
    assert images.shape[1] == 3
    np.testing.assert_array_equal(images[grey_one], np.broadcast_to(GREY[0], (3, 9, 10)))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colour_spaces_become_rgb(tmp_path, mode):
    """As Pillow converts them, never their raw values."""
    pictures = [Image.frombytes(mode, (10, 9), image.tobytes() * 2) for image in COLOUR]
    save(tmp_path, pictures, ".tif")
    expected = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    found = load(tmp_path).images.astype(int)
    # JPEG's colours are rounded on their way through the file.
    assert np.abs(found - np.moveaxis(expected, 3, 1)).max() <= 3


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "CMYK", "RGBA", "P", "L", "LA", "1"])
def test_lists_of_images_of_every_mode(mode):
    """From Python: the colours that are seen, not the values of the mode."""
    pictures = [Image.fromarray(image).convert(mode) for image in COLOUR]
    wanted = "RGB" if mode in ("HSV", "YCbCr", "CMYK", "RGBA", "P") else "L"
    expected = np.stack([np.asarray(picture.convert(wanted)) for picture in pictures])
    found = as_image_set(pictures).images
    np.testing.assert_array_equal(
        found, expected[:, None] if wanted == "L" else np.moveaxis(expected, 3, 1)
    )


def test_all_bad_files_are_listed_and_may_be_skipped(tmp_path):
    """Each with its reason; skipped ones are left out of images and labels alike."""
    paths = save(tmp_path / "a", GREY) + save(tmp_path / "b", 255 - GREY)
    paths[1].write_bytes(b"")
    paths[2].write_bytes(paths[2].read_bytes()[:-60])
    paths[15].write_text("no image")
    with pytest.raises(DataError, match=r"got [23] bad files") as raised:
        load(tmp_path)
    message = str(raised.value)
    assert f"{paths[1]} must be an image, got an empty file" in message
    assert f"{paths[15]} must be a readable image, got cannot identify" in message
    assert message.endswith("or leave them out: --bad-files skip")  # encode has no --set
    assert "delete" not in message
    found = load(tmp_path, how=how(bad_files="skip"))
    assert found.labels.tolist() == [0] * 10 + [1] * 11
    np.testing.assert_array_equal(found.images[:2, 0], GREY[[0, 3]])
    assert "left out: 3 bad files" in found.described
    assert "015.png" not in found.described
    assert "003.png (cannot identify" in found.described


@pytest.mark.parametrize("mode", ["crop", "fit", "stretch"])
def test_images_are_brought_to_one_size(tmp_path, mode):
    """A white bar on black, upright and lying: what is seen of it tells what was done."""
    upright = np.zeros((40, 20), np.uint8)
    upright[:, 8:12] = 255
    save(tmp_path, [upright, upright.T] * 6)
    with pytest.raises(DataError, match=r"must have the size of .*--resize SIDE"):
        load(tmp_path)
    images = load(tmp_path, how=how(resize=f"20-{mode}", background="white")).images
    assert images.shape == (12, 1, 20, 20)
    image = images[0, 0]
    np.testing.assert_array_equal(images[1, 0], image.T)
    if mode == "crop":
        np.testing.assert_array_equal(image, upright[10:30])
    elif mode == "fit":
        assert (image[:, :5] == 255).all()
        assert (image[:, 5:8] < 20).all()
    else:
        assert (np.abs(image.astype(int) - upright[::2]) < 20).all()


@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_colours_that_are_asked_for(tmp_path, colour):
    """Luma as Pillow has it; greys three times."""
    save(tmp_path / "colour", COLOUR)
    save(tmp_path / "grey", GREY)
    images = load(tmp_path / "colour", how=how(colour=colour)).images
    if colour == "grey":
        expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in COLOUR])
        np.testing.assert_array_equal(images[:, 0], expected)
    else:
        np.testing.assert_array_equal(images, np.moveaxis(COLOUR, 3, 1))
        grey = load(tmp_path / "grey", how=how(colour=colour)).images
        np.testing.assert_array_equal(grey, np.stack([GREY] * 3, axis=1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", r"a pointer of Git LFS; .* git lfs pull"),
        (b"\n<!DOCTYPE html><html>404", "a web page; download the image again"),
    ],
)
def test_what_lies_in_the_place_of_an_image_is_named(tmp_path, content, message):
    """What a download leaves that did not bring the image."""
    save(tmp_path, GREY)[3].write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_few_files_of_many_pages_are_told_of_their_pages(tmp_path):
    """A stack is one image until it is said to be many."""
    first, *others = [Image.fromarray(image) for image in GREY]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    with pytest.raises(DataError, match=r"got 1; .* 11 further pages too: --set data.pages=images"):
        load(tmp_path)
    np.testing.assert_array_equal(load(tmp_path, how=how(pages="images")).images[:, 0], GREY)
