"""The command line in a child that is forked: a process of its own, without seconds of imports."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from aesearch.cli import main


def forked_command(
    *arguments: str, folder: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``aesearch`` to its end in a fork of this process; what it starts itself is real.

    It has its own arguments, environment, folder, exit status and standard streams, and shows a
    traceback as any program does. What has to be proved of a *fresh* interpreter (what it
    imports, what a command line shows of it) needs ``subprocess``.

    Parameters
    ----------
    folder : Path, optional
        Where it runs; that of this process by default.
    environment : dict, optional
        All of its environment; that of this process by default.
    """
    command = ["aesearch", *arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _begin(out.fileno(), err.fileno(), folder, environment)
                sys.argv = command
                status = _status_of_main()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode())
    return subprocess.CompletedProcess(command, code, *said)


def _begin(out: int, err: int, folder: Path | None, environment: dict[str, str] | None) -> None:
    """Make this child look like a program that was just started."""
    for number, target in ((out, 1), (err, 2)):
        os.dup2(number, target)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until it ends
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
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
