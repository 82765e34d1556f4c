"""The guard keeps other pages away from a dashboard that trusts everybody."""

import json
from wsgiref.util import setup_testing_defaults

import pytest

from aesearch.dashboard.guard import guarded


def trusting(environ, start_response):
    """An application as Optuna's dashboard is: it does what it is told and shares with all."""
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/html"),
            ("Access-Control-Allow-Origin", "*"),
            ("Content-Security-Policy", "default-src 'self'"),
        ],
    )
    return [b"done"]


def ask(method="GET", path="/api/studies", *, headers=None, **options):
    """One request to the guarded application: (status, headers, body)."""
    options = {"hosts": (), "writable": False, "uploads": False} | options
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_HOST": "127.0.0.1:8080"}
    environ |= headers or {}
    environ = {name: value for name, value in environ.items() if value is not None}
    defaults = {}
    setup_testing_defaults(defaults)
    defaults.pop("HTTP_HOST")
    seen = {}

    def start_response(status, found, *_):
        seen.update(status=int(status.split()[0]), headers=dict(found))

    body = b"".join(guarded(trusting, **options)(defaults | environ, start_response))
    return seen["status"], seen["headers"], body


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST.",
        "127.0.0.1:9000",
        "192.168.1.5:8080",
        "[::1]:8080",
        "Lab.example.org:80",
    ],
)
def test_its_own_names_are_served(host):
    """Localhost, addresses and allowed names reach the dashboard, whatever the port."""
    status, _, body = ask(headers={"HTTP_HOST": host}, hosts=["lab.example.org"])
    assert (status, body) == (200, b"done")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8080@localhost",
        "",
        None,
        "[::1",
        "127.0.0.1:8080, evil.example",
    ],
)
def test_other_names_are_misdirected(host):
    """A page under a name of its own (DNS rebinding) is refused and told how to be allowed."""
    status, _, body = ask(headers={"HTTP_HOST": host})
    assert status == 421
    assert "--allow-host" in json.loads(body)["reason"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get", ""])
def test_read_only_takes_no_change(method):
    """Without --writable everything but GET and HEAD is refused before the dashboard sees it."""
    status, _, body = ask(method)
    assert status == 403
    assert "--writable" in json.loads(body)["reason"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_is_free(method):
    """GET and HEAD pass, also from a link on another page."""
    assert ask(method, headers={"HTTP_SEC_FETCH_SITE": "cross-site"})[0] == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"HTTP_ORIGIN": "http://127.0.0.1:8080", "HTTP_SEC_FETCH_SITE": "same-origin"}, 200),
        ({"HTTP_ORIGIN": "http://127.0.0.1:8080"}, 200),
        ({"HTTP_ORIGIN": "http://127.0.0.1:8081"}, 403),
        ({"HTTP_ORIGIN": "http://evil.example"}, 403),
        ({"HTTP_ORIGIN": "null"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, 403),
        ({"HTTP_ORIGIN": "http://evil.example", "HTTP_HOST": "evil.example"}, 421),
    ],
)
def test_writable_is_for_its_own_pages(headers, expected):
    """With --writable a change needs the dashboard's own origin, or no page at all."""
    assert ask("PUT", headers=headers, writable=True)[0] == expected


@pytest.mark.parametrize(("uploads", "expected"), [(False, 403), (True, 200)])
def test_files_need_a_folder(uploads, expected):
    """An upload is taken only where there is a folder for it."""
    assert ask("POST", "/api/artifacts/1/2", writable=True, uploads=uploads)[0] == expected


@pytest.mark.parametrize("path", ["/artifacts/1/2/ab-cd", "/artifacts/1/ab-cd"])
def test_a_file_runs_nothing(path):
    """Files come sandboxed, with their declared type, and are shared with no other page."""
    _, headers, _ = ask(path=path)
    assert "sandbox" in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers


def test_pages_keep_their_own_policy():
    """The dashboard's policy for its pages stays; what it shares with all pages does not."""
    _, headers, _ = ask(path="/dashboard")
    assert headers["Content-Security-Policy"] == "default-src 'self'"
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
