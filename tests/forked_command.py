"""The command line in a child that is forked: a process of its own, without seconds of imports."""

import inspect
import logging
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from aesearch.cli import main

PROGRAM = [sys.executable, "-m", "aesearch"]


class ForkedCommand(subprocess.Popen):
    """``Popen`` that forks this process where it is asked for ``python -m aesearch ...``.

    The child has its own arguments, environment, folder, session, exit status and standard
    streams, and shows a traceback as any program does. What was patched here is patched there.
    What has to be proved of a *fresh* interpreter (what it imports, what a command line shows of
    it) needs ``subprocess.Popen``.
    """

    def _execute_child(self, *given: object) -> None:
        call = inspect.signature(super()._execute_child).bind(*given).arguments
        if list(call["args"])[:3] != PROGRAM:
            super()._execute_child(*given)
            return
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        streams = [call[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: there are threads
            self.pid = os.fork()
        if self.pid:
            self._child_created = True
            self._close_pipe_fds(*(call[name] for name in pipes))
            return
        status = 1
        try:
            if any(value for name, value in call.items() if name.endswith("start_new_session")):
                os.setsid()
            for name in ("p2cwrite", "c2pread", "errread"):
                if call[name] != -1:
                    os.close(call[name])
            _begin(streams, call["cwd"], call["env"])
            sys.argv = ["aesearch", *map(str, call["args"][3:])]
            status = _status_of_main()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def forked_command(
    *arguments: str, folder: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``aesearch`` to its end in a fork of this process.

    Parameters
    ----------
    folder : Path, optional
        Where it runs; that of this process by default.
    environment : dict, optional
        All of its environment; that of this process by default.
    """
    # Into files: a pipe would end only with the last of the processes that it starts.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = [*PROGRAM, *arguments]
        child = ForkedCommand(command, stdout=out, stderr=err, cwd=folder, env=environment)
        code = child.wait()
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode())
    return subprocess.CompletedProcess(command, code, *said)


def _begin(
    streams: list[int], folder: str | Path | None, environment: dict[str, str] | None
) -> None:
    """Make this child look like a program that was just started."""
    for number, stream in enumerate(streams):
        if stream != -1:
            os.dup2(stream, number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until it ends
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.getLogger().handlers.clear()
    warnings.resetwarnings()
    sys.excepthook = sys.__excepthook__
    if folder is not None:
        os.chdir(folder)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)


def _status_of_main() -> int:
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does with what nobody catches
        sys.excepthook(*sys.exc_info())
        return 1
    return 0
