"""What a study leaves as files: written whole or not at all; tensors arrive here as bytes."""

import hashlib
import os
import tempfile
from pathlib import Path

from aesearch.studies.errors import AesearchError
from aesearch.studies.files import whole_file

SPECIFICATION = "study.yaml"  # of a run folder: what the whole study was asked for


class OutputError(AesearchError, OSError):
    """A file or folder that cannot be written."""


class OverwriteError(AesearchError, ValueError):
    """An output that would be replaced, or files in it, and nobody said that they may be."""


def default_folder(name: str) -> Path:
    """Choose the run folder of a study: its name, made one folder name, never a path.

    Where that changes the name, a hash of it keeps the folders of two studies apart.
    """
    safe = "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in name).strip(". ")
    if safe != name:
        safe += "-" * bool(safe) + hashlib.sha256(name.encode()).hexdigest()[:6]
    return Path("runs") / safe


def make_folder(path: Path) -> None:
    """Create a folder; raises OutputError with the cause when that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"out must be a folder that can be written, got {str(path)!r} "
            f"({error.strerror}); name another with --out"
        ) from error


def check_output(path: Path, *, is_folder: bool, force: bool, name: str = "OUTPUT") -> None:
    """Refuse an output, which is called ``name``, before any work is done for it.

    Raises
    ------
    OverwriteError
        It exists (a folder: and is not empty), and ``force`` is not set.
    OutputError
        It lies in no folder that can be written, or is a file where a folder is asked for.
    """
    if is_folder and path.exists() and not path.is_dir():
        raise OutputError(f"{name} must be a folder, got {str(path)!r}, which is a file")
    if not is_folder and path.is_dir():
        raise OutputError(f"{name} must be a file, got {str(path)!r}, which is a folder")
    taken = path.is_dir() and any(path.iterdir()) if is_folder else path.exists()
    if taken and not force:
        remedy = "files of the same names in it" if is_folder else "it"
        raise OverwriteError(
            f"{name} must not exist, got {str(path)!r}, which does; "
            f"name another, or replace {remedy} with --force"
        )
    parent = path.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(
            f"{name} must lie in an existing folder that can be written, got {str(path)!r}"
        )


def write_whole(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Write a file so that its name never holds half of it; ``durable`` as for ``whole_file``.

    Raises
    ------
    OutputError
        The disk is full, or the folder cannot be written.
    """
    try:
        with whole_file(path, durable=durable) as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
