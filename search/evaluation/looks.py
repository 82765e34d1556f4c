"""The retrained model of a study or a run folder, measured on the test set once more."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import Engine

from aesearch.artifacts.best_file import BEST, check_same_images, load_best
from aesearch.artifacts.model_file import MODEL_NAME, from_bytes, load_model
from aesearch.artifacts.run_folder import tested_seed
from aesearch.data.study_data import check_same_data, load_problem
from aesearch.evaluation.evaluate import Evaluated
from aesearch.studies.results.calibration import Calibration, from_document
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.strict_yaml import Flags
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store.contents import StudyContents, read_contents
from aesearch.studies.store.evaluation_results import write_look
from aesearch.terminal.evaluation_tables import measured


@dataclass(frozen=True)
class Look:
    """One more look at a test set.

    Attributes
    ----------
    evaluation : Evaluated
        What was measured, and its pictures.
    looks : int
        How many times the test set was looked at, this one included, as far as anybody counts.
    saved : bool
        Whether the store holds this evaluation now.
    """

    evaluation: Evaluated
    looks: int
    saved: bool


def evaluate_folder(folder: Path, changes: Flags) -> Look:
    """Measure the model of a run folder; nobody counts the look.

    Parameters
    ----------
    folder : Path
        With ``best.yaml`` and ``model.safetensors``.
    changes : mapping
        Other values by dotted path of the specification, such as ``evaluation.bootstrap``.
    """
    best = folder / BEST
    spec, result = load_best(best)
    model = load_model(folder / MODEL_NAME)
    spec = _with(spec, changes)
    problem = load_problem(spec, device=spec.compute.device)
    check_same_images(problem, result.data, str(best))
    test = result.test
    evaluation = measured(
        model,
        problem,
        test.seed_index,
        problem.spec.configuration({}),
        calibration=model.find_calibration(),
    )
    return Look(evaluation, test.looks + 1, saved=False)


def evaluate_study(engine: Engine, name: str, changes: Flags, *, save: bool) -> Look:
    """Measure the retrained model of a study; the store counts the look.

    Parameters
    ----------
    changes : mapping
        As for ``evaluate_folder``.
    save : bool
        Keep this evaluation in the store, in the place of the one that is there.

    Raises
    ------
    RunFailedError
        It was not retrained and tested yet.
    """
    contents = read_contents(engine, name, weights=True)
    exported = tested_seed(contents)
    spec = _with(contents.spec, changes)
    problem = load_problem(spec, device=spec.compute.device)
    check_same_data(problem, contents.row.facts, name)
    assert contents.snapshot.chosen is not None, "only what was chosen is retrained"
    params = contents.snapshot.trials[contents.snapshot.chosen].params
    evaluation = measured(
        from_bytes(exported.weights),
        problem,
        exported.seed_index,
        problem.spec.configuration(params),
        calibration=stored_calibration(contents, exported.weights_sha256),
    )
    looks, saved = write_look(
        engine, contents.row, evaluation.document, evaluation.pictures, replace=save
    )
    return Look(evaluation, looks, saved)


def stored_calibration(contents: StudyContents, weights_sha256: str) -> Calibration | None:
    """Give the calibration of a model that its evaluation left in the store, if it did."""
    found = contents.evaluation and contents.evaluation.calibration
    if not found or found.weights_sha256 != weights_sha256:
        return None
    return from_document(found.to_dict())


def _with(spec: StudySpec, changes: Flags) -> StudySpec:
    return load_spec(spec=spec, flags=changes)
