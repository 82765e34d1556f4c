"""Array files and tables: every format gives the identical images; every damage is named."""

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aesearch.data.arrays.images import as_image_set, make_image_set
from aesearch.data.load import load
from aesearch.studies.errors import DataError, DataMissingError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (30, 9, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (30, 9, 9, 3), dtype=np.uint8)
LABELS = np.arange(30) % 4
TEST, TEST_LABELS = GREY[::-1][:11], LABELS[::-1][:11]


def table(images: np.ndarray, labels: np.ndarray | None = LABELS) -> pd.DataFrame:
    flat = images.reshape(len(images), int(np.prod(images.shape[1:])))
    frame = pd.DataFrame(flat, columns=[f"pixel{i}" for i in range(flat.shape[1])])
    if labels is not None:
        frame.insert(0, "label", labels)
    return frame


@pytest.mark.parametrize(
    ("file_name", "write"),
    [
        ("a.npz", lambda path: np.savez(path, images=GREY, labels=LABELS)),
        ("a.npz", lambda path: np.savez_compressed(path, x_train=GREY, y_train=LABELS)),
        ("a.npz", lambda path: np.savez(path, X=GREY / 255, y=LABELS.astype(float))),
        ("a.npz", lambda path: np.savez(path, train_images=GREY, train_labels=LABELS[:, None])),
        ("a.csv", lambda path: table(GREY).to_csv(path, index=False)),
        ("a.CSV", lambda path: table(GREY).to_csv(path, index=False, header=False)),
        ("a.csv.gz", lambda path: table(GREY).to_csv(path, index=False)),
        ("a.csv", lambda path: table(GREY / 255, LABELS).to_csv(path, index=False)),
        ("a.csv", lambda path: table(GREY).to_csv(path, index=False, header=list(range(82)))),
        (
            "a.csv",
            lambda path: table(GREY, None).assign(label=LABELS).to_csv(path, index=False),
        ),
        (
            "a.csv",
            lambda path: np.savetxt(path, table(GREY).to_numpy(), delimiter=","),
        ),
    ],
    ids=[
        "images",
        "keras",
        "X y floats",
        "medmnist",
        "kaggle",
        "no header",
        "gzip",
        "floats",
        "numbered columns",
        "label last",
        "savetxt",
    ],
)
def test_labelled_formats_hold_the_same_images(tmp_path, file_name, write):
    """Whatever the file, the uint8 images, the labels and the fingerprint are the same."""
    write(tmp_path / file_name)
    image_set = load(tmp_path / file_name)
    np.testing.assert_array_equal(image_set.images, GREY[:, None])
    np.testing.assert_array_equal(image_set.labels, LABELS)
    assert image_set.fingerprint == as_image_set(GREY, LABELS).fingerprint
    assert (image_set.name, image_set.source) == ("a", str(tmp_path / file_name))


@pytest.mark.parametrize(
    ("file_name", "write"),
    [
        ("a.npy", lambda path: np.save(path, COLOUR)),
        ("a.npy", lambda path: np.save(path, np.moveaxis(COLOUR, 3, 1))),
        ("a.npy", lambda path: np.save(path, np.asfortranarray(COLOUR))),
        ("a.npy", lambda path: np.save(path, (COLOUR / 255).astype(np.float32))),
        ("a.npz", lambda path: np.savez(path, COLOUR)),
        ("a.npz", lambda path: np.savez(path, pictures=COLOUR, weights=LABELS)),
        ("a.csv", lambda path: table(COLOUR, None).to_csv(path, index=False)),
        ("a.csv.gz", lambda path: table(COLOUR, None).to_csv(path, index=False, header=False)),
    ],
)
def test_unlabelled_formats_hold_the_same_images(tmp_path, file_name, write):
    """Without labels too: colours, channel order and memory order do not matter."""
    write(tmp_path / file_name)
    image_set = load(str(tmp_path / file_name))
    np.testing.assert_array_equal(image_set.images, np.moveaxis(COLOUR, 3, 1))
    assert image_set.labels is None
    assert image_set.fingerprint == as_image_set(COLOUR).fingerprint


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("images", "labels", "test_images", "test_labels"),
    ],
)
def test_npz_brings_its_own_test_set(tmp_path, keys):
    """The test arrays of an archive become the set's own test set."""
    arrays = dict(zip(keys, (GREY, LABELS, TEST, TEST_LABELS), strict=True))
    np.savez(tmp_path / "a.npz", **arrays)
    expected = make_image_set(
        name="b",
        source="memory",
        images=GREY,
        labels=LABELS,
        test_images=TEST,
        test_labels=TEST_LABELS,
    )
    assert load(tmp_path / "a.npz").fingerprint == expected.fingerprint


def test_medmnist_validation_part_joins_the_pool(tmp_path):
    """Cross-validation makes its own validation parts: val_images are training images."""
    np.savez(
        tmp_path / "pathmnist.npz",
        train_images=COLOUR[:20],
        val_images=COLOUR[20:],
        test_images=COLOUR[:5],
        train_labels=LABELS[:20, None],
        val_labels=LABELS[20:, None],
        test_labels=LABELS[:5, None],
    )
    image_set = load(tmp_path / "pathmnist.npz")
    np.testing.assert_array_equal(image_set.images, np.moveaxis(COLOUR, 3, 1))
    np.testing.assert_array_equal(image_set.labels, LABELS)
    assert len(image_set.test_images) == 5


def test_csv_longer_than_a_chunk_with_textual_labels(tmp_path):
    """Rows and labels of all chunks arrive in order."""
    images = RNG.integers(0, 256, (4500, 8, 8), dtype=np.uint8)
    names = np.array(["cat", "dog", "eel"])[np.arange(4500) % 3]
    table(images, names).to_csv(tmp_path / "a.csv", index=False)
    image_set = load(tmp_path / "a.csv")
    np.testing.assert_array_equal(image_set.images, images[:, None])
    np.testing.assert_array_equal(image_set.labels, np.arange(4500) % 3)
    assert image_set.class_names == ("cat", "dog", "eel")


def test_images_do_not_change_with_the_file(tmp_path):
    """An .npy is in memory, not a map of the file."""
    path = tmp_path / "a.npy"
    np.save(path, GREY)
    image_set = load(path)
    changed = np.lib.format.open_memmap(path, mode="r+")
    changed[:] = 0
    changed.flush()
    np.testing.assert_array_equal(image_set.images, GREY[:, None])


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    """``~/a.npy`` is a path."""
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "a.npy", GREY)
    assert load("~/a.npy").n_samples == 30


def truncated(path: Path, n_bytes: int) -> None:
    os.truncate(path, path.stat().st_size - n_bytes)


def save_truncated_npy(path: Path) -> None:
    np.save(path, GREY)
    truncated(path, 30)


def save_truncated_npz(path: Path) -> None:
    np.savez_compressed(path, images=GREY)
    truncated(path, 300)


def save_damaged_npz(path: Path) -> None:
    np.savez_compressed(path, images=GREY)
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)


def save_truncated_gzip(path: Path) -> None:
    table(GREY).to_csv(path, index=False)
    truncated(path, 40)


def save_csv_with(path: Path, row: int, column: int, text: str) -> None:
    frame = table(GREY).astype(str)
    frame.iloc[row, column] = text
    frame.to_csv(path, index=False)


def save_ragged(path: Path) -> None:
    lines = table(GREY).to_csv(index=False).splitlines()
    lines[5] += ",1,2"
    path.write_text("\n".join(lines))


def save_unpicklable(path: Path) -> None:
    np.save(path, np.array([{"a": 1}] * 20, dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("file_name", "write", "words"),
    [
        ("a.npy", lambda path: path.touch(), "empty file (0 bytes)"),
        ("a.npz", lambda path: path.touch(), "empty file (0 bytes)"),
        ("a.csv", lambda path: path.touch(), "empty file (0 bytes)"),
        ("a.csv", lambda path: path.write_text("label,pixel0\n"), "must"),
        ("a.csv", lambda path: table(GREY[:0], LABELS[:0]).to_csv(path, index=False), "no rows"),
        ("a.npy", lambda path: path.write_bytes(b"hello there, no array"), "NumPy header"),
        ("a.npz", lambda path: path.write_bytes(b"hello there, no zip"), "NumPy archive"),
        ("a.csv.gz", lambda path: path.write_bytes(b"hello there, no gzip"), "complete table"),
        ("a.npy", save_truncated_npy, "must be 2558 bytes long for its array of shape (30, 9, 9)"),
        ("a.npy", save_truncated_npy, "got 2528: truncated"),
        ("a.npz", save_truncated_npz, "complete NumPy archive"),
        ("a.npz", save_damaged_npz, "complete NumPy archive"),
        ("a.csv.gz", save_truncated_gzip, "complete table"),
        ("a.npy", save_unpicklable, "Python objects (a pickle), which are never opened"),
        (
            "a.npz",
            lambda path: np.savez(path, images=np.array([None] * 20)),
            "Python objects are never opened",
        ),
        ("a.npz", lambda path: np.savez(path, a=GREY, b=GREY), "got a (30, 9, 9), b (30, 9, 9)"),
        ("a.npz", lambda path: np.savez(path, a=LABELS), "got a (30,); rename"),
        ("a.npz", np.savez, "got no array"),
        (
            "a.npz",
            lambda path: np.savez(path, images=GREY, labels=LABELS[1:]),
            "labels must hold one label per image (30), got 29",
        ),
        (
            "a.npz",
            lambda path: np.savez(path, images=GREY, test_images=COLOUR),
            "(sample, 1, 9, 9), got (30, 3, 9, 9)",
        ),
        (
            "a.npz",
            lambda path: np.savez(
                path, train_images=GREY, train_labels=LABELS, val_images=GREY[:3]
            ),
            "'val_labels' beside 'val_images'",
        ),
        (
            "a.npz",
            lambda path: np.savez(path, train_images=GREY, val_images=GREY / 255),
            "val_images must match the training part, uint8 (30, 9, 9), got float64",
        ),
        (
            "a.npy",
            lambda path: np.save(path, np.where(GREY > 250, np.nan, GREY / 255)),
            "must hold finite pixels",
        ),
        ("a.npy", lambda path: np.save(path, GREY[0]), "got (9, 9)"),
        ("a.csv", lambda path: save_csv_with(path, 4, 3, ""), "first in row 5, column 4"),
        ("a.csv", lambda path: save_csv_with(path, 4, 3, "nan"), "1 missing or NaN pixels"),
        ("a.csv", lambda path: save_csv_with(path, 4, 0, ""), "first in row 5, column 1"),
        ("a.csv", lambda path: save_csv_with(path, 4, 3, "seven"), "got 'seven' in column 4"),
        ("a.csv", lambda path: save_csv_with(path, 4, 3, "256"), "from 0 to 256 in rows 1 to 30"),
        ("a.csv", lambda path: save_csv_with(path, 4, 3, "-1"), "values from -1 to 255"),
        ("a.csv", lambda path: save_csv_with(path, 4, 3, "inf"), "1 NaN or infinite"),
        ("a.csv", lambda path: save_csv_with(path, 4, 3, "7.5"), "float intensities in [0, 1]"),
        ("a.csv", save_ragged, "Expected 82 fields in line 6, saw 84"),
        (
            "a.csv",
            lambda path: table(GREY[:, :, 1:]).to_csv(path, index=False),
            "got 73 columns with the labels in column 1",
        ),
        (
            "a.csv",
            lambda path: np.savetxt(path, np.ones((20, 676)), delimiter=",", fmt="%d"),
            "676 columns, which allow both",
        ),
        (
            "a.csv",
            lambda path: table(GREY > 99).astype(int).to_csv(path, index=False),
            "only 0 and 1 of 255",
        ),
        ("a.csv", lambda path: path.write_bytes(b"label,\xff\xfe\n1,2\n"), "complete table"),
        (
            "a.csv",
            lambda path: np.savetxt(
                path, np.c_[table(GREY, None), LABELS], delimiter=",", fmt="%d"
            ),
            "a last column that looks like one",
        ),
        (
            "a.csv",
            lambda path: table(GREY).rename(columns={"label": "id"}).to_csv(path, index=False),
            "the first of them 'id'",
        ),
        ("a.parquet", lambda path: path.write_bytes(b"PAR1"), "got '.parquet'"),
    ],
)
def test_a_bad_file_is_named(tmp_path, file_name, write, words):
    """Every bad file is a DataError that names it, what was expected and found, and a remedy."""
    path = tmp_path / file_name
    write(path)
    with pytest.raises(DataError) as raised:
        load(path)
    message = str(raised.value)
    assert [word for word in (words, str(path), "must", "got", ";") if word not in message] == []


def test_class_names_of_an_archive_are_read(tmp_path):
    """As our own commands write them beside the numbers."""
    names = np.array(["ant", "bee", "cat", "dog"])
    np.savez(tmp_path / "a.npz", images=GREY, labels=LABELS, class_names=names)
    assert load(tmp_path / "a.npz").class_names == ("ant", "bee", "cat", "dog")
    np.savez(tmp_path / "b.npz", images=GREY, labels=LABELS, class_names=np.arange(4))
    assert load(tmp_path / "b.npz").class_names is None


def test_a_missing_file_is_named(tmp_path):
    """A path that does not exist is an error of its own."""
    with pytest.raises(DataMissingError, match=r"there\.npz must exist"):
        load(tmp_path / "there.npz")


def test_a_pickle_is_never_opened(tmp_path):
    """A file that would run a program when unpickled does not."""
    path = tmp_path / "a.npy"
    path.write_bytes(b"cos\nmkdir\n(V" + str(tmp_path / "made").encode() + b"\ntR.")
    with pytest.raises(DataError):
        load(path)
    assert not (tmp_path / "made").exists()


def test_a_byte_order_mark_is_skipped(tmp_path):
    """A byte order mark before the header is not part of the first name."""
    header = ["label", *map(str, range(81))]
    content = b"\xef\xbb\xbf" + table(GREY).to_csv(index=False, header=header).encode()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content))
    assert load(tmp_path / "a.csv.gz").fingerprint == as_image_set(GREY, LABELS).fingerprint
