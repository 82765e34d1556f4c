"""What a person sees while something goes on: bars in a terminal or a notebook, else lines.

One display for all that takes long: a search, a retraining, a download, a model in use. Nothing
here touches the store, a tensor or stdout.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol, Self, TextIO, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from aesearch.studies.results.records import (
    LeaseRecord,
    RetrainRecord,
    StudySnapshot,
    TrainedSeed,
    TrialRecord,
)
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.results.text import kept_text, one_line, parameters_text, value_text
from aesearch.terminal.notebook import NotebookLive, in_notebook, notebook_console

BEST_SHOWN = 5
UNITS_SHOWN = 8  # more bars than this would push the table off a small terminal
FINISHED = ("complete", "pruned", "failed")
_MEGABYTE = 1_000_000
# A bar: its name, how much is done, of how much if that is known, and both in words.
Bar = tuple[str, int, int | None, str]


class Display(Protocol):
    """Where long work is shown; a context manager around it."""

    def update(self, snapshot: StudySnapshot) -> None:
        """Show a study as it is now: what is finished at the first call was finished before."""

    def message(self, text: str) -> None:
        """Show one line."""

    def download(self, what: str, done: int, total: int | None) -> None:
        """Show how far a download is: the file, its bytes so far and in all, if known."""

    def epoch(self, seeds: Sequence[int], epoch: int, n_epochs: int) -> None:
        """Show how far the seeds of a retraining are that train together."""

    def finished(self, seed: TrainedSeed) -> None:
        """Show a finished seed of a retraining."""

    def images(self, done: int, total: int) -> None:
        """Show how many images went through a model."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def make_display(*, quiet: bool, stream: TextIO | None = None) -> Display:
    """Choose the display: live bars need a notebook, or a terminal that can move its cursor.

    Parameters
    ----------
    quiet : bool
        Show nothing at all.
    stream : file, optional
        Standard error where it is None: standard output carries results only.
    """
    if not quiet and stream is None and in_notebook():
        return LiveDisplay(notebook_console(), live=NotebookLive)
    stream = sys.stderr if stream is None else stream
    if not quiet and stream.isatty():
        console = Console(file=stream)
        if not console.is_dumb_terminal:
            return LiveDisplay(console)
    return PlainDisplay(None if quiet else stream)


@final
class PlainDisplay:
    """One line per trial as it finishes and per step of a retraining, for logs and pipes.

    Parameters
    ----------
    stream : file or None
        Flushed after every line, so that a log can be followed. None to show nothing.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._told: set[tuple[str, int]] | None = None  # None before the first snapshot
        self._sparse = NowAndThen(every_s=10.0)

    def update(self, snapshot: StudySnapshot) -> None:
        """Print one line for everything that finished since the last snapshot."""
        ranked = eligible_trials(snapshot.trials)
        best = _best_text(ranked[0]) if ranked else "no best yet"
        finished = _finished(snapshot)
        if self._told is None:
            self._told = {("trial", trial.number) for trial in finished}
            self._told |= {("seed", record.seed_index) for record in snapshot.retrains}
            self._told |= {("test", record.seed_index) for record in _tested(snapshot)}
            if finished:
                self.message(
                    f"resumed: {len(finished)} of {snapshot.n_trials} trials "
                    f"are already finished ({best})"
                )
        n_told = sum(("trial", trial.number) in self._told for trial in finished)
        new = (trial for trial in finished if ("trial", trial.number) not in self._told)
        for n_finished, trial in enumerate(new, start=n_told + 1):
            line = trial_line(trial, n_finished, snapshot.n_trials)
            self._tell("trial", trial.number, f"{line} ({best})")
        if any(
            lease.kind == "retrain" and not lease.done and lease.owner is not None
            for lease in snapshot.leases
        ):
            chosen = "the chosen trial" if snapshot.chosen is None else f"trial {snapshot.chosen}"
            self._tell("retrain", 0, f"retraining {chosen}")
        for record in snapshot.retrains:
            self._tell("seed", record.seed_index, seed_line(record))
        for record in _tested(snapshot):
            self._tell(
                "test",
                record.seed_index,
                f"test MSE {record.test_mse:.4g} (seed {record.seed_index})",
            )

    def message(self, text: str) -> None:
        """Print one line."""
        if self._stream is not None:
            print(one_line(text), file=self._stream, flush=True)

    def download(self, what: str, done: int, total: int | None) -> None:
        """Print a line when a file begins and ends, and every ten seconds between."""
        if self._sparse.is_due(what, done, total):
            self.message(f"downloading {download_text(what, done, total)}")

    def epoch(self, seeds: Sequence[int], epoch: int, n_epochs: int) -> None:
        """Show nothing: lines are for what is final."""

    def finished(self, seed: TrainedSeed) -> None:
        """Print one line."""
        self.message(tested_line(seed))

    def images(self, done: int, total: int) -> None:
        """Show nothing: what was written is said at the end."""

    def _tell(self, kind: str, index: int, text: str) -> None:
        assert self._told is not None
        if (kind, index) not in self._told:
            self._told.add((kind, index))
            self.message(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return


@final
class LiveDisplay:
    """Bars, and the best trials of a search, redrawn in place and gone at the end.

    Parameters
    ----------
    console : Console
        Of standard error.
    clock : callable
        Seconds, monotonic.
    live : type
        What draws: rich's, or that of a notebook.
    """

    def __init__(
        self,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
        live: type[Live] = Live,
    ) -> None:
        self._pace = Pace()
        self._clock = clock
        # No refresh thread: workers are forked beside this, and the bars change with what is
        # told only. stdout is left alone, because it carries results.
        self._live = live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False
        )
        self._sparse = NowAndThen(every_s=0.1, clock=clock)
        self._epochs: dict[str, tuple[int, int]] = {}

    def update(self, snapshot: StudySnapshot) -> None:
        """Redraw."""
        left = self._pace.seconds_left(len(_finished(snapshot)), snapshot.n_trials, self._clock())
        self._draw(study_view(snapshot, left))

    def message(self, text: str) -> None:
        """Print one line above the bars."""
        self._live.console.print(Text(one_line(text)))

    def download(self, what: str, done: int, total: int | None) -> None:
        """Redraw the bar of a download."""
        if self._sparse.is_due(what, done, total):
            self._draw(bars([("downloading", done, total, download_text(what, done, total))]))

    def epoch(self, seeds: Sequence[int], epoch: int, n_epochs: int) -> None:
        """Redraw a bar for every set of seeds that train together."""
        name = f"seeds {seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
        self._epochs[name] = (epoch, n_epochs)
        rows = [
            (n, done, total, f"{done}/{total} epochs") for n, (done, total) in self._epochs.items()
        ]
        self._draw(bars(rows))

    def finished(self, seed: TrainedSeed) -> None:
        """Print one line above the bars."""
        self.message(tested_line(seed))

    def images(self, done: int, total: int) -> None:
        """Redraw the bar of the images."""
        left = self._pace.seconds_left(done, total, self._clock())
        if self._sparse.is_due("images", done, total):
            self._draw(bars([("images", done, total, f"{done}/{total}, {duration_text(left)}")]))

    def _draw(self, view: RenderableType) -> None:
        self._live.update(view, refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()


@final
class Pace:
    """Time left, from the trials that finished since the first look; older ones tell nothing."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._latest = (0, 0.0)

    def seconds_left(self, n_finished: int, n_trials: int, now: float) -> float | None:
        """Estimate the rest of the search; None until a trial has finished under this look.

        The rate is taken up to the moment the count last changed, since trials finish a
        generation at a time: in between the estimate counts down.
        """
        if self._first is None:
            self._first = self._latest = (n_finished, now)
        if n_finished != self._latest[0]:
            self._latest = (n_finished, now)
        done = self._latest[0] - self._first[0]
        if n_finished >= n_trials:
            return 0.0
        if done <= 0:
            return None
        per_trial = (self._latest[1] - self._first[1]) / done
        return max(per_trial * (n_trials - n_finished) - (now - self._latest[1]), 0.0)


@final
class NowAndThen:
    """When to show how far something is: its first and last moment, and now and then between.

    Parameters
    ----------
    every_s : float
        Seconds between two looks at the same thing.
    """

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._what: str | None = None
        self._shown = 0.0

    def is_due(self, what: str, done: int, total: int | None) -> bool:
        """Whether to show it at this moment, which then counts as shown."""
        moment = self._clock()
        if what == self._what and done != total and moment - self._shown < self._every_s:
            return False
        self._what, self._shown = what, moment
        return True


def bars(rows: Sequence[Bar]) -> RenderableType:
    """Lay out bars below each other; one whose whole is not known pulses."""
    progress = Progress(
        # A narrow terminal takes from the names, never from the counts.
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TextColumn("{task.fields[count]}", markup=False, table_column=Column(no_wrap=True)),
        auto_refresh=False,
        expand=True,
    )
    for name, done, total, count in rows:
        whole = None if total is None else max(total, 1)
        progress.add_task(one_line(name), completed=done, total=whole, count=count)
    return progress.get_renderable()


def download_text(what: str, done: int, total: int | None) -> str:
    """Write how far a download is.

    Examples
    --------
    >>> download_text("images.gz", 2_500_000, 9_912_422)
    'images.gz: 2.5 of 9.9 MB'
    """
    whole = "" if total is None else f" of {total / _MEGABYTE:.1f}"
    return f"{what}: {done / _MEGABYTE:.1f}{whole} MB"


def study_view(snapshot: StudySnapshot, seconds_left: float | None) -> RenderableType:
    """Lay out one snapshot: bars for the study and each leased unit, then the best trials."""
    finished = _finished(snapshot)
    working = [lease for lease in snapshot.leases if not lease.done and lease.owner is not None]
    rows: list[Bar] = [
        _counted(f"study {snapshot.name}", len(finished), snapshot.n_trials, "trials")
    ]
    for lease in working[:UNITS_SHOWN]:
        epoch, n_epochs = lease.progress.get("epoch", 0), lease.progress.get("n_epochs", 0)
        rows.append(_counted(unit_text(lease), epoch, n_epochs, "epochs"))
    failed = sum(trial.state == "failed" for trial in finished)
    parts: list[RenderableType] = [bars(rows)]
    notes = [f"{failed} failed"] if failed else []
    if len(finished) < snapshot.n_trials:
        notes.append(duration_text(seconds_left))
    if notes:
        parts.append(Text(", ".join(notes)))
    if len(working) > UNITS_SHOWN:
        parts.append(Text(f"and {len(working) - UNITS_SHOWN} more at work"))
    if snapshot.retrains:
        parts.append(Text(seed_line(snapshot.retrains[-1]), no_wrap=True, overflow="ellipsis"))
    ranked = eligible_trials(snapshot.trials)
    parts.append(_best_table(ranked[:BEST_SHOWN]) if ranked else Text("no trial has completed yet"))
    return Group(*parts)


def _counted(name: str, done: int, total: int, what: str) -> Bar:
    return name, done, total, f"{done}/{total} {what}" if total else "starting"


def unit_text(lease: LeaseRecord) -> str:
    """Name a leased unit and what it trains."""
    if lease.kind == "search":
        return f"generation {lease.index}{_numbers('trial', lease.progress.get('trials', ()))}"
    if lease.kind == "retrain":
        return f"retraining{_numbers('seed', lease.progress.get('seeds', ()))}"
    return "test set"


def trial_line(trial: TrialRecord, n_finished: int, n_trials: int) -> str:
    """Tell a finished trial in one line: outcome, value, parameters, and the reason if any."""
    outcome = "unstable" if trial.state == "complete" and trial.unstable else trial.state
    words = [f"{n_finished}/{n_trials} trial {trial.number} {outcome}"]
    reason = trial.unstable or trial.reason
    if reason and reason.startswith(f"{outcome} "):
        reason = reason.removeprefix(f"{outcome} ")  # which tells the value, too
    elif trial.value is not None:
        words.append(value_text(trial.value, trial.standard_error))
    words.append(parameters_text(trial))
    return " ".join(word for word in words if word) + (f": {reason}" if reason else "")


def seed_line(record: RetrainRecord) -> str:
    """Tell a finished seed of the retraining in one line."""
    return (
        f"seed {record.seed_index} retrained: {kept_text(record.best_epoch, record.epochs)}, "
        f"validation MSE {value_text(record.validation_loss)}"
    )


def tested_line(seed: TrainedSeed) -> str:
    """Tell a finished seed of a retraining outside a study in one line."""
    return (
        f"seed {seed.seed_index}: {kept_text(seed.best_epoch, seed.epochs)}, "
        f"validation MSE {value_text(seed.validation_loss)}, test MSE {value_text(seed.test_mse)}"
    )


def duration_text(seconds: float | None) -> str:
    """Write the time left, rounded to what an estimate deserves."""
    if seconds is None:
        return "time left unknown"
    return f"about {duration(max(seconds, 1.0))} left"


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


def _finished(snapshot: StudySnapshot) -> list[TrialRecord]:
    trials = [trial for trial in snapshot.trials if trial.state in FINISHED]
    return sorted(trials, key=lambda trial: trial.number)


def _tested(snapshot: StudySnapshot) -> list[RetrainRecord]:
    return [record for record in snapshot.retrains if record.test_mse is not None]


def _best_text(trial: TrialRecord) -> str:
    value, *_ = value_text(trial.value, trial.standard_error).split()
    return f"best {value}, trial {trial.number}"


def _numbers(noun: str, numbers: list[int] | tuple[int, ...]) -> str:
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    if low == high:
        return f": {noun} {low}"
    if high - low + 1 == len(numbers):
        return f": {noun}s {low}-{high}"
    # Pruned trials have left: an interval would name them too.
    return f": {noun}s {', '.join(str(number) for number in sorted(numbers))}"


def _best_table(ranked: list[TrialRecord]) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("loss ± se", no_wrap=True)
    table.add_column("parameters", ratio=1)
    for trial in ranked:
        table.add_row(
            str(trial.number),
            value_text(trial.value, trial.standard_error),
            Text(one_line(parameters_text(trial))),
        )
    return table
