"""What the store costs: many workers with next to nothing to train, and a study of 10,000 trials.

    python benchmarks/load.py                    # both parts, on SQLite and on PostgreSQL
    python benchmarks/load.py --part workers --workers 1 8 --trials 200
    python benchmarks/load.py --part large --trials-large 10000
    python benchmarks/load.py --part memory --workers 8   # of each worker of a set of 4 GB; Linux

Starts a PostgreSQL of its own in a temporary folder where the server's programs are installed,
with everything on that a crash needs (fsync, full pages, synchronous commits); else it measures
SQLite alone. Prints one JSON line per measurement, and Markdown tables at the end.
"""

import argparse
import io
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

TINY = (
    *("data.limit=30", "search.folds=2", "training.batch_size=16", "compute.device=cpu"),
    *("model.dense.hidden=[4]", "space.architecture={choices: [dense]}", "search.unstable_loss=9"),
    *("space.encoding_dim={choices: [1, 2, 4]}", "search.pruner=none", "search.score_epochs=1"),
)


def say(**facts):
    print(json.dumps(facts), flush=True)
    return facts


def spec_of(*overrides):
    from aesearch.studies.spec.load import load_spec

    return load_spec(overrides=[*TINY, *overrides])


def created(storage, spec):
    """Create a study; its engine."""
    from chaos import create

    return create(storage, spec)


# ---------------------------------------------------------------------- databases


@contextmanager
def databases():
    """By name: what makes a new, empty store, and what tells its size in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(1000))

        def new_file():
            return str(Path(folder) / f"{next(numbers)}.db")

        def file_bytes(path):
            with sqlite3.connect(path) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return Path(path).stat().st_size

        made = {"sqlite": (new_file, file_bytes)}
        server = postgres_server()
        if server is None:
            print("no PostgreSQL here: SQLite alone", file=sys.stderr)
            yield made, {"sqlite": sqlite3.sqlite_version}
            return
        try:

            def new_database():
                return server.url(server.create_database())

            def database_bytes(url):
                name = sa.engine.make_url(url).database
                return server.execute(f"SELECT pg_database_size('{name}')")[0][0]

            version = server.execute("SHOW server_version")[0][0].split()[0]
            made["postgresql"] = (new_database, database_bytes)
            yield made, {"sqlite": sqlite3.sqlite_version, "postgresql": version}
        finally:
            server.close()


def postgres_server():
    """A server as one would run it, unlike that of the tests; None without its programs."""
    import postgres

    programs = postgres.find_programs()
    if programs is None:
        return None
    server = postgres.Server(programs)
    server.start()
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        server.execute(f"ALTER SYSTEM SET {setting} = on")
    server.execute("ALTER SYSTEM SET log_statement = none")
    server.stop()
    server.start()
    return server


# ------------------------------------------------------------------- many workers


def measure_workers(database, new_store, n_workers, n_trials, generation_size):
    """Search a study with so many worker processes, which are there before the clock starts."""
    storage = new_store()
    engine = created(
        storage,
        spec_of(
            *(f"search.trials={n_trials}", f"search.generation_size={generation_size}"),
            *("search.lookahead=16", "search.sampler=random", "training.epochs=1", "name=load"),
        ),
    )
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, "--part", "one-worker"],
            env=os.environ | {"LOAD_STORAGE": storage, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(n_workers)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [json.loads(worker.communicate()[0]) for worker in workers]
    seconds = max(one["seconds"] for one in said)
    claims = Counter(unit for one in said for unit in one["units"])
    n_generations = -(-n_trials // generation_size)
    assert len(claims) == n_generations, "something was not done"
    engine.dispose()
    return say(
        benchmark="workers",
        database=database,
        workers=n_workers,
        generation_size=generation_size,
        trials=n_trials,
        seconds=round(seconds, 2),
        trials_per_s=round(n_trials / seconds, 1),
        commits_per_trial=round(sum(one["commits"] for one in said) / n_trials, 2),
        lock_errors=sum(one["lock_errors"] for one in said),
        done_twice=sum(count - 1 for count in claims.values()),
    )


def one_worker():
    """Be one of them: told when to begin, tells what it did."""
    from chaos import on_commits

    from aesearch.studies.errors import TransientStoreError
    from aesearch.studies.store import study_rows
    from aesearch.workers.worker import Worker

    with tempfile.TemporaryDirectory() as folder:  # what is imported and compiled only once
        warm = created(f"{folder}/warm.db", spec_of("search.trials=2", "training.epochs=1"))
        Worker(warm, "digits", kinds=("search",), stop=threading.Event()).run()
        warm.dispose()
    engine = study_rows.open_store(os.environ["LOAD_STORAGE"])  # without patience: an error is one
    commits, units, errors = [0], [], 0
    on_commits(engine, lambda number, _connection: commits.append(number))

    class Noting(Worker):
        def _do(self, lease):
            units.append(lease.position)
            super()._do(lease)

    worker = Noting(engine, "load", kinds=("search",), stop=threading.Event())
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    while True:
        try:
            worker.run()
            break
        except TransientStoreError as error:
            print(error, file=sys.stderr)
            errors += 1
    seconds = time.perf_counter() - began
    facts = {"seconds": seconds, "commits": commits[-1], "units": units, "lock_errors": errors}
    print(json.dumps(facts))


# ------------------------------------------------------------------ a large study


def fill(engine, spec, n_trials, left):
    """Finish all but ``left`` trials by rows alone, with curves of every fold and epoch."""
    import numpy as np
    from optuna.trial import TrialState

    from aesearch.sampling.suggest import distributions, suggest
    from aesearch.studies.store import study_rows, tables
    from aesearch.studies.store.connection import database
    from aesearch.studies.store.optuna import optuna_tables, slots

    study = study_rows.find_study(engine, "load")
    n_folds, n_epochs = spec.search.folds, spec.training.epochs
    rng = np.random.default_rng(0)
    drawn = spec.model_copy(update={"search": spec.search.model_copy(update={"sampler": "random"})})
    kinds = distributions(spec)
    with database.reading(engine) as connection:
        ids = slots.slot_ids(connection, study.study_id)
    for start in range(0, n_trials - left, 500):
        numbers = range(start, min(start + 500, n_trials - left))
        params = suggest(drawn, start, numbers, [], [])
        with database.writing(engine) as connection:
            for number, chosen in zip(numbers, params, strict=True):
                slots.begin(connection, study.study_id, ids[number], chosen, kinds)
                curve = 0.02 + 0.1 * np.exp(-np.arange(n_epochs) / 5) + rng.normal(0, 1e-3)
                folds = curve + rng.normal(0, 1e-3, (n_folds, 1))
                rows = [
                    {
                        "trial_id": ids[number],
                        "fold": fold,
                        "epoch": epoch + 1,
                        "train_loss": float(folds[fold, epoch]),
                        "validation_loss": float(folds[fold, epoch]),
                    }
                    for fold in range(n_folds)
                    for epoch in range(n_epochs)
                ]
                optuna_tables.insert_new(connection, tables.curve, rows)
                means = {i + 1: float(v) for i, v in enumerate(folds.mean(axis=0))}
                slots.report(connection, ids[number], means)
                scores = folds[:, -1].tolist()
                attributes = {"standard_error": float(folds[:, -1].std()), "fold_scores": scores}
                slots.finish(
                    connection,
                    ids[number],
                    TrialState.COMPLETE,
                    value=float(np.mean(scores)),
                    user_attributes=attributes,
                    system_attributes={"constraints:stability": -1.0},
                )
    with database.writing(engine) as connection:
        connection.execute(
            tables.lease.update()
            .where(tables.lease.c.first < n_trials - left)
            .values(suggested=True, done=True, finished=study_rows.now(connection))
        )


def measure_large(database, new_store, size_of, n_trials, sampler):
    """Everything that reads the whole of a study, and what its next generation costs."""
    from aesearch.dashboard.server import dashboard_application
    from aesearch.data.study_data import load_problem
    from aesearch.driver.create import leave_study
    from aesearch.studies.dashboard.publishing import publish
    from aesearch.studies.report.stored import report_of
    from aesearch.studies.results.summary import summary
    from aesearch.studies.results.summary_text import summary_text
    from aesearch.studies.store import ledger, study_rows
    from aesearch.studies.store.contents import read_contents
    from aesearch.studies.store.status import statuses
    from aesearch.terminal import status_view  # noqa: F401 - imported once
    from aesearch.terminal.display import make_display
    from aesearch.workers.worker import Worker

    storage = new_store()
    asked = spec_of(
        *(f"search.trials={n_trials}", "training.epochs=20", "name=load", "search.folds=3"),
        *(f"search.sampler={sampler}", "search.generation_size=4", "search.lookahead=2"),
    )
    spec = load_problem(asked, device="cpu").spec
    facts = {"benchmark": "large", "database": database, "trials": n_trials, "sampler": sampler}
    began = time.perf_counter()
    engine = created(storage, asked)
    facts["create_s"] = round(time.perf_counter() - began, 3)
    empty = size_of(storage)
    began = time.perf_counter()
    fill(engine, spec, n_trials, 40)
    facts["fill_s"] = round(time.perf_counter() - began, 1)
    facts["bytes_per_trial"] = round((size_of(storage) - empty) / (n_trials - 40))
    study = study_rows.find_study(engine, "load")
    worker = Worker(engine, "load", stop=threading.Event())

    def page(application, path):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "HTTP_HOST": "127.0.0.1"}
        environ |= {"wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr, "SERVER_NAME": "x"}
        environ |= {"SERVER_PORT": "80", "wsgi.url_scheme": "http", "QUERY_STRING": "after=0"}
        return b"".join(application(environ, lambda *_: None))

    def dashboard():
        with dashboard_application(
            engine, hosts=["127.0.0.1"], writable=False, artifact_folder=None
        ) as application:
            assert page(application, "/api/studies")
            assert page(application, f"/api/studies/{study.study_id}")

    def claim():
        lease = ledger.claim(engine, study, owner="me", lookahead=2)
        ledger.release(engine, lease)

    quiet = make_display(quiet=True)
    for name, call in {
        "resume": lambda: leave_study(asked, storage=storage, display=quiet),
        "claim": claim,
        "generation": worker.step,
        "next_generation": worker.step,
        "status": lambda: statuses(engine),
        "show": lambda: summary_text(summary(study_rows.snapshot(engine, "load"))),
        "report": lambda: report_of(read_contents(engine, "load", curves=True, pictures=True)),
        "publish": lambda: publish(engine, "load"),
        "publish_again": lambda: publish(engine, "load"),
        "dashboard_page": dashboard,
    }.items():
        began = time.perf_counter()
        with redirect_stdout(io.StringIO()):
            call()
        facts[f"{name}_s"] = round(time.perf_counter() - began, 3)
    engine.dispose()
    return say(**facts)


# ------------------------------------------------------------ memory of a large set


def measure_memory(n_images, n_workers, seconds):
    """Private memory of the workers of a study of many images, and of the run that reads them."""
    import numpy as np

    with tempfile.TemporaryDirectory(dir=os.environ.get("LOAD_FOLDER")) as folder:
        shape = (n_images, 56, 56)
        path = Path(folder) / "images.npy"
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        rng = np.random.default_rng(0)
        for first in range(0, n_images, 4096):
            part = images[first : first + 4096]
            part[:] = np.linspace(0, 255, 56) * rng.random((len(part), 56, 1))
        images.flush()
        settings = (
            *("space.encoding_dim={low: 8, high: 9}", "model.dense.hidden=[128, 64]"),
            *("search.trials=64", "search.folds=2", "search.generation_size=1", "name=memory"),
            *("search.lookahead=64", "training.epochs=1", "search.pruner=none"),
        )
        words = [sys.executable, "-m", "aesearch", "run", "--dataset", str(path), "--quiet"]
        words += ["--architecture", "dense", "--workers", str(n_workers), "--device", "cpu"]
        words += [word for setting in settings for word in ("--set", setting)]
        words += ["--storage", f"{folder}/s.db", "--out", f"{folder}/run"]
        environment = os.environ | {"AESEARCH_CACHE_DIR": f"{folder}/cache"}
        run = subprocess.Popen(words, env=environment)
        peaks, until = Counter(), None
        while run.poll() is None and (until is None or time.monotonic() < until):
            found = [run.pid, *workers_of(run.pid)]
            if until is None and len(found) > n_workers:
                until = time.monotonic() + seconds
            for pid in found:
                peaks[pid] = max(peaks[pid], private_bytes(pid))
            time.sleep(0.5)
        run.terminate()
        run.wait()
        reader = peaks.pop(run.pid)
        return say(
            benchmark="memory",
            set_bytes=n_images * 56 * 56,
            workers=n_workers,
            seconds=seconds,
            run_gb=round(reader / 1e9, 2),
            largest_worker_gb=round(max(peaks.values(), default=0) / 1e9, 2),
        )


def workers_of(pid):
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, thread.read_text("ascii").split())
    return found


def private_bytes(pid):
    """What a process has written or read that no other one shares; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


# -------------------------------------------------------------------------- output


def table(rows):
    """Markdown of measurements with the same facts."""
    names = [name for name in rows[0] if name != "benchmark"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(str(row[n]) for n in names) + " |" for row in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part", choices=["all", "workers", "large", "memory", "one-worker"], default="all"
    )
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--generation-sizes", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--trials", type=int, default=320)
    parser.add_argument("--trials-large", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=1_300_000, help="of 56 x 56, for memory")
    parser.add_argument("--seconds", type=int, default=300, help="after the workers are there")
    parser.add_argument("--samplers", nargs="+", default=["tpe"])
    arguments = parser.parse_args()
    if arguments.part == "one-worker":
        one_worker()
        return
    if arguments.part == "memory":
        for n_workers in arguments.workers:
            measure_memory(arguments.images, n_workers, arguments.seconds)
        return
    tables = []
    with databases() as (made, versions):
        here = {name: made[name] for name in arguments.databases if name in made}
        say(
            benchmark="machine",
            cores=os.cpu_count(),
            processor=platform.processor() or platform.machine(),
            python=platform.python_version(),
            load=round(os.getloadavg()[0], 1),
            **versions,
        )
        if arguments.part in ("all", "workers"):
            tables.append(
                [
                    measure_workers(name, new, n, arguments.trials, size)
                    for name, (new, _) in here.items()
                    for size in arguments.generation_sizes
                    for n in arguments.workers
                ]
            )
        if arguments.part in ("all", "large"):
            tables.append(
                [
                    measure_large(name, new, size_of, arguments.trials_large, sampler)
                    for name, (new, size_of) in here.items()
                    for sampler in arguments.samplers
                ]
            )
    for rows in tables:
        print("\n" + table(rows))


if __name__ == "__main__":
    main()
