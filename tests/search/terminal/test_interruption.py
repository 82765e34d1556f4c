"""Ctrl-C and SIGTERM reach a command even where Python drops them."""

import os
import signal
import sys
import threading
import weakref

import pytest

from aesearch.terminal.interruption import TerminatedError, check_interrupted, interruptible


@pytest.fixture(autouse=True)
def own_handlers():
    """Handlers as a command finds them, also where the tests ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, TerminatedError)]
)
def test_a_signal_is_an_exception_at_once(number, error):
    """And the handlers of before are back afterwards."""
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as caught, interruptible():
        os.kill(os.getpid(), number)
    assert caught.type is error
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_python_drops_is_raised_by_the_next_check(number, monkeypatch):
    """In the callback of a weak reference an exception goes no further."""

    class Thing:
        pass

    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: dropped.append(told.exc_type))
    with interruptible():
        check_interrupted()
        thing = Thing()
        # The reference must live for its callback to be called.
        reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), number))
        del thing
        assert reference() is None
        assert [issubclass(kind, KeyboardInterrupt) for kind in dropped] == [True]
        with pytest.raises(KeyboardInterrupt):
            check_interrupted()
    check_interrupted()  # what was dealt with is forgotten


def test_an_ignored_ctrl_c_stays_ignored():
    """As in a program that a shell started in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        check_interrupted()


def test_another_thread_is_left_alone():
    """Signals are for the main thread."""
    handlers = []

    def run():
        with interruptible():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
