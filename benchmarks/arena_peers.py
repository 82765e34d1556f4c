"""The arena's peers: ways to search within a budget of processor seconds.

``arena.py`` calls ``compete`` in a fresh process. A peer is a way to search (random, Optuna,
halving, SMAC) and a network: a plain one, or, named with ``+net``, the one that starts as PCA
and learns what PCA cannot, so that search and network can be told apart. How they train is in
``arena_training.py``. Optuna, skorch and SMAC are imported by those who use them.
"""

import contextlib
import itertools
import tempfile
import warnings
from typing import NamedTuple

import numpy as np
import torch
from arena_training import (
    FEWEST_CONFIGURATIONS,
    MIN_PROGRESS,
    NET,
    PATIENCE,
    PLAIN,
    WORST_LOSS,
    Contest,
    OutOfTimeError,
)
from torch import nn

MOST_REHEARSALS = 3


def random_search(contest):
    """Draw configurations at random, the usual one first."""
    rng = np.random.default_rng(contest.seed)
    max_epochs, params = contest.max_epochs(), contest.task.kind.usual
    while True:
        contest.train(params, max_epochs)
        params = drawn(contest.task.kind.space, rng)


def drawn(space, rng):
    """Draw a configuration at random."""
    return {
        name: float(np.exp(rng.uniform(*np.log([low, high]))) if log else rng.uniform(low, high))
        for name, (low, high, log) in space.items()
    }


def optuna_search(contest, sampler, pruner_of=None):
    """Optimise with Optuna, the usual configuration first.

    Parameters
    ----------
    pruner_of : callable(max_epochs), optional
        Makes the pruner; None to train every configuration to its end.
    """
    import optuna

    max_epochs = contest.max_epochs()
    space = contest.task.kind.space

    def objective(trial):
        params = {
            name: trial.suggest_float(name, low, high, log=log)
            for name, (low, high, log) in space.items()
        }

        def report(epoch, loss):
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        return contest.train(params, max_epochs, on_epoch=None if pruner_of is None else report)

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.NopPruner() if pruner_of is None else pruner_of(max_epochs)
    # Hyperband hashes the name of the study.
    study = optuna.create_study(study_name="arena", sampler=sampler, pruner=pruner)
    study.enqueue_trial(contest.task.kind.usual)
    study.optimize(objective)


def optuna_gp(contest):
    """Optuna's Gaussian process."""
    import optuna

    optuna_search(contest, optuna.samplers.GPSampler(seed=contest.seed))


def optuna_tpe_hyperband(contest):
    """Optuna's TPE, hopeless trials stopped by Hyperband."""
    import optuna

    def pruner(max_epochs):
        return optuna.pruners.HyperbandPruner(max_resource=max_epochs, reduction_factor=3)

    optuna_search(contest, optuna.samplers.TPESampler(seed=contest.seed), pruner)


def halving(contest):
    """Halve with scikit-learn around skorch, planned for the budget, again while time is left."""
    from scipy.stats import loguniform, uniform
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingRandomSearchCV

    task = contest.task
    images = torch.cat([task.train, task.validation]).numpy()
    rows = np.arange(len(images))
    n_train = len(task.train)
    net = skorch_net(contest, task)
    names = {"learning_rate": "lr", "weight_decay": "optimizer__weight_decay"}
    distributions = {
        names.get(name, "module__dropout"): loguniform(low, high)
        if log
        else uniform(low, high - low)
        for name, (low, high, log) in task.kind.space.items()
    }
    max_epochs = contest.max_epochs(
        lambda n_epochs: net.set_params(max_epochs=n_epochs).fit(images[:n_train])
    )
    contest.tried.clear()
    # 27 candidates at 1/27 of the longest training, 9 at 1/9, ..., the last at all of it.
    n_candidates = 27 if max_epochs >= 27 else 9
    shortest = max(max_epochs // n_candidates, 1)
    for repetition in itertools.count():
        HalvingRandomSearchCV(
            net,
            distributions,
            n_candidates=n_candidates,
            factor=3,
            resource="max_epochs",
            min_resources=shortest,
            max_resources=shortest * n_candidates,
            cv=[(rows[:n_train], rows[n_train:])],
            scoring=lambda fitted, _x, _y=None: -lowest_loss(fitted),
            refit=False,
            error_score="raise",
            random_state=1000 * contest.seed + repetition,
        ).fit(images)


def lowest_loss(net):
    """Lowest validation loss of a fitted skorch net."""
    return min([WORST_LOSS, *net.history[:, "valid_loss"]])


def skorch_net(contest, task):
    """Make a skorch net that watches the contest's clock and offers it what it learned."""
    from skorch import NeuralNet
    from skorch.callbacks import EarlyStopping
    from skorch.dataset import Dataset
    from skorch.helper import predefined_split

    class Batches:
        """Minibatches by index of a resident array, instead of a DataLoader's sample by sample."""

        def __init__(self, dataset, batch_size, shuffle=False):
            self.images, self.size, self.shuffle = torch.as_tensor(dataset.X), batch_size, shuffle

        def __iter__(self):
            n = len(self.images)
            order = torch.randperm(n) if self.shuffle else torch.arange(n)
            for indices in order.split(self.size):
                yield self.images[indices], self.images[indices]

    def network(dropout):  # a function is not copied with the images in it, as a method would be
        return task.network(dropout)

    class Net(NeuralNet):
        def fit(self, X, y=None, **parameters):  # noqa: N803
            contest.check()
            super().fit(X, y, **parameters)
            params = {
                "learning_rate": self.lr,
                "weight_decay": self.optimizer__weight_decay,
                "dropout": self.module__dropout,
            }
            contest.tried.add(tuple(params.values()))
            contest.offer(lowest_loss(self), params, self.module_.state_dict())
            return self

        def on_batch_end(self, net, batch=None, training=False, **named):
            super().on_batch_end(net, batch=batch, training=training, **named)
            if training:
                self.module_.after_step()
                contest.check()

    return Net(
        network,
        nn.MSELoss,
        module__dropout=task.kind.usual["dropout"],
        optimizer=task.kind.optimizer,
        optimizer__fused=True,
        optimizer__weight_decay=task.kind.usual["weight_decay"],
        lr=task.kind.usual["learning_rate"],
        batch_size=task.batch_size,
        iterator_train=Batches,
        iterator_valid=Batches,
        iterator_train__shuffle=True,
        train_split=predefined_split(Dataset(task.validation.numpy())),
        callbacks=[EarlyStopping(patience=PATIENCE, threshold=MIN_PROGRESS, load_best=True)],
        verbose=0,
    )


def smac(contest):
    """Optimise with SMAC3's random forest, the usual configuration first."""
    from ConfigSpace import Configuration, ConfigurationSpace, Float
    from smac import HyperparameterOptimizationFacade, Scenario
    from smac.runhistory import TrialValue

    space = ConfigurationSpace(seed=contest.seed)
    space.add(
        Float(name, (low, high), log=log)
        for name, (low, high, log) in contest.task.kind.space.items()
    )
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space,
            deterministic=True,
            n_trials=10_000,
            seed=contest.seed,
            output_directory=folder,
        )
        first = HyperparameterOptimizationFacade.get_initial_design(
            scenario,
            n_configs=FEWEST_CONFIGURATIONS // 2,
            additional_configs=[Configuration(space, values=contest.task.kind.usual)],
        )
        facade = HyperparameterOptimizationFacade(
            scenario,
            lambda _configuration, seed=0: float(seed),  # never called: we ask and tell
            initial_design=first,
            logging_level=False,
        )
        max_epochs = contest.max_epochs()
        while True:
            asked = facade.ask()
            loss = contest.train(dict(asked.config), max_epochs)
            facade.tell(asked, TrialValue(cost=loss))


SEARCHES = {
    "random": random_search,
    "optuna-gp": optuna_gp,
    "optuna-tpe-hyperband": optuna_tpe_hyperband,
    "halving": halving,
    "smac": smac,
}
METHODS = [f"{name}{suffix}" for suffix in ("", "+net") for name in SEARCHES]


class Delivered(NamedTuple):
    """What a peer delivers, and what it took."""

    model: nn.Module
    validation_mse: float
    processor_seconds: float
    configurations: int


def compete(method, images, size, seed, seconds):
    """Search and train within the budget.

    Parameters
    ----------
    method : str
        One of ``METHODS``.
    images : Tensor, (sample, pixel), float32
        The training images, in [0, 1].
    seconds : float
        Processor seconds; imports are not counted.

    Returns
    -------
    Delivered

    Raises
    ------
    ImportError
        A library that the method needs is not installed.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    name, _, suffix = method.partition("+")
    kind = NET if suffix else PLAIN
    # Tiny contests first: libraries import some of themselves at first use.
    for _ in range(MOST_REHEARSALS):
        rehearsal = Contest(kind, torch.rand(60, 16), 2, seed, seconds=2.0, fewest=40)
        _contest(name, rehearsal)
        if len(rehearsal.tried) > FEWEST_CONFIGURATIONS:
            break
    contest = Contest(kind, images, size, seed, seconds=seconds, fewest=FEWEST_CONFIGURATIONS)
    return _contest(name, contest)


def _contest(name, contest):
    with contextlib.suppress(OutOfTimeError):
        SEARCHES[name](contest)
    model = contest.finish()
    return Delivered(model, contest.best_loss, contest.spent, len(contest.tried))
