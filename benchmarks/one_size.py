"""What a study of several code sizes finds at each, against a study of that size alone.

    python benchmarks/one_size.py > one_size.jsonl            # --help for less
    python benchmarks/one_size.py --table one_size.jsonl      # Markdown

A study of 50 trials searches the code sizes 4, 8, 16 and 32 at once; four others have one of these
sizes each, and 50 trials for it alone. Both are judged by the score over the folds of the best
trial of the size: how much higher it is where the sizes share the trials. Prints one JSON line per
data set, seed and size; one worker with one thread.
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


def best_by_size(path, sizes, seed, trials, folder):
    """Search; the lowest score of each size, and the processor seconds of it all."""
    import aesearch

    name = "-".join(map(str, sizes))
    began = os.times()
    found = aesearch.search(
        dataset=path,
        set=[f"space.encoding_dim.choices={list(sizes)}", "retrain.seeds=1"],
        trials=trials,
        seed=seed,
        study=f"sizes-{name}",
        storage=str(folder / f"sizes-{name}-{seed}.db"),
        out=folder / f"run-{name}-{seed}",
        workers=1,
        quiet=True,
    )
    ended = os.times()
    scores = defaultdict(list)
    for row in found.trials.itertuples():
        if row.state == "complete" and row.reason is None:
            scores[int(row.encoding_dim)].append(row.value)
    busy = sum(getattr(ended, part) - getattr(began, part) for part in _PARTS)
    return {size: min(values) for size, values in scores.items()}, busy


_PARTS = ("user", "system", "children_user", "children_system")


def run_all(arguments):
    """Measure every data set, seed and size; one JSON line each."""
    about = {"versions": versions(), "machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        for dataset in arguments.datasets:
            path = Path(name) / f"{dataset}.npz"
            images, test = DATASETS[dataset](arguments.data_dir)
            np.savez(path, x_train=images, x_test=test)
            for seed in range(arguments.seeds):
                told = (seed, arguments.trials, Path(name))
                together, seconds = best_by_size(path, arguments.sizes, *told)
                for size in arguments.sizes:
                    alone, alone_seconds = best_by_size(path, [size], *told)
                    line = {"dataset": dataset, "seed": seed, "size": size}
                    line |= {"together": together[size], "alone": alone[size]}
                    line |= {"seconds": seconds, "alone_seconds": alone_seconds}
                    print(json.dumps(line | about), flush=True)


def print_table(path):
    """Print the scores of a file in Markdown."""
    cells = defaultdict(list)
    for line in read_lines(path):
        cells[line["dataset"], line["size"]].append(line)
    print(
        "| data | size | sizes together | size alone | higher by seed | seconds, together / alone |"
    )
    print("|---|---|---|---|---|---|")
    for (dataset, size), lines in cells.items():
        scores = (statistics.fmean(line[key] for line in lines) for key in ("together", "alone"))
        shown = " | ".join(f"{value:.4g}" for value in scores)
        higher = ", ".join(f"{line['together'] / line['alone'] - 1:+.1%}" for line in lines)
        seconds = (
            statistics.fmean(line[key] for line in lines) for key in ("seconds", "alone_seconds")
        )
        told = " / ".join(f"{value:.0f}" for value in seconds)
        print(f"| {dataset} | {size} | {shown} | {higher} | {told} |")


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=["digits"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[4, 8, 16, 32])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--table", metavar="FILE", help="print a table of measured lines")
    arguments = parser.parse_args()
    if arguments.table:
        print_table(arguments.table)
    else:
        run_all(arguments)


if __name__ == "__main__":
    main()
