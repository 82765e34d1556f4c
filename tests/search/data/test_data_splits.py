"""What sub-folders, links and other files in a folder mean, and that all left out is said."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aesearch.data.load import load
from aesearch.studies.errors import DataError

GREY = np.random.default_rng(0).integers(0, 256, (12, 9, 10), dtype=np.uint8)


def save(folder: Path, images: np.ndarray = GREY, suffix: str = ".png") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}{suffix}" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.mark.parametrize(
    ("training", "validation", "testing"),
    [
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "valid", "Test"),
        ("train_set", "val_set", "test_set"),
        ("train2017", "val2017", "test2017"),
    ],
)
def test_a_split_in_any_spelling_is_no_class(tmp_path, training, validation, testing):
    """Validation images join the training images, and that is said; test images do not."""
    for name, images in (("a", GREY[:6]), ("b", GREY[6:])):
        save(tmp_path / training / name, images)
        save(tmp_path / validation / name, images[:2])
        save(tmp_path / testing / name, 255 - images[:3])
    found = load(tmp_path)
    assert found.class_names == ("a", "b")
    assert found.labels.tolist() == [0] * 8 + [1] * 8
    np.testing.assert_array_equal(found.images[:6, 0], GREY[:6])
    np.testing.assert_array_equal(found.images[6:8, 0], GREY[:2])
    np.testing.assert_array_equal(found.test_images[:, 0], 255 - GREY[[0, 1, 2, 6, 7, 8]])
    assert "4 validation images are training images" in found.described


def test_a_split_without_a_test_set(tmp_path):
    """train/ and val/ alone are one pool; the test set is drawn later."""
    save(tmp_path / "train")
    save(tmp_path / "val", GREY[:3])
    found = load(tmp_path)
    assert (found.n_samples, found.test_images, found.labels) == (15, None, None)


def test_splits_inside_of_classes(tmp_path):
    """cat/train, cat/test, dog/train, dog/test: classes cat and dog."""
    for name, images in (("cat", GREY), ("dog", 255 - GREY)):
        save(tmp_path / name / "train", images)
        save(tmp_path / name / "test", images[:2] // 2)
    found = load(tmp_path)
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [0] * 12 + [1] * 12
    assert found.test_labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("inside", ["", "cat", "train/cat"])
def test_a_folder_around_all_is_no_class(tmp_path, inside):
    """A wrapper says nothing; classes in it are classes."""
    save(tmp_path / "archive" / "images" / inside)
    if inside:
        save(tmp_path / "archive" / "images" / inside.replace("cat", "dog"), GREY[6:])
    found = load(tmp_path)
    assert found.class_names == (("cat", "dog") if inside else None)
    assert "read inside archive/" in found.described


def test_the_same_folder_around_both_parts_is_no_class(tmp_path):
    """train/images and test/images, say."""
    save(tmp_path / "train" / "images")
    save(tmp_path / "test" / "images", GREY[:3])
    found = load(tmp_path)
    assert (found.labels, found.test_labels, len(found.test_images)) == (None, None, 3)
    assert "3 of 3 test images are training images as well" in found.described


def test_an_anomaly_data_set(tmp_path):
    """train/good, test/<defect>, ground_truth/: masks are left out and named."""
    save(tmp_path / "train" / "good")
    save(tmp_path / "test" / "good", GREY[:2])
    save(tmp_path / "test" / "broken", GREY[:3])
    save(tmp_path / "ground_truth" / "broken", GREY[:3])
    found = load(tmp_path)
    assert found.class_names == ("broken", "good")
    assert found.labels.tolist() == [1] * 12
    assert found.test_labels.tolist() == [0, 0, 0, 1, 1]
    assert "left out: 3 images in ground_truth/" in found.described


def test_links_that_lead_back(tmp_path):
    """To the folder, around it, to a class, and two in a circle: each image counts once."""
    save(tmp_path / "set" / "cat", GREY[:6])
    save(tmp_path / "set" / "dog", GREY[6:])
    outside = tmp_path / "outside"
    save(outside / "deeper", 255 - GREY)
    (tmp_path / "set" / "cat" / "latest").symlink_to("..")
    (tmp_path / "set" / "cat" / "all").symlink_to("../..")
    (tmp_path / "set" / "dog" / "cats").symlink_to("../cat")
    (tmp_path / "set" / "dog" / "best.png").symlink_to("../cat/000.png")
    (tmp_path / "set" / "dog" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "set" / "eel").symlink_to(outside)
    (outside / "deeper" / "again").symlink_to(outside)
    found = load(tmp_path / "set")
    assert found.class_names == ("cat", "dog", "eel")
    assert np.bincount(found.labels).tolist() == [6, 6, 12]
    assert "4 links back into the folder, 1 broken link" in found.described
    assert "1 link to images of the folder" in found.described


def test_links_to_files_elsewhere_are_read(tmp_path):
    """Also to a hidden place of the folder itself, as git-annex keeps files."""
    for path in save(tmp_path / "set" / ".annex"):
        (tmp_path / "set" / path.name).symlink_to(path)
    assert load(tmp_path / "set").n_samples == 12


def test_own_run_folders_are_no_images(tmp_path):
    """Whatever they are called, from the first log on."""
    save(tmp_path)
    save(tmp_path / "runs" / "photos" / "pictures")
    (tmp_path / "runs" / "photos" / "worker-0.log").touch()
    save(tmp_path / "results" / "pictures")
    (tmp_path / "results" / "best.yaml").touch()
    (tmp_path / "aesearch.db").touch()
    found = load(tmp_path)
    assert found.n_samples == 12
    assert "left out: 2 run folders of aesearch, 1 .db" in found.described


def test_everything_left_out_is_said(tmp_path):
    """By ending, in one line."""
    save(tmp_path / "a", GREY, ".pgm")
    save(tmp_path / "b", GREY, ".jp2")
    for name in ("a/x.txt", "a/y.TXT", "b/README", "b/.hidden", "b/clip.heic", "b/draft.psd"):
        (tmp_path / name).touch()
    (tmp_path / "c").mkdir()
    found = load(tmp_path)
    assert found.described == (
        "24 images, 1 × 9 × 10, 2 classes (a 12, b 12); left out: 1 hidden file, 2 .txt, "
        "1 file without ending, 1 .heic, 1 .psd, 1 folder without images"
    )


def test_rare_kinds_are_read_where_there_are_no_others(tmp_path):
    """Icons are images of a set only by themselves."""
    save(tmp_path / "rare", GREY, ".dds")
    assert load(tmp_path / "rare").n_samples == 12
    save(tmp_path / "both", GREY[:10])
    save(tmp_path / "both", GREY[:, :8, :8], ".dds")
    assert load(tmp_path / "both").described.endswith("left out: 12 .dds")


def test_a_name_that_is_no_utf8(tmp_path):
    """The class has a name that a database takes."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/K\xe4fer"))
    try:
        save(folder)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    save(tmp_path / "ant")
    found = load(tmp_path)
    assert found.class_names == ("K\\xe4fer", "ant")
    found.described.encode()


@pytest.mark.parametrize(
    ("training", "testing"),
    [
        ("images_train", "images_test"),
        ("Train-photos", "TEST-photos"),
        ("seg_train/seg_train", "seg_test/seg_test"),
    ],
)
def test_a_word_beside_the_names_of_a_split_makes_no_classes(tmp_path, training, testing):
    """Test images would be trained on; other folders beside them are left out."""
    for name, images in (("a", GREY[:6]), ("b", GREY[6:])):
        save(tmp_path / training / name, images)
        save(tmp_path / testing / name, 255 - images[:3])
    save(tmp_path / "images_pred", GREY[:2])
    found = load(tmp_path)
    assert (found.class_names, found.n_samples, len(found.test_images)) == (("a", "b"), 12, 6)
    assert "left out: 2 images in images_pred/" in found.described


def test_classes_that_are_called_like_a_split_stay_classes(tmp_path):
    """Where none is the other half of another."""
    for name in ("freight_train", "passenger_train", "test_tube"):
        save(tmp_path / name)
    assert load(tmp_path).class_names == ("freight_train", "passenger_train", "test_tube")


def test_a_split_of_each_class_in_its_name_is_refused(tmp_path):
    """They would be four classes."""
    for name in ("cats_train", "cats_test", "dogs_train", "dogs_test"):
        save(tmp_path / name)
    with pytest.raises(DataError, match=r"split in folders train/ and test/, got cats_test/, cats"):
        load(tmp_path)


@pytest.mark.parametrize("inside", ["", "train"])
def test_masks_beside_images_are_no_class(tmp_path, inside):
    """They are left out, and that is said."""
    save(tmp_path / inside / "images")
    save(tmp_path / inside / "Masks", GREY // 128 * 255)
    found = load(tmp_path)
    assert (found.labels, found.n_samples) == (None, 12)
    assert "left out: 12 images in Masks/" in found.described


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("1", "give image files their ending"), ("1.npy", "give a file of images or a table itself")],
)
def test_a_folder_without_images_is_told_why(tmp_path, name, remedy):
    """By what it holds instead."""
    (tmp_path / name).write_bytes(b"1")
    with pytest.raises(DataError, match=remedy):
        load(tmp_path)
