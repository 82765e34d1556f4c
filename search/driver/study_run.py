"""A run from beginning to end: its study, its workers, its folder."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Protocol

from sqlalchemy.engine import Engine

from aesearch.artifacts.run_folder import check_folder, write_run_folder
from aesearch.data.study_data import Problem, Progress, load_problem
from aesearch.device import present_device
from aesearch.driver.cost import available_bytes, cost_of, seconds_for, workers_that_fit
from aesearch.driver.create import check_changes, create_or_resume, with_absolute_path
from aesearch.studies.dashboard.publishing import publish
from aesearch.studies.results.output_files import default_folder, make_folder
from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.studies.spec.dimensions import Params
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store import ledger, migrations, study_rows
from aesearch.studies.store.connection import database
from aesearch.studies.store.connection.retry import Patience, be_patient, retry_s
from aesearch.studies.store.status import FINISHED
from aesearch.terminal.display import Display
from aesearch.terminal.interruption import check_interrupted
from aesearch.workers.places import default_workers, useful_workers
from aesearch.workers.processes import WorkerProcesses, serving
from aesearch.workers.ray_cluster import Cluster
from aesearch.workers.ray_workers import RayWorkers
from aesearch.workers.schedule import settle

OnTrial = Callable[[TrialRecord], None]
POLL_S = 0.5
LONGEST_POLL_S = 20.0


class Crew(Protocol):
    """The workers that a run started, wherever they are."""

    def start(self) -> None:
        """Start all of them."""

    def tend(self) -> bool:
        """Replace the dead; whether any is still there."""

    def stop(self) -> None:
        """Make all of them give their work back and end."""


@dataclass(frozen=True)
class Run:
    """Where a finished run is to be found.

    Attributes
    ----------
    folder : Path
        With ``best.yaml``, ``model.safetensors``, ``trials.csv``, ``curves.csv``, logs.
    """

    storage: str
    name: str
    folder: Path
    snapshot: StudySnapshot


def run_study(
    spec: StudySpec,
    *,
    storage: str,
    out: Path | None,
    workers: int | None,
    display: Display,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
    enqueue: Sequence[Params] = (),
    on_trial: OnTrial | None = None,
) -> Run:
    """Search, choose, retrain, look at the test set once, and write the run folder.

    The same call again goes on where the last one stopped; on a finished study it only
    writes what is missing.

    Parameters
    ----------
    spec : StudySpec
        May hold ``auto`` values; they are resolved for the data and device found here.
    storage : str
        Database URL or path of an SQLite file.
    out : Path or None
        Run folder; None for ``runs/<study>``.
    workers : int or None
        Processes on this machine; None for one per GPU or core. Never changes a result.
    cluster : Cluster or None
        Where the workers run instead of on this machine.
    progress : callable or None
        Told about downloads: (what, bytes so far, total or None); None for the display.
    enqueue : sequence of dict
        Configurations that are tried next.
    on_trial : callable(TrialRecord), optional
        Told of each trial that ends during this run; what it raises stops the run, and nothing
        is lost.

    Raises
    ------
    AesearchError
        What the user can mend, named; nothing is lost.
    """
    url = database.parse_url(storage)
    engine = database.open_engine(url)
    try:
        # Before the tables: a run that cannot begin leaves no database behind.
        with nullcontext() if cluster is None else cluster.connected(url):
            problem = load_problem(
                spec if cluster is None else with_absolute_path(spec),
                device=present_device(spec) if cluster is None else cluster.device(spec),
                progress=progress or display.download,
            )
            display.message(f"read {problem.name}: {problem.read}")
            # Before the folder: it would be refused for the same reason, with another remedy.
            check_changes(engine, problem)
            folder = out if out is not None else default_folder(str(problem.spec.name))
            check_folder(folder, problem.spec, problem.facts(), asked=problem.asked)
            with _empty_folder(folder):
                migrations.prepare(engine)
            return _run(
                engine,
                problem,
                storage,
                folder,
                workers=workers,
                cluster=cluster,
                display=display,
                enqueue=enqueue,
                on_trial=on_trial,
            )
    finally:
        engine.dispose()


@contextmanager
def _empty_folder(folder: Path) -> Iterator[None]:
    """Make a run folder, and take what was made away again where the block fails."""
    made = list(takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    make_folder(folder)
    try:
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):  # something else lies in it by now
                path.rmdir()
        raise


def _run(
    engine: Engine,
    problem: Problem,
    storage: str,
    folder: Path,
    *,
    workers: int | None,
    cluster: Cluster | None,
    display: Display,
    enqueue: Sequence[Params],
    on_trial: OnTrial | None,
) -> Run:
    name = str(problem.spec.name)
    spec = create_or_resume(engine, problem, display, trains_here=cluster is None, enqueue=enqueue)
    # From here on a server that restarts is waited for; before, a person wants to know at once.
    be_patient(engine, Patience(retry_s()))
    if cluster is None and any(
        ledger.open_work(engine, study_rows.find_study(engine, name)).values()
    ):
        workers = _affordable(problem, engine, name, workers, display)
    crew = _crew(engine, spec, storage, folder, workers=workers, cluster=cluster)
    with _stopping(crew):
        snapshot = _watch(engine, name, crew, display, on_trial)
    stopped = study_rows.find_study(engine, name).stopped
    if stopped is not None:
        display.message(f"the search ended after {snapshot.n_trials} trials: {stopped}")
    publish(engine, name)
    write_run_folder(engine, name, folder)
    return Run(storage, name, folder, snapshot)


def _affordable(
    problem: Problem, engine: Engine, name: str, workers: int | None, display: Display
) -> int:
    """Say what the study will need, and give as many workers as fit into memory.

    Raises
    ------
    MemoryNeededError
        Not even one fits, or fewer than were asked for.
    """
    cost = cost_of(problem)
    asked = workers or default_workers(problem.spec, len(study_rows.snapshot(engine, name).leases))
    count = workers_that_fit(cost, asked, is_asked=workers is not None, available=available_bytes())
    on_cpu = problem.spec.compute.device == "cpu"
    display.message(cost.text(count, seconds_for(cost, count) if on_cpu else None))
    return count


def _crew(
    engine: Engine,
    spec: ResolvedSpec,
    storage: str,
    folder: Path,
    *,
    workers: int | None,
    cluster: Cluster | None,
) -> Crew:
    name, device = str(spec.name), spec.compute.device
    url = database.parse_url(storage)
    n_generations = len(study_rows.snapshot(engine, name).leases)
    if cluster is not None:
        gpus = cluster.gpus(device)
        count = workers or min(cluster.places(gpus), useful_workers(spec, n_generations))
        return RayWorkers(url, name, count, gpus=gpus)
    return WorkerProcesses(
        engine,
        url.render_as_string(hide_password=False),
        serving(name),
        workers or default_workers(spec, n_generations),
        cuda=device == "cuda",
        study=name,
        folder=folder,
    )


class _Told:
    """Calls back once for each trial that ends during a run, in number order of each look."""

    def __init__(self, call: OnTrial | None, before: StudySnapshot) -> None:
        self._call = call
        self._told = {trial.number for trial in before.trials if trial.state in FINISHED}

    def tell(self, snapshot: StudySnapshot) -> None:
        """Tell what has ended since the last look."""
        for trial in snapshot.trials:
            if trial.state in FINISHED and trial.number not in self._told:
                self._told.add(trial.number)
                if self._call is not None:
                    self._call(trial)


def _watch(
    engine: Engine, name: str, crew: Crew, display: Display, on_trial: OnTrial | None
) -> StudySnapshot:
    study = study_rows.find_study(engine, name)
    settle(engine, name)
    if any(ledger.open_work(engine, study).values()):
        crew.start()
    limited = False
    on_finished = _Told(on_trial, study_rows.snapshot(engine, name))
    while True:
        check_interrupted()
        looked = time.monotonic()
        snapshot = study_rows.snapshot(engine, name)
        display.update(snapshot)
        on_finished.tell(snapshot)
        work = ledger.open_work(engine, study)
        if snapshot.chosen is None:
            if work["search"] and not limited and ledger.past_deadline(engine, study):
                limited = True
                display.message(_at_the_limit(snapshot))
            settle(engine, name)
        elif not (work["retrain"] or work["evaluate"]):
            # The last work may have been finished after the look above, or more have come.
            snapshot = study_rows.snapshot(engine, name)
            display.update(snapshot)
            work = ledger.open_work(engine, study)
            if snapshot.chosen is not None and not (work["retrain"] or work["evaluate"]):
                return snapshot
        if not crew.tend() and any(work.values()):
            # They found nothing to do in the moment before new work appeared.
            crew.start()
        # A large study takes long to read: never spend more than a tenth of the time on it. A
        # store that was away took long too.
        time.sleep(max(POLL_S, min(9 * (time.monotonic() - looked), LONGEST_POLL_S)))


def _at_the_limit(snapshot: StudySnapshot) -> str:
    states = Counter(trial.state for trial in snapshot.trials)
    finished = snapshot.n_trials - states["waiting"] - states["running"]
    running = f", {states['running']} in training go to their end" if states["running"] else ""
    return (
        f"time limit: {finished} of {snapshot.n_trials} trials are finished{running}; "
        "no other is begun"
    )


@contextmanager
def _stopping(crew: Crew) -> Iterator[None]:
    try:
        yield
    finally:
        crew.stop()
