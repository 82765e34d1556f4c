"""Which process is whose, on this machine and others; nothing starts or ends one here."""

import hashlib
import os
import socket
from functools import cache
from pathlib import Path


def lives(pid: int) -> bool:
    """Whether a process of this machine is there, whoever owns it."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@cache
def place() -> str:
    """Name this machine, or this container of it: hosts may share a name, and process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        where = f"{boot}{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return socket.gethostname()
    return f"{socket.gethostname()}-{hashlib.sha256(where.encode()).hexdigest()[:4]}"
