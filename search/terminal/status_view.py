"""What ``aesearch list`` and ``status`` show: studies and who works on them."""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aesearch.outputs import ListedStudy, StudyState, StudyStates
from aesearch.studies.results.text import one_line, value_text
from aesearch.studies.store.connection.retry import Patience, retry_s
from aesearch.studies.store.ledger import MAX_ATTEMPTS
from aesearch.studies.store.status import StudyStatus, WorkerStatus, statuses
from aesearch.studies.store.study_rows import existing_store
from aesearch.terminal.display import duration
from aesearch.terminal.interruption import check_interrupted

WORKERS_SHOWN = 20
WATCH_S = 2.0


def wide_console() -> Console:
    """Give standard output; a pipe has no width, and nothing is cut there."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def show_list(studies: Sequence[StudyStatus], *, as_json: bool) -> None:
    """Print what ``aesearch list`` prints: a line for each study."""
    if as_json:
        listed = [ListedStudy.of(study).to_dict() for study in studies]
        sys.stdout.write(f"{json.dumps(listed)}\n")
    else:
        columns = ("study", "dataset", "trials", "best", "state")
        wide_console().print(_study_table(studies, columns))


def show_status(studies: Sequence[StudyStatus], *, as_json: bool) -> None:
    """Print what ``aesearch status`` prints: studies, and who works on them."""
    if as_json:
        states = StudyStates(list(map(StudyState.of, studies)))
        sys.stdout.write(f"{json.dumps(states.to_dict())}\n")
    else:
        wide_console().print(view(studies))


def view(studies: Sequence[StudyStatus]) -> RenderableType:
    """Lay out studies, then who works on them, then what is in trouble."""
    columns = ("study", "state", "trials", "best", "trials/h", "left", "workers")
    parts: list[RenderableType] = [_study_table(studies, columns, widest=40)]
    held = [(study, worker) for study in studies for worker in study.workers if worker.owner]
    if held:
        parts += [Text(), _worker_table(held[:WORKERS_SHOWN])]
    if len(held) > WORKERS_SHOWN:
        parts.append(Text(f"and {len(held) - WORKERS_SHOWN} more"))
    troubles = [trouble for study in studies for trouble in _troubles(study)]
    if troubles:
        parts += [Text(), *map(Text, troubles)]
    return Group(*parts)


def watch(storage: str, study: str | None) -> None:
    """Show studies until all of them are finished: in place on a terminal, else what changed."""
    console = wide_console()
    moves = console.is_terminal and not console.is_dumb_terminal
    told: set[str] = set()
    with (
        existing_store(storage, Patience(retry_s())) as engine,
        Live(console=console, auto_refresh=False) if moves else nullcontext() as live,
    ):
        while True:
            check_interrupted()
            found = statuses(engine, study)
            if live is not None:
                live.update(view(found), refresh=True)
            else:
                new = [text for text in map(line, found) if text not in told]
                told.update(new)
                sys.stdout.writelines(f"{text}\n" for text in new)
                sys.stdout.flush()
            if all(item.over for item in found):
                return
            time.sleep(WATCH_S)


def line(study: StudyStatus) -> str:
    """Tell one study in one line."""
    words = [f"{study.name}: {study.state}, {study.finished}/{study.n_trials} trials"]
    if study.best is not None:
        words.append(f"best {value_text(study.best[1])} (trial {study.best[0]})")
    alive = sum(worker.alive for worker in study.workers)
    words.append(f"{alive} at work")
    if study.trials_per_hour is not None and study.searched:
        words.append(f"{_rate(study)}, {duration(study.seconds_left)} left")
    return one_line(", ".join(words))


def _study_table(
    studies: Sequence[StudyStatus], columns: Sequence[str], *, widest: int | None = None
) -> RenderableType:
    """Lay out a line for each study, names no wider than ``widest``."""
    if not studies:
        return Text("There is no study in this store.")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in columns:
        is_text = name in ("study", "dataset", "state")
        table.add_column(
            name,
            overflow="ellipsis",
            no_wrap=True,
            justify="left" if is_text else "right",
            max_width=widest if name == "study" else None,
        )
    for study in studies:
        cells = _cells(study)
        table.add_row(*(Text(cells[name]) for name in columns))
    return table


def _cells(study: StudyStatus) -> dict[str, str]:
    failed = f" ({study.trials.failed} failed)" if study.trials.failed else ""
    value = ListedStudy.of(study).value
    has_rate = study.trials_per_hour is not None and study.searched
    return {
        "study": one_line(study.name),
        "dataset": one_line(str(study.dataset)),
        "state": study.state,
        "trials": f"{study.finished}/{study.n_trials}{failed}",
        "best": "-" if value is None else value_text(value),
        "trials/h": _rate(study, unit="") if has_rate else "-",
        "left": duration(study.seconds_left),
        "workers": str(sum(worker.alive for worker in study.workers)),
    }


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


def _rate(study: StudyStatus, unit: str = " trials/h") -> str:
    rate = study.trials_per_hour
    assert rate is not None, "asked for only where there is one"
    return f"{rate:.3g}{unit}" if rate < 100 else f"{rate:,.0f}{unit}"
