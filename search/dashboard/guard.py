"""A WSGI middleware in front of Optuna's dashboard, which itself trusts everybody.

It has no authentication to offer. It keeps other web pages out: pages that reach the server
under a name of their own (DNS rebinding), pages that send requests from the user's browser
(CSRF), and uploaded files that hold scripts.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import urlsplit

Environment = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environment, StartResponse], Iterable[bytes]]

_READING = ("GET", "HEAD")
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d{1,5})?", re.ASCII)
_STUDY = re.compile(r"/api/studies/(\d{1,18})", re.ASCII)
# Nothing that a file holds may run or load anything, opened on its own.
_ARTIFACT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
_ALWAYS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "same-origin"),
]


def guarded(
    application: Application,
    *,
    hosts: Collection[str],
    writable: bool,
    uploads: bool = False,
    is_kept: Callable[[int], bool] = lambda _study_id: False,
) -> Application:
    """Put the guard in front of an application.

    Parameters
    ----------
    hosts : collection of str
        Names under which the server may be reached, without port. ``localhost`` and IP
        addresses always are: no other page can bear an address as its name.
    writable : bool
        Let requests through that change something, if they come from the dashboard's own
        pages or from no page at all.
    uploads : bool
        Take files; only where ``writable``.
    is_kept : callable(study_id)
        Whether a study must not be deleted here, since its models are nowhere else.
    """
    names = {"localhost"} | {name.lower().rstrip(".") for name in hosts}

    def application_behind_guard(
        environ: Environment, start_response: StartResponse
    ) -> Iterable[bytes]:
        refusal = (
            _wrong_host(environ, names)
            or _wrong_method(environ, writable=writable, uploads=uploads)
            or _foreign_page(environ)
            or _deletes_models(environ, is_kept)
        )
        if refusal is not None:
            return _refused(start_response, *refusal)
        is_artifact = environ.get("PATH_INFO", "").startswith("/artifacts/")

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, _headers(headers, is_artifact=is_artifact), *rest)

        return application(environ, start)

    return application_behind_guard


def _wrong_host(environ: Environment, names: Collection[str]) -> tuple[str, str] | None:
    host = environ.get("HTTP_HOST", "")
    name = _host_name(host)
    if name in names or _is_address(name):
        return None
    reason = (
        f"host must be localhost, an IP address or an allowed name, got {host[:100]!r}; "
        "start the dashboard with --allow-host NAME"
    )
    return "421 Misdirected Request", reason


def _wrong_method(environ: Environment, *, writable: bool, uploads: bool) -> tuple[str, str] | None:
    if environ.get("REQUEST_METHOD", "") in _READING:
        return None
    if not writable:
        return "403 Forbidden", "the dashboard is read-only; start it with --writable to change it"
    path = environ.get("PATH_INFO", "")
    if environ["REQUEST_METHOD"] == "POST" and path.startswith("/api/artifacts/") and not uploads:
        return "403 Forbidden", "files need a folder; start the dashboard with --artifact-dir DIR"
    return None


def _foreign_page(environ: Environment) -> tuple[str, str] | None:
    if environ.get("REQUEST_METHOD", "") in _READING:
        return None
    # Browsers send both with every request that changes something; other programs neither.
    origin = environ.get("HTTP_ORIGIN")
    site = environ.get("HTTP_SEC_FETCH_SITE")
    own = origin is None or urlsplit(origin).netloc.lower() == environ["HTTP_HOST"].lower()
    if own and site in (None, "same-origin", "none"):
        return None
    return "403 Forbidden", "changes must come from the dashboard's own pages"


def _deletes_models(environ: Environment, is_kept: Callable[[int], bool]) -> tuple[str, str] | None:
    found = _STUDY.fullmatch(environ.get("PATH_INFO", ""))
    if environ.get("REQUEST_METHOD", "") != "DELETE" or found is None or not is_kept(int(found[1])):
        return None
    reason = (
        "the trained models of this study are nowhere else; 'aesearch delete STUDY' deletes it, "
        "'aesearch export STUDY' writes its model first"
    )
    return "403 Forbidden", reason


def _host_name(host: str) -> str:
    """Name or address in a Host header; empty where it is neither, with or without a port."""
    found = _HOST.fullmatch(host)
    return found["name"].strip("[]").lower().rstrip(".") if found else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _headers(headers: list[tuple[str, str]], *, is_artifact: bool) -> list[tuple[str, str]]:
    ours = {name.lower() for name, _ in _ALWAYS}
    ours |= {"content-security-policy"} if is_artifact else set()
    kept = [
        (name, value)
        for name, value in headers
        if not name.lower().startswith("access-control-") and name.lower() not in ours
    ]
    policy = [("Content-Security-Policy", _ARTIFACT_POLICY)] if is_artifact else []
    return kept + _ALWAYS + policy


def _refused(start_response: StartResponse, status: str, reason: str) -> list[bytes]:
    body = json.dumps({"reason": reason}).encode() + b"\n"
    start_response(
        status,
        [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *_ALWAYS],
    )
    return [body]
