"""What a generation tries and whom it prunes: pure functions of the seed and finished results.

Optuna proposes and prunes, on a scratch study that holds exactly what a generation may know:
results of generations at least ``lookahead`` before it, and what is being tried in between.
So it does not matter who asks, when, or how often.
"""

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial
from threadpoolctl import threadpool_limits

from aesearch.sampling.gp_history import filled, relative_to_size, with_values
from aesearch.sampling.halving import halving_losers, halving_rungs
from aesearch.seeds import derive_seed
from aesearch.studies.spec.dimensions import Params
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.studies.spec.space import Choices, Dimension, Range
from aesearch.studies.spec.weights import fits, fitted, grid_within
from aesearch.studies.store.optuna.wishes import ENQUEUED

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
LEARNING_SAMPLERS = ("gp", "tpe")
_SIZE = "encoding_dim"
_RUNG_ATTRIBUTE = "completed_rung_"
# How often a configuration that is too large is drawn again: a Gaussian process takes its time,
# and asks for much the same.
_REDRAWS = {"random": 100, "tpe": 100, "gp": 3}


def distributions(spec: ResolvedSpec) -> dict[str, BaseDistribution]:
    """Give the space in Optuna's words, in the order in which a trial is suggested."""
    return {name: _distribution(item) for name, item in spec.space.dimensions().items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.choices)
    low, high, log, step = dimension.low, dimension.high, dimension.log, dimension.step
    if dimension.integer:
        return IntDistribution(low, high, log=log, step=1 if step is None else step)
    return FloatDistribution(low, high, log=log, step=step)


def suggest(  # noqa: PLR0917 - what is known, in order of time
    spec: ResolvedSpec,
    position: int,
    numbers: range,
    finished: Sequence[FrozenTrial],
    window: Sequence[FrozenTrial],
    wanted: Sequence[Params] = (),
    image_shape: tuple[int, int, int] | None = None,
) -> list[Params]:
    """Suggest the parameters of one generation.

    Parameters
    ----------
    position : int
        Which generation, from 0; seeds the sampler together with the study's seed.
    numbers : range
        Its trial numbers.
    finished : sequence of FrozenTrial
        Trials of the generations it may know the results of, in number order.
    window : sequence of FrozenTrial
        Trials between those and this generation, whose parameters alone count.
    wanted : sequence of dict
        Configurations that somebody asked for: those of the first trials. The others are what
        they would be of a study without them, as far as their order is concerned.
    image_shape : (channel, height, width), optional
        Needed where ``search.max_parameters`` is set: no network that is suggested has more.

    Returns
    -------
    list of dict
        One per number; a dimension whose condition does not hold is absent.
    """
    before = sum(is_enqueued(trial) for trial in (*finished, *window))
    own = range(numbers.start - before, numbers.stop - before - len(wanted))
    first = [dict(params) for params in wanted]
    if spec.search.sampler == "grid":
        grid = grid_within(spec, image_shape)
        return first + [grid[number] for number in own]
    # One thread of BLAS: what is suggested must not depend on the cores of a worker, nor on the
    # environment that started it (and SciPy's small matrices are slower with more).
    with _quiet, threadpool_limits(1):
        if spec.search.sampler == "qmc":
            return first + _quasi_random(spec, own, image_shape)
        kinds = distributions(spec)
        window = [*window, *(_running(params, kinds) for params in wanted)]
        sampler = _sampler(spec, position)
        study = _scratch(spec, sampler=sampler)
        one_space = spec.search.sampler == "gp"
        finished, window = _as_shown(spec, finished, window)
        for trial in finished:
            study.add_trial(_remembered(trial, curve=trial.state == TrialState.PRUNED))
        for trial in window:
            study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params=trial.params,
                    distributions=trial.distributions,
                )
            )
        suggested = first
        for number in own:
            size = dealt_size(spec, number)
            if size is not None:
                study.sampler = optuna.samplers.PartialFixedSampler({_SIZE: size}, sampler)
            suggested.append(_ask(spec, study, number, image_shape, one_space=one_space))
        return suggested


def is_enqueued(trial: FrozenTrial) -> bool:
    """Whether somebody asked for this trial, rather than the sampler."""
    return ENQUEUED in trial.system_attrs


def _running(params: Params, kinds: Mapping[str, BaseDistribution]) -> FrozenTrial:
    own = {name: kinds[name] for name in params}
    return create_trial(state=TrialState.RUNNING, params=dict(params), distributions=own)


def _as_shown(
    spec: ResolvedSpec, finished: Sequence[FrozenTrial], window: Sequence[FrozenTrial]
) -> tuple[Sequence[FrozenTrial], Sequence[FrozenTrial]]:
    """Give older trials as the sampler is shown them."""
    if spec.search.sampler == "random":
        return (), ()  # it looks at nothing
    if dealt_sizes(spec):
        finished = relative_to_size(finished)
    elif spec.search.sampler == "gp":
        finished = with_values(finished)
    if spec.search.sampler == "gp":
        kinds = distributions(spec)
        finished = [filled(spec, trial, kinds) for trial in finished]
        window = [filled(spec, trial, kinds) for trial in window]
    return finished, window


def dealt_sizes(spec: ResolvedSpec) -> tuple[int, ...]:
    """Give the sizes of the code that take turns, so that each gets as many trials.

    Where every trial is scored as it would be delivered and the sizes are a list: a larger code
    nearly always errs less, and a sampler left alone would try little else. A grid has its own
    order, and a sequence without repetition too.
    """
    sizes = spec.space.encoding_dim
    own_order = spec.search.sampler in ("grid", "qmc")
    if not spec.scores_delivery or own_order or not isinstance(sizes, Choices):
        return ()
    return sizes.choices


def n_defaults(spec: ResolvedSpec) -> int:
    """How many trials begin a study with the default configuration, one of each size dealt."""
    return max(1, len(dealt_sizes(spec)))


def dealt_size(spec: ResolvedSpec, number: int) -> int | None:
    """Size of the code of a trial where sizes take turns, else None."""
    sizes = dealt_sizes(spec)
    return sizes[number % len(sizes)] if sizes else None


def cut_grid(spec: ResolvedSpec, image_shape: tuple[int, int, int]) -> str | None:
    """Say what is never tried of a grid that has more configurations than there are trials.

    None where there is no such grid.
    """
    if spec.search.sampler != "grid":
        return None
    grid = grid_within(spec, image_shape)
    n_all, n_trials = len(grid), spec.n_trials
    if n_trials >= n_all:
        return None
    untried = []
    for name in sorted({name for configuration in grid for name in configuration}):
        values = list(dict.fromkeys(c[name] for c in grid if name in c))
        tried = {c[name] for c in grid[:n_trials] if name in c}
        left = ", ".join(str(value) for value in values if value not in tried)
        untried += [f"{name} {left}"] if left else []
    never = f"; never tried: {'; '.join(untried)}" if untried else ""
    return (
        f"the grid has {n_all} configurations, of which {n_trials} are tried, in their order"
        f"{never}; all of them with {n_all} trials, an even part with the sampler random"
    )


def _scratch(
    spec: ResolvedSpec,
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    # Hyperband hashes the study's name, so the name is fixed by the seed.
    return optuna.create_study(
        study_name=f"scratch-{spec.seed}", direction="minimize", sampler=sampler, pruner=pruner
    )


def _sampler(spec: ResolvedSpec, position: int) -> optuna.samplers.BaseSampler:
    seed = derive_seed(spec.seed, "suggest", position) % 2**32
    startup = _startup(spec)
    if spec.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if spec.search.sampler == "gp":
        return optuna.samplers.GPSampler(
            seed=seed,
            n_startup_trials=startup,
            deterministic_objective=False,
            warn_independent_sampling=False,
        )
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
    )


def _remembered(trial: FrozenTrial, *, curve: bool = True) -> FrozenTrial:
    # A diverged trial carries no value; as a pruned one it tells the sampler to stay away.
    if trial.state == TrialState.FAIL:
        return create_trial(
            state=TrialState.PRUNED, params=trial.params, distributions=trial.distributions
        )
    return create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        # A sampler asks how a complete trial ended; the scratch study copies all that it gets.
        intermediate_values=trial.intermediate_values if curve else None,
        system_attrs=trial.system_attrs,
    )


def _ask(
    spec: ResolvedSpec,
    study: optuna.Study,
    number: int,
    image_shape: tuple[int, int, int] | None,
    *,
    one_space: bool = False,
) -> Params:
    """Ask for one configuration; in one space, for dimensions that do not apply, too.

    One with too many weights is drawn again, so that random ones are even among those that fit.
    A sampler that insists, and one whose points have their order, gets the nearest one.
    """
    # The default configuration comes first, with each size that takes its turn, so that no search
    # ends worse than doing nothing.
    if number < n_defaults(spec):
        size = dealt_size(spec, number)
        turn = {} if size is None else {_SIZE: size}
        default = fitted(spec, spec.default_configuration_params() | turn, image_shape)
        assert default is not None, "each size of the space fits somewhere"
        study.enqueue_trial(default)
    trial = study.ask()
    chosen = _suggest_all(spec, trial, one_space=one_space)
    for _ in range(_REDRAWS.get(spec.search.sampler, 0)):
        if fits(spec, chosen, image_shape):
            break
        study.tell(trial, state=TrialState.FAIL)  # which no sampler looks at
        trial = study.ask()
        chosen = _suggest_all(spec, trial, one_space=one_space)
    fitting = fitted(spec, chosen, image_shape)
    assert fitting is not None, "each size of the space fits somewhere"
    return fitting


def _suggest_all(spec: ResolvedSpec, trial: optuna.Trial, *, one_space: bool) -> Params:
    chosen: Params = {}
    for name, dimension in spec.space.dimensions().items():
        architecture = str(chosen.get("architecture", spec.model.architecture))
        applies = name == "architecture" or dimension.applies(architecture)
        if applies or one_space:
            value = _suggest_one(trial, name, _distribution(dimension))
            if applies:
                chosen[name] = _without_rounding(dimension, value)
    return chosen


def _without_rounding(dimension: Dimension, value: Any) -> Any:
    # Optuna adds steps up: three of 0.1 are 0.30000000000000004.
    stepped = isinstance(dimension, Range) and dimension.step is not None
    return dimension.nearest(value) if stepped else value


def _suggest_one(trial: optuna.Trial, name: str, kind: BaseDistribution) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return trial.suggest_categorical(name, kind.choices)
    if isinstance(kind, IntDistribution):
        return trial.suggest_int(name, kind.low, kind.high, step=kind.step, log=kind.log)
    assert isinstance(kind, FloatDistribution)
    return trial.suggest_float(name, kind.low, kind.high, step=kind.step, log=kind.log)


def _quasi_random(
    spec: ResolvedSpec, numbers: range, image_shape: tuple[int, int, int] | None
) -> list[Params]:
    # A point of the sequence depends on its number alone; Optuna hands them out in order only.
    sampler = optuna.samplers.QMCSampler(
        qmc_type="sobol",
        scramble=True,
        seed=derive_seed(spec.seed, "suggest") % 2**32,
        # Dimensions that not all trials have are drawn apart from the sequence, each time.
        warn_independent_sampling=False,
    )
    study = _scratch(spec, sampler=sampler)
    points = []
    for number in range(numbers.stop):
        points.append(_ask(spec, study, number, image_shape))
        study.tell(number, 0.0)
    return points[numbers.start :]


class Pruner:
    """Decides at a rung who of a generation goes on, from its own members and older results.

    Parameters
    ----------
    finished : sequence of FrozenTrial
        As for ``suggest``.
    trials : mapping of trial number to parameters
        The generation.
    """

    def __init__(
        self,
        spec: ResolvedSpec,
        finished: Sequence[FrozenTrial],
        trials: Mapping[int, FrozenTrial],
    ) -> None:
        self._spec = spec
        self._finished = finished
        self._params = {number: trial.params for number, trial in trials.items()}
        self._enqueued = {t.number for t in (*finished, *trials.values()) if is_enqueued(t)}
        self._trials: dict[int, optuna.Trial] = {}
        if spec.search.pruner in ("none", "halving"):
            return
        with _quiet:
            self._study = _scratch(spec, pruner=_optuna_pruner(spec))
            for trial in finished:
                self._study.add_trial(_remembered(trial))
            for number, trial in trials.items():
                # Hyperband assigns brackets by number: the scratch study keeps the true one.
                self._fill_to(number)
                self._study.enqueue_trial(trial.params)
                self._trials[number] = self._study.ask(fixed_distributions=trial.distributions)

    def _fill_to(self, number: int) -> None:
        while len(self._study.get_trials(deepcopy=False)) < number:
            self._study.add_trial(create_trial(state=TrialState.FAIL))

    def losers(self, alive: Sequence[int], reports: Mapping[int, Mapping[int, float]]) -> list[int]:
        """Report the losses of trials and name those that stop here, in number order.

        Parameters
        ----------
        alive : sequence of int
            Trial numbers that are still training.
        reports : mapping of trial number to {epoch: loss}
            Epochs since the last rung, the rung itself last: means over folds, or of fold 0
            alone where that comes first, and at the rung the lowest so far.
        """
        search = self._spec.search
        if search.pruner == "none" or not alive:
            return []
        return sorted(n for n in self._judged(alive, reports) if not self._is_protected(n))

    def losers_after_fold(self, scores: Mapping[int, float]) -> list[int]:
        """Name the trials that train on no other fold, by their scores on the first one.

        Halving keeps one in ``reduction_factor`` of all trials of a size that came so far; other
        pruners keep all.
        """
        if self._spec.search.pruner != "halving":
            return []
        losers: list[int] = []
        for size in sorted({self._params[number].get(_SIZE) for number in scores}, key=repr):
            own = {n: s for n, s in scores.items() if self._params[n].get(_SIZE) == size}
            older = [
                trial.user_attrs["fold_scores"][0]
                for trial in self._finished
                if trial.params.get(_SIZE) == size and trial.user_attrs.get("fold_scores")
            ]
            losers += halving_losers(
                own, older, reduction_factor=self._spec.search.reduction_factor
            )
        return sorted(n for n in losers if not self._is_protected(n))

    def _is_protected(self, number: int) -> bool:
        """Whether a trial is one of the first that the sampler suggested."""
        before = sum(n < number for n in self._enqueued)
        return number not in self._enqueued and number - before < self._n_protected

    @property
    def _n_protected(self) -> int:
        """How many of the first trials are never stopped early."""
        spec = self._spec
        if spec.scores_delivery:
            # What the others of its size are held against.
            return n_defaults(spec)
        # What a sampler learns from must not be chosen by early epochs alone.
        return _startup(spec) if spec.search.sampler in LEARNING_SAMPLERS else 0

    def _rivals(self, alive: Sequence[int]) -> list[list[int]]:
        """Trials that are judged against each other; all of them where the epochs are fixed."""
        if not self._spec.scores_delivery:
            return [list(alive)]
        rivals: dict[str, list[int]] = {}
        for number in alive:
            rivals.setdefault(repr(_early_kind(self._params[number])), []).append(number)
        return list(rivals.values())

    def _reached(self, rung: int, rivals: Sequence[int]) -> list[float]:
        """Losses that older rivals had at a rung."""
        if not self._spec.scores_delivery:
            found = (trial.intermediate_values.get(rung) for trial in self._finished)
            return [loss for loss in found if loss is not None]
        kind = _early_kind(self._params[rivals[0]])
        lows = []
        for trial in self._finished:
            losses = [v for epoch, v in trial.intermediate_values.items() if epoch <= rung]
            ended = bool(trial.user_attrs.get("fold_scores"))  # before the rung, with its score
            there = ended or max(trial.intermediate_values, default=0) >= rung
            if losses and there and _early_kind(trial.params) == kind:
                lows.append(min(losses))
        return lows

    def _judged(
        self, alive: Sequence[int], reports: Mapping[int, Mapping[int, float]]
    ) -> list[int]:
        search = self._spec.search
        if search.pruner == "halving":
            rung = max(max(reports[number]) for number in alive)
            return [
                number
                for rivals in self._rivals(alive)
                for number in halving_losers(
                    {number: reports[number][rung] for number in rivals},
                    self._reached(rung, rivals),
                    reduction_factor=search.reduction_factor,
                )
            ]
        with _quiet:
            for number in alive:
                for epoch, mean in reports[number].items():
                    self._trials[number].report(mean, epoch)
            return [number for number in alive if self._trials[number].should_prune()]

    def memory(self, number: int) -> dict[str, float]:
        """What the pruner must find again on this trial when later generations are judged."""
        if number not in self._trials:
            return {}
        trial = self._trials[number]
        attributes = self._study.get_trials(deepcopy=False)[trial.number].system_attrs
        return {k: v for k, v in attributes.items() if k.startswith(_RUNG_ATTRIBUTE)}


def _early_kind(params: Params) -> tuple[Any, ...]:
    # Convolutional networks begin more slowly than dense ones, random starts than PCA.
    return params.get(_SIZE), params.get("architecture"), params.get("shortcut")


def _optuna_pruner(spec: ResolvedSpec) -> optuna.pruners.BasePruner:
    search, warmup = spec.search, _warmup(spec)
    makers: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
        "median": lambda: optuna.pruners.MedianPruner(
            n_startup_trials=_startup(spec), n_warmup_steps=0
        ),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(
            min_resource=warmup,
            max_resource=spec.trial_epochs,
            reduction_factor=search.reduction_factor,
        ),
    }
    return makers[search.pruner]()


def _startup(spec: ResolvedSpec) -> int:
    return spec.search.startup_trials


def _warmup(spec: ResolvedSpec) -> int:
    return max(1, spec.search.warmup_epochs)


def rungs(spec: ResolvedSpec) -> list[int]:
    """Epochs at which losers are pruned; the last one is the end of training.

    ``median`` looks about ten times after the warm-up, ``hyperband`` at warm-up times powers
    of the reduction factor, ``halving`` too, but not in the second half.
    """
    last, warmup = spec.trial_epochs, _warmup(spec)
    if spec.search.pruner == "none":
        return [last]
    if spec.search.pruner == "median":
        return [*range(warmup, last, max(1, round(last / 10))), last]
    if spec.search.pruner == "halving":
        return [*halving_rungs(warmup, last, spec.search.reduction_factor), last]
    epochs = []
    rung = warmup
    while rung < last:
        epochs.append(rung)
        rung *= spec.search.reduction_factor
    return [*epochs, last]


class _Quiet:
    """Keep Optuna's notes on experimental options and its log of scratch studies to itself.

    Two threads may be inside, while the filters of warnings are those of the process: the first
    to enter sets them, the last to leave puts back what was.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._before = warnings.catch_warnings()
            self._before.__enter__()
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", message=".*is an experimental.*")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._before.__exit__(None, None, None)


_quiet = _Quiet()
