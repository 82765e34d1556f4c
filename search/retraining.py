"""A ``best.yaml`` trained again: to a model in a folder, or to hold it against its number."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aesearch.artifacts import model_file
from aesearch.artifacts.best_file import (
    BEST,
    Comparison,
    check_same_images,
    compare,
    load_best,
    load_trainable,
)
from aesearch.artifacts.model_path import MODEL_NAME, is_ours
from aesearch.artifacts.run_folder import remove_made_of_model
from aesearch.artifacts.sizes import best_of_size, trial_of_study
from aesearch.data.load import missing_paths
from aesearch.data.study_data import Problem, load_problem, versions
from aesearch.device import present_device
from aesearch.evaluation.looks import measured
from aesearch.models.autoencoder import Autoencoder
from aesearch.options import OptionError, storage_or_default
from aesearch.outputs import TrainedFiles, TrainedModel
from aesearch.settings import IMAGE_PATHS, spec_values
from aesearch.studies.errors import DataError, DataMissingError
from aesearch.studies.results.best_result import DataResult, Origin, Result, best_yaml
from aesearch.studies.results.evaluation import Evaluation
from aesearch.studies.results.evaluation_files import write_evaluation
from aesearch.studies.results.output_files import (
    OverwriteError,
    default_folder,
    make_folder,
    write_whole,
)
from aesearch.studies.results.records import TrainedSeed
from aesearch.studies.results.selection import best_seed
from aesearch.studies.spec.load import load_spec, to_yaml
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store.evaluation_results import count_look
from aesearch.studies.store.study_rows import existing_store
from aesearch.terminal.display import make_display
from aesearch.training.retrain_pool import train_seeds


@dataclass(frozen=True)
class Trained:
    """A network that was trained from a file.

    Attributes
    ----------
    folder : Path
        With ``best.yaml``, ``model.safetensors`` and the evaluation.
    result : Result
        What was reached; the part ``result`` of its ``best.yaml``.
    """

    folder: Path
    result: Result

    @property
    def test_mse(self) -> float:
        """Mean squared error per pixel of the model on the test set."""
        return self.result.test.mse

    @property
    def model(self) -> Autoencoder:
        """The network, on the CPU, in evaluation mode."""
        return model_file.load(self.folder)

    def printed(self) -> TrainedModel:
        """Give what ``aesearch train --json`` prints."""
        files = TrainedFiles(str(self.folder / BEST), str(self.folder / MODEL_NAME))
        return TrainedModel(self.result, files)


def train(
    best: str | Path,
    *,
    encoding_dim: int | None = None,
    trial: int | None = None,
    out: str | Path | None = None,
    dataset: str | Path | None = None,
    data_dir: str | Path | None = None,
    test: str | Path | None = None,
    labels: str | Path | None = None,
    groups: str | Path | None = None,
    noisy: str | Path | None = None,
    noisy_test: str | Path | None = None,
    device: str | None = None,
    storage: str | Path | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Trained:
    """Train a ``best.yaml``, or the defaults of any specification, from the file alone.

    The seed with the lowest validation loss is exported and measured: one more look at the test
    set.

    Parameters
    ----------
    best : path
        The file, or the run folder that it lies in; beside ``encoding_dim`` or ``trial`` the name
        of a study.
    encoding_dim : int, optional
        Deliver the best network of this code size of a study instead.
    trial : int, optional
        Deliver the network of this trial of a study instead: one that is as good as the winner,
        say, and smaller.
    out : path, optional
        Folder to write; None for ``runs/<study>-retrained``, ``runs/<study>-<encoding_dim>`` or
        ``runs/<study>-trial-<trial>``.
    dataset, data_dir, test, labels, groups, noisy, noisy_test : optional
        Where the same images, and what lies beside them, are now; None for what the file says.
        Others are refused.
    device : str, optional
        What to train on; None for what the file says.
    storage : str or path, optional
        Store of the study, beside ``encoding_dim`` or ``trial``; it counts the look.
    force : bool
        Write over a model that is in the folder.
    quiet : bool
        Show no progress.

    Raises
    ------
    OverwriteError
        The folder holds a model, or the file itself.
    AesearchError
        What can be mended, named.
    """
    where = _where(locals())
    file = Path(best).expanduser()
    if encoding_dim is not None and trial is not None:
        raise OptionError(
            f"trial must not be given beside encoding_dim, got {trial} and {encoding_dim}; drop one"
        )
    of_study = encoding_dim is not None or trial is not None
    if not of_study:
        spec, before = load_trainable(file)
        origin, data, looks = None, None, 0
        if before is not None:
            origin, data, looks = before.origin, before.data, before.test.looks
    else:
        with existing_store(storage_or_default(storage)) as engine:
            if trial is not None:
                start = trial_of_study(engine, str(best), trial)
            else:
                start = best_of_size(engine, str(best), int(encoding_dim or 0))
        spec, origin, data, looks = start.spec, start.origin, start.data, start.looks
    problem = _problem(file, spec, data, where, device=device, quiet=quiet)
    ending = "retrained" if encoding_dim is None else str(encoding_dim)
    ending = ending if trial is None else f"trial-{trial}"
    folder = default_folder(f"{problem.spec.name}-{ending}") if out is None else Path(out)
    _check_out(folder, file / BEST if file.is_dir() else file, force=force)
    make_folder(folder)
    with make_display(quiet=quiet) as display:
        seeds = train_seeds(problem, progress=display)
    exported = best_seed(seeds)
    looks += 1
    if of_study:
        with existing_store(storage_or_default(storage)) as engine:
            looks = count_look(engine, str(best))
    result = Result.of_seeds(
        origin or Origin(study=problem.spec.name),
        seeds,
        problem.facts(),
        exported=exported.seed_index,
        looks=looks,
    )
    # A folder with a best.yaml is whole: another one's goes first. The model and its own come
    # before it is measured, which takes a while and may fail: it is what took hours.
    (folder / BEST).unlink(missing_ok=True)
    if is_ours(folder / MODEL_NAME):
        remove_made_of_model(folder)
    write_whole(folder / MODEL_NAME, exported.weights)
    write_whole(folder / BEST, best_yaml(to_yaml(problem.spec), result))
    evaluation = _evaluated(folder, exported, problem, quiet=quiet)
    if evaluation is not None:
        result = result.evaluated(evaluation)
        write_whole(folder / BEST, best_yaml(to_yaml(problem.spec), result))
    return Trained(folder, result)


def verify(
    best: str | Path,
    *,
    tolerance: float = 0.02,
    dataset: str | Path | None = None,
    data_dir: str | Path | None = None,
    test: str | Path | None = None,
    labels: str | Path | None = None,
    groups: str | Path | None = None,
    noisy: str | Path | None = None,
    noisy_test: str | Path | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Comparison:
    """Retrain the exported seed of a ``best.yaml`` and hold its test number against the file's.

    Parameters
    ----------
    best : path
        The file, or the run folder that it lies in.
    tolerance : float
        Largest relative difference of the test MSE that still agrees; >= 0.
    dataset, data_dir, test, labels, groups, noisy, noisy_test, device, quiet
        As for ``train``.

    Returns
    -------
    Comparison
        Its ``verdict`` is ``identical`` (the same weights), ``agrees`` or ``differs``.
    """
    where = _where(locals())
    if not tolerance >= 0:
        raise OptionError(f"tolerance must be >= 0, got {tolerance!r}")
    file = Path(best).expanduser()
    spec, result = load_best(file)
    problem = _problem(file, spec, result.data, where, device=device, quiet=quiet)
    index = result.test.seed_index
    with make_display(quiet=quiet) as display:
        # The seeds that trained beside it train beside it again; the others are not needed.
        seeds = train_seeds(problem, only=index, progress=display)
    seed = next(seed for seed in seeds if seed.seed_index == index)
    assert seed.test_mse is not None, "what was trained here is tested"
    return compare(
        result,
        mse=seed.test_mse,
        sha256=seed.weights_sha256,
        tolerance=tolerance,
        versions=versions(),
        devices=(spec.compute.device, problem.spec.compute.device),
    )


def _check_out(folder: Path, read: Path, *, force: bool) -> None:
    if (folder / BEST).absolute().resolve() == read.absolute().resolve():
        raise OverwriteError(
            f"out must be another folder than that of the file to retrain, got {str(folder)!r}"
        )
    taken = [name for name in (BEST, MODEL_NAME) if (folder / name).exists()]
    if taken and not force:
        raise OverwriteError(
            f"out must hold no model yet, got {str(folder)!r} with {' and '.join(taken)}; "
            "name another folder with --out, or --force to write over it"
        )


def _evaluated(
    folder: Path, exported: TrainedSeed, problem: Problem, *, quiet: bool
) -> Evaluation | None:
    """Measure the model that was written; None where that fails."""
    try:
        evaluation = measured(
            model_file.from_bytes(exported.weights),
            problem,
            exported.seed_index,
            problem.spec.configuration({}),
            quiet=quiet,
        )
    except KeyboardInterrupt:
        sys.stderr.write(f"the model is written: {folder / MODEL_NAME}\n")
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it costs no model
        sys.stderr.write(f"the model could not be evaluated: {error}\n")
        return None
    write_evaluation(folder, evaluation.document, evaluation.pictures)
    return evaluation.document


def _where(given: Mapping[str, Any]) -> dict[str, str | Path | None]:
    return {name: given[name] for name in IMAGE_PATHS}


def _problem(
    best: Path,
    spec: StudySpec,
    data: DataResult | None,
    where: Mapping[str, str | Path | None],
    *,
    device: str | None,
    quiet: bool,
) -> Problem:
    """Load what a best.yaml was made of, from where it is now, and check that it is the same."""
    flags = spec_values({**where, "device": device})
    asked = load_spec(spec=spec, flags=flags)
    here = present_device(asked)
    try:
        with make_display(quiet=quiet) as display:
            problem = load_problem(asked, device=here, progress=display.download)
            display.message(f"read {problem.name}: {problem.read}")
    except DataError as error:
        gone = [name for name in missing_paths(asked.data) if where[name] is None]
        if gone:
            options = " and ".join("--" + name.replace("_", "-") for name in gone)
            raise DataMissingError(
                f"{error}; {str(best)!r} names its images as the run did, in the folder that it "
                f"was started in: start this there, or say where they are with {options}"
            ) from error
        raise
    if data is not None:
        check_same_images(problem, data, str(best))
    return problem
