"""What a notebook shows while something runs: the views of a terminal, redrawn in its cell."""

import io
import sys
import time
from typing import Any, final

from rich.console import Console
from rich.live import Live

_EVERY_S = 0.1
_WIDTH = 100
# Bars are drawn with characters that must touch each other.
_HTML = "<pre style='white-space: pre; overflow-x: auto; line-height: normal'>{code}</pre>"


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


def notebook_console() -> Console:
    """Give the console for lines that stay in the cell; the page breaks those that are too long."""
    return Console(file=sys.stdout, width=1000, force_jupyter=False, force_interactive=True)


@final
class NotebookLive(Live):
    """A view that is redrawn in the output of a cell, and gone at the end.

    rich's own needs ipywidgets, and a thread to redraw it.
    """

    _output: Any = None
    _drawn = 0.0

    def start(self, refresh: bool = False) -> None:
        """Begin an output."""
        from IPython.display import HTML, display  # noqa: PLC0415 - there in a notebook only

        self._started = True
        self._output = display(HTML(""), display_id=True)  # type: ignore[no-untyped-call]
        if refresh:
            self.refresh()

    def stop(self) -> None:
        """Empty the output."""
        self._started = False
        self._drawn = 0.0
        self._output.update({"text/html": ""}, raw=True)

    def refresh(self) -> None:
        """Redraw, not more often than anybody sees."""
        if self._output is None or time.monotonic() - self._drawn < _EVERY_S:
            return
        page = Console(
            file=io.StringIO(),
            record=True,
            width=_WIDTH,
            force_jupyter=False,
            force_terminal=True,
            color_system="truecolor",
        )
        page.print(self.get_renderable())
        html = page.export_html(inline_styles=True, code_format=_HTML)
        self._output.update({"text/html": html}, raw=True)
        self._drawn = time.monotonic()
