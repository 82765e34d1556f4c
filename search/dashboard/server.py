"""Serving Optuna's dashboard over one store, and keeping what it shows up to date meanwhile."""

import errno
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna
from optuna_dashboard import wsgi
from sqlalchemy.engine import Engine

from aesearch.dashboard.guard import Application, guarded
from aesearch.studies.dashboard.artifacts import StoredArtifacts
from aesearch.studies.dashboard.publishing import change_mark, publish
from aesearch.studies.errors import AesearchError, SpecError, StudyNotFoundError
from aesearch.studies.results.output_files import OutputError, make_folder
from aesearch.studies.store import study_rows
from aesearch.studies.store.connection import database
from aesearch.studies.store.study_rows import existing_store

log = logging.getLogger("aesearch.dashboard")

LOOK_S = 2.0


class DashboardError(AesearchError, RuntimeError):
    """A dashboard that cannot be served: no such address, or the port is taken."""


class Publisher(threading.Thread):
    """Publishes studies whenever something happened to them, until it is stopped.

    Parameters
    ----------
    name : str or None
        The only study to look at; None for every study of the store.
    folder : Path or None
        Where files are written as well.
    """

    def __init__(self, engine: Engine, name: str | None, folder: Path | None) -> None:
        super().__init__(name="publisher", daemon=True)
        self._engine = engine
        self._study = name
        self._folder = folder
        self._ended = threading.Event()
        self._marks: dict[int, tuple[Any, ...]] = {}

    def look(self) -> None:
        """Publish what changed since the last look.

        Raises
        ------
        AesearchError
            The store or the folder cannot be written.
        """
        names = [self._study] if self._study is not None else study_rows.study_names(self._engine)
        for name in names:
            try:
                study = study_rows.find_study(self._engine, name)
                with database.reading(self._engine) as connection:
                    mark = change_mark(connection, study.study_id)
                if self._marks.get(study.study_id) != mark:
                    publish(self._engine, name, self._folder)
                    self._marks[study.study_id] = mark
            except (StudyNotFoundError, SpecError):
                continue  # deleted meanwhile, or made by a version that knows more settings

    def run(self) -> None:
        """Look every few seconds; a store that cannot be written is told of once."""
        said = ""
        while not self._ended.is_set():
            looked = time.monotonic()
            try:
                self.look()
            except AesearchError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("notes and figures are not up to date: %s", error)
            except Exception:
                log.exception("notes and figures are not up to date")
            # A large study takes long to read: never spend more than a tenth of the time on it.
            self._ended.wait(max(LOOK_S, 9 * (time.monotonic() - looked)))

    def stop(self) -> None:
        """End after the look that is under way."""
        self._ended.set()


@contextmanager
def dashboard_application(
    engine: Engine, *, hosts: Sequence[str], writable: bool, artifact_folder: Path | None
) -> Iterator[Application]:
    """Optuna's dashboard over a store, behind the guard."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a rename is no news on our stderr
    storage = database.optuna_storage(engine, read_only=not writable)
    uploads = artifact_folder is not None
    try:
        application = wsgi(storage, artifact_store=StoredArtifacts(engine, artifact_folder))
        yield guarded(
            application,
            hosts=hosts,
            writable=writable,
            uploads=uploads,
            is_kept=lambda study_id: study_rows.is_ours(engine, study_id),
        )
    finally:
        storage.engine.dispose()


class _Handler(WSGIRequestHandler):
    def log_message(self, *_arguments: Any) -> None:
        """Say nothing: a page that polls would fill the screen."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing where the browser went away in mid-answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def listening(host: str, port: int) -> Iterator[_Server]:
    """Bind and listen; requests wait until there is an application that answers them.

    Parameters
    ----------
    port : int
        0 for any free one.

    Raises
    ------
    DashboardError
        The port is taken or not allowed, or the address is not this machine's.
    """
    try:
        server = (_Server6 if ":" in host else _Server)((host, port), _Handler)
    except OSError as error:
        raise DashboardError(_explained(error, host, port)) from error
    try:
        yield server
    finally:
        server.server_close()


def _explained(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port must be free, got {port}: another program listens on it; "
            f"use --port {port + 1}, or --port 0 for any free one"
        )
    if error.errno == errno.EACCES:
        return f"port must be one that you may use, got {port}; use one from 1024 on"
    return (
        f"host must be an address of this machine, got {host!r} ({error.strerror}); "
        "use 127.0.0.1, or 0.0.0.0 for all of its addresses"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def address(host: str, port: int) -> str:
    """Where a browser on this machine finds a server that listens on a host and port."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    if ":" in shown and not shown.startswith("["):
        shown = f"[{shown}]"
    return f"http://{shown}:{port}"


def serve(
    storage: str,
    *,
    study: str | None,
    host: str,
    port: int,
    allowed_hosts: Sequence[str],
    writable: bool,
    artifact_folder: Path | None,
    on_listening: Callable[[str], None],
) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    storage : str
        Database URL or SQLite file that is there.
    on_listening : callable(url)
        Told once a browser may come.

    Raises
    ------
    DashboardError, StudyNotFoundError, StoreError
    """
    with existing_store(storage) as engine:
        if artifact_folder is not None:
            try:
                make_folder(artifact_folder)
            except OutputError as error:
                raise DashboardError(
                    "artifact-dir must be a folder that can be written, got "
                    f"{str(artifact_folder)!r}; name another"
                ) from error
        path = "/dashboard"
        if study is not None:
            path = f"/dashboard/studies/{study_rows.find_study(engine, study).study_id}"
        names = [host, socket.gethostname(), *allowed_hosts]
        with (
            listening(host, port) as server,
            dashboard_application(
                engine, hosts=names, writable=writable, artifact_folder=artifact_folder
            ) as application,
        ):
            server.set_app(application)
            publisher = Publisher(engine, study, artifact_folder)
            publisher.start()
            on_listening(address(host, server.server_port) + path)
            try:
                server.serve_forever()
            finally:
                publisher.stop()
