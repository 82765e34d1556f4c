"""One autoencoder as a scikit-learn transformer; the search over many is ``search_cv``."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OutlierMixin,
    TransformerMixin,
)
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from aesearch.device import present_device
from aesearch.inference.network import array, batches, default_batch_size, denormals_flushed, ready
from aesearch.models.autoencoder import Autoencoder as Network
from aesearch.models.runtime import exact_kernels
from aesearch.sklearn.tables import from_unit, layout_of, problem_of, range_of, to_unit
from aesearch.studies.errors import DataError
from aesearch.studies.spec.load import spec_from_mapping
from aesearch.studies.spec.study import StudySpec
from aesearch.training.memory import images_for
from aesearch.training.retrain import retrain

# Every default is the specification's.
_SPEC = StudySpec()
_MODEL, _TRAINING, _RETRAIN = _SPEC.model, _SPEC.training, _SPEC.retrain


class Autoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierMixin, BaseEstimator):
    """An autoencoder that learns codes of the rows of X, with early stopping.

    It is a transformer, and an outlier detector: rows that it reconstructs badly are odd. It
    trains as the winner of a study is retrained: on the rows that are not held out, until the
    held-out ones get no better; the weights of the best epoch are kept. One thread, and every
    random number from ``random_state``: the same X gives the same network.

    Parameters
    ----------
    encoding_dim : int
        Width of the code.
    architecture : {"dense", "conv"}
        ``conv`` needs ``image_shape``.
    hidden : str or tuple of int
        Hidden widths of a dense network from the image to the code, ``"256-128"`` or
        ``(256, 128)``; ``"none"`` for none, ``"auto"`` by the number of pixels.
    dropout : float
        In [0, 1).
    code_activation : {"linear", "relu"}
    activation : {"gelu", "relu"}
        Of the layers before and behind the code.
    shortcut : {"auto", "pca", "none"}
        ``pca``: the network starts as the principal components of the rows that it trains on.
        ``auto`` does so for a linear code.
    image_shape : tuple of int, optional
        (height, width), (channel, height, width) or (height, width, channel) of a row of X; None
        where rows are no images. Of three sizes 1 or 3 is the channels; where neither end is, the
        end that leaves a square.
    data_range : (float, float), optional
        Values of X that are black and white, the same for all columns: (0, 1), (0, 255). None
        learns the smallest and the largest value of X in ``fit``. Later values may lie
        outside; what comes back lies inside. Training sees 256 levels between both.
    learning_rate : float
    weight_decay : float or "auto"
        ``auto`` goes by the optimizer.
    optimizer : {"adam", "adamw", "sgd"}
    batch_size : int or "auto"
    averaging : {"ema", "none"}
        ``ema``: an exponential moving average of the weights is validated and kept.
    corruption : {"none", "gaussian", "uniform", "salt-and-pepper", "occlusion"}
        What inputs suffer in training; other than none, it learns to denoise.
    corruption_level : float
        How strongly, in units of the data range.
    max_epochs : int or "auto"
        Epochs at most; ``auto`` goes by the number of rows.
    patience : int
        Epochs without progress before it stops.
    min_delta : float
        Smallest fall of the loss, as a share of it, that is progress.
    holdout : float
        Share of the rows that stop the training; in (0, 1).
    contamination : float
        Share of outliers in X, in (0, 0.5]: so many of its rows, those that are reconstructed
        worst, are outliers to ``predict``.
    device : {"auto", "cpu", "cuda"}
    random_state : int, RandomState or None
        None draws a seed from NumPy's global generator.

    Attributes
    ----------
    model_ : aesearch.models.autoencoder.Autoencoder
        The network: a ``torch.nn.Module`` on intensities in [0, 1].
    image_shape_ : (channel, height, width)
    data_range_ : (float, float)
    n_iter_, best_epoch_ : int
        Epochs trained, and the one whose weights are kept (from 1; 0 where none was better
        than the principal components that the network starts as).
    validation_loss_ : float
        Mean squared error of that epoch on the held-out rows, for a data range of 1.
    offset_ : float
        Scores below it are those of outliers.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X had names.

    Examples
    --------
    >>> from aesearch.sklearn import Autoencoder
    >>> codes = Autoencoder(encoding_dim=16).fit_transform(X)    # doctest: +SKIP
    """

    def __init__(
        self,
        encoding_dim: int = _MODEL.encoding_dim,
        *,
        architecture: str = _MODEL.architecture,
        hidden: str | tuple[int, ...] = _MODEL.dense.hidden,
        dropout: float = _MODEL.dropout,
        code_activation: str = _MODEL.code_activation,
        activation: str = _MODEL.activation,
        shortcut: str = _MODEL.shortcut,
        image_shape: tuple[int, ...] | None = None,
        data_range: tuple[float, float] | None = None,
        learning_rate: float = _TRAINING.learning_rate,
        weight_decay: float | str = "auto",
        optimizer: str = _TRAINING.optimizer,
        batch_size: int | str = _TRAINING.batch_size,
        averaging: str = _TRAINING.averaging,
        corruption: str = _TRAINING.corruption,
        corruption_level: float = _TRAINING.corruption_level,
        max_epochs: int | str = _RETRAIN.max_epochs,
        patience: int = _RETRAIN.patience,
        min_delta: float = _RETRAIN.min_delta,
        holdout: float = _RETRAIN.holdout,
        contamination: float = 0.1,
        device: str = _SPEC.compute.device,
        random_state: int | np.random.RandomState | None = _SPEC.seed,
    ) -> None:
        self.encoding_dim = encoding_dim
        self.architecture = architecture
        self.hidden = hidden
        self.dropout = dropout
        self.code_activation = code_activation
        self.activation = activation
        self.shortcut = shortcut
        self.image_shape = image_shape
        self.data_range = data_range
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.averaging = averaging
        self.corruption = corruption
        self.corruption_level = corruption_level
        self.max_epochs = max_epochs
        self.patience = patience
        self.min_delta = min_delta
        self.holdout = holdout
        self.contamination = contamination
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002, N803 - scikit-learn's words
        """Learn the codes of X, and from which score on a row is odd; ``y`` is not read.

        Raises
        ------
        ValueError
            X or a parameter that cannot be used; all bad parameters are named at once.
        RunFailedError
            The loss was not finite in the first epoch.
        """
        values = validate_data(
            self, X, dtype=[np.float64, np.float32], ensure_min_samples=2, reset=True
        )
        layout = layout_of(self.image_shape, values.shape[1])
        data_range = range_of(values, self.data_range)
        contamination = plain(self.contamination)
        if not isinstance(contamination, int | float) or not 0 < contamination <= 0.5:
            raise DataError(f"contamination must be in (0, 0.5], got {self.contamination!r}")
        document = self.spec_document(image_given=self.image_shape is not None)
        document["seed"] = seed_of(self.random_state)
        # Nothing is cross-validated here; two folds are what two samples allow.
        document["search"] = {"folds": 2}
        spec = spec_from_mapping(document, type(self).__name__)
        device = present_device(spec)
        problem = problem_of(values, layout, data_range, spec, device)
        with training_process(int(problem.spec.compute.threads)):
            (found,) = retrain(
                problem,
                images_for(problem, device),
                problem.spec.configuration({}),
                [0],
                on_epoch=lambda _epoch, _n_members: None,
            )
        self.model_ = found.model
        self._layout, self.image_shape_, self.data_range_ = layout, layout.shape, data_range
        self.n_iter_, self.best_epoch_ = found.epochs, found.best_epoch
        self.validation_loss_ = found.validation_loss
        self.offset_ = float(np.percentile(self._scores(values), 100 * contamination))
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's word
        """Codes of X.

        Returns
        -------
        ndarray, (sample, encoding_dim)
            Of the type of X; computed in double precision, so that a row's code does not
            depend on the rows beside it.
        """
        check_is_fitted(self)
        values = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        images = to_unit(values.astype(np.float64), self.data_range_)
        codes = self._through(lambda network: network.encode, self._layout.images(images))
        return codes.astype(values.dtype)

    def inverse_transform(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's word
        """Rows of codes, within the data range.

        Parameters
        ----------
        X : array, (sample, encoding_dim)

        Returns
        -------
        ndarray, (sample, pixel)
        """
        check_is_fitted(self)
        codes = check_array(X, dtype=[np.float64, np.float32])
        if codes.shape[1] != self.model_.encoding_dim:
            raise DataError(
                f"X must hold codes of width {self.model_.encoding_dim}, got {codes.shape[1]} "
                "columns; transform gives such codes"
            )
        images = self._through(lambda network: network.decode, codes.astype(np.float64))
        rows = from_unit(self._layout.rows(images), self.data_range_)
        return rows.astype(codes.dtype)

    def score_samples(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's word
        """Negative mean squared error of the reconstruction of each row, in units of X.

        Returns
        -------
        ndarray of float64, (sample,)
            The lower, the odder.
        """
        check_is_fitted(self)
        return self._scores(validate_data(self, X, dtype=[np.float64, np.float32], reset=False))

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's word
        """``score_samples`` of the rows of X above ``offset_``: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's word
        """-1 for the rows of X that are outliers, 1 for all others: (sample,), int64."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _scores(self, values: np.ndarray) -> np.ndarray:
        rows = values.astype(np.float64)
        images = self._layout.images(to_unit(rows, self.data_range_))
        found = self._through(lambda network: network.forward, images)
        errors = from_unit(self._layout.rows(found), self.data_range_) - rows
        scores: np.ndarray = -np.mean(errors**2, axis=1)
        return scores

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002, N803 - as in fit
        """Negative mean squared error of the reconstructions of X, in its units, without ``y``."""
        check_is_fitted(self)
        values = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        found = self.inverse_transform(self.transform(X))
        return -float(np.mean((found.astype(np.float64) - values) ** 2))

    def spec_document(self, *, image_given: bool) -> dict[str, Any]:
        """Write the parameters as a specification; what is wrong with them is said there.

        Parameters
        ----------
        image_given : bool
            Whether the rows of X are images of a known shape.

        Raises
        ------
        DataError
            A convolutional network of rows that are no images, or squares to hide in them.
        """
        if self.architecture == "conv" and not image_given:
            raise DataError(
                "image_shape must be given for architecture 'conv', got None; a convolution "
                "needs to know which pixels are neighbours"
            )
        if self.corruption == "occlusion" and not image_given:
            raise DataError(
                "image_shape must be given for corruption 'occlusion', got None; a square to hide "
                "needs rows and columns of pixels"
            )
        hidden: Any = plain(self.hidden)
        if isinstance(hidden, Sequence | np.ndarray) and not isinstance(hidden, str):
            hidden = [plain(width) for width in hidden]
        decay = {} if self.weight_decay == "auto" else {"weight_decay": plain(self.weight_decay)}
        return {
            "model": {
                "architecture": self.architecture,
                "encoding_dim": plain(self.encoding_dim),
                "dropout": plain(self.dropout),
                "code_activation": self.code_activation,
                "activation": self.activation,
                "shortcut": self.shortcut,
                "dense": {"hidden": hidden},
            },
            "training": {
                "learning_rate": plain(self.learning_rate),
                "optimizer": self.optimizer,
                "batch_size": plain(self.batch_size),
                "averaging": self.averaging,
                **decay,
                "corruption": self.corruption,
                "corruption_level": plain(self.corruption_level),
            },
            "retrain": {
                "seeds": 1,
                "max_epochs": plain(self.max_epochs),
                "patience": plain(self.patience),
                "min_delta": plain(self.min_delta),
                "holdout": plain(self.holdout),
            },
            "compute": {"device": self.device},
        }

    @property
    def _n_features_out(self) -> int:
        return self.model_.encoding_dim

    def _through(
        self, part: Callable[[Network], Callable[[torch.Tensor], torch.Tensor]], values: np.ndarray
    ) -> np.ndarray:
        network = copy.deepcopy(self.model_).double()
        size = default_batch_size(network.image_shape)
        with denormals_flushed(), ready(network, None) as tensor:
            found = [array(part(network)(tensor(values[r]))) for r in batches(len(values), size)]
        return np.concatenate(found)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def plain(value: Any) -> Any:
    """Give a number of NumPy's as Python's: parameters often come out of arrays."""
    return value.item() if isinstance(value, np.generic) else value


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """Give the seed that scikit-learn's ``random_state`` stands for."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


@contextmanager
def training_process(threads: int) -> Iterator[None]:
    """Train in this process as a worker does in its own, and leave it as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with denormals_flushed(), exact_kernels():
            yield
    finally:
        torch.set_num_threads(before)
