"""Noisy image files beside clean ones: which belongs to which by name, and both read alike."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aesearch.data.notes import Notes, listed, shown
from aesearch.data.readers.image_files import FileImages, read_images
from aesearch.data.readers.tree import tree_of
from aesearch.studies.errors import DataError, DataMissingError
from aesearch.studies.spec.sections import DataSpec


def partner_files(
    files: Sequence[Path], root: Path, noisy: Path, notes: Notes, *, setting: str
) -> list[Path]:
    """Find the noisy image of each clean one in another folder, by its path within the folder.

    Where the names are those of the clean ones but for the ending (``a.png``, ``a.jpg``), they
    are compared without it. Images that the clean folder has as well, but that are left out
    there, are left out.

    Parameters
    ----------
    files : sequence of Path
        The clean images, in ``root``.
    noisy : Path
        The other folder.
    notes : Notes
        Told what is left out of it.
    setting : str
        What named the other folder.

    Returns
    -------
    list of Path
        In the order of ``files``.

    Raises
    ------
    DataError
        Names without a partner, in either folder.
    """
    if not noisy.exists():
        raise DataMissingError(
            f"{setting} must exist, got nothing at {shown(noisy)} (looked at "
            f"{shown(noisy.absolute())}); check the path"
        )
    if not noisy.is_dir():
        raise DataError(
            f"{setting} must be a folder, as {shown(root)} is, got the file {shown(noisy)}; give "
            "the folder of the noisy images"
        )
    theirs = Notes()
    others = tree_of(noisy, theirs).all_images()
    for line in theirs.lines():
        notes.remark(f"noisy images: {line}")
    names, their_names = _relative(files, root), _relative(others, noisy)
    if not set(names) & set(their_names):
        # One of both may lie in one more folder.
        names, their_names = _relative(files, _common(files)), _relative(others, _common(others))
    stems, their_stems = _stems(names), _stems(their_names)
    if len(set(stems) & set(their_stems)) > len(set(names) & set(their_names)):
        names, their_names = stems, their_stems
    found = dict(zip(their_names, others, strict=True))
    lacking = [name for name in names if name not in found]
    extra = [
        name
        for name, file in found.items()
        if name not in set(names) and not (root / file.relative_to(noisy)).exists()
    ]
    if lacking or extra:
        got = []
        if lacking:
            got.append(f"none for {len(lacking):,} of {len(names):,} ({listed(lacking)})")
        if extra:
            got.append(f"{len(extra):,} without a clean one ({listed(extra)})")
        raise DataError(
            f"{shown(noisy)} ({setting}) must hold a noisy image of the same name for each in "
            f"{shown(root)}, got {' and '.join(got)}; add them, or take their partners away"
        )
    return [found[name] for name in names]


def _relative(files: Sequence[Path], root: Path) -> list[str]:
    return [shown(file.relative_to(root).as_posix()) for file in files]


def _common(files: Sequence[Path]) -> Path:
    """The deepest folder that holds all files."""
    return Path(os.path.commonpath([file.parent for file in files])) if files else Path()


def _stems(names: Sequence[str]) -> list[str]:
    """Names without their endings; none where two would be the same."""
    stems = [name.rpartition(".")[0] for name in names]
    return stems if len(set(stems)) == len(stems) else []


def read_partners(
    clean: FileImages, files: Sequence[Path], partners: Sequence[Path], how: DataSpec, notes: Notes
) -> tuple[FileImages, np.ndarray]:
    """Read noisy images as their clean ones were read.

    Parameters
    ----------
    clean : FileImages
        What was read of ``files``.
    partners : sequence of Path
        The noisy one of each.

    Returns
    -------
    clean : FileImages
        Without those whose noisy one was left out as bad.
    noisy : ndarray of uint8, of the shape of its images

    Raises
    ------
    DataError
        As ``read_images`` does, or another size, or another number of pages.
    """
    theirs = Notes()
    n_channels = clean.images.shape[3]
    found = read_images(partners, how, theirs, where="noisy images", n_channels=n_channels)
    for line in theirs.lines():
        notes.remark(f"noisy images: {line}")
    both = np.intersect1d(clean.file_of_sample, found.file_of_sample)
    mine, other = (np.isin(each.file_of_sample, both) for each in (clean, found))
    numbers, their_numbers = clean.file_of_sample[mine], found.file_of_sample[other]
    if not np.array_equal(numbers, their_numbers):
        counts = [np.bincount(each, minlength=len(files)) for each in (numbers, their_numbers)]
        first = int(np.flatnonzero(counts[0] != counts[1])[0])
        raise DataError(
            f"{shown(partners[first])} must have as many pages as {shown(files[first])}, "
            f"{counts[0][first]}, got {counts[1][first]}; give one noisy page for each"
        )
    if found.images.shape[1:] != clean.images.shape[1:] and len(numbers):
        sizes = [f"{each.images.shape[2]}x{each.images.shape[1]}" for each in (clean, found)]
        raise DataError(
            f"{shown(partners[numbers[0]])} must have the size of {shown(files[numbers[0]])}, "
            f"{sizes[0]} (width x height), got {sizes[1]}; bring both to one size with --resize "
            "SIDE, such as --resize 64"
        )
    notes.leave_out("image| whose noisy one is bad", int((~mine).sum()))
    return FileImages(clean.images[mine], numbers), found.images[other]
