"""Which process is whose, on this machine and others; nothing starts or ends one here."""

import hashlib
import os
import socket
from functools import cache
from pathlib import Path


def lives(pid: int) -> bool:
    """Whether a process of this machine runs, whoever owns it.

    One that ended and that its parent has not asked about, as in a container whose first process
    asks about none, is listed still, and does not.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return True  # no Linux, or hidden
    # proc_pid_stat(5): "pid (name) state …", and a name may hold brackets.
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


@cache
def place() -> str:
    """Name this machine, or this container of it: hosts may share a name, and process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        where = f"{boot}{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return socket.gethostname()
    return f"{socket.gethostname()}-{hashlib.sha256(where.encode()).hexdigest()[:4]}"
