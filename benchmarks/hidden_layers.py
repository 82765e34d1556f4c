"""What hidden layers are worth on the whole of MNIST: the table in docs/decisions.md, 30.

    python benchmarks/hidden_layers.py                                   # the widths
    python benchmarks/hidden_layers.py --hidden 512-256 --set training.weight_decay=0.3

Trains one network of the default configuration on all training images less the held-out tenth, 20
epochs, and prints one JSON line per width and size: mean squared error on the held-out tenth, and
the processor seconds of one thread.
"""

import argparse
import json
import os

from arena import machine, versions

WIDTHS = ("392", "256-256", "392-196", "512-256", "392-392", "784-392", "512-512", "392-392-392")


def measure(hidden, size, epochs, arguments):
    """Train one network; its held-out error and what it took."""
    from aesearch.data.study_data import load_problem
    from aesearch.seeds import derive_seed
    from aesearch.studies.spec.load import load_spec
    from aesearch.training.members import build_member, build_population
    from aesearch.training.memory import images_for

    overrides = [
        f"data.data_dir={arguments.data_dir}",
        f"model.dense.hidden={hidden}",
        f"model.encoding_dim={size}",
        "space.encoding_dim=null",
        "training.weight_decay=0.1",
        *arguments.set,
    ]
    problem = load_problem(load_spec(preset="mnist", overrides=overrides), device="cpu")
    configuration = problem.spec.configuration({})
    seed = derive_seed(problem.spec.seed, "retrain", 0)
    member = build_member(configuration, seed, *problem.holdout_indices())
    images = images_for(problem, "cpu")
    population = build_population(problem, images, [member], configuration, epochs=epochs)
    began = os.times()
    for _ in range(epochs):
        losses = population.run_epoch()
    ended = os.times()
    return {
        "mse": float(losses.validation[0]),
        "processor_seconds": ended.user + ended.system - began.user - began.system,
    }


def main():
    """Parse the command line and measure."""
    from aesearch.models.runtime import prepare_process

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hidden", nargs="+", default=WIDTHS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 8])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data-dir", default="../shared/data")
    arguments = parser.parse_args()
    prepare_process(1)
    about = {"settings": arguments.set, "versions": versions(), "machine": machine()}
    for size in arguments.sizes:
        for hidden in arguments.hidden:
            found = measure(hidden, size, arguments.epochs, arguments)
            print(json.dumps({"hidden": hidden, "size": size} | found | about), flush=True)


if __name__ == "__main__":
    main()
