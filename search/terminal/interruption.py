"""Ctrl-C and SIGTERM as exceptions that do not get lost.

Python raises them wherever the main thread is, and drops what is raised in the callback of
a weak reference or in a finaliser. So what came is remembered, and a loop that waits asks.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class TerminatedError(KeyboardInterrupt):
    """SIGTERM: it ends a command as Ctrl-C does, so that nothing is left running."""


_received: list[type[KeyboardInterrupt]] = []


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt for Ctrl-C and TerminatedError for SIGTERM, and remember both.

    Outside the main thread, which alone gets signals, nothing changes; a Ctrl-C that is
    ignored or handled by somebody else stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _raising(TerminatedError))}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _raising(KeyboardInterrupt))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def check_interrupted() -> None:
    """Raise what came and was dropped; not for cleaning up, which comes after it was raised."""
    if _received:
        raise _received[-1]


def _raising(error: type[KeyboardInterrupt]) -> Callable[[int, FrameType | None], None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        _received.append(error)
        raise error

    return handle
