"""Settings of the images: labels and groups beside them, a test set of their own, fair folds."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.model_selection import GroupKFold, StratifiedKFold

from aesearch.data.arrays.images import as_image_set
from aesearch.data.load import load
from aesearch.data.split import folds, holdout, split_test
from aesearch.data.study_data import load_problem
from aesearch.studies.errors import DataError
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.sections import DataSpec

GREY = np.random.default_rng(0).integers(0, 256, (40, 9, 10), dtype=np.uint8)


def how(**settings: Any) -> DataSpec:
    return DataSpec.model_validate(
        {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    )


def save(folder: Path, images: np.ndarray = GREY) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.png" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.mark.parametrize("key", ["name", "stem", "path"])
@pytest.mark.parametrize("header", [True, False])
def test_labels_in_a_table_beside_a_folder(tmp_path, key, header):
    """Files by path, by name or without ending; rows in any order; strange rows are said."""
    paths = save(tmp_path / "photos" / "x", GREY[:20]) + save(tmp_path / "photos" / "y", GREY[20:])
    if key != "path":
        for path in paths[20:]:
            path.rename(path.with_name(f"y{path.name}"))
        paths[20:] = [path.with_name(f"y{path.name}") for path in paths[20:]]
    name = {
        "name": lambda path: path.name,
        "stem": lambda path: path.stem,
        "path": lambda path: path.relative_to(tmp_path / "photos").as_posix(),
    }[key]
    table = pd.DataFrame({"image_id": map(name, paths), "label": ["cat", "dog"] * 20})
    table = pd.concat(
        [
            table.sample(frac=1, random_state=1),
            pd.DataFrame([["gone", "cat"]], columns=table.columns),
        ]
    )
    table.to_csv(tmp_path / "labels.csv", index=False, header=header)
    found = load(tmp_path / "photos", how=how(labels=tmp_path / "labels.csv"))
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [0, 1] * 20
    assert "1 row of labels.csv without an image" in found.described


def test_a_table_that_does_not_fit_is_named(tmp_path):
    """Images without a row, two rows for one, no column of files."""
    save(tmp_path / "photos")
    table = pd.DataFrame({"file": [f"{n:03}.png" for n in range(40)], "label": [0, 1] * 20})
    path = tmp_path / "labels.csv"
    table[:30].to_csv(path, index=False)
    with pytest.raises(DataError, match="a row for each image, got none for 10 of 40"):
        load(tmp_path / "photos", how=how(labels=path))
    pd.concat([table, table[:1].assign(label=1)]).to_csv(path, index=False)
    with pytest.raises(DataError, match="must say one thing of an image, got '0' and '1'"):
        load(tmp_path / "photos", how=how(labels=path))
    table.assign(file="x").to_csv(path, index=False)
    with pytest.raises(DataError, match="a column with the names of the images"):
        load(tmp_path / "photos", how=how(labels=path))
    with pytest.raises(DataError, match="got no such file"):
        load(tmp_path / "photos", how=how(labels=tmp_path / "none.csv"))


def test_groups_from_everywhere(tmp_path):
    """A folder each, a column beside the labels, a table, an array of an archive."""
    groups = np.arange(40) // 4
    for group in range(10):
        save(tmp_path / "photos" / f"p{group}", GREY[group * 4 : group * 4 + 4])
    files = [f"p{n // 4}/{n % 4:03}.png" for n in range(40)]
    table = pd.DataFrame({"file": files, "label": [0, 1] * 20, "patient": groups + 17})
    table.to_csv(tmp_path / "table.csv", index=False)
    table[["file", "patient"]].to_csv(tmp_path / "groups.csv", index=False)
    np.savez(tmp_path / "a.npz", images=GREY, who=groups)
    pixels = pd.DataFrame(GREY[:, :, :9].reshape(40, -1), columns=[f"pixel{i}" for i in range(81)])
    pixels.assign(label=0, who=groups).to_csv(tmp_path / "a.csv", index=False)
    for found in (
        load(tmp_path / "photos", how=how(groups="folder")),
        load(tmp_path / "photos", how=how(labels=tmp_path / "table.csv", groups="patient")),
        load(tmp_path / "photos", how=how(groups=tmp_path / "groups.csv")),
        load(tmp_path / "a.npz", how=how(groups="who")),
        load(tmp_path / "a.csv", how=how(groups="who")),
        as_image_set(GREY, groups=[f"patient {group}" for group in groups]),
    ):
        np.testing.assert_array_equal(found.groups, groups)
        assert "10 groups" in found.described


def test_no_group_is_in_two_folds_or_in_fold_and_test(tmp_path):
    """The GroupKFold of sklearn; test set and holdout are whole groups too."""
    groups = np.arange(40) % 10
    np.savez(tmp_path / "a.npz", images=GREY, groups=groups)
    spec = load_spec(overrides=[f"data.dataset={tmp_path}/a.npz", "data.groups=groups"])
    problem = load_problem(spec, device="cpu")
    assert len(problem.test_images) == 8
    of_fold = [set(problem.groups[problem.fold_of_sample == fold]) for fold in range(3)]
    assert sum(map(len, of_fold)) == len(set().union(*of_fold)) == 8
    assert not {image.tobytes() for image in problem.test_images} & {
        image.tobytes() for image in problem.images
    }
    for train, held in (problem.holdout_indices(), problem.delivery_indices(0)):
        assert not set(problem.groups[train]) & set(problem.groups[held])
        assert len(held) == 4
    state = int(np.random.SeedSequence(0, spawn_key=(1,)).generate_state(1)[0])
    expected = GroupKFold(3, shuffle=True, random_state=state).split(
        problem.images, None, problem.groups
    )
    for fold, (_, held) in enumerate(expected):
        np.testing.assert_array_equal(np.flatnonzero(problem.fold_of_sample == fold), held)


def test_folds_in_equal_shares():
    """The StratifiedKFold of sklearn; with groups both hold."""
    labels = np.repeat([0, 1, 2], [60, 24, 6])
    found = folds(90, 3, 5, labels=labels, stratify=True)
    state = int(np.random.SeedSequence(5, spawn_key=(1,)).generate_state(1)[0])
    expected = StratifiedKFold(3, shuffle=True, random_state=state).split(np.zeros(90), labels)
    for fold, (_, held) in enumerate(expected):
        np.testing.assert_array_equal(np.flatnonzero(found == fold), held)
        assert Counter(labels[held].tolist()) == {0: 20, 1: 8, 2: 2}
    groups = np.arange(90) // 3
    both = folds(90, 3, 5, labels=labels, groups=groups, stratify=True)
    assert all(len(set(both[groups == group])) == 1 for group in range(30))


def test_a_drawn_test_set_in_equal_shares():
    """Of 40 images in two classes of 30 and 10, a fifth of each."""
    image_set = as_image_set(GREY, np.repeat([0, 1], [30, 10]))
    parts = split_test(image_set, test_fraction=0.2, seed=3, stratify=True)
    assert Counter(parts.test_labels.tolist()) == {0: 6, 1: 2}


def test_a_holdout_of_one_group_is_of_samples():
    """Where a fold's training part has one group only."""
    train, held = holdout(10, 0.2, 0, np.zeros(10, int))
    assert (len(train), len(held)) == (8, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"stratify": True}, "must be false for images without labels"),
        ({"groups": np.arange(40) % 2}, "at least 3 groups, one for each part, got 2"),
        ({"labels": np.arange(40) > 37, "stratify": True}, "3 images of each class.* a class of 2"),
    ],
)
def test_folds_that_cannot_be_are_named(arguments, words):
    """With what is missing."""
    with pytest.raises(DataError, match=words):
        folds(40, 3, 0, **arguments)


def test_a_test_set_of_its_own(tmp_path):
    """From another folder or file; classes are matched by name."""
    save(tmp_path / "mine" / "cat", GREY[:20])
    save(tmp_path / "mine" / "dog", GREY[20:])
    save(tmp_path / "theirs" / "dog", GREY[:3])
    save(tmp_path / "theirs" / "eel", GREY[3:5])
    found = load(tmp_path / "mine", how=how(test=tmp_path / "theirs"))
    assert found.class_names == ("cat", "dog", "eel")
    assert found.test_labels.tolist() == [1, 1, 1, 2, 2]
    assert "5 of 5 test images are training images as well" in found.described
    np.save(tmp_path / "test.npy", GREY[:4])
    found = load(tmp_path / "mine", how=how(test=tmp_path / "test.npy"))
    np.testing.assert_array_equal(found.test_images[:, 0], GREY[:4])
    np.save(tmp_path / "small.npy", GREY[:4, :8])
    with pytest.raises(DataError, match="test images must have the shape of the training images"):
        load(tmp_path / "mine", how=how(test=tmp_path / "small.npy"))
    with pytest.raises(DataError, match=r"data\.test must be left out for the data set digits"):
        load("digits", how=how(test=tmp_path / "test.npy"))


@pytest.mark.parametrize("n_channels", [2, 4, 5, 64])
def test_arrays_of_many_channels(n_channels):
    """Channels first or last, where only one end can be them."""
    many = np.random.default_rng(0).integers(0, 256, (12, n_channels, 70, 70), dtype=np.uint8)
    np.testing.assert_array_equal(as_image_set(many).images, many)
    np.testing.assert_array_equal(as_image_set(np.moveaxis(many, 1, 3)).images, many)


def test_axes_that_can_be_said():
    """9 channels of 12 x 9, or 12 x 9 x 9 sides: image_shape tells."""
    many = np.random.default_rng(0).integers(0, 256, (12, 9, 12, 9), dtype=np.uint8)
    np.testing.assert_array_equal(as_image_set(many, how=how(image_shape="9x12x9")).images, many)


def test_flat_rows_with_a_shape():
    """(sample, pixel) as image_shape unrolls it."""
    flat = GREY.reshape(40, 90)
    np.testing.assert_array_equal(
        as_image_set(flat, how=how(image_shape=[9, 10])).images[:, 0], GREY
    )
    colour = np.random.default_rng(0).integers(0, 256, (12, 9, 10, 3), dtype=np.uint8)
    first = np.moveaxis(colour, 3, 1)
    for array, shape in ((colour, "9x10x3"), (first, "3x9x10")):
        found = as_image_set(array.reshape(12, -1), how=how(image_shape=shape)).images
        np.testing.assert_array_equal(found, first)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(64, (64, "crop")), ("64", (64, "crop")), ("32-fit", (32, "fit")), ({"side": 8}, (8, "crop"))],
)
def test_a_size_in_every_spelling(given, expected):
    """A number, words, or a section."""
    resize = how(resize=given).resize
    assert (resize.side, resize.how) == expected


def test_a_size_that_cannot_be_is_named():
    """With what to write."""
    with pytest.raises(ValueError, match="be a side such as 64, or 64-crop"):
        how(resize="64x64")
