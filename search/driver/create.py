"""A study comes into its store, or is extended there; nothing is trained here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import Engine

from aesearch import __version__
from aesearch.data.load import known_name
from aesearch.data.readers.archive import names_array
from aesearch.data.study_data import (
    Problem,
    Progress,
    check_same_data,
    load_problem,
)
from aesearch.device import planned_device
from aesearch.evaluation.baseline import principal_components_by_fold
from aesearch.sampling.suggest import cut_grid
from aesearch.sampling.wanted import completed
from aesearch.studies.errors import StoreError, StudyMismatchError, StudyNotFoundError
from aesearch.studies.results.records import Facts
from aesearch.studies.spec.dimensions import Params, hidden_name
from aesearch.studies.spec.load import diff
from aesearch.studies.spec.model_size import check_weights
from aesearch.studies.spec.resolved import ResolvedSpec, as_stored, resolve, without_limit
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.spec.weights import left_out
from aesearch.studies.store import (
    ledger,
    migrations,
    retrain_results,
    search_results,
    status,
    study_rows,
)
from aesearch.studies.store.connection import database
from aesearch.studies.store.connection.driver_errors import describe
from aesearch.studies.store.evaluation_results import read_evaluation
from aesearch.terminal.display import Display
from aesearch.versions import check_versions
from aesearch.workers.owners import free_the_dead
from aesearch.workers.schedule import settle


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
    spec: StudySpec,
    *,
    storage: str,
    display: Display,
    progress: Progress | None = None,
    enqueue: Sequence[Params] = (),
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
    enqueue : sequence of dict
        Configurations that are tried next.

    Raises
    ------
    AesearchError
        What the user can mend, named.
    """
    engine = database.open_engine(database.parse_url(storage))
    try:
        problem = load_problem(
            with_absolute_path(spec),
            device=planned_device(spec),
            progress=progress or display.download,
        )
        display.message(f"read {problem.name}: {problem.read}")
        migrations.prepare(engine)
        create_or_resume(engine, problem, display, enqueue=enqueue)
        name = str(problem.spec.name)
        study = study_rows.find_study(engine, name)
        # What may differ on a resume can change the choice or the retraining.
        settle(engine, name)
        counts = status.trial_counts(engine, study)
        return Detached(
            study=name,
            storage=describe(engine.url),
            finished=counts.finished,
            trials=counts.total,
        )
    finally:
        engine.dispose()


def create_or_resume(
    engine: Engine,
    problem: Problem,
    display: Display,
    *,
    trains_here: bool = False,
    enqueue: Sequence[Params] = (),
) -> ResolvedSpec:
    """Create the study of a problem, or extend what the store has of it.

    Parameters
    ----------
    trains_here : bool
        Whether this machine does the work, so that it must have the study's device.
    enqueue : sequence of dict
        Configurations that are tried next.

    Returns
    -------
    ResolvedSpec
        As it is stored from now on.

    Raises
    ------
    SpecError
        A new study could make networks that are too large for its store.
    WishError
        What is enqueued is no configuration of the space.
    StudyMismatchError
        The stored study has another specification, another program's study has the name, or
        it trains on a device that is not here.
    AesearchError
        Its images are others, or another major version made it.
    """
    spec, name = problem.spec, str(problem.spec.name)
    wanted = [completed(spec, each, problem.image_shape) for each in enqueue]
    if _create(engine, problem, wanted):
        _tell(problem, display)
        if wanted:
            n_first = min(len(wanted), spec.n_trials)
            display.message(f"the first {n_first} trials are those enqueued")
        return spec
    study, stored, spec = _same_study(engine, problem)
    before = status.trial_counts(engine, study).total
    n_trials = _trials_to_have(study, stored, spec, before)
    if trains_here and spec.compute.device != problem.spec.compute.device == "cpu":
        _check_nothing_to_train(engine, study, spec, stored, more=n_trials > before)
    if spec.evaluation != stored.evaluation and read_evaluation(engine, study) is not None:
        spec = _with_evaluation(spec, stored, more=n_trials > before, display=display)
    free_the_dead(engine, study)
    if before > spec.n_trials:  # none is taken away, and the specification says so
        search = spec.search.model_copy(update={"trials": before})
        spec = spec.model_copy(update={"search": search})
    study_rows.replace_spec(engine, study, spec, timeout=spec.search.timeout)
    have = study_rows.raise_trials(engine, study, n_trials, _generation_size(spec))
    _enqueue(engine, study, wanted, display)
    if have > spec.n_trials:
        display.message(f"study {name!r} has {have} trials already; none is taken away")
    work = ledger.open_work(engine, study)
    ledger.forgive(engine, study)
    if work["search"]:
        retrain_results.reopen_choice(engine, study)
        finished = status.trial_counts(engine, study).finished
        display.message(f"study {name!r} goes on: {finished} of {have} trials are finished")
    else:
        ended = "" if study.stopped is None else f" ({study.stopped})"
        display.message(f"study {name!r} is finished: all {have} trials are done{ended}")
    return spec


def _create(engine: Engine, problem: Problem, wanted: Sequence[Params]) -> bool:
    """Create the study; False where one of its name is there."""
    spec, name = problem.spec, str(problem.spec.name)
    if name not in study_rows.study_names(engine):
        check_weights(spec, math.prod(problem.image_shape), engine.dialect.name)
    return study_rows.create_study(
        engine,
        name,
        spec=spec,
        facts={**problem.facts(), "pca": principal_components_by_fold(problem)},
        n_trials=spec.n_trials,
        generation_size=_generation_size(spec),
        version=__version__,
        timeout=spec.search.timeout,
        wanted=wanted,
    )


def _enqueue(
    engine: Engine,
    study: study_rows.StudyRow,
    wanted: Sequence[Params],
    display: Display,
) -> None:
    if not wanted or not study_rows.enqueue(engine, study, wanted):
        return
    waiting = len(search_results.pending_wishes(engine, study))
    counts = status.trial_counts(engine, study)
    left, have = counts.waiting, counts.total
    display.message(f"{waiting} enqueued: they are the next trials of study {study.name!r}")
    if left < waiting:
        display.message(
            f"{waiting - left} of them have no trial left; ask for more with "
            f"--trials {have + waiting - left}"
        )


def _trials_to_have(
    study: study_rows.StudyRow, stored: ResolvedSpec, spec: ResolvedSpec, before: int
) -> int:
    """How many trials are asked for: no more where the search has ended by its rule."""
    same = spec.search.stop == stored.search.stop and spec.n_trials <= stored.n_trials
    return before if study.stopped is not None and same else spec.n_trials


def check_changes(engine: Engine, problem: Problem) -> None:
    """Refuse another specification for a study that the store has; other problems come later.

    Raises
    ------
    StudyMismatchError
    """
    if engine.dialect.name == "sqlite" and not Path(str(engine.url.database)).is_file():
        return
    try:
        migrations.prepare(engine, create=False)
        there = study_rows.study_names(engine)
    except StoreError:
        return
    if str(problem.spec.name) in there:
        _same_study(engine, problem)


def _same_study(
    engine: Engine, problem: Problem
) -> tuple[study_rows.StudyRow, ResolvedSpec, ResolvedSpec]:
    """Find the study in its store, its specification and the one that is asked for.

    Raises
    ------
    StudyMismatchError
        They differ in more than may change.
    """
    name = str(problem.spec.name)
    study = _found(engine, name)
    check_versions(study)
    stored, spec = _comparable(problem, study)
    differences = diff(stored, spec)
    if differences:
        listed = "\n".join(f"  - {line}" for line in differences)
        raise StudyMismatchError(
            f"study {name!r} exists with another specification (stored -> asked):\n{listed}\n"
            "give it the stored values, or name a new study with --study"
        )
    check_same_data(problem, study.facts, name)
    return study, stored, spec


def _found(engine: Engine, name: str) -> study_rows.StudyRow:
    try:
        return study_rows.find_study(engine, name)
    except StudyNotFoundError as error:
        raise StudyMismatchError(
            f"study must have a name of its own in {describe(engine.url)}, got {name!r}, which "
            "another program has given to a study there; name this one with --study"
        ) from error


def _comparable(problem: Problem, study: study_rows.StudyRow) -> tuple[ResolvedSpec, ResolvedSpec]:
    """Give the stored specification and the asked one, less what is no difference of theirs."""
    stored, spec = study_rows.stored_spec(study), problem.spec
    if _moved(stored.data.dataset, spec.data.dataset, problem, study.facts):
        moved = stored.data.model_copy(update={"dataset": spec.data.dataset})
        stored = stored.model_copy(update={"data": moved})
    elif _same_place(stored.data.dataset, spec.data.dataset):
        spec = spec.model_copy(
            update={"data": spec.data.model_copy(update={"dataset": stored.data.dataset})}
        )
    return stored, as_stored(problem.asked, spec, stored, image_shape=problem.image_shape)


def _check_nothing_to_train(
    engine: Engine,
    study: study_rows.StudyRow,
    spec: ResolvedSpec,
    stored: ResolvedSpec,
    *,
    more: bool,
) -> None:
    """Refuse before anything is changed what only a GPU could finish."""
    if more or _chooses_anew(spec, stored) or any(ledger.open_work(engine, study).values()):
        raise StudyMismatchError(
            f"study {study.name!r} must be trained on {spec.compute.device}, where it was begun, "
            "got a machine that has none; run this where there is one, leave it to such workers "
            "with --detach, or name a new study with --study"
        )


def _tell(problem: Problem, display: Display) -> None:
    """Say what was created, and what its user may not have meant."""
    spec, dataset = problem.spec, problem.spec.data.dataset
    if known_name(dataset) is not None and Path(dataset).exists():
        display.message(
            f"{dataset!r} is the data set of that name; for what lies in this folder, give "
            f"--dataset ./{dataset}"
        )
    if spec.search.max_parameters is not None:
        display.message(_limited(problem))
    cut = cut_grid(spec, problem.image_shape)
    if cut is not None:
        display.message(cut)
    display.message(
        f"study {str(spec.name)!r}: {spec.n_trials} trials x {spec.search.folds} folds on "
        f"{len(problem.images)} images of {problem.name} "
        f"({'x'.join(map(str, problem.image_shape))}), {spec.compute.device}"
    )


def _limited(problem: Problem) -> str:
    """Say what the limit of weights leaves of the space, and of the widths."""
    spec = problem.spec
    whole = resolve(
        without_limit(problem.asked),
        image_shape=problem.image_shape,
        n_train=len(problem.images),
        device=spec.compute.device,
    )
    said = f"at most {spec.search.max_parameters:,} weights"
    if spec.model.dense.hidden != whole.model.dense.hidden:
        said += f"; hidden {hidden_name(spec.model.dense.hidden)}"
    gone = left_out(whole.space, spec)
    return said + (f"; left out: {', '.join(gone)}" if gone else "")


def _with_evaluation(
    spec: ResolvedSpec, stored: ResolvedSpec, *, more: bool, display: Display
) -> ResolvedSpec:
    """Keep the settings of an evaluation that stays; those of another model's are as asked."""
    another = more or _chooses_anew(spec, stored)
    display.message(
        f"study {str(spec.name)!r} keeps the evaluation that it has"
        f"{', if its model stays the same' if another else ', and its settings'}; "
        f"'aesearch evaluate {spec.name} --save' with options of its own measures again"
    )
    return spec if another else spec.model_copy(update={"evaluation": stored.evaluation})


def _chooses_anew(spec: ResolvedSpec, stored: ResolvedSpec) -> bool:
    """Whether another trial may be chosen, or the same one is trained otherwise."""
    now, before = (
        (each.retrain, each.search.select, each.search.objectives) for each in (spec, stored)
    )
    return now != before


def _generation_size(spec: ResolvedSpec) -> int:
    return spec.search.generation_size


def with_absolute_path(spec: StudySpec) -> StudySpec:
    """Name the images' file so that a worker that was started in another folder finds it."""
    changes = {}
    path = Path(spec.data.dataset).expanduser()
    if known_name(spec.data.dataset) is None and path.exists():
        changes["dataset"] = str(path.absolute())
    for setting in ("test", "noisy", "noisy_test", "labels", "groups"):
        given = getattr(spec.data, setting)
        is_path = True  # of these a column or an array may be named as well
        if setting == "groups":
            is_path = str(given).lower().endswith((".csv", ".tsv"))
        elif setting in ("noisy", "noisy_test"):
            is_path = not names_array(path, str(given))
        if given is not None and is_path and Path(given).expanduser().exists():
            changes[setting] = str(Path(given).expanduser().absolute())
    if spec.data.data_dir is not None:
        changes["data_dir"] = str(Path(spec.data.data_dir).expanduser().absolute())
    return spec.model_copy(update={"data": spec.data.model_copy(update=changes)})


def _moved(before: str, now: str, problem: Problem, facts: Facts) -> bool:
    """Whether the images' file or folder is another one by now, with the same images in it."""
    paths = known_name(before) is None and known_name(now) is None
    same_images = problem.fingerprint == facts["fingerprint"]
    return paths and same_images and not _same_place(before, now)


def _same_place(one: str, other: str) -> bool:
    return Path(one).expanduser().absolute() == Path(other).expanduser().absolute()
