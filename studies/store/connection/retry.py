"""How long anything waits for a lease, a lock or a server; how a transaction is repeated."""

import functools
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.engine import Engine

from aesearch.studies.errors import AesearchError, StoreError, TransientStoreError

log = logging.getLogger("aesearch.store")

LEASE_VARIABLE = "AESEARCH_LEASE_S"
RETRY_VARIABLE = "AESEARCH_RETRY_S"
# A transaction takes milliseconds: who waits longer than this waits for something broken.
LOCK_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10
_PATIENCE = "aesearch_patience"
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.25, 5.0
_CONFLICTS = 10

P = ParamSpec("P")
R = TypeVar("R")


def lease_s() -> float:
    """Seconds after which the work of a silent worker is taken by another: 60 unless set."""
    return _seconds(LEASE_VARIABLE, 60.0, least=0.5)


def retry_s() -> float:
    """Seconds that a worker or a run waits for a store that is away: 300 unless set."""
    return _seconds(RETRY_VARIABLE, 300.0, least=0.0)


def _seconds(variable: str, default: float, *, least: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise AesearchError(f"{variable} must be seconds >= {least:g}, got {text!r}")
    return value


@dataclass(frozen=True)
class Patience:
    """How long to repeat what does not go through.

    Attributes
    ----------
    seconds : float
        0 for not at all: a person who looks wants to know at once.
    stop : threading.Event
        Ends the waiting when set.
    """

    seconds: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)


def be_patient(engine: Engine, patience: Patience) -> None:
    """Make every transaction of ``engine`` wait so long for a store that is away."""
    engine.update_execution_options(**{_PATIENCE: patience})


def repeatable(
    transaction: Callable[Concatenate[Engine, P], R],
) -> Callable[Concatenate[Engine, P], R]:
    """Run a transaction again that did not go through.

    For functions that read or write in one transaction and whose repetition is harmless: when
    a connection breaks during the commit, nobody knows whether it was carried out.

    Raises
    ------
    StoreError
        The store stayed away for longer than the engine's patience.
    """

    @functools.wraps(transaction)
    def run(engine: Engine, /, *args: P.args, **kwargs: P.kwargs) -> R:
        patience: Patience = engine.get_execution_options().get(_PATIENCE, Patience())
        began: float | None = None
        delay = _FIRST_DELAY_S
        conflicts = 0
        while True:
            try:
                result = transaction(engine, *args, **kwargs)
            except TransientStoreError as error:
                if error.conflict and conflicts < _CONFLICTS:
                    conflicts += 1
                    continue
                waited = 0.0 if began is None else time.monotonic() - began
                if patience.seconds <= 0 or patience.stop.is_set():
                    raise
                if waited >= patience.seconds:
                    # No longer transient: a caller that is repeatable itself must not start over.
                    raise StoreError(
                        f"{error} (waited {patience.seconds:g} s; everything finished is kept, "
                        "the same command goes on)"
                    ) from error
                if began is None:
                    began = time.monotonic()
                    log.warning("%s; trying again for %g s", error, patience.seconds)
                patience.stop.wait(min(delay, patience.seconds - waited))
                delay = min(2 * delay, _LONGEST_DELAY_S)
            else:
                if began is not None:
                    log.warning("the store answers again after %.0f s", time.monotonic() - began)
                return result

    return run
