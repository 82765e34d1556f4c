"""What a process of the retraining pool is before it trains: deaf to Ctrl-C, and no orphan.

Nothing heavy is imported here: Ctrl-C may come while torch is imported.
"""

import os
import time
from signal import SIG_IGN, SIGINT, signal
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event

_LOOK_S = 0.5

# What the processes of the pool share with the one that made it; set once in each of them.
shared: dict[str, Any] = {}


class StoppedError(Exception):
    """The retraining was interrupted."""


def begin(stop: "Event", said: "SimpleQueue[Any]", parent: int) -> None:
    """Prepare a process of the pool; ``parent`` is the one that made it."""
    # Ctrl-C reaches the whole process group: the one that made the pool decides.
    signal(SIGINT, SIG_IGN)
    shared.update(stop=stop, said=said)
    # A parent that was killed closes nothing: an idle process would wait for its work for ever.
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)
