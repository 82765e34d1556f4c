"""What lies in a folder of images and below it; what its sub-folders mean is ``folder``."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aesearch.data.notes import Notes, shown
from aesearch.studies.errors import DataError

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".apng", ".avif", ".avifs", ".bw", ".dib", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe"),
    *(".jpf", ".jpx", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".pnm", ".ppm", ".qoi", ".ras"),
    *(".rgb", ".rgba", ".sgi", ".tga"),
)
# Read where a folder holds none of the above: beside photographs they are icons and drafts.
RARE_SUFFIXES = (
    *(".blp", ".cur", ".dcx", ".dds", ".fit", ".fits", ".flc", ".fli", ".ftc", ".ftu", ".gbr"),
    *(".icb", ".icns", ".ico", ".im", ".msp", ".pcd", ".psd", ".pxr", ".vda", ".vst"),
    *(".xbm", ".xpm"),
)
# What 'aesearch data check' draws.
SHEET_SUFFIX = "-contact-sheet.png"
# What a run folder of ours holds from its first minute on.
_OURS = ("best.yaml", "study.yaml", "worker-*.log", "trials.csv")


@dataclass
class Folder:
    """Images of a folder, and the sub-folders that hold any.

    Attributes
    ----------
    path : Path
    images : list of Path
        Directly in it, sorted.
    folders : list of Folder
        Sorted; none of them empty.
    """

    path: Path
    images: list[Path] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the folder, as it is on the disk."""
        return self.path.name

    def all_images(self) -> list[Path]:
        """Images in it and below, its own first."""
        return [*self.images, *(file for inner in self.folders for file in inner.all_images())]


def tree_of(path: Path, notes: Notes) -> Folder:
    """List the images in a folder and below it, without opening any.

    Hidden files and folders, run folders of ours, and links that lead back into the folder are
    left out, as is what is no image; ``notes`` is told how many.

    Raises
    ------
    DataError
        A folder that cannot be read.
    """
    others: dict[Path, list[Path]] = {}
    seen = {os.path.realpath(path)}
    folder = _walk(path, os.path.realpath(path), seen, others, notes)
    if not folder.all_images():
        _with_rare(folder, others)
    _without_own_links(folder, notes)
    for file in (file for files in others.values() for file in files):
        notes.leave_out(shown(file.suffix.lower()) or "file| without ending")
    _prune(folder, notes, is_root=True)
    return folder


def _walk(
    path: Path, root: str, seen: set[str], others: dict[Path, list[Path]], notes: Notes
) -> Folder:
    folder = Folder(path)
    others[path] = []
    for entry in sorted(_entries(path)):
        if entry.name.startswith((".", "__")):
            notes.leave_out("hidden file|")
        elif entry.is_dir():
            real = os.path.realpath(entry)
            if entry.is_symlink() and _leads_back(real, root, seen):
                notes.leave_out("link| back into the folder")
            elif _is_run_folder(entry):
                notes.leave_out("run folder| of aesearch")
            else:
                seen.add(real)
                folder.folders.append(_walk(entry, root, seen, others, notes))
        elif entry.name.endswith(SHEET_SUFFIX):
            notes.leave_out("contact sheet| of aesearch")
        elif not entry.exists():
            notes.leave_out("broken link|")
        elif entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
            folder.images.append(entry)
        else:
            others[path].append(entry)
    return folder


def _leads_back(real: str, root: str, seen: set[str]) -> bool:
    # Also one that leads to a folder around this one, and the second of two to the same place.
    inside = os.path.commonpath([real, root]) in (real, root)
    return inside or real in seen


def _entries(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError as error:
        raise DataError(
            f"{path} must be readable, got {error.strerror}; let this user read it, or move the "
            "images into a folder of their own"
        ) from error


def _is_run_folder(path: Path) -> bool:
    try:
        return any(next(path.glob(name), None) is not None for name in _OURS)
    except OSError:
        return False


def _with_rare(folder: Folder, others: dict[Path, list[Path]]) -> None:
    rare = [file for file in others[folder.path] if file.suffix.lower() in RARE_SUFFIXES]
    folder.images = rare
    others[folder.path] = [file for file in others[folder.path] if file not in rare]
    for inner in folder.folders:
        _with_rare(inner, others)


def _without_own_links(folder: Folder, notes: Notes) -> None:
    """Leave out links to images that are found in the folder by themselves."""
    files = folder.all_images()
    if not any(file.is_symlink() for file in files):
        return
    found = {os.path.realpath(file) for file in files if not file.is_symlink()}
    for inner in _all_folders(folder):
        kept = []
        for file in inner.images:
            if file.is_symlink() and os.path.realpath(file) in found:
                notes.leave_out("link| to images of the folder")
            else:
                kept.append(file)
        inner.images = kept


def _all_folders(folder: Folder) -> Iterator[Folder]:
    yield folder
    for inner in folder.folders:
        yield from _all_folders(inner)


def _prune(folder: Folder, notes: Notes, *, is_root: bool = False) -> bool:
    """Take folders without images away; whether this one has any."""
    folder.folders = [inner for inner in folder.folders if _prune(inner, notes)]
    has_images = bool(folder.images or folder.folders)
    if not has_images and not is_root:
        notes.leave_out("folder| without images")
    return has_images
