"""A run from beginning to end: create or resume the study, watch its workers, write the folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy.engine import Engine

from aesearch import __version__
from aesearch.data.load import known_name
from aesearch.decisions import settle
from aesearch.device import planned_device, present_device
from aesearch.display import FINISHED, Display
from aesearch.interruption import check_interrupted
from aesearch.local_workers import Workers, default_workers, free_the_dead, useful_workers
from aesearch.problem import Problem, Progress, check_same_data, load_problem
from aesearch.ray_cluster import Cluster
from aesearch.ray_workers import RayWorkers
from aesearch.run_folder import write_run_folder
from aesearch.studies import database, ledger, migrations, retrain_results, status, store
from aesearch.studies.dashboard.publishing import publish
from aesearch.studies.errors import StudyMismatchError
from aesearch.studies.export import make_folder
from aesearch.studies.records import StudySnapshot
from aesearch.studies.spec import StudySpec, as_stored, resolve
from aesearch.studies.spec_yaml import diff
from aesearch.studies.store_errors import describe
from aesearch.studies.waiting import Patience, be_patient, retry_s
from aesearch.versions import check_versions

POLL_S = 0.5


class Crew(Protocol):
    """The workers that a run started, wherever they are."""

    def start(self, only: str | None = None) -> None:
        """Start all of them, for everything or for ``search`` or ``retrain`` only."""

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
                spec if cluster is None else _with_absolute_path(spec),
                device=present_device(spec) if cluster is None else cluster.device(spec),
                progress=progress or display.download,
            )
            folder = out if out is not None else default_folder(str(problem.spec.name))
            make_folder(folder)
            migrations.prepare(engine)
            return _run(
                engine,
                problem,
                storage,
                folder,
                workers=workers,
                cluster=cluster,
                display=display,
            )
    finally:
        engine.dispose()


@dataclass(frozen=True)
class Detached:
    """A study that was left to the workers that serve its store.

    Attributes
    ----------
    storage : str
        Without its password.
    finished, trials : int
        How many trials are finished, and how many there are in all.
    """

    study: str
    storage: str
    finished: int
    trials: int


def leave_study(
    spec: StudySpec, *, storage: str, display: Display, progress: Progress | None = None
) -> Detached:
    """Create a study, or go on with it, and return at once: ``aesearch worker`` does the work.

    Parameters
    ----------
    spec : StudySpec
        May hold ``auto`` values; they are resolved for the data and device found here.
    storage : str
        Database URL or path of an SQLite file.
    progress : callable or None
        Told about downloads; None for the display.

    Raises
    ------
    AesearchError
        What the user can mend, named.
    """
    engine = database.open_engine(database.parse_url(storage))
    try:
        problem = load_problem(
            _with_absolute_path(spec),
            device=planned_device(spec),
            progress=progress or display.download,
        )
        migrations.prepare(engine)
        _create_or_resume(engine, problem, display)
        name = str(problem.spec.name)
        study = store.find_study(engine, name)
        if not ledger.open_work(engine, study)["search"]:
            # What may differ on a resume can change the choice or the retraining.
            settle(engine, name)
        counts = status.trial_counts(engine, study)
        return Detached(
            study=name,
            storage=describe(engine.url),
            finished=sum(counts[state] for state in FINISHED),
            trials=sum(counts.values()),
        )
    finally:
        engine.dispose()


def _with_absolute_path(spec: StudySpec) -> StudySpec:
    # A worker that was started in another folder finds the images too.
    path = Path(spec.data.dataset).expanduser()
    if known_name(spec.data.dataset) is not None or not path.exists():
        return spec
    data = spec.data.model_copy(update={"dataset": str(path.absolute())})
    return spec.model_copy(update={"data": data})


def _run(
    engine: Engine,
    problem: Problem,
    storage: str,
    folder: Path,
    *,
    workers: int | None,
    cluster: Cluster | None,
    display: Display,
) -> Run:
    name = str(problem.spec.name)
    spec = _create_or_resume(engine, problem, display)
    # From here on a server that restarts is waited for; before, a person wants to know at once.
    be_patient(engine, Patience(retry_s()))
    crew = _crew(engine, spec, storage, folder, workers=workers, cluster=cluster)
    with _stopping(crew):
        snapshot = _watch(engine, name, spec, crew, display)
    publish(engine, name)
    write_run_folder(engine, name, folder)
    return Run(storage, name, folder, snapshot)


def _crew(
    engine: Engine,
    spec: StudySpec,
    storage: str,
    folder: Path,
    *,
    workers: int | None,
    cluster: Cluster | None,
) -> Crew:
    name, device = str(spec.name), spec.compute.device
    url = database.parse_url(storage)
    n_generations = len(store.snapshot(engine, name).leases)
    if cluster is not None:
        gpus = cluster.gpus(device)
        count = workers or min(cluster.places(gpus), useful_workers(spec, n_generations))
        return RayWorkers(url, name, count, gpus=gpus)
    return Workers(
        engine,
        url.render_as_string(hide_password=False),
        name,
        workers or default_workers(spec, n_generations),
        folder,
        cuda=device == "cuda",
    )


def _create_or_resume(engine: Engine, problem: Problem, display: Display) -> StudySpec:
    spec, name = problem.spec, str(problem.spec.name)
    generation_size = spec.search.generation_size
    assert isinstance(generation_size, int), "the spec must be resolved"
    n_trials = spec.search.trials
    if spec.search.sampler == "grid":
        n_trials = min(n_trials, spec.space.grid_size)
    created = store.create_study(
        engine,
        name,
        spec=spec.model_dump(mode="json"),
        facts=problem.facts(),
        n_trials=n_trials,
        generation_size=generation_size,
        version=__version__,
        timeout=spec.search.timeout,
    )
    if created:
        display.message(
            f"study {name!r}: {n_trials} trials x {spec.search.folds} folds on "
            f"{len(problem.images)} images of {problem.name} "
            f"({'x'.join(map(str, problem.image_shape))}), {spec.compute.device}"
        )
        return spec
    study = store.find_study(engine, name)
    check_versions(study)
    stored = store.stored_spec(study)
    if _same_place(stored.data.dataset, spec.data.dataset):
        spec = spec.model_copy(
            update={"data": spec.data.model_copy(update={"dataset": stored.data.dataset})}
        )
    # Settings that came after the study was made are compared as they are resolved today.
    stored = resolve(
        stored,
        image_shape=problem.image_shape,
        n_train=len(problem.images),
        device=stored.compute.device,
    )
    spec = as_stored(problem.asked, spec, stored)
    differences = diff(stored, spec)
    if differences:
        listed = "\n".join(f"  - {line}" for line in differences)
        raise StudyMismatchError(
            f"study {name!r} exists with another specification (stored -> asked):\n{listed}\n"
            "give it the stored values, or name a new study with --study"
        )
    check_same_data(problem, study.facts, name)
    free_the_dead(engine, study)
    store.replace_spec(engine, study, spec.model_dump(mode="json"), timeout=spec.search.timeout)
    have = store.raise_trials(engine, study, n_trials, generation_size)
    if have > n_trials:
        display.message(f"study {name!r} has {have} trials already; none is taken away")
    work = ledger.open_work(engine, study)
    ledger.forgive(engine, study)
    if work["search"]:
        retrain_results.reopen_choice(engine, study)
        counts = status.trial_counts(engine, study)
        finished = sum(counts[state] for state in FINISHED)
        display.message(f"study {name!r} goes on: {finished} of {have} trials are finished")
    else:
        display.message(f"study {name!r} is finished: all {have} trials are done")
    return spec


def _same_place(one: str, other: str) -> bool:
    return Path(one).expanduser().absolute() == Path(other).expanduser().absolute()


def _watch(
    engine: Engine, name: str, spec: StudySpec, crew: Crew, display: Display
) -> StudySnapshot:
    began = time.monotonic()
    timed_out = False
    study = store.find_study(engine, name)
    if not ledger.open_work(engine, study)["search"]:
        settle(engine, name)
    if any(ledger.open_work(engine, study).values()):
        crew.start()
    while True:
        check_interrupted()
        looked = time.monotonic()
        snapshot = store.snapshot(engine, name)
        display.update(snapshot)
        work = ledger.open_work(engine, study)
        if snapshot.chosen is not None and not (work["retrain"] or work["evaluate"]):
            if timed_out or not work["search"]:
                # The last work may have been finished after the look above.
                snapshot = store.snapshot(engine, name)
                display.update(snapshot)
                return snapshot
        elif not work["search"]:
            settle(engine, name)
        limit = spec.search.timeout
        if work["search"] and limit is not None and not timed_out and looked - began > limit:
            timed_out = True
            crew.stop()
            finished = sum(t.state not in ("waiting", "running") for t in snapshot.trials)
            display.message(
                f"timeout of {limit:g} s: {finished} of {snapshot.n_trials} trials are finished; "
                "choosing among them"
            )
            settle(engine, name, unfinished=True)
            crew.start(only="retrain")
        if not crew.tend() and any(work.values()):
            # They found nothing to do in the moment before new work appeared.
            crew.start(only="retrain" if timed_out else None)
        # A large study takes long to read: never spend more than a tenth of the time on it.
        time.sleep(max(POLL_S, 9 * (time.monotonic() - looked)))


@contextmanager
def _stopping(crew: Crew) -> Iterator[None]:
    try:
        yield
    finally:
        crew.stop()


def default_folder(name: str) -> Path:
    """Choose the run folder of a study: its name, made one folder name, never a path."""
    safe = "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in name).strip(". ")
    return Path("runs") / (safe or "study")
