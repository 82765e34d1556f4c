"""Regret of the search: what it delivers against the best of many random configurations.

    python benchmarks/regret.py > regret.jsonl            # --help for less
    python benchmarks/regret.py --table regret.jsonl      # Markdown

A study of 50 trials delivers its winner. Beside it, 30 configurations drawn at random from the
same space are each trained to their end on all training images, as a winner is retrained. All are
judged by the test MSE per pixel. The regret is how much higher the error of the winner (mean over
its seeds) is than the lowest of the 30: below zero, the search found better. The lowest of 30 is
chosen by the test images themselves, which no search may do, so the figure is on the strict side.
Prints one JSON line per data set, size and seed; one thread.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from arena import DATASETS, machine, read_lines, versions


def study(path, size, seed, trials, folder):
    """Search as a person would; the test MSE that is delivered, and what the winner is."""
    import aesearch

    found = aesearch.search(
        dataset=path,
        set=[f"space.encoding_dim.choices=[{size}]"],
        trials=trials,
        seed=seed,
        study="regret",
        storage=str(folder / f"regret-{size}-{seed}.db"),
        out=folder / f"run-{size}-{seed}",
        workers=1,
        quiet=True,
    )
    retrained = [seed.test_mse for seed in found.summary.retrain.seeds]
    return {"delivered": statistics.fmean(retrained), "winner": found.best_params}


def random_configurations(path, size, seed, n):
    """Train configurations drawn at random to their end; the test MSE of each."""
    from aesearch.data.study_data import load_problem
    from aesearch.evaluation.metrics import mean_squared_error
    from aesearch.sampling.suggest import suggest
    from aesearch.studies.errors import RunFailedError
    from aesearch.studies.spec.load import spec_from_mapping
    from aesearch.training.memory import images_for
    from aesearch.training.retrain import retrain

    document = {
        "seed": seed,
        "data": {"dataset": str(path)},
        "space": {"encoding_dim": {"choices": [size]}},
        "search": {"sampler": "random", "trials": n + 1, "generation_size": n + 1},
    }
    problem = load_problem(spec_from_mapping(document, "the space"), device="cpu")
    images = images_for(problem, "cpu")
    errors = []
    # The first one is the default configuration, which is not drawn.
    for params in suggest(problem.spec, 0, range(n + 1), [], [])[1:]:
        configuration = problem.spec.configuration(params)
        try:
            (one,) = retrain(problem, images, configuration, [0], on_epoch=lambda *_: None)
        except RunFailedError:  # it diverged in its first epoch
            continue
        errors.append(mean_squared_error(one.model, problem.test_images))
    return errors


def run_all(arguments):
    """Measure every data set, size and seed; one JSON line each."""
    from aesearch.models.runtime import prepare_process

    prepare_process(1)
    seconds = os.times
    about = {"versions": versions(), "machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        for dataset in arguments.datasets:
            path = Path(name) / f"{dataset}.npz"
            images, test = DATASETS[dataset](arguments.data_dir)
            np.savez(path, x_train=images, x_test=test)
            for size in arguments.sizes:
                for seed in range(arguments.seeds):
                    found = study(path, size, seed, arguments.trials, Path(name))
                    began = seconds()
                    errors = random_configurations(path, size, seed, arguments.random)
                    ended = seconds()
                    line = {"dataset": dataset, "size": size, "seed": seed, **found}
                    line |= {"random": errors, "regret": found["delivered"] / min(errors) - 1}
                    line["random_seconds"] = ended.user + ended.system - began.user - began.system
                    print(json.dumps(line | about), flush=True)


def print_table(path):
    """Print the regrets of a file in Markdown."""
    cells = defaultdict(list)
    for line in read_lines(path):
        cells[line["dataset"], line["size"]].append(line)
    print("| data | size | delivered | best of random | median of random | regret by seed |")
    print("|---|---|---|---|---|---|")
    for (dataset, size), lines in cells.items():
        mean = {
            "delivered": statistics.fmean(line["delivered"] for line in lines),
            "best": statistics.fmean(min(line["random"]) for line in lines),
            "median": statistics.fmean(statistics.median(line["random"]) for line in lines),
        }
        shown = " | ".join(f"{value:.3g}" for value in mean.values())
        regrets = ", ".join(f"{line['regret']:+.1%}" for line in lines)
        print(f"| {dataset} | {size} | {shown} | {regrets} |")


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=["digits", "mnist"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=50, help="of the study")
    parser.add_argument("--random", type=int, default=30, help="random configurations")
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--table", metavar="FILE", help="print a table of measured lines")
    arguments = parser.parse_args()
    if arguments.table:
        print_table(arguments.table)
    else:
        run_all(arguments)


if __name__ == "__main__":
    main()
