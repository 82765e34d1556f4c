"""aesearch from a script or a notebook: ``search`` does what ``aesearch run`` does."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aesearch.artifacts import model_file
from aesearch.artifacts.best_file import load_best
from aesearch.artifacts.model_path import MODEL_NAME
from aesearch.data.arrays.images import ImageSet, as_image_set
from aesearch.data.load import load as load_images
from aesearch.driver.study_run import OnTrial, Run, run_study
from aesearch.models.autoencoder import Autoencoder
from aesearch.options import OptionError, storage_or_default
from aesearch.sampling.wanted import Wanted, read_wanted
from aesearch.settings import study_spec
from aesearch.studies.errors import DataError, StudyMismatchError
from aesearch.studies.results.evaluation import Evaluation
from aesearch.studies.results.output_files import default_folder, make_folder, write_whole
from aesearch.studies.results.summary import Summary
from aesearch.studies.results.summary_text import summary_text
from aesearch.studies.spec.dimensions import Params
from aesearch.studies.spec.sections import DataSpec
from aesearch.studies.spec.study import StudySpec
from aesearch.study import Study, open_study
from aesearch.terminal.display import make_display
from aesearch.workers.ray_cluster import Cluster

IMAGES = "images.npz"


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a finished study found.

    Attributes
    ----------
    spec : StudySpec
        The winner's: model and training are set to its configuration, nothing is ``auto``.
    best_params : dict
        What was searched, as the winner has it.
    value, standard_error : float
        Mean over the folds of the winner's validation MSE per pixel, and its standard error.
    test_mse : float
        Of ``model`` on the test set, per pixel.
    trials, curves, scores : DataFrame
        One row per trial; per trial, fold and epoch; per complete trial and fold.
    summary : Summary
        Everything above and more; what ``aesearch run --json`` prints.
    evaluation : Evaluation or None
        What ``model`` reached on the test set, with intervals, the PCA baseline, robustness and
        latent space.
    folder : Path
        Where ``best.yaml``, ``model.safetensors`` and the tables lie.
    storage : str
        Database URL or SQLite file that holds the study.
    """

    folder: Path
    storage: str
    spec: StudySpec
    best_params: Params
    value: float
    standard_error: float | None
    test_mse: float
    summary: Summary = field(repr=False)
    evaluation: Evaluation | None = field(repr=False)
    trials: pd.DataFrame = field(repr=False)
    curves: pd.DataFrame = field(repr=False)
    scores: pd.DataFrame = field(repr=False)
    _where: Path = field(repr=False)  # the folder, wherever the process goes

    @property
    def study(self) -> Study:
        """The study in its store."""
        return open_study(str(self.spec.name), self.storage)

    def _repr_html_(self) -> str:
        return self.study._repr_html_()

    @cached_property
    def model(self) -> Autoencoder:
        """The retrained winner, on the CPU, in evaluation mode."""
        return model_file.load(self._where / MODEL_NAME)

    def __repr__(self) -> str:
        return f"{summary_text(self.summary)}\nFolder: {self.folder}"


def search(
    images: Any = None,
    labels: Any = None,
    *,
    preset: str | None = None,
    spec: str | Path | StudySpec | Mapping[str, Any] | None = None,
    set: str | Sequence[str] = (),  # noqa: A002 - the same word as on the command line
    dataset: str | Path | None = None,
    data_dir: str | Path | None = None,
    test: str | Path | None = None,
    noisy: Any = None,
    noisy_test: str | Path | None = None,
    groups: Any = None,
    stratify: bool | None = None,
    resize: int | str | None = None,
    colour: str | None = None,
    white: float | None = None,
    bad_files: str | None = None,
    image_shape: Sequence[int] | None = None,
    folds: int | None = None,
    trials: int | None = None,
    epochs: int | str | None = None,
    batch_size: int | str | None = None,
    architecture: str | Sequence[str] | None = None,
    encoding_dim: int | Sequence[int] | None = None,
    corruption: str | None = None,
    corruption_level: float | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    objectives: str | Sequence[str] | None = None,
    select: str | None = None,
    max_parameters: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    timeout: float | None = None,
    study: str | None = None,
    storage: str | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus_per_worker: float | None = None,
    enqueue: Wanted = (),
    on_trial: OnTrial | None = None,
    quiet: bool = False,
) -> SearchResult:
    """Search, choose, retrain and test; the same call again goes on where the last one stopped.

    Parameters
    ----------
    images : array, Tensor, list of PIL images or Dataset, optional
        ``(sample, height, width)``, ``(sample, height, width, channel)``, ``(sample, channel,
        height, width)``, or ``(sample, pixel)`` with ``image_shape``; integers in 0..255 or
        floats in [0, 1]. Or a ``torch.utils.data.Dataset`` of images or of (image, label). A
        copy is kept in the run folder. Instead of ``dataset``.
    labels : array, (sample,), or path, optional
        Class of each of ``images``, a number or a name; the CSV of labels beside a folder.
    groups : array, (sample,), or str, optional
        What belongs together; beside a ``dataset`` as ``--groups``.
    image_shape : tuple of int, optional
        Axes of a flat row of ``images``: ``(28, 28)``, ``(32, 32, 3)``, ``(3, 32, 32)``.
    preset : str, optional
        Name of a preset to start from.
    spec : path, StudySpec or mapping, optional
        Specification to start from, instead of a preset.
    set : str or sequence of str
        ``"space.encoding_dim.choices=[4, 8]"``: anything in the specification.
    dataset : str or path, optional
        Name of a data set, or images: a file, or a folder. This and all that follow, to
        ``study``, are the options of ``aesearch run``: None leaves what the specification says.
    data_dir : path, optional
        Where data sets that have a name are kept.
    test : str or path, optional
        File or folder with the test set.
    noisy : array, Tensor, list of PIL images or Dataset, or path, optional
        A noisy image for each, in their order: the network learns to clean them. Beside a
        ``dataset`` a file, or a folder with the same names.
    noisy_test : str or path, optional
        The same for ``test``.
    stratify : bool, optional
        Whether folds have the classes in equal shares.
    resize : int or str, optional
        Side of all images: ``64``, ``"64-crop"``, ``"64-fit"`` or ``"64-stretch"``.
    colour : {"auto", "grey", "rgb"}, optional
    white : float, optional
        Value of a white pixel, such as 4095.
    bad_files : {"stop", "skip"}, optional
        What an image file that cannot be read is answered with.
    folds, trials : int, optional
        Parts of the cross-validation, and configurations to try.
    epochs : int or "auto", optional
        ``auto`` scores a trial as it would be delivered, stopped early; or epochs of every trial.
    batch_size : int or "auto", optional
        Images per gradient step.
    architecture : str or sequence of str, optional
        ``dense``, ``conv``, or both to search over them; ``auto`` goes by the image.
    encoding_dim : int or sequence of int, optional
        Size of the code, or several to search over them.
    corruption, corruption_level : optional
        What training images suffer, and how strongly: the network learns to denoise.
    sampler, pruner, select : str, optional
        What suggests trials, what stops them early, and how the winner is chosen.
    objectives : str or sequence of str, optional
        What the Pareto front is over: ``["mse", "encoding_dim"]``; also ``n_parameters``.
    max_parameters : int, optional
        Weights and biases that a network may have at most.
    seed : int, optional
        All randomness follows from it.
    device : {"auto", "cpu", "cuda"}, optional
    precision : {"auto", "float32", "bfloat16"}, optional
    timeout : float, optional
        Seconds after which no new trial starts.
    study : str, optional
        Name of the study; that of the images where nothing else is said.
    storage : str, optional
        Database URL or SQLite file; None for ``AESEARCH_STORAGE``, or ``aesearch.db`` in the
        current folder.
    out : path, optional
        Run folder; None for ``runs/<study>``.
    workers : int, optional
        Processes; None for one per GPU or core. Never changes a result.
    ray : str, optional
        Address of a Ray cluster whose machines run the workers.
    gpus_per_worker : float, optional
        GPUs that Ray gives each worker; may be a fraction. None for one where the study trains
        on GPUs.
    enqueue : mapping, path, or sequence of them
        Configurations that are tried next, by the names of the space, or files of them: YAML, a
        ``best.yaml`` or a ``trials.csv`` of another study.
    on_trial : callable(TrialRecord), optional
        Told of each trial that ends during this call; what it raises ends the call, and nothing
        is lost: the same call goes on.
    quiet : bool
        Show no progress.

    Raises
    ------
    AesearchError
        What can be mended, named; nothing is lost.

    Examples
    --------
    >>> result = aesearch.search(images, folds=3, trials=50)    # doctest: +SKIP
    >>> codes = result.model.encode(batch)                      # doctest: +SKIP
    """
    options = locals()
    if workers is not None and workers < 1:
        raise OptionError(f"workers must be >= 1, got {workers!r}")
    if gpus_per_worker is not None and ray is None:
        raise OptionError(
            f"gpus_per_worker must be given beside ray, got {gpus_per_worker!r} without; "
            "workers on this machine have one GPU each"
        )
    cluster = None if ray is None else Cluster(ray, gpus_per_worker)
    _check_images(images, dataset, labels, noisy)
    if images is not None:
        # Of the array, no settings; noisy images lie beside it in the archive that is kept.
        options |= {"labels": None, "groups": None, "noisy": None if noisy is None else "noisy"}
    asked = study_spec(
        options, preset=preset, spec=spec, overrides=[set] if isinstance(set, str) else set
    )
    folder = None if out is None else Path(out).expanduser()
    if images is not None:
        how = asked.data
        if image_shape is not None:
            how = how.model_copy(update={"image_shape": tuple(map(int, image_shape))})
        image_set = as_image_set(images, labels, groups=groups, noisy=noisy, name="images", how=how)
        name = asked.name or f"images-{image_set.fingerprint[:8]}"
        folder = default_folder(name) if folder is None else folder
        began_here = not (folder / IMAGES).exists()
        kept = keep_images(image_set, folder)
        # What is kept has its size, colours and range already.
        done = {"resize": None, "colour": "auto", "white": how.white and 255, "image_shape": None}
        data = asked.data.model_copy(
            update={**done, "dataset": str(kept), "groups": None if groups is None else "groups"}
        )
        asked = asked.model_copy(update={"name": name, "data": data})
    try:
        with make_display(quiet=quiet) as display:
            run = run_study(
                asked,
                storage=storage_or_default(storage),
                out=folder,
                workers=workers,
                cluster=cluster,
                display=display,
                enqueue=read_wanted(enqueue),
                on_trial=on_trial,
            )
    except BaseException:
        if images is not None and folder is not None and began_here:
            _forget_images(folder)
        raise
    return found(run)


def _check_images(images: Any, dataset: Any, labels: Any, noisy: Any) -> None:
    """Refuse what does not go with images in memory, or only with them."""
    if images is not None and dataset is not None:
        raise OptionError(f"dataset must not be given beside images, got {str(dataset)!r}")
    if images is None and labels is not None and not isinstance(labels, str | Path):
        raise OptionError(
            "labels must be given beside images, or be the path of a CSV beside a folder, got "
            f"{type(labels).__name__}"
        )
    if noisy is not None and (images is None) != isinstance(noisy, str | Path):
        raise OptionError(
            "noisy must be images beside images, and a path beside a dataset, got "
            f"{type(noisy).__name__}"
        )


def _forget_images(folder: Path) -> None:
    """Take images away that no run came to use: they would stand in the way of the next ones."""
    if [path.name for path in folder.iterdir()] == [IMAGES]:
        (folder / IMAGES).unlink()
        folder.rmdir()


def keep_images(image_set: ImageSet, folder: Path) -> Path:
    """Write images where the worker processes, and a later ``aesearch train``, can read them.

    Returns
    -------
    Path
        Absolute path of ``images.npz``; one that holds these images already is left alone.

    Raises
    ------
    StudyMismatchError
        It holds other images, which a study may still need.
    OutputError
        The folder cannot be written.
    """
    make_folder(folder)
    path = (folder / IMAGES).absolute()
    if path.exists():
        how = DataSpec(noisy=None if image_set.noisy is None else "noisy")
        try:
            there = load_images(path, how=how).fingerprint
        except DataError:  # without noisy ones, say; or damaged, which is said
            there = load_images(path).fingerprint
        if there != image_set.fingerprint:
            raise StudyMismatchError(
                f"{path} must hold the images of this study "
                f"(sha256 {image_set.fingerprint[:12]}…), got others (sha256 {there[:12]}…); "
                "name another study or another out folder"
            )
        return path
    arrays: dict[str, Any] = {"images": image_set.images}
    if image_set.labels is not None:
        arrays["labels"] = image_set.labels
    if image_set.class_names is not None:
        arrays["class_names"] = np.array(image_set.class_names)
    if image_set.groups is not None:
        arrays["groups"] = image_set.groups
    if image_set.noisy is not None:
        arrays["noisy"] = image_set.noisy
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(path, content.getvalue())
    return path


def found(run: Run) -> SearchResult:
    """Read a finished study back from its store and its folder."""
    study = open_study(run.name, run.storage)
    winner = study.best
    assert winner is not None, "a run ends with a choice"
    assert winner.value is not None, "only a complete trial is chosen"
    spec, result = load_best(run.folder / "best.yaml")
    return SearchResult(
        folder=run.folder,
        storage=study.storage,
        spec=spec,
        best_params=dict(winner.params),
        value=winner.value,
        standard_error=winner.standard_error,
        test_mse=result.test.mse,
        summary=study.summary(),
        evaluation=study.evaluation,
        trials=study.trials(),
        curves=study.curves(),
        scores=study.scores(),
        _where=run.folder.absolute(),
    )
