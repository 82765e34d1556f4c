"""Settings that came after 0.1: what a specification that does not have them yet meant by that.

A stored specification, a record and a ``best.yaml`` are complete: a setting that is missing there
did not exist when they were written, and its value is what was done then, not today's default.
"""

import copy
from collections.abc import Mapping
from typing import Any

MEANT: Mapping[str, Mapping[str, Any]] = {
    "model": {
        "activation": "relu",
        "shortcut": "none",
        "output": "sigmoid",
        "initialization": "torch",
    },
    "training": {"averaging": "none"},
    "retrain": {"min_delta_mode": "absolute"},
}


def with_former_settings(document: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a written specification of any version with what it meant.

    Parameters
    ----------
    document : mapping
        Sections by name, complete but for settings that came later.

    Returns
    -------
    dict
        A copy; settings that are there are left as they are.
    """
    completed = copy.deepcopy(dict(document))
    for section, settings in MEANT.items():
        written = completed.get(section)
        if isinstance(written, dict):
            completed[section] = {**settings, **written}
    return completed
