"""Everything that is to be known of a GPU, with one command: tests, speed, memory, precision.

    python benchmarks/gpu.py --data-dir DIR                # on the first CUDA device
    python benchmarks/gpu.py --device cpu --small          # tries the command itself, in minutes

In this order: the tests of tensors on the device; recorded steps against launched ones, bit for
bit; the fastest rate of matrix products; MNIST with hand-written loops and with populations of
several sizes; memory computed from shapes against what was allocated; what precisions do to
losses, against what seeds do; where the time of a step goes; the training of all folds of all
trials as one population; a whole search. Prints one JSON line for each and, at the end, tables in
Markdown. Torch is enough for all but tests, DataLoader loop and search: those are left out, with
the reason, where a package is missing.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers
import torch
from run import dense_gflop

from aesearch.models.runtime import prepare_process
from aesearch.models.training import capture
from aesearch.models.training.memory import member_bytes
from aesearch.models.training.population import Member, Population, evaluation_size

ROOT = Path(__file__).resolve().parents[1]
# The network that a study of MNIST has by default.
DEFAULT = {
    "architecture": "dense",
    "channels": (16, 32, 64),
    "conv_hidden": 128,
    "code_activation": "linear",
    "activation": "gelu",
    "shortcut": "pca",
    "output": "clamp",
    "initialization": "torch",
    "averaging": 0.999,
    "optimizer": "adamw",
    "momentum": 0.9,
    "schedule": "none",
    "gamma": 0.95,
    "factor": 0.1,
    "patience": 10,
}
ENCODING_DIM = 32


def default_population(arguments, images, n_members, *, seeds=None, **changes):
    """Members of the default network: three folds in turn, other seeds."""
    pixels = images[0].numel()
    hidden = (max(128, pixels // 2), max(128, pixels // 2) // 2)
    n, members = len(images), []
    for number in range(n_members):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).roll(number * n // 3)
        members.append(
            Member(
                seed=number if seeds is None else seeds[number],
                learning_rate=3e-3,
                weight_decay=0.3,
                dropout=0.0,
                encoding_dim=ENCODING_DIM,
                hidden=hidden,
                train_indices=order[n // 3 :],
                validation_indices=order[: n // 3],
            )
        )
    settings = DEFAULT | {"epochs": 10**6, "batch_size": arguments.batch_size} | changes
    return Population(members, images.to(arguments.device), device=arguments.device, **settings)


def launched(function):
    """Call with nothing recorded: every step is launched by the host."""
    recorded = capture.can_capture
    capture.can_capture = lambda _: False
    try:
        return function()
    finally:
        capture.can_capture = recorded


def timed(arguments, run, n):
    """Mean seconds of a call, after one that warms up and one that is recorded."""
    for _ in range(2):
        run()
    times = []
    for _ in range(n):
        peers.synchronise(arguments.device)
        began = time.perf_counter()
        run()
        peers.synchronise(arguments.device)
        times.append(time.perf_counter() - began)
    return statistics.fmean(times)


def tests(arguments):
    """The tests that take a device, on it."""
    chosen = ["tests/models/test_models_products.py"] if arguments.small else ["tests/models"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--device", arguments.device, *chosen],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    failed = [line for line in lines if line.startswith("FAILED")]
    return {"said": lines[-1] if lines else "nothing", "failed": failed}


def equal_bits(arguments, images):
    """Recorded and launched steps: the weights after three epochs."""

    def train():
        population = default_population(arguments, images, 3)
        for _ in range(3):
            population.run_epoch()
        return population.all_weights()

    return {"recorded equals launched": bool(torch.equal(train(), launched(train)))}


def product_rates(arguments, n_members):
    """The fastest rates of a member's largest product, batched over members, in TFLOP/s."""
    found = {}
    rows = arguments.batch_size
    kinds = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
    for name, dtype in kinds.items():
        if name == "tf32" and arguments.device == "cpu":
            continue
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        left = torch.randn(n_members, rows, 784, dtype=dtype, device=arguments.device)
        right = torch.randn(n_members, 784, 392, dtype=dtype, device=arguments.device)
        repeats = 5 if arguments.small else 50

        def run(left=left, right=right, repeats=repeats):
            for _ in range(repeats):
                torch.bmm(left, right)

        seconds = min(timed(arguments, run, 1) for _ in range(3)) / repeats
        found[name] = round(2 * n_members * rows * 784 * 392 / seconds / 1e12, 3)
    torch.set_float32_matmul_precision("highest")
    return found


def loop(arguments, way, n_images):
    """A hand-written loop, in a process of its own."""
    command = [sys.executable, str(Path(peers.__file__)), "--way", way]
    command += ["--device", arguments.device, "--data-dir", arguments.data_dir]
    command += ["--batch-size", str(arguments.batch_size), "--dataset", arguments.dataset]
    command += ["--epochs", str(arguments.epochs), "--images", str(n_images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"missing": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def population(arguments, images, n_members, precision, *, records=True):
    """Seconds per fold-epoch of a population of the loops' network."""
    asked = argparse.Namespace(
        **vars(arguments) | {"members": n_members, "precision": precision, "threads": 1}
    )
    train, validation = peers.fold(len(images))

    def measure():
        run, _ = peers.population(asked, images, train, validation)
        return timed(arguments, run, arguments.epochs) / n_members

    return {"seconds_per_fold_epoch": measure() if records else launched(measure)}


def memory(arguments, images, n_members):
    """Bytes computed from shapes over bytes allocated."""
    n_train, n_validation = len(images) - len(images) // 3, len(images) // 3
    if arguments.device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    trained = default_population(arguments, images, n_members)
    trained.run_epoch()
    trained.run_epoch()
    size = evaluation_size(arguments.batch_size, images[0].numel())
    said = member_bytes(
        trained._layout.template,  # noqa: SLF001 - a benchmark may look inside
        optimizer="adamw",
        averaged=True,
        precision="float32",
        corrupted=False,
        batch_size=arguments.batch_size,
        evaluation_size=size,
        n_train=n_train,
        n_validation=n_validation,
    )
    found = {"members": n_members, "computed": n_members * (said.state + said.step)}
    if arguments.device != "cpu":
        allocated = torch.cuda.max_memory_allocated() - before - images.numel()
        found |= {"allocated": allocated, "reserved": torch.cuda.max_memory_reserved()}
    return found


def precisions(arguments, images):
    """What a precision changes of a validation loss, over what a seed does."""
    n_seeds = 3 if arguments.small else 8
    losses = {}
    for name in ("float32", "tf32", "bfloat16"):
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        kind = "bfloat16" if name == "bfloat16" else "float32"
        # One fold for all, so that seeds are all that differs.
        trained = default_population(
            arguments, images, 3 * n_seeds, seeds=range(3 * n_seeds), precision=kind
        )
        trained.keep(range(0, 3 * n_seeds, 3))
        for _ in range(arguments.epochs):
            last = trained.run_epoch()
        losses[name] = last.validation
    torch.set_float32_matmul_precision("highest")
    spread = float(losses["float32"].std())
    return {
        name: {
            "one seed, in deviations of seeds": float(
                (losses[name] - losses["float32"]).abs().median() / spread
            ),
            "mean of seeds": float((losses[name] - losses["float32"]).mean() / spread),
        }
        for name in ("tf32", "bfloat16")
    }


def profile(arguments, images, n_members):
    """Share of each kernel in an epoch of launched steps, the largest first."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    on_gpu = arguments.device != "cpu"

    def measure():
        trained = default_population(arguments, images, n_members)
        trained.run_epoch()
        activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
        with recording(activities=[activity]) as recorded:
            trained.run_epoch()
            peers.synchronise(arguments.device)
        of = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        return {each.key[:80]: getattr(each, of) for each in recorded.key_averages()}

    times = launched(measure)
    total = sum(times.values()) or 1.0
    largest = sorted(times, key=times.get, reverse=True)[:12]
    return {name: round(times[name] / total, 3) for name in largest}


def all_at_once(arguments, images):
    """Seconds of the training of all folds of all trials as one population, without pruning."""
    n_members, epochs = (6, 2) if arguments.small else (150, 20)
    began = time.perf_counter()
    trained = default_population(arguments, images, n_members)
    peers.synchronise(arguments.device)
    built = time.perf_counter()
    for _ in range(epochs):
        trained.run_epoch()
    peers.synchronise(arguments.device)
    ended = time.perf_counter()
    return {
        "members": n_members,
        "epochs": epochs,
        "seconds to build": round(built - began, 2),
        "seconds of training": round(ended - built, 2),
    }


def search(arguments):
    """Seconds of a whole search and what it ends with."""
    small = ["--folds", "2", "--trials", "2", "--quick"] if arguments.small else []
    asked = small or ["--folds", "3", "--trials", "50"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "aesearch", "run", "--dataset", arguments.dataset, *asked]
        command += ["--data-dir", str(Path(arguments.data_dir).resolve())]
        command += ["--device", arguments.device, "--storage", "gpu.db"]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
    if done.returncode:
        return {"missing": (done.stderr.strip().splitlines() or ["nothing was said"])[-1]}
    said = [line for line in done.stdout.splitlines() if line.startswith(("Winner", "Test MSE"))]
    return {"asked": " ".join(asked), "seconds": round(seconds, 1), "said": said}


def machine(arguments):
    """What is measured on."""
    name = platform.processor() or platform.machine()
    if arguments.device != "cpu":
        name = torch.cuda.get_device_name()
    return {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}


def tell(name, found):
    """Print one JSON line; give what it holds."""
    print(json.dumps({name: found}), flush=True)
    return found


def main():
    """Measure everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs", type=int, default=5, help="measured of each population")
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--members", default="1,3,15,30,150", help="sizes of populations")
    parser.add_argument("--small", action="store_true", help="digits, few members: a try")
    parser.add_argument("--without", default="", help="parts to leave out: tests,search")
    arguments = parser.parse_args()
    arguments.dataset, arguments.architecture = "mnist", "dense"
    if arguments.small:
        arguments.dataset, arguments.members, arguments.epochs = "digits", "1,3", 1
        arguments.batch_size = 100
    without = arguments.without.split(",")
    prepare_process(1)
    images = peers.digits() if arguments.small else peers.mnist(arguments.data_dir)
    about = tell("machine", machine(arguments))
    sizes = [int(size) for size in arguments.members.split(",")]
    tested = tell("tests", {} if "tests" in without else tests(arguments))
    bits = tell("bits", equal_bits(arguments, images))
    rates = tell("TFLOP/s of products", product_rates(arguments, max(sizes)))
    rows = {way: tell(way, loop(arguments, way, len(images))) for way in ("dataloader", "resident")}
    kinds = [(size, "float32", True) for size in sizes]
    kinds += [(sizes[-1], "bfloat16", True), (sizes[-1], "float32", False)]
    for size, precision, records in kinds:
        name = f"population of {size}, {precision}{'' if records else ', launched'}"
        rows[name] = tell(name, population(arguments, images, size, precision, records=records))
    taken = tell("memory", memory(arguments, images, sizes[-1]))
    changed = tell("precisions", precisions(arguments, images))
    shares = tell("profile", profile(arguments, images, sizes[-1]))
    once = tell("all at once", all_at_once(arguments, images))
    searched = tell("search", {} if "search" in without else search(arguments))

    print(f"\n{about['device']}, torch {about['torch']}, CUDA {about['cuda']}\n")
    print("| measurement | s per fold-epoch | x dataloader | x resident | of the rate |")
    print("|---|---|---|---|---|")
    for name, found in rows.items():
        seconds = found.get("seconds_per_fold_epoch")
        if seconds is None:
            print(f"| {name} | {found['missing']} | | | |")
            continue
        loops = (rows[way].get("seconds_per_fold_epoch") for way in ("dataloader", "resident"))
        ratios = ["" if other is None else f"{other / seconds:.1f}" for other in loops]
        kind = "bfloat16" if "bfloat16" in name else "float32"
        share = "" if arguments.small else f"{dense_gflop() / 1e3 / rates[kind] / seconds:.0%}"
        print(f"| {name} | {seconds:.4g} | {' | '.join(ratios)} | {share} |")
    print("\n| what | found |\n|---|---|")
    for what, found in (
        ("tests on the device", tested),
        ("steps", bits),
        ("TFLOP/s of products", rates),
        ("memory", taken),
        ("precisions against float32", changed),
        ("kernels", shares),
        ("all folds and trials as one population", once),
        ("whole search", searched),
    ):
        print(f"| {what} | {json.dumps(found)} |")


if __name__ == "__main__":
    main()
