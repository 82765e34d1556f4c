"""Which files of a folder are its images, and what its sub-folders mean; reading is elsewhere."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from aesearch.data.notes import Notes, listed, shown
from aesearch.data.readers.archive import ARCHIVES
from aesearch.data.readers.image_files import read_images
from aesearch.data.readers.labels_file import told_of_files
from aesearch.data.readers.partners import partner_files, read_partners
from aesearch.data.readers.tree import IMAGE_SUFFIXES, Folder, tree_of
from aesearch.data.stored import Stored
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

_ROLE = r"(?P<role>train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?)"
_SPLIT = re.compile(_ROLE + r"(?:[ _-]?(?:set|data|images|imgs))?[ _-]?\d*")
# seg_train and seg_test, or train_mnist and test_mnist: the same word around both.
_AFTER_WORD = re.compile(r"(?P<word>.+)[ _-]" + _ROLE)
_BEFORE_WORD = re.compile(_ROLE + r"[ _-](?P<word>.+)")
# Folders of images, and of what was drawn onto each of them, which is no second class.
_PHOTOGRAPHS = {"image", "images", "imgs"}
_DRAWN = {"annotations", "ground_truth", "groundtruth", "gt", "labels", "mask", "masks"}
# What the training images of an anomaly data set are called: its test set has defects beside.
ORDINARY = ("good", "normal", "ok")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Which files of a folder are its images.

    Attributes
    ----------
    files, test_files : list of Path
        Of the training pool, and of the set's own test set; the latter empty where it has none.
    labels, test_labels : ndarray of int64, (file,), or None
    class_names : tuple of str or None
        The folders that label 0, 1, ... stands for; None in a flat folder.
    """

    files: list[Path]
    labels: np.ndarray | None
    test_files: list[Path]
    test_labels: np.ndarray | None
    class_names: tuple[str, ...] | None


def folder_parts(
    path: Path,
    how: DataSpec,
    notes: Notes,
    *,
    n_channels: int | None = None,
    noisy_setting: str = "data.noisy",
) -> Stored:
    """Read a folder of images.

    ``n_channels`` is that of ``read_images``; ``noisy_setting`` named the noisy images.

    Raises
    ------
    DataError
        As ``find_images`` and ``read_images`` do.
    """
    found = find_images(path, notes)
    if how.labels is not None:
        found = _labelled(found, path, how, notes)
    files = found.files + found.test_files
    groups = _groups(files, path, how, notes) if how.groups is not None else None
    partners = None
    if how.noisy is not None:
        noisy_path = Path(how.noisy).expanduser()
        partners = partner_files(files, path, noisy_path, notes, setting=noisy_setting)
    read, noisy = read_images(files, how, notes, where=shown(path), n_channels=n_channels), None
    if partners is not None:
        read, noisy = read_partners(read, files, partners, how, notes)
    of_pool = read.file_of_sample < len(found.files)
    pool, test = read.file_of_sample[of_pool], read.file_of_sample[~of_pool] - len(found.files)
    n_pool = len(pool)
    return Stored(
        name=shown(path.resolve().name),
        source=shown(path),
        images=read.images[:n_pool],
        labels=None if found.labels is None else found.labels[pool],
        test_images=read.images[n_pool:] if found.test_files else None,
        test_labels=None if found.test_labels is None else found.test_labels[test],
        class_names=found.class_names,
        groups=None if groups is None else groups[pool],
        noisy=None if noisy is None else noisy[:n_pool],
        test_noisy=noisy[n_pool:] if noisy is not None and found.test_files else None,
    )


def _labelled(found: ImageFiles, path: Path, how: DataSpec, notes: Notes) -> ImageFiles:
    """Take the labels of files from the table beside them."""
    table = Path(str(how.labels)).expanduser()
    files = found.files + found.test_files
    labels = told_of_files(table, files, path, how, notes)
    n_pool = len(found.files)
    # Whole numbers are numbers; anything else is a name.
    if all(label.removeprefix("-").isdecimal() for label in labels):
        labels = labels.astype(np.int64)
    return replace(
        found,
        labels=labels[:n_pool],
        test_labels=labels[n_pool:] if found.test_files else None,
        class_names=None,
    )


def _groups(files: Sequence[Path], path: Path, how: DataSpec, notes: Notes) -> np.ndarray:
    """Tell which group each file belongs to."""
    given = str(how.groups)
    if given == "folder":
        return np.array([file.parent.relative_to(path).as_posix() for file in files])
    table = Path(given).expanduser()
    if table.suffix.lower() in (".csv", ".tsv"):
        return told_of_files(table, files, path, how, notes)
    if how.labels is None:
        raise DataError(
            f"data.groups must be 'folder', a CSV of files and groups, or a column of data.labels, "
            f"got {given!r} without data.labels; give the table"
        )
    table = Path(how.labels).expanduser()
    return told_of_files(table, files, path, how, notes, column=given)


def find_images(path: Path, notes: Notes) -> ImageFiles:
    """List the images of a folder, in the sorted order of their names, without opening any.

    Sub-folders are classes, numbered in sorted order. Sub-folders called train, val and test, or
    the like, are the training pool (with the validation images) and the set's own test set, each
    flat or with classes. A folder that holds nothing but one other folder is that one.

    Raises
    ------
    DataError
        No images, images beside class folders, test images that would be trained on, or other
        classes in the test set.
    """
    folder = tree_of(path, notes)
    _leave_out_drawn(folder, notes)
    folder = _unwrapped(folder, notes)
    if not folder.images and not folder.folders:
        raise DataError(
            f"{path} must hold images ({', '.join(IMAGE_SUFFIXES[:8])}, …) or sub-folders with "
            f"images, got none{_instead(notes)}; {_remedy_of(notes)}"
        )
    training, testing = _parts(folder, notes)
    both = [*training, *testing]
    files, labels, names = _listing(training, both, notes)
    if not testing:
        return ImageFiles(files, labels, [], None, names)
    test_files, test_labels, test_names = _listing(testing, both, notes)
    if names != test_names:
        if names is None or test_names is None or names[0] not in ORDINARY or len(names) > 1:
            raise DataError(
                f"{path} must have the same classes in train/ and test/, got {names} and "
                f"{test_names}; rename the folders"
            )
        # As MVTec's: trained on what is good, tested on that and on every defect.
        kinds = tuple(sorted({*names, *test_names}))
        labels = np.full(len(files), kinds.index(names[0]))
        numbers = np.array([kinds.index(name) for name in test_names])
        test_labels, names = numbers[test_labels], kinds
    return ImageFiles(files, labels, test_files, test_labels, names)


def _instead(notes: Notes) -> str:
    return "".join(f" ({line})" for line in notes.lines()[:1])


def _remedy_of(notes: Notes) -> str:
    if any(suffix in notes.left_out for suffix in (*ARCHIVES, ".npy", ".csv", ".tsv", ".gz")):
        return "give a file of images or a table itself, not its folder"
    if "file| without ending" in notes.left_out:
        return "give image files their ending, such as .png"
    return "for a known data set give its name, and this folder as --data-dir"


def _leave_out_drawn(folder: Folder, notes: Notes) -> None:
    """Leave masks/ beside images/ out, here and below."""
    drawn = [inner for inner in folder.folders if inner.name.lower() in _DRAWN]
    others = [inner.name.lower() for inner in folder.folders if inner not in drawn]
    if drawn and len(others) == 1 and set(others) <= _PHOTOGRAPHS and not folder.images:
        for inner in drawn:
            notes.leave_out(f"image| in {shown(inner.name)}/", len(inner.all_images()))
            folder.folders.remove(inner)
    for inner in folder.folders:
        _leave_out_drawn(inner, notes)


def _role(name: str) -> str | None:
    """Tell what a folder is to a split by its name: train, val, test, or None."""
    found = _SPLIT.fullmatch(name.lower())
    return None if found is None else _short_role(found["role"])


def _short_role(role: str) -> str:
    return next(short for short in ("train", "val", "test") if role.startswith(short))


def _roles(folder: Folder) -> dict[str, str | None]:
    """Tell what each sub-folder is to a split, by its name or by what it has beside another's.

    Raises
    ------
    DataError
        Each class has a folder for training and another one for testing.
    """
    roles = {inner.name: _role(inner.name) for inner in folder.folders}
    if set(roles.values()) - {None}:
        return roles
    by_word: dict[str, dict[str, str | None]] = {}
    for name in roles:
        for pattern in (_AFTER_WORD, _BEFORE_WORD):
            if found := pattern.fullmatch(name.lower()):
                by_word.setdefault(found["word"], {})[name] = _short_role(found["role"])
    split = [
        found
        for found in by_word.values()
        if "train" in found.values() and set(found.values()) - {"train"}
    ]
    if len(split) > 1:
        raise DataError(
            f"{folder.path} must hold a split in folders train/ and test/, got "
            f"{listed(name + '/' for found in split for name in found)}: images of a test set "
            "would be trained on as classes; put the classes into train/ and test/"
        )
    return roles | split[0] if split else roles


def _unwrapped(folder: Folder, notes: Notes) -> Folder:
    """Go into a folder that is alone in another one."""
    while not folder.images and len(folder.folders) == 1:
        folder = folder.folders[0]
        notes.remark(f"read inside {shown(folder.name)}/")
    return folder


def _parts(folder: Folder, notes: Notes) -> tuple[list[Folder], list[Folder]]:
    """Give the folders of the training pool and of the test set, none where there is no split."""
    roles = _roles(folder)
    found = set(roles.values())
    if "train" in found:
        for inner in folder.folders:
            if roles[inner.name] is None:
                notes.leave_out(f"image| in {shown(inner.name)}/", len(inner.all_images()))
        notes.leave_out("image| beside them", len(folder.images))
        split = _by_role(folder.folders, roles)
    elif found <= {None}:
        split = _by_role_of_classes(folder)
    else:
        _refuse_split_without_training(folder, roles)
    validation = sum(len(inner.all_images()) for inner in split["val"])
    if validation:
        notes.remark(
            f"{validation:,} validation images are training images: cross-validation makes its own "
            "validation parts"
        )
    return split["train"] + split["val"], split["test"]


def _by_role(folders: Sequence[Folder], roles: Mapping[str, str | None]) -> dict[str, list[Folder]]:
    return {
        role: [inner for inner in folders if roles[inner.name] == role]
        for role in ("train", "val", "test")
    }


def _by_role_of_classes(folder: Folder) -> dict[str, list[Folder]]:
    """Look for splits inside of classes: cat/train, cat/test, dog/train, dog/test."""
    split = [
        inner
        for inner in folder.folders
        if {"train", "test"} <= {_role(part.name) for part in inner.folders}
    ]
    if not split:
        return {"train": [folder], "val": [], "test": []}
    whole = [inner.name + "/" for inner in folder.folders if inner not in split]
    whole += [file.name for file in folder.images]
    if whole:
        raise DataError(
            f"{folder.path} must have a split in each of its classes or in none, got train/ and "
            f"test/ in {split[0].name + '/'!r} but not in {whole[0]!r}; put train/ and test/ "
            "outside, with the classes in them"
        )
    parts: dict[str, list[Folder]] = {"train": [], "val": [], "test": []}
    for inner in split:
        roles = {part.name: _role(part.name) for part in inner.folders}
        for role, found in _by_role(inner.folders, roles).items():
            images = [file for part in found for file in part.all_images()]
            if images:  # in a folder that keeps the name of the class
                parts[role].append(Folder(folder.path, [], [Folder(inner.path, images)]))
    return parts


def _refuse_split_without_training(folder: Folder, roles: dict[str, str | None]) -> NoReturn:
    named = next(name for name, role in roles.items() if role is not None)
    raise DataError(
        f"{folder.path} must hold train/ beside {named + '/'!r}, got {listed(roles)}: images of a "
        "test or validation set would be trained on as a class; put the classes into train/, or "
        f"rename {named + '/'!r} where it is one of them"
    )


def _listing(
    folders: Sequence[Folder], of_all: Sequence[Folder], notes: Notes
) -> tuple[list[Path], np.ndarray | None, tuple[str, ...] | None]:
    """List the images of folders with labels and class names, None where they are flat."""
    inside = {part.name for each in of_all for part in each.folders}
    # One folder in every part is no class, but a wrapper; of an anomaly data set it is one.
    # So is one in each that has its name, as archives are unpacked.
    wraps = len(inside) == 1 and not inside & set(ORDINARY)
    wraps |= all([part.name for part in each.folders] == [each.name] for each in of_all)
    of_class: dict[str, list[Path]] = {}
    flat: list[Path] = []
    for folder in folders:
        inner = _unwrapped(folder, notes) if wraps else folder
        flat += inner.images
        for part in inner.folders:
            of_class.setdefault(shown(part.name), []).extend(part.all_images())
    if flat and of_class:
        first = next(iter(of_class))
        raise DataError(
            f"{folders[0].path} must hold images or class sub-folders, got both "
            f"({flat[0].name!r} beside {first + '/'!r}); move the images into a sub-folder"
        )
    if flat:
        return flat, None, None
    names = tuple(sorted(of_class))
    labels = np.repeat(np.arange(len(names)), [len(of_class[name]) for name in names])
    return [file for name in names for file in of_class[name]], labels, names
