"""The retrained model of a study or a run folder, measured on the test set once more."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from sqlalchemy.engine import Engine

from aesearch.artifacts import model_file
from aesearch.artifacts.best_file import BEST, check_same_images, load_best
from aesearch.artifacts.model_path import MODEL_NAME
from aesearch.artifacts.run_folder import tested_seed
from aesearch.data.study_data import Problem, check_same_data, load_problem
from aesearch.evaluation.evaluate import Evaluated, evaluate
from aesearch.models.autoencoder import Autoencoder
from aesearch.models.runtime import prepare_process
from aesearch.options import OptionError
from aesearch.outputs import EvaluatedModel
from aesearch.settings import spec_values
from aesearch.studies.results.calibration import Calibration, from_document
from aesearch.studies.results.evaluation_files import write_evaluation
from aesearch.studies.results.output_files import OverwriteError, make_folder
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.sections import RobustnessSpec
from aesearch.studies.spec.strict_yaml import Flags
from aesearch.studies.spec.study import Configuration
from aesearch.studies.store.contents import StudyContents, read_contents
from aesearch.studies.store.evaluation_results import write_look
from aesearch.studies.store.study_rows import existing_store
from aesearch.terminal.evaluation_tables import print_evaluation, waiting
from aesearch.training.out_of_fold import calibrate


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
    counted : bool
        Whether the store counts the look; nobody counts those of a run folder.
    """

    evaluation: Evaluated
    looks: int
    saved: bool
    counted: bool = True

    def show(self) -> None:
        """Print the tables of the evaluation, and which look it was."""
        print_evaluation(self.evaluation.document)
        sys.stdout.write(f"{self.text()}\n")

    def text(self) -> str:
        """Say which look it was, and whether it is kept."""
        if not self.counted:
            return (
                f"This was look {self.looks} at the test set; a run folder does not count it, a "
                "store does."
            )
        kept = "is in the store now" if self.saved else "is not kept in the store: --save does that"
        return (
            f"This was look {self.looks} at the test set, counted in the store; only the first is "
            f"free of bias. This evaluation {kept}."
        )

    def printed(self, files: Sequence[Path]) -> EvaluatedModel:
        """Give what ``aesearch evaluate --json`` prints."""
        return EvaluatedModel(
            **vars(self.evaluation.document.without_errors()),
            test_looks=self.looks,
            saved=self.saved,
            files=[str(path) for path in files],
        )


def changes_of(
    noise: Mapping[str, float | Sequence[float]] | None = None,
    *,
    bootstrap: int | None = None,
    **where: str | Path | None,
) -> Flags:
    """Turn what is asked for into values by dotted path of the specification.

    Parameters
    ----------
    noise : mapping of str to float or sequence of float, optional
        Levels by kind; kinds that are not named are left out. None for what the study says.
    bootstrap : int, optional
        None for what the study says.
    **where : optional
        Of ``IMAGE_PATHS``: where the same images are now.

    Raises
    ------
    OptionError
        A kind of noise that is not one.
    """
    changes: dict[str, object] = spec_values(where)
    if bootstrap is not None:
        changes["evaluation.bootstrap"] = bootstrap
    if noise is None:
        return changes
    kinds = {name.replace("_", "-"): name for name in RobustnessSpec.model_fields}
    levels: dict[str, list[float]] = {name: [] for name in kinds.values()}
    for kind, found in noise.items():
        name = kinds.get(kind.replace("_", "-"))
        if name is None:
            raise OptionError(
                f"noise must be of {', '.join(kinds)}, got {kind!r}; "
                "for example --noise gaussian=0.5,1"
            )
        levels[name] += [found] if isinstance(found, int | float) else list(found)
    return changes | {f"evaluation.robustness.{name}": found for name, found in levels.items()}


def measured(
    model: Autoencoder,
    problem: Problem,
    seed_index: int,
    configuration: Configuration,
    *,
    calibration: Calibration | None = None,
    quiet: bool = False,
) -> Evaluated:
    """Evaluate a model in this process, to the last bit as a worker would, and say so.

    It is calibrated where no calibration of it is given.
    """
    prepare_process(problem.spec.compute.threads)
    try:
        with waiting(f"Measuring {len(problem.test_images)} test images…", quiet=quiet):
            calibration = calibration or calibrate(model, problem, configuration)
            return evaluate(model, problem, seed_index=seed_index, calibration=calibration)
    finally:
        # A worker's process ends; this one may go on, with numbers that it expects whole.
        torch.set_flush_denormal(False)


def evaluate_named(
    what: str,
    storage: str,
    changes: Flags,
    *,
    save: bool,
    out: Path | None = None,
    force: bool = False,
) -> tuple[Look, list[Path]]:
    """Measure the model of a study in a store, or of the run folder that a path means.

    Parameters
    ----------
    what : str
        Name of a study, or path of a run folder or of the best.yaml or model in one.
    storage : str
        Store of the study.
    changes, save
        As for ``evaluate_study``.
    out : Path, optional
        Folder that gets tables and pictures.
    force : bool
        Write over an evaluation that is in it.

    Returns
    -------
    Look
    list of Path
        The files that were written.

    Raises
    ------
    OptionError
        A folder without a best.yaml, or one whose evaluation was to be kept.
    OverwriteError
        There is an evaluation in ``out`` already.
    """
    if out is not None:
        if (out / "evaluation.json").exists() and not force:
            raise OverwriteError(
                f"out must hold no evaluation yet, got {str(out)!r} with evaluation.json; "
                "name another folder, or --force to write over it"
            )
        make_folder(out)
    best = _best_file(what)
    if best is None:
        with existing_store(storage) as engine:
            found = evaluate_study(engine, what, changes, save=save)
    elif save:
        raise OptionError(
            f"--save must be given with the name of a study, got {what!r}; a run folder is no store"
        )
    else:
        found = evaluate_folder(best.parent, changes)
    if out is None:
        return found, []
    evaluation = found.evaluation
    return found, write_evaluation(out, evaluation.document, evaluation.pictures)


def _best_file(what: str) -> Path | None:
    """The ``best.yaml`` that a path means; None where it is no path but a name."""
    path = Path(what).expanduser()
    # A bare word is always a study, as for export: a folder of its name may lie beside the store.
    if not any(mark in what for mark in "/\\.~"):
        return None
    if path.is_dir() and (path / BEST).is_file():
        return path / BEST
    if path.is_file():
        beside = path if path.suffix in {".yaml", ".yml"} else path.parent / BEST
        if not beside.is_file():
            raise OptionError(
                f"{what} must lie beside its best.yaml, which names the test images, got a "
                "folder without one; give the name of the study instead"
            )
        return beside
    return None


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
    model = model_file.load(folder / MODEL_NAME)
    spec = load_spec(spec=spec, flags=changes)
    problem = load_problem(spec, device=spec.compute.device)
    check_same_images(problem, result.data, str(best))
    evaluation = measured(
        model,
        problem,
        result.test.seed_index,
        problem.spec.configuration({}),
        calibration=model.find_calibration(),
    )
    return Look(evaluation, result.test.looks + 1, saved=False, counted=False)


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
    spec = load_spec(spec=contents.spec, flags=changes)
    problem = load_problem(spec, device=spec.compute.device)
    check_same_data(problem, contents.row.facts, name)
    assert contents.snapshot.chosen is not None, "only what was chosen is retrained"
    params = contents.snapshot.trials[contents.snapshot.chosen].params
    evaluation = measured(
        model_file.from_bytes(exported.weights),
        problem,
        exported.seed_index,
        problem.spec.configuration(params),
        calibration=stored_calibration(contents, exported.weights_sha256),
    )
    looks, saved = write_look(
        engine, contents.row, evaluation.document, evaluation.pictures, replace=save
    )
    return Look(evaluation, looks, saved)


def stored_model(contents: StudyContents) -> Autoencoder:
    """Give the retrained winner of a study that was read with weights, on the CPU.

    Raises
    ------
    RunFailedError
        It has not been retrained and tested yet.
    """
    row = tested_seed(contents)
    model = model_file.from_bytes(row.weights)
    model.find_calibration = partial(stored_calibration, contents, row.weights_sha256)
    return model


def stored_calibration(contents: StudyContents, weights_sha256: str) -> Calibration | None:
    """Give the calibration of a model that its evaluation left in the store, if it did."""
    found = contents.evaluation and contents.evaluation.calibration
    if not found or found.weights_sha256 != weights_sha256:
        return None
    return from_document(found.to_dict())
