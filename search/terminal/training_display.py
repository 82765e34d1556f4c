"""What a person sees while ``train`` or ``verify`` retrains: bars, or lines in a log."""

import sys
from collections.abc import Sequence
from typing import Protocol, Self, TextIO, final

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from aesearch.studies.results.records import TrainedSeed
from aesearch.studies.results.text import kept_text, value_text
from aesearch.terminal.notebook import NotebookLive, in_notebook, notebook_console


class TrainingDisplay(Protocol):
    """Where a retraining is shown; a context manager around it."""

    def epoch(self, seeds: Sequence[int], epoch: int, n_epochs: int) -> None:
        """Show how far the seeds that train together are."""

    def finished(self, seed: TrainedSeed) -> None:
        """Show a finished seed."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def make_training_display(*, quiet: bool, stream: TextIO | None = None) -> TrainingDisplay:
    """Choose the display that suits the stream; None is standard error."""
    if quiet:
        return LinesDisplay(None)
    if stream is None and in_notebook():
        return BarsDisplay(notebook_console(), live=NotebookLive)
    stream = sys.stderr if stream is None else stream
    console = Console(file=stream)
    if stream.isatty() and not console.is_dumb_terminal:
        return BarsDisplay(console)
    return LinesDisplay(stream)


def finished_line(seed: TrainedSeed) -> str:
    """Tell a finished seed in one line."""
    return (
        f"seed {seed.seed_index}: {kept_text(seed.best_epoch, seed.epochs)}, "
        f"validation MSE {value_text(seed.validation_loss)}, test MSE {value_text(seed.test_mse)}"
    )


@final
class LinesDisplay:
    """One line per finished seed; none at all where there is no stream."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def epoch(self, seeds: Sequence[int], epoch: int, n_epochs: int) -> None:
        """Show nothing: lines are for what is final."""

    def finished(self, seed: TrainedSeed) -> None:
        """Print one line."""
        if self._stream is not None:
            print(finished_line(seed), file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return


@final
class BarsDisplay:
    """A bar for every set of seeds that train together, gone at the end."""

    def __init__(self, console: Console, live: type[Live] = Live) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            console=console,
        )
        self._progress.live = live(
            console=console,
            transient=True,
            redirect_stdout=False,
            get_renderable=self._progress.get_renderable,
        )
        self._tasks: dict[tuple[int, ...], TaskID] = {}

    def epoch(self, seeds: Sequence[int], epoch: int, n_epochs: int) -> None:
        """Move the bar."""
        key = tuple(seeds)
        if key not in self._tasks:
            several = f"seeds {key[0]}-{key[-1]}" if len(key) > 1 else f"seed {key[0]}"
            self._tasks[key] = self._progress.add_task(several, total=n_epochs)
        self._progress.update(self._tasks[key], completed=epoch, refresh=True)

    def finished(self, seed: TrainedSeed) -> None:
        """Print one line above the bars."""
        self._progress.console.print(finished_line(seed), highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()
