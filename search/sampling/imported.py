"""The best configurations of another program's Optuna study, for ``enqueue``; no score of it.

A foreign score was measured by another procedure: it says what to try, and nothing else.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from optuna.trial import FrozenTrial, TrialState

from aesearch.options import OptionError
from aesearch.sampling.wanted import WishError, checked_value
from aesearch.studies.spec.dimensions import Params
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.space import SEARCHABLE
from aesearch.studies.spec.strict_yaml import StrictDumper
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store.optuna.foreign_studies import ForeignStudy, read_study


@dataclass(frozen=True)
class Imported:
    """Configurations of another study, the best first.

    Attributes
    ----------
    study : str
        Its name.
    numbers : list of int
        Of its trials.
    values : list of float
        What that study has of them: measured in its own way, not to be compared with ours.
    configurations : list of dict
        By the names of a space; what ``aesearch.search(enqueue=...)`` takes.
    left_out : list of str
        Trials that are not among them, and why, each in one line.
    """

    study: str
    numbers: list[int]
    values: list[float]
    configurations: list[Params]
    left_out: list[str]

    def to_yaml(self) -> str:
        """Write them as ``aesearch run --enqueue`` reads them, with a comment on each."""
        lines = [f"# The best trials of the Optuna study {self.study!r}; its values are not ours."]
        found = zip(self.numbers, self.values, self.configurations, strict=True)
        for number, value, params in found:
            written = yaml.dump(
                params,
                Dumper=StrictDumper,
                default_flow_style=True,
                sort_keys=False,
                allow_unicode=True,
                width=math.inf,
            )
            lines += [f"# trial {number}: {value:.6g}", f"- {written.strip()}"]
        return "\n".join(lines) + "\n"


def import_trials(
    storage: str | Path,
    study: str | None = None,
    *,
    top: int = 10,
    map: Mapping[str, str] | None = None,  # noqa: A002 - the same word as on the command line
    spec: str | Path | StudySpec | None = None,
) -> Imported:
    """Read the best configurations of a plain Optuna study, to be tried first in one of ours.

    They are trained and scored here like every other trial; the other study's scores choose which
    are tried, and are kept nowhere. Nothing is written to its store.

    Parameters
    ----------
    storage : str or path
        Database URL, or the path of an SQLite file or of a file of Optuna's journal storage.
    study : str, optional
        None for the only study of the store.
    top : int
        How many different configurations at most; >= 1.
    map : mapping, optional
        Names of that study, and what they are called here: ``{"lr": "learning_rate"}``; an empty
        word leaves a parameter out.
    spec : path or StudySpec, optional
        A specification: trials outside of its space are left out. None to leave that to
        ``aesearch.search``, which refuses them.

    Raises
    ------
    StoreError, StudyNotFoundError
        There is no such store or study.
    OptionError
        ``map`` names what that study has not, or gives a name that no space has.
    WishError
        The study has several objectives, parameters that no space has, no trial that is complete,
        or none inside the space.

    Examples
    --------
    >>> known = aesearch.import_trials("sqlite:///old.db", "old")      # doctest: +SKIP
    >>> aesearch.search(images, enqueue=known.configurations)          # doctest: +SKIP
    """
    if top < 1:
        raise OptionError(f"top must be >= 1, got {top!r}")
    names = dict(map or {})
    found = read_study(str(storage), study)
    ranked = _ranked(found)
    _check_names(found.name, ranked, names)
    if spec is not None and not isinstance(spec, StudySpec):
        spec = load_spec(file=Path(spec).expanduser())
    result = Imported(found.name, [], [], [], [])
    for trial in ranked:
        renamed = {names.get(name, name): value for name, value in trial.params.items()}
        params = {name: value for name, value in renamed.items() if name}
        try:
            params = params if spec is None else _inside(spec, params)
        except WishError as error:
            result.left_out.append(f"trial {trial.number}: {str(error).partition(';')[0]}")
            continue
        if not params or params in result.configurations:
            continue
        result.numbers.append(trial.number)
        result.values.append(_value(trial))
        result.configurations.append(params)
        if len(result.configurations) == top:
            break
    if not result.configurations:
        reason = f"; {result.left_out[0]}" if result.left_out else ": they have no parameters"
        raise WishError(
            f"study {found.name!r} must have configurations of the space, got none in "
            f"{len(ranked)} complete trials{reason}"
        )
    return result


def _value(trial: FrozenTrial) -> float:
    assert trial.values is not None, "only complete trials are ranked"
    return float(trial.values[0])


def _ranked(study: ForeignStudy) -> list[FrozenTrial]:
    """Give the complete trials, the best first."""
    if len(study.directions) != 1:
        raise WishError(
            f"study {study.name!r} must have one objective, got {len(study.directions)}: which of "
            "its trials are the best is not for us to say; write those that you mean into a YAML "
            "list for --enqueue"
        )
    complete = [
        trial
        for trial in study.trials
        if trial.state == TrialState.COMPLETE and math.isfinite(_value(trial))
    ]
    if not complete:
        states = [trial.state.name.lower() for trial in study.trials]
        counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        raise WishError(
            f"study {study.name!r} must have complete trials with a finite value, got none "
            f"({counted or 'no trial at all'})"
        )
    sign = -1 if study.directions == ("maximize",) else 1
    return sorted(complete, key=lambda trial: (sign * _value(trial), trial.number))


def _check_names(study: str, trials: list[FrozenTrial], names: Mapping[str, str]) -> None:
    """Refuse names that are not there, and parameters that no space has, all at once."""
    there = list(dict.fromkeys(name for trial in trials for name in trial.params))
    for theirs, ours in names.items():
        if theirs not in there:
            raise OptionError(
                f"map must begin with a parameter of study {study!r} ({', '.join(there)}), got "
                f"{theirs!r}"
            )
        if ours and ours not in SEARCHABLE:
            raise OptionError(
                f"map must end with a name of a space ({', '.join(SEARCHABLE)}), got {ours!r}"
            )
    unknown = [name for name in there if names.get(name, name) not in ("", *SEARCHABLE)]
    if unknown:
        first = unknown[0]
        near = difflib.get_close_matches(first, SEARCHABLE, n=1) or ["learning_rate"]
        raise WishError(
            f"parameters of study {study!r} must be names of a space ({', '.join(SEARCHABLE)}), "
            f"got {', '.join(repr(name) for name in unknown)}; say what each is here, as in "
            f"--map {first}={near[0]}, or leave it out: --map {first}="
        )
    for trial in trials:
        ours_of = [names.get(name, name) for name in trial.params if names.get(name, name)]
        twice = [name for name in ours_of if ours_of.count(name) > 1]
        if twice:
            raise OptionError(
                f"map must give each name once, got {twice[0]} twice in trial {trial.number}; "
                "leave one of them out: --map NAME="
            )


def _inside(spec: StudySpec, params: Params) -> Params:
    """Hold a configuration against a space; what is not searched there is for the run to judge."""
    dimensions = spec.space.dimensions()
    return {
        name: checked_value(name, dimensions[name], value) if name in dimensions else value
        for name, value in params.items()
    }
