"""The command that makes a study again: what its specification says beyond the defaults."""

import json
import shlex
from collections.abc import Mapping
from functools import reduce
from itertools import accumulate
from operator import getitem
from typing import Any

from aesearch.studies.results.records import StudySnapshot
from aesearch.studies.spec.dimensions import hidden_name
from aesearch.studies.spec.study import SETTING_OF_DIMENSION, StudySpec, resolve

_FLAGS = {
    "data.dataset": "--dataset",
    "search.folds": "--folds",
    "search.trials": "--trials",
    "training.epochs": "--epochs",
    "seed": "--seed",
    "name": "--study",
}
# Where somebody keeps the images changes nothing and helps nobody else.
_PRIVATE = (("data", "data_dir"),)


def reproducing_commands(spec: StudySpec, snapshot: StudySnapshot) -> list[str]:
    """Write the commands that give a study again, one after another.

    There are several where more trials were asked for in the middle of a generation: those
    after it were suggested from other results than if all had been asked for at once.

    Parameters
    ----------
    spec : StudySpec
        Resolved.
    """
    sizes = [lease.size for lease in snapshot.leases if lease.kind == "search"]
    ends = accumulate(sizes)
    short = [size != spec.search.generation_size for size in sizes]
    counts = [end for end, is_short in zip(ends, short[:-1], strict=False) if is_short]
    return [
        reproducing_command(
            spec.model_copy(update={"search": spec.search.model_copy(update={"trials": count})}),
            snapshot.facts,
        )
        for count in [*counts, spec.search.trials]
    ]


def reproducing_command(spec: StudySpec, facts: Mapping[str, Any]) -> str:
    """Write the ``aesearch run`` that gives this study again, quoted for a shell.

    Folds, trials, device and precision are always said, since another machine has other
    defaults; everything else only where it is not the default for these images.

    Parameters
    ----------
    spec : StudySpec
        Resolved.
    facts : mapping
        With ``image_shape`` and ``n_images``; without them everything that could have been
        automatic is written out.
    """
    # What is automatic goes by the epochs and by the number of trials, which is always said.
    layer = {
        "data": {"dataset": spec.data.dataset},
        "training": {"epochs": spec.training.epochs},
        "search": {"trials": spec.search.trials},
    }
    defaults = StudySpec.model_validate(layer)
    if facts.get("image_shape") and facts.get("n_images"):
        channel, height, width = facts["image_shape"]
        device = "cuda" if spec.compute.device == "cuda" else "cpu"
        defaults = resolve(
            defaults,
            image_shape=(channel, height, width),
            n_train=int(facts["n_images"]),
            device=device,
        )
    words = ["aesearch", "run"]
    default, wanted = defaults.model_dump(mode="json"), spec.model_dump(mode="json")
    plain = StudySpec()
    default["data"]["dataset"] = plain.data.dataset
    default["training"]["epochs"] = plain.training.epochs
    for section, key in _PRIVATE:
        default[section][key] = wanted[section][key]
    default["description"] = wanted["description"]
    # What the space searches has its first value from here, moved to the nearest inside it: the
    # command line takes no other.
    for name, value in spec.default_configuration_params().items():
        *sections, key = SETTING_OF_DIMENSION[name].split(".")
        plainly, holder = (reduce(getitem, sections, tree) for tree in (default, wanted))
        inside = hidden_name(holder[key]) if name == "hidden" else holder[key]
        if plainly[key] != holder[key] and inside != value:
            holder[key] = value
    for key, value in _differing(default, wanted):
        flag = _FLAGS.get(key)
        if flag is not None and isinstance(value, str | int):
            words.append(f"{flag}={value}")
        else:
            words.append(f"--set={key}={json.dumps(value)}")
    said = [word.split("=")[0] for word in words]
    words += [
        f"{flag}={value}"
        for flag, value in (
            ("--folds", spec.search.folds),
            ("--trials", spec.search.trials),
            ("--device", spec.compute.device),
            ("--precision", spec.compute.precision),
        )
        if flag not in said
    ]
    return shlex.join(words)


def _differing(default: Any, wanted: Any, path: str = "") -> list[tuple[str, Any]]:
    """List what differs, section by section; a dimension of the space is one value."""
    if not isinstance(wanted, dict) or not isinstance(default, dict) or path.startswith("space."):
        return [] if wanted == default else [(path, _without_nulls(wanted))]
    found = []
    for key, value in wanted.items():
        found += _differing(default.get(key), value, f"{path}.{key}" if path else key)
    return found


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
