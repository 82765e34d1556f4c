"""The run folder: everything a study leaves as files, from the store alone."""

import contextlib
from pathlib import Path

from sqlalchemy.engine import Engine

from aesearch.artifacts.best_file import load_best
from aesearch.artifacts.model_path import MODEL_NAME, is_ours
from aesearch.studies.dashboard.artifacts import TrialFile, trial_files
from aesearch.studies.dashboard.publishing import write_missing
from aesearch.studies.errors import AesearchError, RunFailedError, SpecError
from aesearch.studies.files import one_writer
from aesearch.studies.report.stored import report_of
from aesearch.studies.report.words import reproducing_commands
from aesearch.studies.results import evaluation_files, frames
from aesearch.studies.results.best_result import Origin, Result, best_yaml, chosen_spec
from aesearch.studies.results.output_files import (
    SPECIFICATION,
    OutputError,
    make_folder,
    write_whole,
)
from aesearch.studies.results.records import Facts, TrainedSeed
from aesearch.studies.results.selection import best_seed, eligible_trials
from aesearch.studies.spec.load import MAY_DIFFER_ON_RESUME, diff, to_yaml
from aesearch.studies.spec.resolved import ResolvedSpec, as_stored, resolve
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store.connection.database import reading
from aesearch.studies.store.connection.retry import repeatable
from aesearch.studies.store.contents import StudyContents, contents_in
from aesearch.studies.store.status import FINISHED

_PICTURES = ("reconstructions-*", "samples", "interpolation", "corruption-*", "oddest")
# Where a best.yaml has the winner's values, or those that go by the device.
_OF_THE_WINNER = (
    "model.",
    "training.learning_rate",
    "training.weight_decay",
    "training.corruption_level",
    "search.generation_size",
    "search.lookahead",
    "compute.",
    "data.dataset",
)


def check_folder(
    folder: Path, spec: ResolvedSpec, facts: Facts, *, asked: StudySpec | None = None
) -> None:
    """Refuse a run folder that holds the model of another study.

    Parameters
    ----------
    spec : ResolvedSpec
        Of the study that is to be written.
    facts : Facts
        Of the images.
    asked : StudySpec, optional
        As it was given: what is automatic there is as in the folder. None where nothing is.

    Raises
    ------
    OutputError
        With what is different.
    """
    try:
        held, result = load_best(folder / "best.yaml")
    except AesearchError:  # there is none, or none that anything could be read from
        _check_model(folder)
        return
    channels, height, width = facts["image_shape"]
    # Of fewer images than it has folds nothing can be resolved, and the differences tell why.
    with contextlib.suppress(SpecError):
        held = resolve(
            held,
            image_shape=(channels, height, width),
            n_train=facts["n_images"],
            device=held.compute.device,
        )
    if asked is not None:
        spec = as_stored(asked, spec, held, image_shape=(channels, height, width))
    differences = diff(held, spec, may_differ=(*MAY_DIFFER_ON_RESUME, *_OF_THE_WINNER))
    if result.data.fingerprint != facts["fingerprint"]:
        differences.append("other images")
    if differences:
        raise OutputError(
            f"out must hold nothing of another study, got {str(folder)!r} with the model of one "
            f"({'; '.join(differences)}); name another folder with --out, or move that one away; "
            "where it is this study with changes, name it anew with --study"
        )


def _check_model(folder: Path) -> None:
    """Refuse a folder with a model that somebody else wrote."""
    path = folder / MODEL_NAME
    if path.exists() and not is_ours(path):
        raise OutputError(
            f"out must hold no model that aesearch did not write, got {str(path)!r}; name another "
            "folder with --out, or move that one away"
        )


def write_run_folder(engine: Engine, name: str, folder: Path) -> None:
    """Write specification, tables and, once retrained, model, evaluation and ``best.yaml``.

    The same study gives the same bytes. The model is that of the seed with the lowest
    validation loss; the test set has no say.

    Raises
    ------
    OutputError
        A file cannot be written, or the folder holds the model of another study.
    StudyNotFoundError
        There is no such study.
    RunFailedError
        Nothing was retrained yet; the tables are written all the same.
    """
    contents, files = _read(engine, name)
    check_folder(folder, contents.spec, contents.row.facts)
    make_folder(folder)
    with one_writer(folder):
        _write(folder, contents, files)


def _write(folder: Path, contents: StudyContents, files: list[TrialFile]) -> None:
    snapshot = contents.snapshot
    write_whole(folder / SPECIFICATION, _specification(contents))
    write_whole(folder / "trials.csv", frames.trials(snapshot).to_csv(index=False))
    write_whole(folder / "curves.csv", frames.curves(contents.curves).to_csv(index=False))
    best = tested_seed(contents)
    assert snapshot.chosen is not None, "only what was chosen is retrained"
    chosen = contents.spec.configuration(snapshot.trials[snapshot.chosen].params)
    reached = Result.of_seeds(
        Origin.of(snapshot, snapshot.trials[snapshot.chosen]),
        contents.retrained,
        snapshot.facts,
        exported=best.seed_index,
        looks=snapshot.test_looks,
    ).evaluated(contents.evaluation)
    document = best_yaml(to_yaml(chosen_spec(contents.spec, chosen)), reached)
    # A folder with a best.yaml is whole: that of another winner goes first, and this comes last.
    yaml = folder / "best.yaml"
    if yaml.exists() and yaml.read_bytes() != document.encode():
        yaml.unlink()
    model = folder / MODEL_NAME
    if model.exists() and model.read_bytes() != best.weights:
        remove_made_of_model(folder)
    write_whole(model, best.weights)
    write_missing(files, folder / "artifacts")
    if contents.evaluation is not None:
        evaluation_files.write_evaluation(folder, contents.evaluation, contents.pictures)
    write_whole(folder / "report.html", report_of(contents))
    write_whole(yaml, document)


def _specification(contents: StudyContents) -> str:
    """Write what makes the study again; said at its head where one command does not."""
    commands = reproducing_commands(contents.snapshot)
    if len(commands) == 1:
        return to_yaml(contents.spec)
    head = "# More trials were asked for later. The same study again takes, one after the other:\n"
    return head + "".join(f"#   {command}\n" for command in commands) + to_yaml(contents.spec)


@repeatable
def _read(engine: Engine, name: str) -> tuple[StudyContents, list[TrialFile]]:
    with reading(engine) as connection:
        contents = contents_in(connection, name, curves=True, pictures=True, weights=True)
        return contents, trial_files(connection, contents)


def tested_seed(contents: StudyContents) -> TrainedSeed:
    """Give the retrained seed that is exported, of a study that was read with weights.

    Raises
    ------
    RunFailedError
        Its winner was not retrained and tested yet.
    """
    rows, trials = contents.retrained, contents.snapshot.trials
    over = all(trial.state in FINISHED for trial in trials)
    if contents.snapshot.chosen is None and over and not eligible_trials(trials):
        raise RunFailedError(
            f"study {contents.row.name!r} must have a winner before its model is used, got no "
            f"complete, stable trial; 'aesearch show {contents.row.name}' says why"
        )
    if not rows or any(row.test_mse is None for row in rows):
        raise RunFailedError(
            f"study {contents.row.name!r} must be retrained and tested before its model is used, "
            f"got {len(rows)} retrained seeds; run the same 'aesearch run' command again"
        )
    return best_seed(rows)


def remove_made_of_model(folder: Path) -> None:
    """Remove what stands in a run folder beside its model, and is of no other."""
    names = [
        "evaluation.json",
        "calibration.json",
        "evaluation.csv",
        "robustness.csv",
        "report.html",
    ]
    names += [f"pictures/{name}.png" for name in _PICTURES]
    names += [
        f"{part}.{kind}" for part in ("model", "encoder", "decoder") for kind in ("onnx", "pt2")
    ]
    for name in names:
        for path in folder.glob(name):
            path.unlink()
