"""What each default is worth: change one setting at a time, train as a study would deliver.

    python benchmarks/defaults.py > defaults.jsonl      # everything; --help for less
    python benchmarks/defaults.py --table defaults.jsonl  # Markdown

A network of the default configuration trains on fold 0 of the training images (less its inner
held-out share, which stops it early) and is measured once on what the fold holds out: the score
that a study would give it. The test images are never looked at. Each variant changes one setting
of that. Prints one JSON line per (data set, size, variant, seed) with the score and the processor
seconds of the training alone; one thread.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from arena import DATASETS, machine, versions

# Numbers for the minibatch and max_epochs are multiples of the default; hidden widths of the first.
VARIANTS = {
    "default": {},
    "activation relu": {"model.activation": "relu"},
    "plain network": {"model.shortcut": "none"},
    "plain network, clamp": {"model.shortcut": "none", "model.output": "clamp"},
    "He's start": {"model.initialization": "he"},
    "no average": {"training.averaging": "none"},
    "no average, cosine": {"training.averaging": "none", "training.schedule": "cosine"},
    "average 0.995": {"training.averaging_decay": 0.995},
    "average 0.999": {"training.averaging_decay": 0.999},
    "cosine": {"training.schedule": "cosine"},
    "adam, no decay": {"training.optimizer": "adam", "training.weight_decay": 0},
    "adam, decay 1e-5": {"training.optimizer": "adam", "training.weight_decay": 1e-5},
    "decay 0.03": {"training.weight_decay": 0.03},
    "decay 0.1": {"training.weight_decay": 0.1},
    "decay 1": {"training.weight_decay": 1.0},
    "rate 0.001": {"training.learning_rate": 0.001},
    "rate 0.002": {"training.learning_rate": 0.002},
    "rate 0.005": {"training.learning_rate": 0.005},
    "rate 0.01": {"training.learning_rate": 0.01},
    "dropout 0.05": {"model.dropout": 0.05},
    "batch / 2": {"training.batch_size": 0.5},
    "batch x 2": {"training.batch_size": 2},
    "batch x 4": {"training.batch_size": 4},
    "hidden / 2": {"model.dense.hidden": (0.5, 0.25)},
    "hidden x 2": {"model.dense.hidden": (2, 1)},
    "one hidden layer": {"model.dense.hidden": (1,)},
    "two equal hidden layers": {"model.dense.hidden": (1, 1)},
    "three hidden layers": {"model.dense.hidden": (1, 0.5, 0.25)},
    "min_delta 5e-4": {"retrain.min_delta": 5e-4},
    "min_delta 2e-3": {"retrain.min_delta": 2e-3},
    "patience 10": {"retrain.patience": 10},
    "max_epochs x 2": {"retrain.max_epochs": 2},
    "float32": {"compute.precision": "float32"},
    **{
        f"conv{words}": {
            "model.architecture": "conv",
            "model.conv.channels": channels,
            "model.initialization": start,
        }
        for words, channels, start in (
            ("", [8, 16, 32], "torch"),
            (" 16-32-64", [16, 32, 64], "torch"),
            (" 16-32-64, He", [16, 32, 64], "he"),
            (" 32-64-128", [32, 64, 128], "torch"),
        )
    },
}


def problem_of(path, size, seed, changes):
    """The study's images and splits with some settings changed."""
    from aesearch.data.study_data import load_problem
    from aesearch.studies.spec.study import StudySpec

    def spec_with(settings):
        sections = {"seed": seed, "data": {"dataset": str(path)}}
        fixed = {"space.architecture": None, "model.encoding_dim": size, "space.encoding_dim": None}
        for name, value in (fixed | settings).items():
            *outer, last = name.split(".")
            at = sections
            for part in outer:
                at = at.setdefault(part, {})
            at[last] = value
        return StudySpec.model_validate(sections)

    problem = load_problem(spec_with({}), device="cpu")
    if not changes:
        return problem
    made = {}
    for name, value in changes.items():
        if name == "training.batch_size":
            value = max(1, round(problem.spec.training.batch_size * value))
        elif name == "retrain.max_epochs":
            value = round(problem.spec.retrain.max_epochs * value)
        elif name == "model.dense.hidden":
            value = [round(problem.spec.model.dense.hidden[0] * factor) for factor in value]
        made[name] = value
    return load_problem(spec_with(made), device="cpu")


def train(problem, seed):
    """Train the default configuration on fold 0; its score, and what it took."""
    from aesearch.training.members import build_member, build_population, early_stopping
    from aesearch.training.memory import images_for

    spec, images = problem.spec, images_for(problem, "cpu")
    configuration = spec.configuration({})
    member = build_member(configuration, 1000 + seed, *problem.delivery_indices(0))
    began = os.times()
    population = build_population(
        problem, images, [member], configuration, epochs=spec.trial_epochs
    )
    stopping = early_stopping(spec, population)
    while population.epoch < spec.trial_epochs and "training" in population.status:
        stopping.update(population, population.run_epoch().validation)
    stopping.restore(population)
    held_out = torch.from_numpy(problem.fold_indices(0)[1])
    ended = os.times()
    return {
        "score": float(population.measure(range(1), [held_out])[0]),
        "epochs": int(population.epoch),
        "best_epoch": int(stopping.best_epoch[0]),
        "max_epochs": spec.trial_epochs,
        "batch_size": spec.training.batch_size,
        "precision": spec.compute.precision,
        "processor_seconds": ended.user + ended.system - began.user - began.system,
    }


def run_all(arguments):
    """Measure every variant; one JSON line each."""
    torch.set_num_threads(1)
    about = {"versions": versions(), "machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        for dataset in arguments.datasets:
            path = Path(name) / f"{dataset}.npz"
            images, test = DATASETS[dataset](arguments.data_dir)
            np.savez(path, x_train=images, x_test=test)
            for size in arguments.sizes:
                for variant in arguments.variants:
                    for seed in arguments.seeds:
                        problem = problem_of(path, size, seed, VARIANTS[variant])
                        key = {"dataset": dataset, "size": size, "variant": variant, "seed": seed}
                        line = key | {"n_train": len(images)} | train(problem, seed) | about
                        print(json.dumps(line), flush=True)


def print_table(path):
    """Each variant's score over the default's, and its seconds over the default's."""
    found = defaultdict(dict)
    for text in Path(path).read_text().splitlines():
        line = json.loads(text)
        cell = line["dataset"], line["size"]
        found[line["variant"]][*cell, line["seed"]] = line["score"], line["processor_seconds"]
    cells = sorted({key[:2] for key in found["default"]})
    print("| changed | " + " | ".join(f"{d} {s}" for d, s in cells) + " | all | seconds |")
    print("|---" * (len(cells) + 3) + "|")
    for variant, lines in found.items():
        shown, logs, costs = [], [], []
        for cell in cells:
            keys = [key for key in lines if key[:2] == cell and key in found["default"]]
            if variant == "default":
                shown.append(f"{statistics.fmean(lines[key][0] for key in keys):.3g}")
            own = [math.log(lines[key][0] / found["default"][key][0]) for key in keys]
            costs += [math.log(lines[key][1] / found["default"][key][1]) for key in keys]
            logs += own
            if variant != "default":
                shown.append(f"{math.exp(statistics.fmean(own)) - 1:+.1%}" if own else "")
        ends = [f"{math.exp(statistics.fmean(logs)) - 1:+.1%}"]
        ends.append(f"x {math.exp(statistics.fmean(costs)):.2f}")
        print(f"| {variant} | " + " | ".join(shown + ends) + " |")


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--table", metavar="FILE", help="print a table of measured lines")
    arguments = parser.parse_args()
    if arguments.table:
        print_table(arguments.table)
    else:
        run_all(arguments)


if __name__ == "__main__":
    main()
