"""Whether another process of this machine is there; nothing starts or ends one here."""

import os


def lives(pid: int) -> bool:
    """Whether a process of this machine is there, whoever owns it."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
