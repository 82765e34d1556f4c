"""The downloader against a server on this machine: time limits, checksums, damage, mirrors."""

import gzip
import hashlib
import http.server
import io
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import PATIENCE_S

from aesearch.data.known.download import DownloadError, download, unpack
from aesearch.studies.errors import DataError, DataMissingError

BODY = bytes(range(256)) * 1000
MD5 = hashlib.md5(BODY).hexdigest()
LIMIT_S = 0.4


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BODY in the way that the path names."""

    def do_GET(self) -> None:
        """Answer one request."""
        if self.path == "/absent":
            self.send_error(404, "Not Found")
            return
        if self.path == "/silent":
            self.server.closing.wait(PATIENCE_S)
            return
        self.send_response(200)
        if self.path != "/no-length":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.path == "/truncated":
            self.wfile.write(BODY[:1000])
        elif self.path == "/stalling":
            self.wfile.write(BODY[:1000])
            self.server.closing.wait(PATIENCE_S)
        elif self.path == "/trickling":
            self.trickle()
        else:
            self.wfile.write(BODY)

    def trickle(self) -> None:
        """Send a byte now and then, often enough to keep a socket's time limit from firing."""
        try:
            for _ in range(80):  # four seconds, should nobody hang up
                self.wfile.write(b"x")
                if self.server.closing.wait(LIMIT_S / 8):
                    return
        except OSError:
            return

    def log_message(self, *args: object) -> None:
        """Keep the test output clean."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of the server."""
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.closing = threading.Event()
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.closing.set()
    serving.shutdown()
    serving.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach the server directly, whatever this machine is set to."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def closed_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize(("path", "total"), [("/whole", len(BODY)), ("/no-length", None)])
def test_a_whole_file_arrives_with_progress(server, tmp_path, path, total):
    """The file is what was sent, nothing else is left, and progress ends at its size."""
    seen = []
    target = tmp_path / "deep" / "file.bin"
    download(
        [server + path],
        target,
        md5=MD5,
        timeout_s=5,
        progress=lambda name, n_bytes, n_total: seen.append((name, n_bytes, n_total)),
    )
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]
    assert seen[-1] == ("file.bin", len(BODY), total)
    assert [n_bytes for _, n_bytes, _ in seen] == sorted({n_bytes for _, n_bytes, _ in seen})


@pytest.mark.parametrize(
    ("path", "md5", "words"),
    [
        ("/silent", MD5, "time limit of 0.4 s"),
        ("/stalling", MD5, "time limit of 0.4 s"),
        ("/trickling", MD5, "time limit of 0.4 s"),
        ("/truncated", MD5, "ended after 1000 of 256000 bytes"),
        ("/whole", "0" * 32, f"md5 must be {'0' * 32}, got {MD5} (256000 bytes)"),
        ("/absent", MD5, "HTTP 404 Not Found"),
    ],
)
def test_a_failure_is_bounded_named_and_leaves_nothing(server, tmp_path, path, md5, words):
    """Every failure ends, says why, and an older file stays as it was.

    A server that is silent for ever is a failure by the limit, not by what the server does next.
    """
    target = tmp_path / "file.bin"
    target.write_bytes(b"older")
    limit_s = LIMIT_S if "time limit" in words else PATIENCE_S
    with pytest.raises(DownloadError) as raised:
        download([server + path], target, md5=md5, timeout_s=limit_s)
    assert len(raised.value.failures) == 1
    assert server + path in str(raised.value)
    assert words in str(raised.value)
    assert isinstance(raised.value, DataMissingError)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [
        ("file.bin", b"older")
    ]


def test_the_next_mirror_is_tried(server, tmp_path, closed_port):
    """A mirror that refuses, one that is damaged, then one that works."""
    mirrors = [f"http://127.0.0.1:{closed_port}/whole", f"{server}/truncated", f"{server}/whole"]
    download(mirrors, tmp_path / "file.bin", md5=MD5, timeout_s=5)
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_every_mirror_is_named_when_all_fail(server, tmp_path, closed_port):
    """A refused connection, a name that cannot exist and a local file: three reasons, no folder."""
    mirrors = [
        f"http://127.0.0.1:{closed_port}/whole",
        "http://nowhere.invalid/whole",
        (tmp_path / "file").as_uri(),
    ]
    with pytest.raises(DownloadError) as raised:
        download(mirrors, tmp_path / "raw" / "file.bin", md5=MD5, timeout_s=5)
    refused, unknown, local = raised.value.failures
    assert "refused" in refused
    assert unknown.startswith("http://nowhere.invalid/whole: ")
    assert local.endswith("not an http or https address")
    assert not list(tmp_path.iterdir())


def test_a_target_that_cannot_be_written_is_not_the_networks_fault(server, tmp_path):
    """A file where a folder is needed is a DataError that names the target."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="must be writable") as raised:
        download([f"{server}/whole"], tmp_path / "file" / "a.bin", md5=MD5, timeout_s=5)
    assert not isinstance(raised.value, DownloadError)


def write_gz(path: Path) -> None:
    path.write_bytes(gzip.compress(BODY))


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("in/a.gz", gzip.compress(BODY))
        files.writestr("in/a", BODY)


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as files:
        info = tarfile.TarInfo("in/a")
        info.size = len(BODY)
        files.addfile(info, io.BytesIO(BODY))


ARCHIVES = pytest.mark.parametrize(
    ("archive", "write", "member"),
    [
        ("a.gz", write_gz, None),
        ("a.zip", write_zip, "in/a.gz"),
        ("a.zip", write_zip, "in/a"),
        ("a.tar.gz", write_tar, "in/a"),
    ],
)


@ARCHIVES
def test_unpacking_gives_the_file(tmp_path, archive, write, member):
    """One file comes out of every kind of archive."""
    write(tmp_path / archive)
    unpack(tmp_path / archive, member, tmp_path / "out" / "a")
    assert (tmp_path / "out" / "a").read_bytes() == BODY
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a"]


@ARCHIVES
def test_a_damaged_archive_is_named(tmp_path, archive, write, member):
    """Half an archive is an error that names it, and leaves nothing behind."""
    path = tmp_path / archive
    write(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError) as raised:
        unpack(path, member, tmp_path / "out" / "a")
    assert f"{path} must be a complete archive" in str(raised.value)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


@pytest.mark.parametrize(("archive", "write"), [("a.zip", write_zip), ("a.tar.gz", write_tar)])
def test_a_missing_member_is_named(tmp_path, archive, write):
    """An archive without the file that is wanted says so."""
    write(tmp_path / archive)
    with pytest.raises(DataError, match="complete archive with in/b, got"):
        unpack(tmp_path / archive, "in/b", tmp_path / "b")
