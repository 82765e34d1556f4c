"""How often ordinary images get a small p-value, for each way to calibrate.

    python benchmarks/odd.py > odd.jsonl         # everything; --help for less
    python benchmarks/odd.py --table odd.jsonl   # Markdown

In each split images are drawn for training and for testing. A network of the default
configuration is trained as a study delivers it, and one for each of three folds; the test images
are ordinary, so that of them a share of 0.01 should have a p-value of at most 0.01, and 0.05 one of
at most 0.05. Prints one JSON line per split:

- ``held-out``: against the delivered network's errors of the tenth that stopped its training
- ``out-of-fold``: against errors of all training images by the networks of the folds, as they are
- ``scaled``: those, at the scale of the delivered network; what aesearch does below 20,000 images
- ``cross-conformal``: by the network of each fold, against the errors of that fold
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from arena import machine, versions

LEVELS = (0.01, 0.05)
# Training images, test images, seeds of which the best is delivered, epochs at most.
SIZES = {
    "digits": (1438, 359, 3, "auto"),
    "mnist": (2000, 5000, 1, 30),
    "fashion-mnist": (2000, 5000, 1, 8),
}


def all_images(name, data_dir):
    """Every image of a data set: (sample, height, width), uint8."""
    if name == "digits":
        from sklearn.datasets import load_digits

        return np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    from aesearch.data.load import load

    found = load(name, data_dir)
    return np.concatenate([found.images, found.test_images])[:, 0]


def split(name, images, seed, encoding_dim):
    """A problem on images drawn at random, and other images to test on."""
    from aesearch.models.runtime import has_fast_bfloat16
    from aesearch.sklearn.tables import layout_of, problem_of
    from aesearch.studies.spec.load import spec_from_mapping

    n_train, n_test, n_seeds, max_epochs = SIZES[name]
    order = np.random.default_rng(seed + 1000).permutation(len(images))[: n_train + n_test]
    document = {
        "seed": seed,
        "model": {"encoding_dim": encoding_dim},
        "space": {"architecture": None, "encoding_dim": None},
        "retrain": {"seeds": n_seeds, "max_epochs": max_epochs},
    }
    values = images[order[:n_train]].reshape(n_train, -1) / 255.0
    problem = problem_of(
        values,
        layout_of(images.shape[1:], values.shape[1]),
        (0.0, 1.0),
        spec_from_mapping(document, name),
        "cpu",
        fast_bfloat16=has_fast_bfloat16(),
    )
    return problem, images[order[n_train:], None]


def p_values(errors, calibration):
    """Conformal p-values, counted."""
    n_smaller = np.searchsorted(np.sort(calibration), errors, side="left")
    return (1 + len(calibration) - n_smaller) / (len(calibration) + 1)


def measure(problem, test):
    """The share of test images at or below each level, by each way to calibrate."""
    from aesearch.evaluation.metrics import image_errors
    from aesearch.studies.results.calibration import scaled_to
    from aesearch.training.memory import images_for
    from aesearch.training.out_of_fold import fold_networks, unseeing_of
    from aesearch.training.retrain import retrain

    configuration = problem.spec.configuration({})
    images = images_for(problem, "cpu")
    seeds = range(problem.spec.retrain.seeds)
    trained = retrain(problem, images, configuration, seeds, on_epoch=lambda *_: None)
    found = min(trained, key=lambda seed: seed.validation_loss)
    train, held_out = problem.holdout_indices()
    unseeing = unseeing_of(found.model, problem, configuration, train, held_out)
    delivered = image_errors(unseeing, problem.images[held_out])
    errors, ranks = np.empty(len(problem.images)), np.zeros(len(test))
    for fold, network in fold_networks(problem, configuration):
        of_fold = problem.fold_indices(fold)[1]
        errors[of_fold] = image_errors(network, problem.images[of_fold])
        ranks += p_values(image_errors(network, test), errors[of_fold]) * (len(of_fold) + 1) - 1
    new = image_errors(found.model, test)
    found = {
        "held-out": p_values(new, delivered),
        "out-of-fold": p_values(new, errors),
        "scaled": p_values(new, scaled_to(errors, delivered, errors[held_out])),
        "cross-conformal": (1 + ranks) / (1 + len(errors)),
    }
    return {
        name: {str(level): float((values <= level).mean()) for level in LEVELS}
        for name, values in found.items()
    }


def print_table(path):
    """Mean over the splits and its standard error."""
    found = defaultdict(list)
    for text in Path(path).read_text().splitlines():
        line = json.loads(text)
        for way, shares in line["shares"].items():
            for level, share in shares.items():
                found[line["dataset"], way, level].append(share)
    ways = list(dict.fromkeys(way for _, way, _ in found))
    print("| images | level | " + " | ".join(ways) + " |")
    print("|---" * (len(ways) + 2) + "|")
    for dataset in dict.fromkeys(dataset for dataset, _, _ in found):
        for level in map(str, LEVELS):
            cells = []
            for way in ways:
                shares = found[dataset, way, level]
                error = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else 0.0
                cells.append(f"{statistics.fmean(shares):.4f} ± {error:.4f}")
            print(f"| {dataset} | {level} | " + " | ".join(cells) + " |")


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--splits", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--encoding-dim", type=int, default=16)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--table", metavar="FILE", help="print a table of measured lines")
    arguments = parser.parse_args()
    if arguments.table:
        print_table(arguments.table)
        return
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    about = {"versions": versions(), "machine": machine()}
    for name in arguments.datasets:
        images = all_images(name, arguments.data_dir)
        for seed in arguments.splits:
            shares = measure(*split(name, images, seed, arguments.encoding_dim))
            print(json.dumps({"dataset": name, "seed": seed, "shares": shares} | about), flush=True)


if __name__ == "__main__":
    main()
