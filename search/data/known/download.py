"""Fetching and unpacking archives, with time limits and checksums; knows no data set.

Ours because torchvision's download has no time limit: a server that stops sending
would hold it forever.
"""

import gzip
import hashlib
import http.client
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from aesearch.studies.errors import DataError, DataMissingError
from aesearch.studies.files import whole_file

# What is fetched, bytes so far, bytes in all (None where the server does not say).
Progress = Callable[[str, int, int | None], None]

_CHUNK_BYTES = 1 << 16
# A connection that delivers less than this has stalled, though a byte now and then
# keeps the socket's own time limit from ever firing.
_MIN_BYTES_PER_S = 256


class DownloadError(DataMissingError):
    """Every mirror failed; ``failures`` says for each URL how."""

    def __init__(self, file_name: str, failures: list[str]) -> None:
        self.file_name = file_name
        self.failures = list(failures)
        super().__init__(
            f"{file_name} must be downloadable, got {len(failures)} failed attempts: "
            + "; ".join(failures)
        )


def download(
    urls: Sequence[str],
    target: Path,
    *,
    md5: str | None,
    timeout_s: float,
    progress: Progress | None = None,
) -> None:
    """Fetch a file from the first mirror that delivers it whole.

    The file appears under its name only when complete and checked; a failure leaves
    no file behind, and where no mirror answers, no folder.

    Parameters
    ----------
    urls : sequence of str
        Mirrors, http or https, tried in order.
    target : Path
        Where the file goes; folders are made.
    md5 : str or None
        Checksum of the file; None where it is unknown.
    timeout_s : float
        Seconds, > 0, that a connection may take, that a server may be silent, and over
        which it must deliver a minimum.
    progress : callable or None
        Called with the file name, the bytes so far and the bytes in all.

    Raises
    ------
    DownloadError
        No mirror delivered it.
    DataError
        The target cannot be written.
    """
    failures = []
    for url in urls:
        try:
            _write(_url_chunks(url, target.name, md5, timeout_s, progress), target)
        except _MirrorError as error:
            failures.append(f"{url}: {error}")
        else:
            return
    raise DownloadError(target.name, failures)


def unpack(archive: Path, member: str | None, target: Path) -> None:
    """Write one file of an archive; it appears under its name only when complete.

    Parameters
    ----------
    archive : Path
        ``.gz``, ``.zip`` or ``.tar.gz``.
    member : str or None
        Name inside a zip or tar; None for a gz, which holds one file. A zip member
        that ends in ``.gz`` is decompressed too.
    target : Path
        Where the file goes; folders are made.

    Raises
    ------
    DataError
        An archive that is damaged or lacks the member, or a target that cannot be written.
    """
    _write(_member_chunks(archive, member), target)


def md5_of(path: Path) -> str:
    """Checksum of a file: 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def _md5() -> "hashlib._Hash":
    """MD5 against damage, not against forgery; this way it also works in FIPS mode."""
    return hashlib.md5(usedforsecurity=False)


class _MirrorError(Exception):
    """One mirror failed, in a few words; the next one is tried."""


def _url_chunks(
    url: str, file_name: str, md5: str | None, timeout_s: float, progress: Progress | None
) -> Iterator[bytes]:
    """Read a URL; raise ``_MirrorError`` for anything that is the network's fault."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise _MirrorError("not an http or https address")
    digest = _md5()
    n_bytes, total = 0, None
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "aesearch"})  # noqa: S310 - checked
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310 - checked
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            for chunk in _in_time(response, timeout_s):
                digest.update(chunk)
                n_bytes += len(chunk)
                if progress is not None:
                    progress(file_name, n_bytes, total)
                yield chunk
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise _MirrorError(_reason(error, timeout_s)) from error
    if total is not None and n_bytes != total:
        raise _MirrorError(f"ended after {n_bytes} of {total} bytes")
    if md5 is not None and digest.hexdigest() != md5:
        raise _MirrorError(f"md5 must be {md5}, got {digest.hexdigest()} ({n_bytes} bytes)")


def _in_time(response: http.client.HTTPResponse, timeout_s: float) -> Iterator[bytes]:
    """Read a response, with a minimum rate over every ``timeout_s`` seconds."""
    window_start, window_bytes = time.monotonic(), 0
    # read1 returns what has arrived; read would wait for a full chunk, and a trickling
    # server could keep it waiting for hours.
    while chunk := response.read1(_CHUNK_BYTES):
        window_bytes += len(chunk)
        elapsed = time.monotonic() - window_start
        if elapsed >= timeout_s:
            if window_bytes < _MIN_BYTES_PER_S * elapsed:
                raise TimeoutError
            window_start, window_bytes = time.monotonic(), 0
        yield chunk


def _reason(error: Exception, timeout_s: float) -> str:
    """Say in a few words why a mirror failed."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer, or too slow, within the time limit of {timeout_s:g} s"
    return str(cause) or type(cause).__name__


def _member_chunks(archive: Path, member: str | None) -> Iterator[bytes]:
    """Read one file of an archive, decompressed."""
    try:
        with _member(archive, member) as source:
            while chunk := source.read(_CHUNK_BYTES):
                yield chunk
    except (EOFError, KeyError, OSError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{archive} must be a complete archive{f' with {member}' if member else ''}, "
            f"got {error}; delete it and fetch it again"
        ) from error


class _Readable(Protocol):
    """What an opened archive member can do."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""


@contextmanager
def _member(archive: Path, member: str | None) -> Iterator[_Readable]:
    """Open one file of an archive; decompress a member that is itself a gz."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as files, files.open(str(member)) as packed:
            if str(member).endswith(".gz"):
                with gzip.GzipFile(fileobj=packed) as plain:
                    yield plain
            else:
                yield packed
    elif archive.name.endswith(".tar.gz"):
        # One named file at a time, written by us: no path in the archive is followed.
        with tarfile.open(archive) as tar:
            packed_file = tar.extractfile(str(member))
            if packed_file is None:
                raise KeyError(member)
            with packed_file:
                yield packed_file
    else:
        with gzip.GzipFile(archive) as plain:
            yield plain


def _write(chunks: Iterable[bytes], target: Path) -> None:
    """Write a file that appears under its name only when complete."""
    pending = iter(chunks)
    first = next(pending, b"")  # before any folder is made: a mirror may not answer at all
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as out:
            out.write(first)
            for chunk in pending:
                out.write(chunk)
    except OSError as error:
        raise DataError(
            f"{target} must be writable, got {error}; free space there, or give --data-dir"
        ) from error
