"""All speed measurements with one command: ours and the peers, each in processes of its own.

    python benchmarks/run.py --data-dir DIR              # everything
    python benchmarks/run.py --data-dir DIR --only dense # what contains a word
    python benchmarks/run.py --data-dir DIR --growth     # how the cost grows, instead

Prints one JSON line per measurement and, at the end, a table in Markdown. Peers use all
cores as threads of one process, on digits, too small for threads, as processes side by
side; ours uses one process of one thread per core, as a run does. Seconds per fold-epoch
are those of the machine: with two processes at work, half of what each takes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

PEERS = Path(__file__).with_name("peers.py")
WARM_UP_S = {"dense": 15.0, "conv": 25.0}


def measurements(cores):
    """Every measurement: a name, the arguments of ``peers.py``, and how many processes."""
    threads = ["--threads", str(cores)]
    one = ["--threads", "1"]
    for architecture in ("dense", "conv"):
        base = ["--dataset", "mnist", "--architecture", architecture]
        slow = ["--epochs", "2"]
        yield f"mnist {architecture} dataloader", [*base, *threads, *slow], "dataloader", 1
        yield f"mnist {architecture} resident", [*base, *threads], "resident", 1
        yield f"mnist {architecture} skorch", [*base, *threads, *slow], "skorch", 1
        yield f"mnist {architecture} lightning", [*base, *threads, *slow], "lightning", 1
        yield f"mnist {architecture} population", [*base, *one], "population", cores
        bfloat16 = ["--precision", "bfloat16"]
        yield (
            f"mnist {architecture} population bfloat16",
            [*base, *one, *bfloat16],
            "population",
            cores,
        )
    for architecture in ("dense", "conv"):
        base = ["--dataset", "digits", "--architecture", architecture, "--batch-size", "32"]
        base += ["--epochs", "5"]
        yield f"digits {architecture} dataloader", [*base, *one], "dataloader", cores
        yield f"digits {architecture} resident", [*base, *one], "resident", cores
        yield (
            f"digits {architecture} population of 15",
            [*base, *one, "--members", "15"],
            "population",
            cores,
        )


def growth():
    """How the cost grows: what varies, its value, the arguments, and the way."""
    digits = ["--dataset", "digits", "--batch-size", "32", "--epochs", "2", "--threads", "1"]
    mnist = ["--dataset", "mnist", "--epochs", "2", "--threads", "1"]
    for architecture in ("dense", "conv"):
        kind = ["--architecture", architecture]
        for members in (1, 4, 16, 64, 256):
            extra = [*digits, *kind, "--members", str(members)]
            yield f"members, digits {architecture}", members, extra, "population"
        extra = [*digits, *kind]
        yield f"members, digits {architecture}", "resident loop", extra, "resident"
    for members in (1, 4, 16, 64, 256):
        extra = [*mnist, "--images", "1500", "--members", str(members)]
        yield "members, 1,500 of MNIST, dense", members, extra, "population"
    yield (
        "members, 1,500 of MNIST, dense",
        "resident loop",
        [*mnist, "--images", "1500"],
        "resident",
    )
    for folds in (2, 3, 5, 10):
        extra = [*digits, "--folds", str(folds), "--members", str(5 * folds)]
        yield "folds, digits dense, 5 trials", folds, extra, "population"
    for images in (1_000, 10_000, 60_000, 240_000):
        extra = [*mnist, "--images", str(images)]
        for way in ("population", "resident"):
            yield f"images, MNIST dense, {way}", images, extra, way


def growth_table(data_dir, machine):
    """Measure how the cost grows and tabulate it; one process of one thread each."""
    rows = []
    for what, value, extra, way in growth():
        found = measure(way, extra, 1, data_dir)
        print(json.dumps({"varies": what, "value": value} | found | machine), flush=True)
        rows.append((what, value, found))
    print("\n| what varies | value | s per fold-epoch | us per image | MB |")
    print("|---|---|---|---|---|")
    for what, value, found in rows:
        seconds = found["seconds_per_fold_epoch"]
        microseconds = 1e6 * seconds / found["images"]
        megabytes = found["peak_bytes"] / 2**20
        shown = f"{value:,}" if isinstance(value, int) else value
        print(f"| {what} | {shown} | {seconds:.4g} | {microseconds:.3g} | {megabytes:.0f} |")


def measure(way, arguments, n_processes, data_dir):
    """Run one measurement in fresh processes that start together; seconds of the machine."""
    command = [sys.executable, str(PEERS), "--way", way, "--data-dir", data_dir, *arguments]
    if n_processes > 1:
        warm_up = WARM_UP_S["conv" if "conv" in arguments else "dense"]
        command += ["--start-at", str(time.time() + warm_up)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n_processes)
    ]
    lines = [json.loads(process.communicate()[0].strip().splitlines()[-1]) for process in processes]
    first = lines[0]
    if "missing" not in first:
        seconds = sum(line["seconds_per_fold_epoch"] for line in lines) / n_processes**2
        first |= {
            "seconds_per_fold_epoch": seconds,
            "processes": n_processes,
            "peak_bytes": max(line["peak_bytes"] for line in lines),
        }
    return first


def product_rate(dtype, threads):
    """Return the fastest measured rate of the products of MNIST 784-392, in GFLOP/s.

    Both the library behind ``torch.matmul`` and oneDNN's linear operator are tried: the
    limit is what this machine can do, not what one library does.
    """
    torch.set_num_threads(threads)
    left, right = torch.randn(1000, 784, dtype=dtype), torch.randn(392, 784, dtype=dtype)
    ways = [lambda: left @ right.t()]
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if linear is not None:
        ways.append(lambda: linear(left, right, None, "none", [], ""))
    best = 0.0
    for way in ways:
        for _ in range(10):
            way()
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(50):
                way()
            rate = 50 * 2 * 1000 * 784 * 392 / (time.perf_counter() - began) / 1e9
            best = max(best, rate)
    return best


def dense_gflop():
    """Arithmetic of one fold-epoch of 784-392-16 on 40,000 + 20,000 images."""
    multiplications = 2 * (784 * 392 + 392 * 16)
    # Forward, and backward twice that, but for the gradient of the images, which nobody needs.
    train = 3 * multiplications - 784 * 392
    return 2 * (40_000 * train + 20_000 * multiplications) / 1e9


def main():
    """Measure, print, and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--only", default="", help="a word in the measurement's name")
    parser.add_argument("--growth", action="store_true", help="how the cost grows, instead")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    machine = {"machine": platform.machine(), "cores": cores, "torch": torch.__version__}
    if arguments.growth:
        growth_table(arguments.data_dir, machine)
        return
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        rates[name] = product_rate(dtype, cores)
        print(json.dumps({"limit": name, "gflop_per_s": round(rates[name], 1)} | machine))
    rows = []
    for name, extra, way, n_processes in measurements(cores):
        if arguments.only not in name:
            continue
        found = measure(way, extra, n_processes, arguments.data_dir)
        print(json.dumps({"name": name} | found | machine), flush=True)
        rows.append((name, found))
    head = ("measurement", "s per fold-epoch", "x dataloader", "x resident", "of the limit")
    print(f"\n| {' | '.join(head)} | MB per process |")
    print("|---|---|---|---|---|---|")
    for name, found in rows:
        if "missing" in found:
            print(f"| {name} | not installed | | | | |")
            continue
        seconds = found["seconds_per_fold_epoch"]
        ratios = []
        for peer in ("dataloader", "resident"):
            prefix = " ".join(name.split()[:2])
            other = dict(rows).get(f"{prefix} {peer}")
            ratios.append(f"{other['seconds_per_fold_epoch'] / seconds:.2f}" if other else "")
        share = ""
        if name.startswith("mnist dense"):
            share = f"{dense_gflop() / rates[found['precision']] / seconds:.0%}"
        megabytes = found["peak_bytes"] / 2**20
        print(f"| {name} | {seconds:.4g} | {' | '.join(ratios)} | {share} | {megabytes:.0f} |")


if __name__ == "__main__":
    main()
