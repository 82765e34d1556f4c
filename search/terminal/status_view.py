"""What ``aesearch status`` shows: studies and who works on them as a table or lines."""

import math
import sys
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from aesearch.studies.results.text import one_line, value_text
from aesearch.studies.store.ledger import MAX_ATTEMPTS
from aesearch.studies.store.status import StudyStatus, WorkerStatus

WORKERS_SHOWN = 20


def wide_console() -> Console:
    """Give standard output; a pipe has no width, and nothing is cut there."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def list_view(studies: Sequence[StudyStatus]) -> RenderableType:
    """Lay out what is in a store, a line for each study."""
    if not studies:
        return Text("There is no study in this store.")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("study", "dataset", "trials", "best", "state"):
        table.add_column(name, no_wrap=True)
    for study in studies:
        best = study.chosen or study.best
        table.add_row(
            Text(one_line(study.name)),
            Text(one_line(str(study.dataset))),
            f"{study.finished}/{study.n_trials}",
            "-" if best is None else value_text(best[1]),
            study.state,
        )
    return table


def view(studies: Sequence[StudyStatus]) -> RenderableType:
    """Lay out studies, then who works on them, then what is in trouble."""
    if not studies:
        return Text("There is no study in this store.")
    parts: list[RenderableType] = [_study_table(studies)]
    held = [(study, worker) for study in studies for worker in study.workers if worker.owner]
    if held:
        parts += [Text(), _worker_table(held[:WORKERS_SHOWN])]
    if len(held) > WORKERS_SHOWN:
        parts.append(Text(f"and {len(held) - WORKERS_SHOWN} more"))
    troubles = [trouble for study in studies for trouble in _troubles(study)]
    if troubles:
        parts += [Text(), *map(Text, troubles)]
    return Group(*parts)


def line(study: StudyStatus) -> str:
    """Tell one study in one line."""
    words = [f"{study.name}: {study.state}, {study.finished}/{study.n_trials} trials"]
    if study.best is not None:
        words.append(f"best {value_text(study.best[1])} (trial {study.best[0]})")
    alive = sum(worker.alive for worker in study.workers)
    words.append(f"{alive} at work")
    if study.trials_per_hour is not None and study.searched:
        words.append(f"{_rate(study)}, {_left(study)} left")
    return one_line(", ".join(words))


def _study_table(studies: Sequence[StudyStatus]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("study", overflow="ellipsis", no_wrap=True, max_width=40)
    for name in ("state", "trials", "best", "trials/h", "left", "workers"):
        table.add_column(name, no_wrap=True, justify="left" if name == "state" else "right")
    for study in studies:
        failed = f" ({study.trials.failed} failed)" if study.trials.failed else ""
        table.add_row(
            Text(one_line(study.name)),
            study.state,
            f"{study.finished}/{study.n_trials}{failed}",
            "-" if study.best is None else value_text(study.best[1]),
            _rate(study, unit="") if study.trials_per_hour is not None and study.searched else "-",
            _left(study),
            str(sum(worker.alive for worker in study.workers)),
        )
    return table


def _worker_table(held: Sequence[tuple[StudyStatus, WorkerStatus]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("worker", overflow="ellipsis", no_wrap=True, max_width=40)
    table.add_column("study", overflow="ellipsis", no_wrap=True, max_width=24)
    table.add_column("at work on", no_wrap=True)
    for name in ("epoch", "since", "lease"):
        table.add_column(name, no_wrap=True, justify="right")
    for study, worker in held:
        epoch, n_epochs = worker.progress.get("epoch"), worker.progress.get("n_epochs")
        table.add_row(
            Text(one_line(str(worker.owner))),
            Text(one_line(study.name)),
            what(worker),
            "-" if epoch is None else f"{epoch}/{n_epochs}",
            duration(worker.age_s),
            f"{duration(worker.expires_s)} left" if worker.alive else "expired",
        )
    return table


def what(worker: WorkerStatus) -> str:
    """Name the work."""
    if worker.kind == "evaluate":
        return "test set"
    last = worker.first + worker.size - 1
    noun = "trial" if worker.kind == "search" else "seed"
    members = f"{noun} {last}" if worker.size == 1 else f"{noun}s {worker.first}-{last}"
    if worker.kind == "search":
        return f"generation {worker.position}: {members}"
    return f"retraining: {members}"


def _troubles(study: StudyStatus) -> list[str]:
    return [
        one_line(
            f"{study.name}, {what(worker)}: attempt {worker.attempt} of {MAX_ATTEMPTS}, "
            "since whoever had it before died or lost it without progress"
        )
        for worker in study.workers
        if worker.attempt > 1
    ]


def duration(seconds: float | None) -> str:
    """Write a duration shortly: ``42 s``, ``12 min``, ``3.4 h``, ``2.1 d``."""
    if seconds is None or math.isnan(seconds):
        return "-"
    if seconds < 90:
        return f"{max(round(seconds), 0)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"


def _rate(study: StudyStatus, unit: str = " trials/h") -> str:
    rate = study.trials_per_hour
    assert rate is not None, "asked for only where there is one"
    return f"{rate:.3g}{unit}" if rate < 100 else f"{rate:,.0f}{unit}"


def _left(study: StudyStatus) -> str:
    return duration(study.seconds_left)
