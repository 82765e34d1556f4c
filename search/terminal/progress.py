"""How far a model in use is: a bar on a terminal, elsewhere nothing but what is said at the end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


@contextmanager
def image_progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show how many images are done; yields what is to be told of it."""
    console = Console(file=sys.stderr)
    if quiet or not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda _done, _total: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
