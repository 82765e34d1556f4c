"""Whether bfloat16 changes what a search finds: its fold scores against those of other seeds.

Trains random dense configurations of the default space in float32 and in bfloat16, with the
same seeds, and compares the shift of a trial's score with how far seeds alone scatter it.

    python benchmarks/precision.py                                           # digits
    python benchmarks/precision.py --dataset mnist --data-dir DIR --limit 6000

Prints one JSON line per learning-rate range, and one over all configurations.
"""

import argparse
import copy
import json

import numpy as np
import torch
from score import curves

from aesearch.models.runtime import prepare_process

LAST_EPOCHS = 3
RANGES = ((0.0, 1e-3), (1e-3, 3e-3), (3e-3, 1.0), (0.0, 1.0))


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--architecture", choices=("dense", "conv"), default="dense")
    parser.add_argument("--configurations", type=int, default=12)
    parser.add_argument("--replicates", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--population", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    prepare_process(1)
    scores = {}
    for precision in ("float32", "bfloat16"):
        asked = copy.copy(arguments)
        asked.precision = precision
        found, configurations = curves(asked)
        # A trial's score: (configuration, replicate), the mean over folds and last epochs.
        scores[precision] = found[..., -LAST_EPOCHS:].mean(axis=(2, 3))
    rates = np.array([configuration.learning_rate for configuration in configurations])
    spread = scores["float32"].std(axis=1, ddof=1)
    shift = scores["bfloat16"].mean(axis=1) - scores["float32"].mean(axis=1)
    single = np.abs(scores["bfloat16"] - scores["float32"])
    mean = scores["float32"].mean(axis=1)
    for low, high in RANGES:
        inside = (rates >= low) & (rates < high)
        if not inside.any():
            continue
        print(
            json.dumps(
                {
                    "learning_rate": [low, high],
                    "configurations": int(inside.sum()),
                    "replicates": arguments.replicates,
                    # Systematic: the mean over replicates; in units of one seed's scatter.
                    "shift_in_seed_deviations": round(
                        float(np.median(shift[inside] / spread[inside])), 3
                    ),
                    "worst_shift_in_seed_deviations": round(
                        float(np.abs(shift / spread)[inside].max()), 3
                    ),
                    "same_seed_difference_in_seed_deviations": round(
                        float(np.median(single[inside] / spread[inside, None])), 3
                    ),
                    "shift_relative": round(float(np.median(shift[inside] / mean[inside])), 5),
                    "seed_deviation_relative": round(
                        float(np.median(spread[inside] / mean[inside])), 5
                    ),
                    "same_winner": bool(
                        scores["float32"].mean(axis=1).argmin()
                        == scores["bfloat16"].mean(axis=1).argmin()
                    ),
                    "dataset": arguments.dataset,
                    "architecture": arguments.architecture,
                    "limit": arguments.limit,
                    "epochs": arguments.epochs,
                    "torch": torch.__version__,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
