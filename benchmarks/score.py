"""What a trial's score should be: the last epoch, or the mean of the last few.

Trains random configurations of the default space again and again with other seeds, without
pruning, and asks of each way to score: how much of the spread between trials is noise, and
how much worse than the best is the configuration that one replicate would choose?

    python benchmarks/score.py                                  # digits
    python benchmarks/score.py --dataset mnist --data-dir DIR --limit 6000 --configurations 16

Prints one JSON line per way to score.
"""

import argparse
import json
import platform
import time

import numpy as np
import torch

from aesearch.data.study_data import load_problem
from aesearch.models.runtime import prepare_process
from aesearch.sampling.suggest import suggest
from aesearch.seeds import derive_seed
from aesearch.studies.spec.load import load_spec
from aesearch.training.members import build_member, build_population
from aesearch.training.memory import images_for

WINDOWS = (1, 2, 3, 5, 8)


def curves(arguments):
    """Validation curves (configuration, replicate, fold, epoch), and the configurations."""
    overrides = [f"data.dataset={arguments.dataset}", "search.sampler=random"]
    overrides += [f"training.epochs={arguments.epochs}"]
    if arguments.precision:
        overrides.append(f"compute.precision={arguments.precision}")
    if arguments.architecture:
        overrides.append(f"space.architecture={{choices: [{arguments.architecture}]}}")
    if arguments.data_dir:
        overrides.append(f"data.data_dir={arguments.data_dir}")
    if arguments.limit:
        overrides.append(f"data.limit={arguments.limit}")
    problem = load_problem(load_spec(overrides=overrides), device=arguments.device)
    spec, images = problem.spec, images_for(problem, arguments.device)
    n = arguments.configurations
    configurations = [spec.configuration(p) for p in suggest(spec, 0, range(1, n + 1), [], [])]
    shape = (n, arguments.replicates, spec.search.folds)
    found = np.zeros((*shape, arguments.epochs))
    for kind in ("dense", "conv"):
        cells = [cell for cell in np.ndindex(shape) if configurations[cell[0]].architecture == kind]
        for start in range(0, len(cells), arguments.population):
            part = cells[start : start + arguments.population]
            members = [
                build_member(
                    configurations[c],
                    derive_seed(spec.seed, "score", c, replicate, fold),
                    *problem.fold_indices(fold),
                )
                for c, replicate, fold in part
            ]
            first = configurations[part[0][0]]
            population = build_population(problem, images, members, first, epochs=arguments.epochs)
            for epoch in range(arguments.epochs):
                losses = population.run_epoch().validation.numpy()
                for cell, loss in zip(part, losses, strict=True):
                    found[(*cell, epoch)] = loss
    return found, configurations


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--configurations", type=int, default=16)
    parser.add_argument("--replicates", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--population", type=int, default=48)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision")
    parser.add_argument("--architecture", choices=("dense", "conv"))
    arguments = parser.parse_args()
    prepare_process(1)
    began = time.perf_counter()
    found, _ = curves(arguments)
    # The truth a score estimates: the mean final loss of a configuration over all its seeds.
    truth = found[..., -1].mean(axis=(1, 2))
    for window in WINDOWS:
        scores = found[..., -window:].mean(axis=(2, 3))  # (configuration, replicate)
        noise = scores.std(axis=1, ddof=1)
        chosen = scores.argmin(axis=0)
        regret = truth[chosen] - truth.min()
        print(
            json.dumps(
                {
                    "score": f"mean of the last {window} epochs" if window > 1 else "last epoch",
                    "noise_relative": round(float(np.median(noise / scores.mean(axis=1))), 4),
                    "noise_relative_worst": round(float((noise / scores.mean(axis=1)).max()), 4),
                    "regret_relative": round(float(regret.mean() / truth.min()), 4),
                    "right_choice": round(float((chosen == truth.argmin()).mean()), 3),
                    "dataset": arguments.dataset,
                    "configurations": arguments.configurations,
                    "replicates": arguments.replicates,
                    "folds": found.shape[2],
                    "epochs": arguments.epochs,
                    "seconds": round(time.perf_counter() - began, 1),
                    "torch": torch.__version__,
                    "machine": platform.processor() or platform.machine(),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
