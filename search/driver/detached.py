"""``run --detach``: a study is created and left to workers; what is printed then."""

import shlex
from pathlib import Path
from typing import Any

from aesearch.driver.create import leave_study
from aesearch.options import OptionError, storage_or_default
from aesearch.outputs import Commands, DetachedSeries, DetachedStudy
from aesearch.sampling.wanted import read_wanted
from aesearch.studies.spec.study import StudySpec
from aesearch.terminal.display import make_display


def detach(
    spec: StudySpec,
    *,
    storage: str | None,
    out: Any,
    workers: int | None,
    ray: str | None,
    gpus_per_worker: float | None,
    enqueue: list[Path],
    quiet: bool,
) -> DetachedStudy:
    """Create the study, or go on with it, and tell how to follow it.

    Raises
    ------
    OptionError
        Options that mean something to a run that stays only.
    """
    for name, value, remedy in (
        ("--workers", workers, "start 'aesearch worker' as often as you like"),
        ("--ray", ray, "leave --detach out: the run starts workers there and watches them"),
        ("--gpus-per-worker", gpus_per_worker, "it goes with --ray"),
        ("--out", out, "name the folder to 'aesearch export' when the study is finished"),
    ):
        if value is not None:
            raise OptionError(
                f"{name} must not be given beside --detach, got {str(value)!r}; {remedy}"
            )
    chosen = storage_or_default(storage)
    with make_display(quiet=quiet) as display:
        left = leave_study(spec, storage=chosen, display=display, enqueue=read_wanted(enqueue))
    where = _where(chosen, left.storage)
    name = shlex.quote(left.study)
    return DetachedStudy(
        study=left.study,
        storage=left.storage,
        finished=left.finished,
        trials=left.trials,
        timeout=spec.search.timeout,
        commands=Commands(
            work=f"aesearch worker{where}",
            follow=f"aesearch status {name} --watch{where}",
            export=f"aesearch export {name}{where}",
        ),
    )


def _where(storage: str, shown: str) -> str:
    # What is taken where nothing is said need not be said; a password is never repeated.
    if storage == storage_or_default(None):
        return ""
    return f" --storage {shlex.quote(shown)}"


def document(left: list[DetachedStudy]) -> DetachedStudy | DetachedSeries:
    """Give what ``--json`` prints of one study or several."""
    return left[0] if len(left) == 1 else DetachedSeries(left)


def text(left: DetachedStudy) -> str:
    """Write what ``detach`` returns for a person."""
    commands = left.commands
    wide = max(map(len, (commands.work, commands.follow, commands.export)))
    one_file = left.storage.startswith("sqlite") or "://" not in left.storage
    where = "on this machine" if one_file else "on any machine"
    counts = f"{left.finished} of {left.trials} trials are finished"
    limit = ""
    if left.timeout is not None:
        limit = f" No trial is begun later than {left.timeout:g} s from now."
    return "\n".join(
        [
            f"Study {left.study!r} is in {left.storage}: {counts}.{limit}",
            f"  {commands.work:{wide}}  works on it: as many as you like, {where}",
            f"  {commands.follow:{wide}}  shows how far it is",
            f"  {commands.export:{wide}}  writes its run folder at the end",
        ]
    )
