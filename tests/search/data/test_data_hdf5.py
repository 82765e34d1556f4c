"""HDF5 files: the arrays of an ``.npz``, by the same names; what else they hold is told."""

import sys

import h5py
import numpy as np
import pytest

from aesearch.data.arrays.images import as_image_set
from aesearch.data.load import load
from aesearch.inference.inputs import open_input
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

GREY = np.random.default_rng(0).integers(0, 256, (24, 9, 10), dtype=np.uint8)
CLASSES = ["Käfer", "Öl"]


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


@pytest.mark.parametrize("ending", [".h5", ".hdf5", ".H5"])
def test_arrays_are_read_by_the_names_of_an_npz(tmp_path, ending):
    """Training and test images with labels: the same set."""
    arrays = {
        "x_train": GREY[:16],
        "y_train": np.arange(16) % 2,
        "x_test": GREY[16:],
        "y_test": np.arange(8) % 2,
    }
    np.savez(tmp_path / "a.npz", **arrays)
    found = load(write(tmp_path / f"b{ending}", **arrays))
    assert found.fingerprint == load(tmp_path / "a.npz").fingerprint
    assert found.name == "b"


def test_the_only_array_of_images_may_have_any_name_and_lie_in_a_group(tmp_path):
    """Packed, too; what else there is is left out by name."""
    path = write(tmp_path / "a.h5", ids=np.arange(24))
    write(tmp_path / "other.h5", images=GREY[:12])
    with h5py.File(path, "a") as file:
        file.create_dataset("run/frames", data=GREY, chunks=True, compression="gzip")
        file["table"] = np.zeros(3, dtype=[("a", "i4")])
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/images")
        file["run/back"] = file["/"]
    found = load(path)
    assert found.fingerprint == as_image_set(GREY).fingerprint
    assert "left out: 3 arrays (ids (24,), elsewhere (a link that" in found.described


def test_labels_are_text(tmp_path):
    """Of any length, and of a fixed one; so are the names of classes that are numbers."""
    labels = np.array(CLASSES * 12)
    free = write(tmp_path / "a.h5", images=GREY, labels=labels.astype(h5py.string_dtype()))
    fixed = [label.encode() for label in labels]
    fixed = write(tmp_path / "b.h5", images=GREY, labels=np.array(fixed))
    names = np.array(CLASSES).astype(h5py.string_dtype())
    named = write(tmp_path / "c.h5", images=GREY, labels=np.arange(24) % 2, class_names=names)
    for path in (free, fixed, named):
        assert load(path).class_names == tuple(CLASSES)


def test_groups_and_noisy_images_are_named_as_in_an_npz(tmp_path):
    """Also inside of a group of the file."""
    path = write(tmp_path / "a.h5", images=GREY, who=np.arange(24) // 4)
    with h5py.File(path, "a") as file:
        file["noise/strong"] = GREY[::-1]
    found = load(path, how=DataSpec(groups="who", noisy="noise/strong"))
    np.testing.assert_array_equal(found.noisy[:, 0], GREY[::-1])
    assert len(np.unique(found.groups)) == 6


def test_a_model_takes_them(tmp_path):
    """As images to be encoded."""
    found = open_input(str(write(tmp_path / "a.h5", images=GREY)))
    np.testing.assert_array_equal(found.read(slice(3, 5), (1, 9, 10))[:, 0] * 255, GREY[3:5])


def test_of_several_arrays_one_can_be_given_a_second_name(tmp_path):
    """As the message says, which copies nothing."""
    path = write(tmp_path / "a.h5", frames=GREY, masks=GREY)
    with pytest.raises(DataError, match=r"got frames \(24, 9, 10\), masks .*SoftLink\('/frames'\)"):
        load(path)
    with h5py.File(path, "a") as file:
        file["images"] = h5py.SoftLink("/frames")
    assert load(path).fingerprint == as_image_set(GREY).fingerprint


def test_a_damaged_file_is_named(tmp_path):
    """Cut short, or something else."""
    path = write(tmp_path / "a.h5", images=GREY)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.h5 must be a complete HDF5 file of numbers, got"):
        load(path)
    path.write_text("these are no images")
    with pytest.raises(DataError, match=r"a\.h5 must be a complete HDF5 file of numbers, got"):
        load(path)


def test_without_h5py_it_says_what_to_install(tmp_path, monkeypatch):
    """In one line."""
    path = write(tmp_path / "a.h5", images=GREY)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"by h5py, got none .* pip install 'aesearch\[hdf5\]'$"):
        load(path)


def test_a_split_in_groups(tmp_path):
    """train/images, val/images, test/images."""
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for part, images in (("train", GREY), ("val", GREY[:4]), ("test", 255 - GREY[:5])):
            file[f"{part}/images"], file[f"{part}/labels"] = images, np.arange(len(images)) % 2
    found = load(path)
    assert (found.n_samples, found.labels.tolist()) == (28, [0, 1] * 14)
    np.testing.assert_array_equal(found.test_images[:, 0], 255 - GREY[:5])


def test_links_that_lead_round_are_left_out(tmp_path):
    """To themselves, and back to their group."""
    path = write(tmp_path / "a.h5", images=GREY)
    with h5py.File(path, "a") as file:
        file["round"] = h5py.SoftLink("/round")
        file["group/up"] = file["/"]
    found = load(path)
    assert found.n_samples == 24
    assert "left out: 1 array (round (a link that leads nowhere here))" in found.described
