"""What a database driver says, in one line with the remedy; never with a password."""

import contextlib
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import optuna
import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from aesearch.studies.errors import StoreError, TransientStoreError
from aesearch.studies.store.connection.retry import LOCK_TIMEOUT_S

_LOCKED = (
    f"another process held its lock for over {LOCK_TIMEOUT_S:.0f} s; "
    "end that process and run the same command again, nothing is lost"
)
_NOT_ALLOWED = (
    "the user may not create or change its tables; "
    "let its owner run GRANT ALL ON SCHEMA public TO the user"
)
_NEEDS_ONE = (
    "it needs a password; put it into a file that AESEARCH_PASSWORD_FILE names, or into the URL"
)
_AWAY = "no server answers there; check the host and port, and that it runs"
_UNKNOWN_HOST = "there is no such host; check the URL"

# The first part found in the message decides. True: it may go through later.
_REMEDIES: tuple[tuple[str, str, bool], ...] = (
    ("file is not a database", "it is not an SQLite file; name another or move it away", False),
    ("malformed", "the file is damaged; restore a copy (with its -wal file beside it)", False),
    (
        "readonly",
        "the file or its folder is read-only; make it writable or name another",
        False,
    ),
    ("unable to open", "it cannot be opened; check that the folder is there and writable", False),
    ("disk is full", "the disk is full; free some space and run the same command again", False),
    ("database is locked", _LOCKED, True),
    ("lock timeout", _LOCKED, True),
    ("password authentication failed", "the user or password is wrong; check both", False),
    ("no password supplied", _NEEDS_ONE, False),
    ("no pg_hba.conf entry", "the server lets nobody in from here; ask its owner", False),
    ("permission denied", _NOT_ALLOWED, False),
    ("read-only", "it is read-only here; name the primary server", False),
    ("No space left", "the server's disk is full; free some space, nothing is lost", True),
    ("too many c", "the server has no connection left; raise its max_connections", True),
    ("starting up", "the server is starting", True),
    ("shutting down", "the server is shutting down", True),
    ("in recovery mode", "the server is recovering", True),
    ("server closed the connection", "the server closed the connection", True),
    ("terminating connection", "the server closed the connection", True),
    ("refused", _AWAY, True),
    ("No route to host", _AWAY, True),
    ("Network is unreachable", _AWAY, True),
    ("Host is down", _AWAY, True),
    ("onnection reset", _AWAY, True),
    ("SSL connection has been closed", "the server closed the connection", True),
    ("not yet accepting connections", "the server is starting", True),
    ("No such file or directory", "no server listens on that socket; check that it runs", True),
    ("timeout", _AWAY, True),
    ("timed out", _AWAY, True),
    ("could not translate host", _UNKNOWN_HOST, True),
    ("resolve", _UNKNOWN_HOST, True),
)
# At a connection, PostgreSQL says what is missing in the same words as in a statement.
_NO_DATABASE = "no such database or role; create it first"
_CONFLICTS = ("40001", "40P01")  # serialization failure, deadlock
_TRANSIENT_CLASSES = ("08", "40", "53", "57P", "25P03", "55P03")


def describe(url: URL) -> str:
    """Give the URL as text without its passwords: for messages, logs and the screen."""
    hidden = {key: "***" for key in url.query if "password" in key.lower()}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


@contextlib.contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn what the driver says into one line that names the database and the remedy.

    Raises
    ------
    TransientStoreError
        The transaction may be repeated: the server is away, or another one was in its way.
    StoreError
        It may not.
    """
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.DBAPIError as error:
        raise explained(engine.url, error) from error
    except optuna.exceptions.StorageInternalError as error:
        raise explained(engine.url, error.__cause__ or error) from error


def explained(url: URL, error: BaseException) -> StoreError:
    """Make the error that a user sees of what a driver raised."""
    cause = getattr(error, "orig", None) or error
    lines = str(cause).strip().splitlines() or ["no reason given"]
    remedy, transient = _meaning(" ".join(lines))
    state = getattr(cause, "sqlstate", None) or ""
    said = remedy or _without_password(url, lines[0])
    message = f"the store {describe(url)} cannot be used: {said}"
    broken = getattr(error, "connection_invalidated", False)
    if broken or transient or state.startswith(_TRANSIENT_CLASSES):
        return TransientStoreError(message, conflict=state in _CONFLICTS)
    return StoreError(message)


def _meaning(text: str) -> tuple[str | None, bool]:
    if "FATAL" in text and "does not exist" in text:
        return _NO_DATABASE, False
    for part, remedy, transient in _REMEDIES:
        if part in text:
            return remedy, transient
    return None, False


def _without_password(url: URL, text: str) -> str:
    password = str(url.password or "")
    for shape in {password, quote(password), quote_plus(password)} - {""}:
        text = text.replace(shape, "***")
    return text
