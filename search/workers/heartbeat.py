"""Keeping a lease while its work goes on, and learning that it was lost or must stop."""

import os
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self, Unpack

from sqlalchemy.engine import Engine

from aesearch.studies.errors import StoreError
from aesearch.studies.results.records import Progress
from aesearch.studies.store.connection.retry import lease_s
from aesearch.studies.store.ledger import Lease, LeaseLostError, release, renew

_PROGRESS_S = 1.0
_RENEWALS = 4  # within one lease
_ORPHAN_S = 30.0  # as long as a run waits for its workers before it ends them


class StoppedError(Exception):
    """The process was asked to stop; its work goes back."""


class Heartbeat:
    """A background thread that renews one lease and carries its progress to the store.

    Parameters
    ----------
    stop : threading.Event
        Set when the process is to stop; ``check`` then raises.
    parent : int or None
        Process that started this worker; the worker stops when it is gone. Where the work does
        not come to a ``check`` soon, in an epoch of minutes, this process is ended.
    """

    def __init__(
        self, engine: Engine, lease: Lease, stop: threading.Event, parent: int | None
    ) -> None:
        self._engine = engine
        self._lease = lease
        self._stop = stop
        self._parent = parent
        self._over = threading.Event()
        self._lost = False
        self._progress: Progress = {}
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def say(self, **progress: Unpack[Progress]) -> None:
        """Say how far it is."""
        self._progress = progress

    def check(self) -> None:
        """Raise when there is no point in going on.

        Raises
        ------
        LeaseLostError
            Somebody else does this work now.
        StoppedError
            This process is to stop.
        """
        if self._lost:
            raise LeaseLostError(f"{self._lease.kind} {self._lease.position} was taken over")
        if self._stop.is_set():
            raise StoppedError

    def _beat(self) -> None:
        said: Progress = {}
        renewed, orphan_since = time.monotonic(), 0.0
        every_s = lease_s() / _RENEWALS
        while not self._over.wait(min(_PROGRESS_S, every_s)):
            if self._parent is not None and os.getppid() != self._parent:
                self._stop.set()
                orphan_since = orphan_since or time.monotonic()
                if time.monotonic() - orphan_since > _ORPHAN_S:
                    self._end_process()
            progress = self._progress
            if progress == said and time.monotonic() - renewed < every_s:
                continue
            try:
                renew(self._engine, self._lease, progress)
            except LeaseLostError:
                self._lost = True
                return
            except StoreError:
                # The store may come back before the lease runs out; the next write decides.
                continue
            said, renewed = progress, time.monotonic()

    def _end_process(self) -> None:
        with suppress(StoreError):  # then the lease runs out
            release(self._engine, self._lease)
        os._exit(1)
