"""Archives of NumPy: what is read of them, and what is named as left out."""

import zipfile

import numpy as np
import pytest

from aesearch.data.load import load
from aesearch.studies.errors import DataError

GREY = np.random.default_rng(0).integers(0, 256, (12, 9, 10), dtype=np.uint8)


@pytest.mark.parametrize("name", ["imgs", "images"])
def test_pickles_beside_the_images_are_not_opened(tmp_path, name):
    """And said to be left out, as are other arrays."""
    objects = np.array({"author": "x"}, dtype=object)
    np.savez(tmp_path / "a.npz", **{name: GREY}, metadata=objects, ids=np.arange(12))
    found = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.images[:, 0], GREY)
    assert "left out: 2 arrays (ids (12,), metadata (Python objects))" in found.described


def test_members_that_are_no_arrays_are_left_out(tmp_path):
    """Bytes in the archive, say."""
    np.savez(tmp_path / "a.npz", images=GREY)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("README.txt", b"about these images")
        archive.writestr("images.bin", b"\0\1\2")
    found = load(tmp_path / "a.npz")
    assert "left out: 2 arrays (README.txt (no array), images.bin (no array))" in found.described


def test_an_archive_of_bytes_is_named(tmp_path):
    """With what is in it."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images", b"\0\1\2")
    with pytest.raises(DataError, match=r"got images \(no array\); rename the arrays"):
        load(tmp_path / "a.npz")


def test_labels_that_are_no_ascii(tmp_path):
    """Text, bytes in UTF-8 and others."""
    np.savez(tmp_path / "a.npz", images=GREY, labels=np.array(["Käfer", "Öl"] * 6))
    np.savez(tmp_path / "b.npz", images=GREY, labels=np.array([b"K\xc3\xa4fer", b"\xd6l"] * 6))
    assert load(tmp_path / "a.npz").class_names == ("Käfer", "Öl")
    assert load(tmp_path / "b.npz").class_names == ("Käfer", "\\xd6l")


def test_an_archive_packed_in_an_unknown_way_is_named(tmp_path):
    """What packs files may know more ways than Python does."""
    path = tmp_path / "a.npz"
    np.savez(path, images=GREY)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = content.find(signature) + offset
        content[start : start + 2] = (99).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz must be a complete NumPy archive .* method"):
        load(path)
