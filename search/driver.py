"""A run from beginning to end: create or resume the study, watch its workers, write the folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import Engine

from aesearch import __version__
from aesearch.decisions import settle
from aesearch.display import Display
from aesearch.local_workers import Workers, default_workers, free_the_dead
from aesearch.problem import Problem, Progress, check_same_data, load_problem
from aesearch.run_folder import write_run_folder
from aesearch.studies import database, ledger, retrain_results, store
from aesearch.studies.errors import SpecError, StudyMismatchError
from aesearch.studies.export import make_folder
from aesearch.studies.records import StudySnapshot
from aesearch.studies.spec import StudySpec
from aesearch.studies.spec_yaml import diff

POLL_S = 0.5


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
    progress : callable or None
        Told about downloads: (what, bytes so far, total or None); None for the display.

    Raises
    ------
    AesearchError
        What the user can mend, named; nothing is lost.
    """
    engine = database.open_engine(database.parse_url(storage))
    try:
        # Before the tables: a run that cannot begin leaves no database behind.
        problem = load_problem(
            spec, device=present_device(spec), progress=progress or display.download
        )
        folder = out if out is not None else default_folder(str(problem.spec.name))
        make_folder(folder)
        database.prepare(engine)
        return _run(engine, problem, storage, folder, workers=workers, display=display)
    finally:
        engine.dispose()


def _run(
    engine: Engine,
    problem: Problem,
    storage: str,
    folder: Path,
    *,
    workers: int | None,
    display: Display,
) -> Run:
    name = str(problem.spec.name)
    spec = _create_or_resume(engine, problem, display)
    url = database.parse_url(storage).render_as_string(hide_password=False)
    crew = Workers(
        engine,
        url,
        name,
        workers or default_workers(spec, len(store.snapshot(engine, name).leases)),
        folder,
        cuda=spec.compute.device == "cuda",
    )
    with _stopping(crew):
        snapshot = _watch(engine, name, spec, crew, display)
    write_run_folder(engine, name, folder)
    return Run(storage, name, folder, snapshot)


def _create_or_resume(engine: Engine, problem: Problem, display: Display) -> StudySpec:
    spec, name = problem.spec, str(problem.spec.name)
    assert isinstance(spec.search.generation_size, int), "the spec must be resolved"
    n_trials = spec.search.trials
    if spec.search.sampler == "grid":
        n_trials = min(n_trials, spec.space.grid_size)
    created = store.create_study(
        engine,
        name,
        spec=spec.model_dump(mode="json"),
        facts=problem.facts(),
        n_trials=n_trials,
        generation_size=spec.search.generation_size,
        version=__version__,
    )
    if created:
        display.message(
            f"study {name!r}: {n_trials} trials x {spec.search.folds} folds on "
            f"{len(problem.images)} images of {problem.name} "
            f"({'x'.join(map(str, problem.image_shape))}), {spec.compute.device}"
        )
        return spec
    study = store.find_study(engine, name)
    differences = diff(store.stored_spec(study), spec)
    if differences:
        listed = "\n".join(f"  - {line}" for line in differences)
        raise StudyMismatchError(
            f"study {name!r} exists with another specification (stored -> asked):\n{listed}\n"
            "give it the stored values, or name a new study with --study"
        )
    check_same_data(problem, study.facts, name)
    free_the_dead(engine, study)
    store.replace_spec(engine, study, spec.model_dump(mode="json"))
    have = store.raise_trials(engine, study, n_trials, spec.search.generation_size)
    if have > n_trials:
        display.message(f"study {name!r} has {have} trials already; none is taken away")
    work = ledger.open_work(engine, study)
    if work["search"]:
        retrain_results.reopen_choice(engine, study)
        snapshot = store.snapshot(engine, name)
        finished = sum(t.state not in ("waiting", "running") for t in snapshot.trials)
        display.message(f"study {name!r} goes on: {finished} of {have} trials are finished")
    else:
        display.message(f"study {name!r} is finished: all {have} trials are done")
    return spec


def _watch(
    engine: Engine, name: str, spec: StudySpec, crew: Workers, display: Display
) -> StudySnapshot:
    began = time.monotonic()
    timed_out = False
    study = store.find_study(engine, name)
    if not ledger.open_work(engine, study)["search"]:
        settle(engine, name)
    if any(ledger.open_work(engine, study).values()):
        crew.start()
    while True:
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
def _stopping(crew: Workers) -> Iterator[None]:
    try:
        yield
    finally:
        crew.stop()


def present_device(spec: StudySpec) -> str:
    """Decide where a specification trains on this machine: ``cpu`` or ``cuda``.

    Raises
    ------
    SpecError
        It asks for a device that is not here.
    """
    from aesearch.models.runtime import pick_device  # noqa: PLC0415 - imports torch

    try:
        return pick_device(spec.compute.device)
    except ValueError as error:
        raise SpecError("study", [f"compute.device: {error}"]) from error


def default_folder(name: str) -> Path:
    """Choose the run folder of a study: its name, made one folder name, never a path."""
    safe = "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in name).strip(". ")
    return Path("runs") / (safe or "study")
