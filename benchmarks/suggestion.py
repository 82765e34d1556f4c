"""How long a suggestion takes after so many finished trials: what a sampler costs a search.

    python benchmarks/suggestion.py --sampler gp --trials 50 500 1000

The trials are random configurations of the default space with random scores, four fifths of
them pruned. Prints one JSON line per number of trials.
"""

import argparse
import json
import platform
import random
import statistics
import time

import optuna
import torch
from optuna.trial import TrialState, create_trial

from aesearch.data.study_data import load_problem
from aesearch.models.runtime import prepare_process
from aesearch.sampling.suggest import distributions, suggest
from aesearch.studies.spec.load import load_spec


def resolved(sampler):
    """The default study of digits with this sampler."""
    overrides = [f"search.sampler={sampler}"]
    return load_problem(load_spec(overrides=overrides), device="cpu").spec


def finished_trials(count):
    """Random trials: one in five complete, the rest pruned after the first epoch."""
    draws = random.Random(0)
    spec = resolved("random")
    kinds = distributions(spec)
    trials = []
    for number, params in enumerate(suggest(spec, 0, range(count), [], [])):
        first = draws.uniform(0.02, 0.08)
        complete = number % 5 == 0
        trials.append(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                value=first / 4 if complete else None,
                params=params,
                distributions={name: kinds[name] for name in params},
                intermediate_values={1: first},
            )
        )
    return trials


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sampler", choices=("gp", "tpe"), default="gp")
    parser.add_argument("--trials", type=int, nargs="+", default=[50, 500, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    prepare_process(1)
    spec = resolved(arguments.sampler)
    for count in arguments.trials:
        trials = finished_trials(count)
        times = []
        for repeat in range(arguments.repeats):
            began = time.perf_counter()
            suggest(spec, 1 + repeat, range(count, count + 1), trials, [])
            times.append(time.perf_counter() - began)
        measured = {
            "sampler": arguments.sampler,
            "finished_trials": count,
            "seconds_per_suggestion": round(statistics.median(times), 3),
            "repeats": arguments.repeats,
            "optuna": optuna.__version__,
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
