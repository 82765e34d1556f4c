"""What one study looks like from outside: plain rows, made by the store, read by everyone else."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from typing_extensions import TypedDict  # that of Python 3.11 has no JSON Schema

from aesearch.studies.spec.dimensions import Params
from aesearch.studies.spec.resolved import ResolvedSpec

TrialState = Literal["waiting", "running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class Document:
    """A record whose fields, by name and in order, are the keys of a JSON object."""

    def to_dict(self) -> dict[str, Any]:
        """Give it in plain values, as ``--json`` prints it and files hold it."""
        return asdict(self)

    def __getitem__(self, name: str) -> Any:
        """Read a field as a key: until 0.2, for what was a dict in 0.1."""
        return getattr(self, name)


@dataclass(frozen=True)
class TrialCounts(Document):
    """How many trials are in each state."""

    waiting: int = 0
    running: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0

    @property
    def finished(self) -> int:
        """How many are finished."""
        return self.complete + self.pruned + self.failed

    @property
    def total(self) -> int:
        """How many there are."""
        return self.finished + self.waiting + self.running

    def text(self) -> str:
        """Tell those that there are: ``4 complete, 1 pruned``."""
        return ", ".join(f"{count} {state}" for state, count in self.to_dict().items() if count)


class PcaOfSize(TypedDict):
    """Error of principal components: mean squared error per pixel, mean over the folds."""

    encoding_dim: int
    mse: float


class Facts(TypedDict, total=False):
    """What the store keeps of a study's images, to know them and their split again.

    ``pca`` came later than the rest; it is empty where the searched sizes are a range. ``read``
    came later still.
    """

    dataset: str
    read: str  # one line: what was read of the images, and what was left out
    image_shape: list[int]  # channel, height, width
    n_images: int
    n_test: int
    test_set: str
    n_train_per_fold: int
    n_validation_per_fold: int
    fingerprint: str
    split_sha256: str
    versions: dict[str, str]
    pca: list[PcaOfSize]


class Progress(TypedDict, total=False):
    """How far the owner of a unit of work is; empty before the first epoch.

    ``trials`` are numbers, ``seeds`` indices of retrained seeds.
    """

    epoch: int
    n_epochs: int
    n_members: int
    trials: list[int]
    seeds: list[int]


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the store knows it.

    Attributes
    ----------
    number : int
        Trial number = slot, from 0.
    params : dict
        What was searched, by the names of the space; empty while the trial waits.
    value : float or None
        Mean over folds of the fold scores (validation MSE per pixel); the last
        mean reported for a pruned trial; None where there is none.
    standard_error : float or None
        Standard error of ``value``, by the variance over folds that is pooled over the trials
        where there are several; see :mod:`aesearch.studies.selection`.
    fold_scores : tuple of float
        One score per fold, in fold order; empty until the trial is complete.
    unstable : str or None
        Why this trial can never be chosen although it is complete (its loss at the
        end of training is too high, or oscillates); None for a stable trial.
    reason : str or None
        Why the trial was pruned or failed.
    epochs : int
        Epochs trained so far (per fold).
    """

    number: int
    state: TrialState
    params: Params = field(default_factory=dict)
    value: float | None = None
    standard_error: float | None = None
    fold_scores: tuple[float, ...] = ()
    unstable: str | None = None
    reason: str | None = None
    epochs: int = 0

    @property
    def eligible(self) -> bool:
        """Whether this trial may be chosen: complete and stable."""
        return self.state == "complete" and self.unstable is None


class Picture(NamedTuple):
    """One picture.

    Attributes
    ----------
    name : str
        File name without its suffix.
    alt : str
        What is to be seen, in words.
    png : bytes
    """

    name: str
    alt: str
    png: bytes


class RetrainPoint(NamedTuple):
    """One epoch, from 1, of the retraining of one seed.

    The losses are mean squared errors per pixel; the accuracy is the share of the held-out
    images' pixels that round to the right 0 or 1, NaN in stores from before it was counted.
    """

    seed_index: int
    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class LeaseRecord:
    """One unit of leased work: a generation of the search, a chunk of the retraining, the test.

    Attributes
    ----------
    kind : {"search", "retrain", "evaluate"}
    index : int
        Generation or chunk, from 0.
    owner : str or None
        Who holds it (host:process), None when nobody does.
    seconds_left : float or None
        Seconds until the lease expires, by the database's clock.
    progress : Progress
        What the owner last said.
    size : int
        How many trials or seeds it is of.
    """

    kind: Literal["search", "retrain", "evaluate"]
    index: int
    done: bool
    owner: str | None = None
    attempt: int = 0
    seconds_left: float | None = None
    progress: Progress = field(default_factory=Progress)
    size: int = 1


@dataclass(frozen=True)
class RetrainRecord:
    """One seed of the retraining of the chosen configuration.

    Losses are mean squared errors per pixel. ``best_epoch`` counts from 1,
    0 being the start as PCA;
    ``test_mse`` is None until the test set has been looked at.
    """

    seed_index: int
    seed: int
    epochs: int
    best_epoch: int
    validation_loss: float
    weights_sha256: str
    test_mse: float | None = None


class ForeignTrial(NamedTuple):
    """A trial that another program added to the study, or began there; it is never chosen.

    Attributes
    ----------
    number : int
        Optuna's; behind all slots.
    state : str
        ``waiting`` for one that is enqueued.
    value : float or None
        What that program told.
    """

    number: int
    state: TrialState
    value: float | None


@dataclass(frozen=True)
class TrainedSeed(RetrainRecord):
    """A retrained seed with its weights, which are a ``model.safetensors`` file."""

    weights: bytes = field(repr=False, kw_only=True)


@dataclass(frozen=True)
class StudySnapshot:
    """A study at one moment.

    Attributes
    ----------
    spec : ResolvedSpec
        What the study was created with.
    n_trials : int
        How many slots the study has.
    chosen : int or None
        Number of the trial that was chosen, once that is decided.
    test_looks : int
        How many times the test set was looked at.
    foreign : tuple of ForeignTrial
        What other programs added.
    """

    name: str
    spec: ResolvedSpec
    n_trials: int
    trials: tuple[TrialRecord, ...]
    leases: tuple[LeaseRecord, ...] = ()
    retrains: tuple[RetrainRecord, ...] = ()
    chosen: int | None = None
    test_looks: int = 0
    facts: Facts = field(default_factory=Facts)
    foreign: tuple[ForeignTrial, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channel, height, width; None where it is unknown."""
        shape = self.facts.get("image_shape")
        return None if shape is None else (shape[0], shape[1], shape[2])
