"""Settings with a short name: an option of ``aesearch run`` and a keyword of ``aesearch.search``.

What such a setting is, which values it takes and its default are said once: by its field in the
specification.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, get_args

from pydantic.fields import FieldInfo

from aesearch.studies.spec.study import StudySpec

# Where each lies in the specification.
FLAGS: Mapping[str, str] = {
    "dataset": "data.dataset",
    "data_dir": "data.data_dir",
    "test": "data.test",
    "noisy": "data.noisy",
    "noisy_test": "data.noisy_test",
    "labels": "data.labels",
    "groups": "data.groups",
    "stratify": "data.stratify",
    "resize": "data.resize",
    "colour": "data.colour",
    "white": "data.white",
    "bad_files": "data.bad_files",
    "folds": "search.folds",
    "trials": "search.trials",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "architecture": "space.architecture",
    "encoding_dim": "space.encoding_dim",
    "corruption": "training.corruption",
    "corruption_level": "training.corruption_level",
    "sampler": "search.sampler",
    "pruner": "search.pruner",
    "objectives": "search.objectives",
    "select": "search.select",
    "max_parameters": "search.max_parameters",
    "seed": "seed",
    "device": "compute.device",
    "precision": "compute.precision",
    "timeout": "search.timeout",
    "study": "name",
}


def field_of(path: str) -> tuple[FieldInfo, Any]:
    """Give the field at a dotted path of the specification, and its default."""
    section, _, name = path.rpartition(".")
    holder = attrgetter(section)(StudySpec()) if section else StudySpec()
    return type(holder).model_fields[name], getattr(holder, name)


def flag_help(name: str) -> str:
    """Describe a flag: the first sentence about its field, the choices, and the default.

    Examples
    --------
    >>> flag_help("trials")
    'Trials of the whole study. Default: 50.'
    """
    field, default = field_of(FLAGS[name])
    sentence = (field.description or "").split(". ")[0].removesuffix(".")
    # What null stands for is what a flag that is not given stands for.
    sentence, _, without = sentence.partition("; null for ")
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    listed = f" One of {', '.join(choices)}." if choices else ""
    default = getattr(default, "choices", default)
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    return f"{sentence}.{listed} Default: {without if default is None else default}."
