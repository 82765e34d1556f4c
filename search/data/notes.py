"""What is said of an input that was read: what was left out, and what was done to the rest."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath

_LISTED = 5


@dataclass
class Notes:
    """What a reader has to tell, in the order in which it was found.

    Attributes
    ----------
    left_out : Counter
        How often what was not read: an ending such as '.txt', or a noun such as 'broken link|',
        whose bar stands where the plural has its s.
    remarks : list of str
        What was decided that a user may not have meant.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)

    def leave_out(self, what: str, n: int = 1) -> None:
        """Count what was not read."""
        if n:
            self.left_out[what] += n

    def remark(self, text: str) -> None:
        """Add one remark, once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def lines(self) -> tuple[str, ...]:
        """Say everything, a part at a time."""
        out = [counted(n, what) for what, n in self.left_out.items()]
        return (*([f"left out: {', '.join(out)}"] if out else []), *self.remarks)


def counted(n: int, what: str) -> str:
    """``3 broken links`` of ``broken link|``: the bar stands where the plural has its s."""
    return f"{n:,} {what.replace('|', '' if n == 1 else 's')}"


def listed(items: Iterable[object], n_shown: int = _LISTED) -> str:
    """The first few of many, and how many more there are."""
    found = [str(item) for item in items]
    shown = ", ".join(found[:n_shown])
    return shown if len(found) <= n_shown else f"{shown} and {len(found) - n_shown:,} more"


def shown(name: str | PurePath) -> str:
    """A name from the disk as text that any file and database takes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
