"""A Ray cluster: what a worker gets of it, and which stores it may share; no work is done here."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from sqlalchemy.engine import URL

from aesearch.studies.errors import AesearchError
from aesearch.studies.spec.study import StudySpec

_CONNECT_S = 10.0


class RayClusterError(AesearchError, RuntimeError):
    """A Ray cluster that cannot be used for a study: the address, the store, or its GPUs."""


class Cluster:
    """A Ray cluster and what a worker gets of it.

    Parameters
    ----------
    address : str
        As Ray takes it: ``host:6379`` or ``auto`` on one of its machines, ``ray://host:10001``
        from elsewhere, ``local`` for one on this machine that lives as long as the run.
    gpus_per_worker : float or None
        May be a fraction: several workers then share a GPU. None for one where the study
        trains on GPUs, none otherwise.
    """

    def __init__(self, address: str, gpus_per_worker: float | None = None) -> None:
        if gpus_per_worker is not None and not 0 <= gpus_per_worker < float("inf"):
            raise RayClusterError(f"gpus_per_worker must be >= 0, got {gpus_per_worker!r}")
        self.address = address
        self._asked_gpus = gpus_per_worker

    def device(self, spec: StudySpec) -> str:
        """Where a study trains in the cluster, whatever is on this machine.

        Raises
        ------
        RayClusterError
            The specification says ``cpu``, and workers are to have GPUs.
        """
        device = spec.compute.device
        if device == "auto":
            return "cuda" if self._asked_gpus else "cpu"
        if device == "cpu" and self._asked_gpus:
            raise RayClusterError(
                f"gpus_per_worker must be 0 for a study that trains on cpu, got "
                f"{self._asked_gpus:g}; leave out --device, or say --device cuda"
            )
        return device

    def gpus(self, device: str) -> float:
        """GPUs of one worker of a study that trains on a device."""
        return self._asked_gpus if self._asked_gpus is not None else float(device == "cuda")

    @contextlib.contextmanager
    def connected(self, url: URL) -> Iterator[None]:
        """Connect for as long as the context lasts; a connection that is there is used and left.

        Raises
        ------
        RayClusterError
            Ray is not installed, does not answer, or has machines that the store is not for.
        """
        _require_shared(url, _host(self.address))
        ray = ray_library()
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, self.address)
        try:
            for node in ray.nodes():
                if node["Alive"]:
                    _require_shared(url, str(node["NodeManagerHostname"]))
            yield
        finally:
            if ours:
                ray.shutdown()

    def places(self, gpus: float) -> int:
        """How many workers the cluster has room for at this moment; at least 1."""
        room = ray_library().cluster_resources()
        return max(1, int(room.get("GPU", 0) / gpus) if gpus else int(room.get("CPU", 0)))


def ray_library() -> Any:
    """Import Ray.

    Raises
    ------
    RayClusterError
        It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise RayClusterError(
            f"--ray needs Ray, which is not installed ({error}); run pip install 'aesearch[ray]'"
        ) from None
    return ray


def _connect(ray: Any, address: str) -> None:
    try:
        if address not in ("auto", "local"):
            # Ray itself tries for minutes where nobody answers.
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
        with _own_signals():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, AssertionError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise RayClusterError(
            f"ray must be the address of a running Ray cluster, got {address!r}: {reason}; "
            "start one with 'ray start --head'; one that asks for a token needs "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here"
        ) from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    # Ray makes a SIGTERM abort the process; a run gives its work back.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _host(address: str) -> str:
    if address in ("auto", "local"):
        return socket.gethostname()
    return address.removeprefix("ray://").rpartition(":")[0] or address


def _require_shared(url: URL, host: str) -> None:
    here = {"localhost", "127.0.0.1", "::1", "[::1]", socket.gethostname()}
    if url.get_backend_name() == "sqlite" and host not in here:
        raise RayClusterError(
            "storage must be a PostgreSQL database where workers run on other machines, got the "
            f"file {url.database!r} for a Ray cluster with {host!r}; "
            "use --storage postgresql://user@host/database"
        )
