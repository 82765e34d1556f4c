"""How a download is told: a line now and then, or a bar; fetching itself is in ``data``."""

from collections.abc import Callable
from typing import final

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_EVERY_S = 10.0
_MEGABYTE = 1_000_000


def download_text(what: str, done: int, total: int | None) -> str:
    """Write how far a download is.

    Examples
    --------
    >>> download_text("images.gz", 2_500_000, 9_912_422)
    'images.gz: 2.5 of 9.9 MB'
    """
    size = f"{done / _MEGABYTE:.1f}"
    return (
        f"{what}: {size} MB" if total is None else f"{what}: {size} of {total / _MEGABYTE:.1f} MB"
    )


def download_view(what: str, done: int, total: int | None) -> RenderableType:
    """Lay out one file on its way: a bar where the size is known, else one that pulses."""
    view = Table.grid(padding=(0, 1), expand=True)
    view.add_column(ratio=1)
    view.add_column(no_wrap=True)
    bar = ProgressBar(
        total=None if total is None else max(total, 1), completed=done, pulse=total is None
    )
    view.add_row(bar, Text(download_text(what, done, total)))
    return view


@final
class Downloads:
    """Tells about downloads now and then: each file's first and last moment, and between.

    Parameters
    ----------
    tell : callable(what, bytes so far, total or None)
    every_s : float
        Seconds between two words about one file.
    """

    def __init__(
        self,
        tell: Callable[[str, int, int | None], None],
        clock: Callable[[], float],
        every_s: float = _EVERY_S,
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._every_s = every_s
        self._what: str | None = None
        self._told = 0.0

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Take note of progress."""
        moment = self._clock()
        if what == self._what and done != total and moment - self._told < self._every_s:
            return
        self._what, self._told = what, moment
        self._tell(what, done, total)
