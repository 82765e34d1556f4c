"""Whether a delivered network is ever worse than principal components of its size.

    python benchmarks/against_pca.py > against_pca.jsonl          # --help for less
    python benchmarks/against_pca.py --table against_pca.jsonl    # Markdown

Trains the default configuration of each size from ten seeds, each as the winner of a study is
retrained, and measures it on the test images, beside principal components of all training images
(the network has a tenth fewer, which stop it). Prints one JSON line per data set, size and seed.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from arena import DATASETS, machine, principal_components, read_lines, versions


def run_all(arguments):
    """Measure every data set, size and seed; one JSON line each."""
    from aesearch.data.study_data import load_problem
    from aesearch.evaluation.metrics import mean_squared_error
    from aesearch.models.runtime import prepare_process
    from aesearch.studies.spec.load import spec_from_mapping
    from aesearch.training.memory import images_for
    from aesearch.training.retrain import retrain

    prepare_process(1)
    about = {"versions": versions(), "machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        for dataset in arguments.datasets:
            path = Path(name) / f"{dataset}.npz"
            images, test = DATASETS[dataset](arguments.data_dir)
            np.savez(path, x_train=images, x_test=test)
            for size in arguments.sizes:
                pca = principal_components(images, test, size)["test_mse"]
                for seed in range(arguments.seeds):
                    document = {
                        "seed": seed,
                        "data": {"dataset": str(path)},
                        "model": {"encoding_dim": size},
                        "space": {"encoding_dim": None},
                    }
                    problem = load_problem(spec_from_mapping(document, "it"), device="cpu")
                    (one,) = retrain(
                        problem,
                        images_for(problem, "cpu"),
                        problem.spec.configuration({}),
                        [0],
                        on_epoch=lambda *_: None,
                    )
                    line = {"dataset": dataset, "size": size, "seed": seed, "pca": pca}
                    line["test_mse"] = mean_squared_error(one.model, problem.test_images)
                    line["best_epoch"] = one.best_epoch
                    print(json.dumps(line | about), flush=True)


def print_table(path):
    """Print the errors of a file over those of principal components in Markdown."""
    cells = defaultdict(list)
    for line in read_lines(path):
        cells[line["dataset"], line["size"]].append(line["test_mse"] / line["pca"] - 1)
    print("| data | size | seeds | against PCA, mean | worst |")
    print("|---|---|---|---|---|")
    for (dataset, size), found in cells.items():
        mean = f"{statistics.fmean(found):+.1%}"
        print(f"| {dataset} | {size} | {len(found)} | {mean} | {max(found):+.1%} |")


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[2, 8, 32])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--table", metavar="FILE", help="print a table of measured lines")
    arguments = parser.parse_args()
    if arguments.table:
        print_table(arguments.table)
    else:
        run_all(arguments)


if __name__ == "__main__":
    main()
