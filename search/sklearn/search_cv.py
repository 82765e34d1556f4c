"""The cross-validated search as a scikit-learn estimator; its study lives as long as ``fit``."""

import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import Tags
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted, validate_data

from aesearch import __version__
from aesearch.data.study_data import Problem
from aesearch.device import present_device
from aesearch.models.runtime import has_fast_bfloat16
from aesearch.sampling.suggest import cut_grid
from aesearch.sklearn.autoencoder import Autoencoder, plain, seed_of, training_process
from aesearch.sklearn.tables import layout_of, problem_of, range_of
from aesearch.studies.errors import DataError
from aesearch.studies.results.frames import front
from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.studies.spec.load import spec_from_mapping
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store import study_rows
from aesearch.workers.schedule import settle
from aesearch.workers.worker import Worker

# Every default is the specification's.
_SPEC = StudySpec()
_SEARCH = _SPEC.search
_STUDY = "search"


class AutoencoderSearchCV(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A cross-validated search for the best autoencoder of the rows of X.

    It is the search of ``aesearch run`` on all of X: folds and trials of a generation train
    together, losers are pruned, unstable trials are never chosen, and the same X gives the
    same result with any ``n_jobs``. Like there, a large X is searched in bfloat16 where the
    processor is fast at it; the refit is in float32. There is no test set in it: keep rows
    back yourself. The study is deleted at the end of ``fit``; ``aesearch.search`` keeps one,
    and resumes it.

    Parameters
    ----------
    estimator : Autoencoder, optional
        Settings of what is not searched, and of the refit; None for the defaults.
    folds : int
        Parts of the cross-validation, shuffled by ``random_state``; >= 2.
    trials : int
        Configurations to try.
    epochs : int or "auto"
        ``auto`` scores a trial as it would be refitted, stopped early; or epochs of every trial.
    space : dict, optional
        What is searched, as in the section ``space`` of a specification: ``{"encoding_dim":
        {"choices": [4, 8]}, "dropout": None}``. A name that is not given keeps its default
        dimension, None fixes it to the estimator's. The architecture is searched only where
        the estimator has an ``image_shape``.
    sampler : {"auto", "gp", "tpe", "random", "grid", "qmc"}
    pruner : {"none", "median", "halving", "hyperband"}
    select : {"best", "one-se", "knee"}
    objectives : sequence of {"mse", "encoding_dim", "n_parameters"}
        What counts beside the MSE, which is always one of them; fills ``front_``.
    max_parameters : int, optional
        Weights that a network may have at most; larger ones are not tried.
    unstable_loss : float
        A trial whose last loss (data range 1) is above it on any fold is never chosen. The
        default allows all: what is bad for images need not be for other rows.
    refit : bool
        Whether the winner is trained on all of X in the end.
    n_jobs : int, optional
        Workers of the search, as in scikit-learn; never changes a result.
    random_state : int, RandomState or None
        Of the search; that of the refit is the estimator's.

    Attributes
    ----------
    best_estimator_ : Autoencoder
        The winner, trained on all of X; with ``refit`` only.
    best_params_ : dict
        Of what was searched: parameters of ``Autoencoder``.
    best_score_ : float
        Mean over the folds of the winner's negative mean squared error, in units of X.
    best_index_ : int
        Its place in ``cv_results_``.
    cv_results_ : dict of arrays, (trial,)
        ``params``; ``param_<name>`` for each searched name, masked where it did not apply;
        ``split0_test_score`` … one per fold, ``mean_test_score``, ``std_test_score`` over the
        folds, ``rank_test_score`` (1 is the best; trials without scores share the last);
        ``state`` (complete, pruned, failed), ``eligible`` (complete and stable). Scores are
        negative mean squared errors in units of X; NaN for a trial that was not completed.
    front_ : DataFrame
        Trials on the Pareto front of the objectives (of MSE and code size where there is one):
        ``number``, ``mse`` (data range 1), ``encoding_dim``, ``n_parameters`` and ``knee``.
    n_splits_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X had names.

    Examples
    --------
    >>> from aesearch.sklearn import AutoencoderSearchCV
    >>> found = AutoencoderSearchCV(folds=3, trials=50).fit(X)    # doctest: +SKIP
    >>> found.best_params_, found.best_score_                     # doctest: +SKIP
    """

    def __init__(
        self,
        estimator: Autoencoder | None = None,
        *,
        folds: int = _SEARCH.folds,
        trials: int = _SEARCH.trials,
        epochs: int | str = _SPEC.training.epochs,
        space: Mapping[str, Any] | None = None,
        sampler: str = _SEARCH.sampler,
        pruner: str = _SEARCH.pruner,
        select: str = _SEARCH.select,
        objectives: Sequence[str] = _SEARCH.objectives,
        max_parameters: int | None = _SEARCH.max_parameters,
        unstable_loss: float = 1.0,
        refit: bool = True,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = _SPEC.seed,
    ) -> None:
        self.estimator = estimator
        self.folds = folds
        self.trials = trials
        self.epochs = epochs
        self.space = space
        self.sampler = sampler
        self.pruner = pruner
        self.select = select
        self.objectives = objectives
        self.max_parameters = max_parameters
        self.unstable_loss = unstable_loss
        self.refit = refit
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002, N803 - scikit-learn's words
        """Search, choose, and train the winner on all of X; ``y`` is not read.

        Raises
        ------
        ValueError
            X or a parameter that cannot be used; all bad parameters are named at once.
        RunFailedError
            No trial may be chosen; says why.
        """
        values = validate_data(
            self, X, dtype=[np.float64, np.float32], ensure_min_samples=2, reset=True
        )
        template = Autoencoder() if self.estimator is None else self.estimator
        data_range = range_of(values, template.data_range)
        spec = self._spec(template)
        if len(values) < 2 * spec.search.folds:
            raise DataError(
                f"X must hold at least two samples per fold, got n_samples = {len(values)} for "
                f"{spec.search.folds} folds; use fewer folds"
            )
        problem = problem_of(
            values,
            layout_of(template.image_shape, values.shape[1]),
            data_range,
            spec,
            present_device(spec),
            fast_bfloat16=has_fast_bfloat16(),
        )
        snapshot = _searched(problem, self.n_jobs)
        assert snapshot.chosen is not None, "a search ends with a choice or an error"
        # From the data range 1 of the training to the units of X, squared as the errors are.
        unit = (data_range[1] - data_range[0]) ** 2
        self.cv_results_ = _cv_results(snapshot.trials, spec.search.folds, unit)
        self.best_index_ = snapshot.chosen
        self.best_params_ = dict(snapshot.trials[snapshot.chosen].params)
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        self.front_ = front(snapshot)
        self.n_splits_ = spec.search.folds
        if self.refit:
            self.best_estimator_ = clone(template).set_params(**self.best_params_).fit(X)
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's word
        """Codes of X by ``best_estimator_``: (sample, encoding_dim)."""
        return self._best().transform(X)

    def inverse_transform(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's word
        """Rows of the codes X by ``best_estimator_``: (sample, pixel)."""
        return self._best().inverse_transform(X)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803 - scikit-learn's word
        """Negative mean squared error of ``best_estimator_`` on the rows of X, without ``y``."""
        return self._best().score(X, y)

    def score_samples(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's word
        """Negative mean squared error of each row of X by ``best_estimator_``: (sample,)."""
        return self._best().score_samples(X)

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's word
        """``decision_function`` of X by ``best_estimator_``: negative for outliers."""
        return self._best().decision_function(X)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's word
        """-1 for the rows of X that are outliers to ``best_estimator_``, 1 for all others."""
        return self._best().predict(X)

    def _best(self) -> Autoencoder:
        check_is_fitted(self, "best_estimator_")
        best: Autoencoder = self.best_estimator_
        return best

    def _spec(self, template: Autoencoder) -> StudySpec:
        document = template.spec_document(image_given=template.image_shape is not None)
        document["name"], document["seed"] = _STUDY, seed_of(self.random_state)
        document["training"]["epochs"] = plain(self.epochs)
        document["search"] = {
            "folds": plain(self.folds),
            "trials": plain(self.trials),
            "sampler": self.sampler,
            "pruner": self.pruner,
            "select": self.select,
            "objectives": plain(self.objectives),
            "max_parameters": plain(self.max_parameters),
            "unstable_loss": plain(self.unstable_loss),
        }
        document["space"] = dict(self.space or {})
        if template.image_shape is None:
            if document["space"].get("architecture") is not None:
                raise DataError(
                    "space must not name the architecture without an image_shape of the "
                    f"estimator, got {document['space']['architecture']!r}; a convolution needs to "
                    "know which pixels are neighbours"
                )
            document["space"]["architecture"] = None
        return spec_from_mapping(document, type(self).__name__)

    @property
    def _n_features_out(self) -> int:
        return self._best().model_.encoding_dim

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "cv_results_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _searched(problem: Problem, n_jobs: int | None) -> StudySnapshot:
    """Search in a store that is gone afterwards; workers share it as those of a run do."""
    spec = problem.spec
    assert isinstance(spec.search.generation_size, int), "the spec is resolved"
    assert isinstance(spec.search.lookahead, int), "the spec is resolved"
    cut = cut_grid(spec, problem.image_shape)
    if cut is not None:
        warnings.warn(cut, UserWarning, stacklevel=3)
    with tempfile.TemporaryDirectory(prefix="aesearch-") as folder:
        path = str(Path(folder) / "study.db")
        engine = study_rows.open_store(path)
        try:
            study_rows.create_study(
                engine,
                _STUDY,
                spec=spec,
                facts=problem.facts(),
                n_trials=spec.n_trials,
                generation_size=spec.search.generation_size,
                version=__version__,
            )
            # No more of them would find work; those that come late find none left.
            Parallel(n_jobs=n_jobs)(
                delayed(_work)(path, problem) for _ in range(spec.search.lookahead)
            )
            settle(engine, _STUDY)
            return study_rows.snapshot(engine, _STUDY)
        finally:
            engine.dispose()


def _work(path: str, problem: Problem) -> None:
    engine = study_rows.open_store(path)
    try:
        assert isinstance(problem.spec.compute.threads, int), "the spec is resolved"
        with training_process(problem.spec.compute.threads):
            worker = Worker(
                engine, _STUDY, kinds=("search",), stop=threading.Event(), problem=problem
            )
            worker.run(exit_when_idle=True)
    finally:
        engine.dispose()


def _cv_results(trials: tuple[TrialRecord, ...], n_folds: int, unit: float) -> dict[str, Any]:
    """Arrange trials as ``GridSearchCV`` does; ``unit`` turns losses into those of X."""
    scores = np.full((len(trials), n_folds), np.nan)
    for row, trial in enumerate(trials):
        scores[row, : len(trial.fold_scores)] = [-score * unit for score in trial.fold_scores]
    means = scores.mean(axis=1)
    # A rank is one more than how many are better; without a score, all that have one are.
    known = np.where(np.isnan(means), -np.inf, means)
    results: dict[str, Any] = {
        f"param_{name}": np.ma.masked_array(
            [trial.params.get(name) for trial in trials],
            mask=[name not in trial.params for trial in trials],
            dtype=object,
        )
        for name in dict.fromkeys(name for trial in trials for name in trial.params)
    }
    results["params"] = [dict(trial.params) for trial in trials]
    results |= {f"split{fold}_test_score": scores[:, fold] for fold in range(n_folds)}
    results["mean_test_score"] = means
    results["std_test_score"] = scores.std(axis=1)
    results["rank_test_score"] = np.array([1 + int((known > one).sum()) for one in known], np.int32)
    results["state"] = np.array([trial.state for trial in trials])
    results["eligible"] = np.array([trial.eligible for trial in trials])
    return results
