"""Files that have their name only when they are whole."""

import contextlib
import glob
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from aesearch.studies.processes import lives, place


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Write a file that takes its name when the block ends, or leaves nothing behind.

    Parameters
    ----------
    path : Path
        In a folder that exists; a file that is there is replaced.
    durable : bool
        Whether it is on the disk before it gets its name. False for what is made again where a
        power cut left it empty.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written.
    """
    # A name of its own: two processes may write the same file at once, on two machines too.
    own = f"{uuid.uuid4().hex[:8]}.{_here()}.{os.getpid()}"
    temporary = path.with_name(f".{path.name}.{own}.part")
    _remove_parts_of_the_dead(path)
    try:
        with temporary.open("xb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Let one thread or process at a time write the files of a folder that belong together.

    Where the file system has no locks, nobody waits.
    """
    try:
        import fcntl  # noqa: PLC0415 - absent on Windows
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _here() -> str:
    return hashlib.sha256(place().encode()).hexdigest()[:8]


def _remove_parts_of_the_dead(path: Path) -> None:
    # What a process was writing when it was killed would stay for ever. One of another machine
    # or container may have the id of a dead one here.
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.{_here()}.*.part"):
        writer = part.name.split(".")[-2]
        if writer.isdecimal() and not lives(int(writer)):
            part.unlink(missing_ok=True)
