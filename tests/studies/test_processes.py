"""Which processes run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aesearch.studies.processes import lives


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells")
def test_a_process_lives_until_it_ends_even_if_nobody_asked_how():
    """A parent that does not wait leaves its children listed."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert lives(process.pid)
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        os.kill(process.pid, 0)  # it is listed still
        assert not lives(process.pid)
    finally:
        process.kill()
        process.wait()
    assert not lives(process.pid)
    assert lives(os.getpid())
    assert lives(1)
