"""The arena: aesearch against what a good engineer would write by hand, at equal cost.

    python benchmarks/arena.py > arena.jsonl            # everything; --help for less
    python benchmarks/arena.py --resume arena.jsonl >> arena.jsonl
    python benchmarks/arena.py --table arena.jsonl      # Markdown

aesearch goes first, with its defaults and a fixed number of trials; the processor seconds of
its search and retraining (its evaluation of the test set and its report left out) are then
the budget of every peer. All are judged by the test MSE per pixel of the network that they
deliver; the test images are looked at once, after the clock has stopped. Each method has a
process of its own with one thread. Prints one JSON line per (data set, size, seed, method).
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path

import arena_peers
import numpy as np
import torch
from arena_training import processor_seconds

OURS, BASELINE = "aesearch", "pca"
REQUIRES = {"halving": "skorch", "smac": "smac"}
VERSIONS_OF = ("aesearch", "torch", "optuna", "scikit-learn", "skorch", "smac")
# One thread, and freed memory kept for the next minibatch: aesearch sets this for itself.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
POLL_S = 0.05
SIGNIFICANT = 0.05

# ------------------------------------------------------------------------ data sets


def digits(_data_dir):
    """The 8x8 digits of scikit-learn, a fifth of them for the test."""
    from sklearn.datasets import load_digits

    images = np.round(load_digits().images / 16 * 255).astype(np.uint8)[:, None]
    order = np.random.default_rng(0).permutation(len(images))
    n_test = len(images) // 5
    return images[order[n_test:]], images[order[:n_test]]


def idx(data_dir, folder):
    """The first 5,000 training images of an MNIST-like set, and its test images."""

    def read(part):
        content = (Path(data_dir) / folder / "raw" / f"{part}-images-idx3-ubyte").read_bytes()
        return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 1, 28, 28)

    return read("train")[:5000], read("t10k")


def patches(_data_dir):
    """Colour patches of 16x16 of scikit-learn's two photographs, none overlapping another.

    The photographs are cut into ten vertical bands of four patches; the third and the eighth
    band are the test.
    """
    from sklearn.datasets import load_sample_images

    train, test = [], []
    for photograph in load_sample_images().images:
        height, width, _ = photograph.shape
        for top in range(0, height - 15, 16):
            for left in range(0, width - 15, 16):
                patch = photograph[top : top + 16, left : left + 16].transpose(2, 0, 1)
                (test if left // 64 % 5 == 2 else train).append(patch)
    return np.stack(train), np.stack(test)


DATASETS = {
    "digits": digits,
    "mnist": functools.partial(idx, folder="MNIST"),
    "fashion-mnist": functools.partial(idx, folder="FashionMNIST"),
    "patches": patches,
}


def flat(images):
    """Images (sample, channel, height, width) of bytes as a tensor (sample, pixel) in [0, 1]."""
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255)


def mean_squared_error(reconstructions, images):
    """Per pixel, over all images."""
    difference = np.asarray(reconstructions, np.float64) - np.asarray(images, np.float64)
    return float((difference**2).mean())


# -------------------------------------------------------------------------- methods


class Watch(threading.Thread):
    """Processor seconds at which a run's worker begins to search, and to evaluate.

    A run's own measure would count imports and the evaluation. Its worker's log says when
    work of a kind begins; ``/proc`` says how long the worker has computed.

    Attributes
    ----------
    search_began, evaluation_began : float or None
        None until then, and where there is no ``/proc``.
    """

    def __init__(self, log):
        super().__init__(daemon=True)
        self.search_began = self.evaluation_began = None
        self._log = log
        self._stopped = threading.Event()

    def run(self):
        """Look until both have begun."""
        while self.evaluation_began is None and not self._stopped.wait(POLL_S):
            said = self._log.read_text() if self._log.exists() else ""
            if self.search_began is None and ", search 0: attempt" in said:
                self.search_began = processor_seconds() + running_children_seconds()
            if ", evaluate 0: attempt" in said:
                self.evaluation_began = processor_seconds() + running_children_seconds()

    def stop(self):
        """End the thread."""
        self._stopped.set()
        self.join()


def running_children_seconds():
    """Seconds that the children of this process which still run have computed."""
    own, seconds = str(os.getpid()), 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may hold anything, in brackets.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if fields[1] == own:
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def ours(train, test, size, seed, trials):
    """Run aesearch as a person would, in one worker and a store of its own."""
    import aesearch

    search = aesearch.search  # imports what it needs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "images.npz", x_train=train, x_test=test)
        watch = Watch(folder / "run" / "worker-1.log")
        began = processor_seconds()
        watch.start()
        found = search(
            dataset=folder / "images.npz",
            set=[f"space.encoding_dim.choices=[{size}]"],
            trials=trials,
            seed=seed,
            study="arena",
            storage=str(folder / "arena.db"),
            out=folder / "run",
            workers=1,
            quiet=True,
        )
        ended = processor_seconds()
        watch.stop()
        is_separate = None not in (watch.search_began, watch.evaluation_began)
        if is_separate:
            began, ended = watch.search_began, watch.evaluation_began
        return {
            "test_mse": mean_squared_error(aesearch.reconstruct(found.model, test), test / 255),
            "validation_mse": found.value,
            "processor_seconds": ended - began,
            "with_imports_and_evaluation": not is_separate,
            "configurations": len(found.trials),
        }


def principal_components(train, test, size):
    """Reconstruct from principal components of all training images, clipped to [0, 1]."""
    from sklearn.decomposition import PCA

    began = processor_seconds()
    fitted = PCA(size, svd_solver="covariance_eigh").fit(flat(train).numpy())
    seconds = processor_seconds() - began
    images = flat(test).numpy()
    again = fitted.inverse_transform(fitted.transform(images)).clip(0, 1)
    return {"test_mse": mean_squared_error(again, images), "processor_seconds": seconds}


def peer(method, train, test, size, *, seed, seconds):
    """Let a peer compete, then look at the test images."""
    delivered = arena_peers.compete(method, flat(train), size, seed, seconds)
    images = flat(test)
    with torch.no_grad():
        again = delivered.model(images)
    return {
        "test_mse": mean_squared_error(again, images),
        "validation_mse": delivered.validation_mse,
        "processor_seconds": delivered.processor_seconds,
        "budget_seconds": seconds,
        "configurations": delivered.configurations,
    }


def measure(arguments):
    """Measure one method in this process; one JSON line."""
    train, test = DATASETS[arguments.dataset](arguments.data_dir)
    method, size, seed = arguments.method, arguments.size, arguments.seed
    if method == OURS:
        found = ours(train, test, size, seed, arguments.trials)
    elif method == BASELINE:
        found = principal_components(train, test, size)
    else:
        found = peer(method, train, test, size, seed=seed, seconds=arguments.seconds)
    n_images = {"n_train": len(train), "n_test": len(test)}
    return found | n_images | {"versions": versions(), "machine": machine()}


def versions():
    """Versions of what was measured, as far as it is installed."""
    found = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine():
    """Name the processor."""
    return platform.processor() or platform.machine()


# ------------------------------------------------------------------------- schedule


def run_all(arguments):
    """Measure every method in a process of its own, aesearch first, and print the lines."""
    done = {key_of(line): line for line in read_lines(arguments.resume) if "test_mse" in line}
    peers = []
    for method in arguments.peers:
        library = REQUIRES.get(method.partition("+")[0])
        if library is not None and importlib.util.find_spec(library) is None:
            print(json.dumps({"method": method, "missing": f"{library} is not installed"}))
        else:
            peers.append(method)
    for dataset in arguments.datasets:
        for size in arguments.sizes:
            for seed in range(arguments.seeds):
                budget = arguments.seconds
                baseline = [BASELINE] if seed == 0 else []
                for method in (OURS, *baseline, *peers):
                    key = {"dataset": dataset, "size": size, "seed": seed, "method": method}
                    line = done.get(key_of(key))
                    if line is None:
                        line = key | in_own_process(key, budget, arguments)
                        print(json.dumps(line), flush=True)
                    if method == OURS and budget is None:
                        if "test_mse" not in line:
                            break  # no budget for the peers
                        budget = line["processor_seconds"]


def key_of(line):
    """Say which measurement a line is."""
    return tuple(line.get(name) for name in ("dataset", "size", "seed", "method"))


def in_own_process(key, seconds, arguments):
    """Measure in a fresh process; what failed is a line too."""
    command = [sys.executable, __file__, "--data-dir", arguments.data_dir]
    command += ["--trials", str(arguments.trials)]
    for name, value in (key | {"seconds": seconds}).items():
        command += [] if value is None else [f"--{name}", str(value)]
    environment = os.environ | ENVIRONMENT
    finished = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if finished.returncode:
        return {"error": (finished.stderr.strip().splitlines() or ["it was killed"])[-1]}
    return json.loads(finished.stdout.strip().splitlines()[-1])


def read_lines(path):
    """Read the JSON lines of a file, if there is one."""
    if path is None or not Path(path).exists():
        return []
    return [
        json.loads(line) for line in Path(path).read_text().splitlines() if line.startswith("{")
    ]


# ---------------------------------------------------------------------------- table


def print_table(path):
    """Print the results of a file in Markdown, a table for each data set and size."""
    cells = defaultdict(lambda: defaultdict(dict))
    for line in read_lines(path):
        if "test_mse" in line:
            cells[line["dataset"], line["size"]][line["method"]][line["seed"]] = line
        elif "missing" in line:
            print(f"{line['method']}: {line['missing']}\n")
        else:
            print(f"{' '.join(map(str, key_of(line)))} failed: {line['error']}\n")
    for (dataset, size), methods in cells.items():
        print_cell(f"{dataset}, {size} numbers of code", methods)


def print_cell(title, methods):
    """Print one table, the best method first and everybody held against it (Welch's t-test)."""
    from scipy.stats import ttest_ind

    baseline = methods.pop(BASELINE, {})
    errors = {
        name: [line["test_mse"] for line in lines.values()] for name, lines in methods.items()
    }
    ranked = sorted(errors, key=lambda name: statistics.fmean(errors[name]))
    print(f"### {title}\n")
    print("| method | test MSE per pixel | seeds | against the best | configurations | seconds |")
    print("|---|---|---|---|---|---|")
    for name in ranked:
        values, best = errors[name], errors[ranked[0]]
        mean = statistics.fmean(values)
        shown = f"{mean:.5f}"
        if len(values) > 1:
            shown += f" ± {statistics.stdev(values):.5f}"
        verdict = f"{mean / statistics.fmean(best) - 1:+.1%}"
        if name == ranked[0]:
            name_shown, shown, verdict = f"**{name}**", f"**{shown}**", "**best**"
        else:
            name_shown = name
            if min(len(values), len(best)) > 1:
                p = ttest_ind(values, best, equal_var=False).pvalue
                verdict += f", p = {p:.2g}" + (" (**tie**)" if p >= SIGNIFICANT else "")
        lines = methods[name].values()
        configurations = statistics.fmean(line["configurations"] for line in lines)
        seconds = statistics.fmean(line["processor_seconds"] for line in lines)
        row = (name_shown, shown, len(values), verdict, f"{configurations:.0f}", f"{seconds:.1f}")
        print(f"| {' | '.join(map(str, row))} |")
    for line in baseline.values():
        print(f"| PCA of the same size | {line['test_mse']:.5f} | | | | |")
    print()


def main():
    """Measure everything, or one method, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="budget of the peers instead of aesearch's")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=arena_peers.METHODS,
        default=arena_peers.METHODS,
        help="beside aesearch and PCA",
    )
    parser.add_argument("--trials", type=int, default=50, help="of aesearch")
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--resume", metavar="FILE", help="leave out what this file holds already")
    parser.add_argument("--table", metavar="FILE", help="print the results in this file, instead")
    # One measurement in this process.
    parser.add_argument("--method", help=argparse.SUPPRESS)
    for name, kind in (("dataset", str), ("size", int), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.table:
        print_table(arguments.table)
    elif arguments.method:
        print(json.dumps(measure(arguments)))
    else:
        run_all(arguments)


if __name__ == "__main__":
    main()
