"""Tables as people save them: delimiters, headers, indices, the order of pixels and colours."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aesearch.data.arrays.images import as_image_set
from aesearch.data.load import load
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (30, 9, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (30, 9, 9, 3), dtype=np.uint8)
LABELS = np.arange(30) % 4


def how(**settings: Any) -> DataSpec:
    return DataSpec.model_validate(settings)


def frame(images: np.ndarray = GREY, name: str = "pixel{}") -> pd.DataFrame:
    flat = images.reshape(len(images), -1)
    return pd.DataFrame(flat, columns=[name.format(i) for i in range(flat.shape[1])])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("header", [True, False])
def test_delimiters_are_found(tmp_path, delimiter, header):
    """With a header or without."""
    path = tmp_path / "a.csv"
    frame().to_csv(path, sep=delimiter, index=False, header=header)
    np.testing.assert_array_equal(load(path).images[:, 0], GREY)


def test_columns_that_are_aligned_with_spaces(tmp_path):
    """As np.savetxt writes them with a width."""
    path = tmp_path / "a.txt.csv"
    np.savetxt(path, GREY.reshape(30, 81), fmt="%4d")
    np.testing.assert_array_equal(load(path).images[:, 0], GREY)


def test_a_decimal_comma(tmp_path):
    """Between semicolons."""
    path = tmp_path / "a.csv"
    (frame() / 255).to_csv(path, sep=";", decimal=",", index=False)
    np.testing.assert_array_equal(load(path).images[:, 0], GREY)


def test_a_delimiter_that_is_said(tmp_path):
    """And another one is named as the cause."""
    path = tmp_path / "a.csv"
    frame().to_csv(path, sep=";", index=False)
    np.testing.assert_array_equal(load(path, how=how(delimiter=";")).images[:, 0], GREY)
    with pytest.raises(DataError, match=r"got 1 columns with 'tab' between them; name another"):
        load(path, how=how(delimiter="tab"))


@pytest.mark.parametrize("name", ["pixel{}", "{}", "px_{}", "col {}.0"])
def test_names_give_the_order(tmp_path, name):
    """Of columns that were sorted as text, say: pixel0, pixel1, pixel10."""
    table = frame(name=name)
    table = table[sorted(table.columns)]
    table.insert(3, "label", LABELS)
    table.to_csv(tmp_path / "a.csv", index=False)
    found = load(tmp_path / "a.csv")
    np.testing.assert_array_equal(found.images[:, 0], GREY)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert "in the order of their names" in found.described


def test_names_of_row_and_column(tmp_path):
    """1x1, 1x2, ... in any order, and no square."""
    images = GREY[:, :8]
    names = [f"{row}x{column}" for row in range(1, 9) for column in range(1, 10)]
    table = pd.DataFrame(images.reshape(30, 72), columns=names)
    table[sorted(names, key=lambda name: name[::-1])].to_csv(tmp_path / "a.csv", index=False)
    np.testing.assert_array_equal(load(tmp_path / "a.csv").images[:, 0], images)


@pytest.mark.parametrize("name", ["{c}{p}", "{p}_{c}", "{row}_{column}_{c}", "{row}.{column}.{n}"])
def test_names_of_colours(tmp_path, name):
    """One colour after the other or side by side: the names tell."""
    words = [
        name.format(c="rgb"[n], n=n, p=row * 9 + column, row=row, column=column)
        for n in range(3)
        for row in range(9)
        for column in range(9)
    ]
    table = pd.DataFrame(np.moveaxis(COLOUR, 3, 1).reshape(30, -1), columns=words)
    table.to_csv(tmp_path / "a.csv", index=False)
    np.testing.assert_array_equal(load(tmp_path / "a.csv").images, np.moveaxis(COLOUR, 3, 1))


def test_the_order_of_colours_can_be_said(tmp_path):
    """Without names a pixel's colours are neighbours, which is said; or as image_shape has it."""
    planar = np.moveaxis(COLOUR, 3, 1)
    np.savetxt(tmp_path / "a.csv", COLOUR.reshape(30, -1), fmt="%d", delimiter=",")
    np.savetxt(tmp_path / "b.csv", planar.reshape(30, -1), fmt="%d", delimiter=",")
    found = load(tmp_path / "a.csv")
    np.testing.assert_array_equal(found.images, planar)
    assert "data.image_shape=3x9x9 for one colour after the other" in found.described
    for name, shape in (("a", "9x9x3"), ("b", [3, 9, 9])):
        found = load(tmp_path / f"{name}.csv", how=how(image_shape=shape))
        np.testing.assert_array_equal(found.images, planar)


def test_images_that_are_no_squares(tmp_path):
    """With their shape said; labels in the first column."""
    images = GREY.reshape(30, -1)[:, :80]
    np.savetxt(tmp_path / "a.csv", np.c_[LABELS, images], fmt="%d", delimiter=",")
    found = load(tmp_path / "a.csv", how=how(image_shape="8x10"))
    np.testing.assert_array_equal(found.images[:, 0].reshape(30, -1), images)
    np.testing.assert_array_equal(found.labels, LABELS)


@pytest.mark.parametrize("start", [0, 1, 1000])
def test_row_numbers_are_no_labels(tmp_path, start):
    """Without a header: what has no value twice numbers the rows."""
    numbers = np.arange(30) + start
    np.savetxt(tmp_path / "a.csv", np.c_[numbers, GREY.reshape(30, -1)], fmt="%d", delimiter=",")
    found = load(tmp_path / "a.csv")
    assert found.labels is None
    np.testing.assert_array_equal(found.images[:, 0], GREY)
    assert "an index, not read" in found.described


def test_row_numbers_beside_labels(tmp_path):
    """An index of pandas, with a header or without; a column 'id'."""
    table = frame()
    table.insert(0, "label", LABELS)
    table.to_csv(tmp_path / "a.csv")
    table.to_csv(tmp_path / "b.csv", header=False)
    frame().to_csv(tmp_path / "c.csv", index_label="id")
    for name, labels in (("a", LABELS), ("b", LABELS), ("c", None)):
        found = load(tmp_path / f"{name}.csv")
        np.testing.assert_array_equal(found.images[:, 0], GREY)
        assert (found.labels is None) == (labels is None)
        if labels is not None:
            np.testing.assert_array_equal(found.labels, labels)


def resaved_numbers(path: Path) -> None:
    pd.DataFrame(GREY.reshape(30, -1)).to_csv(path, index=False)


def resaved_floats(path: Path) -> None:
    content = np.vstack([np.arange(81), GREY.reshape(30, -1)])
    np.savetxt(path, content, delimiter=",")


def resaved_first_image(path: Path) -> None:
    pd.DataFrame(GREY.reshape(30, -1)).to_csv(path, index=False, header=False)
    pd.read_csv(path).to_csv(path, index=False)


@pytest.mark.parametrize("write", [resaved_numbers, resaved_floats, resaved_first_image])
def test_a_header_of_numbers_is_no_image(tmp_path, write):
    """Nor is a first image a header that a program made names of: 0, 0.1, 0.2, 7, 0.3."""
    images = GREY.copy()
    images[0, 0, :5] = 0
    images[0, 1, :5] = 7
    path = tmp_path / "a.csv"
    original, GREY[:] = GREY.copy(), images
    try:
        write(path)
    finally:
        GREY[:] = original
    np.testing.assert_array_equal(load(path).images[:, 0], images)


def test_other_columns_are_left_out_by_name(tmp_path):
    """A file name and a split beside the pixels."""
    table = frame()
    table.insert(0, "file", [f"{n}.png" for n in range(30)])
    table["usage"] = "Training"
    table["label"] = LABELS
    table.to_csv(tmp_path / "a.csv", index=False)
    found = load(tmp_path / "a.csv")
    np.testing.assert_array_equal(found.images[:, 0], GREY)
    assert "left out: 2 columns (file, usage)" in found.described


def test_a_white_that_is_said(tmp_path):
    """12 bits in a table."""
    frame(GREY.astype(np.uint16) * 16).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=r"data\.white"):
        load(tmp_path / "a.csv")
    np.testing.assert_array_equal(
        load(tmp_path / "a.csv", how=how(white=4080.0)).images[:, 0], GREY
    )


def test_decimal_commas_in_every_cell(tmp_path):
    """There are more commas than semicolons then, and as many in each line."""
    path = tmp_path / "a.csv"
    rows = (GREY.reshape(30, 81) / 255).tolist()
    lines = (";".join(f"{value:.4f}".replace(".", ",") for value in row) for row in rows)
    path.write_text("\n".join(lines))
    np.testing.assert_array_equal(load(path).images[:, 0], GREY)


@pytest.mark.parametrize("label", [False, True])
def test_a_header_of_whole_floats_is_no_image(tmp_path, label):
    """0.0, 1.0, 2.0, as a table of floats names its columns."""
    table = frame(name="{}.0") / 1.0
    if label:
        table.insert(0, "0.5", LABELS)
    path = tmp_path / "a.csv"
    table.to_csv(path, index=False)
    np.testing.assert_array_equal(load(path).images[:, 0], GREY)


@pytest.mark.parametrize("images", [GREY, np.round(GREY / 255, 1)])
@pytest.mark.parametrize("index", [False, True])
def test_an_image_that_became_the_header_is_restored(tmp_path, images, index):
    """By pandas, which reads a table without header and writes it again, with its index or not."""
    path = tmp_path / "a.csv"
    frame(images).to_csv(path, index=False, header=False)
    pd.read_csv(path).to_csv(path, index=index)
    found = load(path)
    assert found.fingerprint == as_image_set(images).fingerprint
    assert "its values restored" in found.described


def test_an_index_before_the_labels_is_said(tmp_path):
    """Nothing else tells that it is one."""
    table = frame()
    table.insert(0, "label", LABELS)
    path = tmp_path / "a.csv"
    table.to_csv(path, header=False)
    found = load(path)
    assert found.labels.tolist() == LABELS.tolist()
    assert "first column is taken for an index, the second for the labels" in found.described


@pytest.mark.parametrize("header", [False, True])
def test_comments_before_the_table_are_left_out(tmp_path, header):
    """But for the one that names the columns, which np.savetxt writes so."""
    path = tmp_path / "a.csv"
    text = frame().to_csv(index=False, header=header)
    path.write_text(f"# made on Monday\n\n# by me\n{'# ' * header}{text}")
    found = load(path)
    np.testing.assert_array_equal(found.images[:, 0], GREY)
    assert "left out: 2 comment lines" in found.described


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (frame().to_csv().encode("utf-16"), "text in UTF-8, got UTF-16; save it as CSV UTF-8"),
        (b"PK\3\4rest", "text in UTF-8, got a zip file or a workbook of Excel; export it as CSV"),
        (
            gzip.compress(b"0,1\n", mtime=0),  # a test is called by its arguments
            r"end in \.gz where it is packed, got gzip; .* to a\.csv\.gz",
        ),
        ("é,1,2\n".encode("latin-1"), "complete table in UTF-8, got .*; save it as CSV UTF-8"),
        (b"label,pixels\n1,%s\n" % b" ".join([b"7"] * 81), r"in one cell, '7 7 .* of their own"),
        (b"file,label\na/1.png,2\n", r"names of files, 'a/1\.png'; give .* with --labels"),
        (
            frame().assign(kind="cat").to_csv(index=False, header=False).encode(),
            "name its labels, got 'cat' in the last column; add a header with 'label'",
        ),
    ],
)
def test_what_is_no_table_of_pixels_is_told_what_it_is(tmp_path, content, message):
    """And what helps."""
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(path)
