"""Networks and training that the arena's peers share: what a good engineer writes by hand.

Images lie in one resident float tensor, minibatches go by index, training stops early on a
held-out tenth and the best weights are kept; all of it within a budget of processor seconds.
The ways to search are in ``arena_peers.py``; torch is enough here.
"""

import copy
import itertools
import math
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SEARCH_SHARE = 0.75
# What is left of the budget at the end: to validate once more and to give back memory.
END_SHARE = 0.99
HELD_OUT = 0.1
MAX_EPOCHS = 200
PATIENCE = 20
# The last part of the last training, in which the learning rate falls to zero.
DECAY_SHARE = 0.3
# A relative fall of the loss that counts as progress.
MIN_PROGRESS = 1e-3
FEWEST_CONFIGURATIONS = 12
# Of a training that diverged: no error of images in [0, 1] is larger.
WORST_LOSS = 1.0
AVERAGE_DECAY = 0.998
SLOPE_OUTSIDE = 0.01


class OutOfTimeError(Exception):
    """The search's share of the budget is spent."""


def processor_seconds():
    """Seconds that this process and its finished children have computed."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


# ------------------------------------------------------------------------- networks


class Plain(nn.Module):
    """The autoencoder as everybody would write it: ReLU, dropout, a sigmoid at the end."""

    def __init__(self, task, dropout):
        super().__init__()
        n_pixels = len(task.mean)
        self.layers = nn.Sequential(
            *(nn.Linear(n_pixels, task.hidden), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(task.hidden, task.size),
            *(nn.Linear(task.size, task.hidden), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(task.hidden, n_pixels), nn.Sigmoid()),
        )

    def forward(self, x):
        """Reconstruct images (sample, pixel)."""
        return self.layers(x)

    def after_step(self):
        """Nothing: the weights are used as they are."""


class Beyond(nn.Module):
    """PCA and what is beyond it: a linear path that starts as PCA, beside layers that start at 0.

    With ``u = x - mean``: ``code = W_e u + f(u)`` and ``z = b + W_d code + g(code)``, clamped to
    [0, 1].
    """

    def __init__(self, task, dropout):
        super().__init__()
        n_pixels = len(task.mean)
        self.register_buffer("mean", task.mean)
        self.encoder = nn.Parameter(task.components.clone())
        self.decoder = nn.Parameter(task.components.T.contiguous())
        self.bias = nn.Parameter(task.mean.clone())
        self.f = self._layers(n_pixels, task.hidden, task.size, dropout)
        self.g = self._layers(task.size, task.hidden, n_pixels, dropout)

    @staticmethod
    def _layers(n_in, hidden, n_out, dropout):
        inner = (hidden, hidden // 2) if n_in > n_out else (hidden // 2, hidden)
        last = nn.Linear(inner[1], n_out)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        layers = []
        for width, following in itertools.pairwise((n_in, *inner)):
            layers += [nn.Linear(width, following), nn.GELU(), nn.Dropout(dropout)]
        return nn.Sequential(*layers, last)

    def forward(self, x):
        """Reconstruct images (sample, pixel); in training, with a slope outside [0, 1]."""
        u = x - self.mean
        code = F.linear(u, self.encoder) + self.f(u)
        z = F.linear(code, self.decoder, self.bias) + self.g(code)
        clamped = z.clamp(0.0, 1.0)
        if not self.training:
            return clamped
        outside = z - clamped
        return clamped + SLOPE_OUTSIDE * (outside - outside.detach())


class Averaged(nn.Module):
    """``Beyond`` that trains as itself and is used as the moving average of its weights."""

    def __init__(self, task, dropout):
        super().__init__()
        self.network = Beyond(task, dropout)
        self.average = copy.deepcopy(self.network).requires_grad_(requires_grad=False)
        self.n_steps = 0

    def forward(self, x):
        """Reconstruct images (sample, pixel)."""
        return self.network(x) if self.training else self.average(x)

    @torch.no_grad()
    def after_step(self):
        """Move the average towards the weights."""
        self.n_steps += 1
        decay = min(AVERAGE_DECAY, (1 + self.n_steps) / (10 + self.n_steps))
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        for average, weight in pairs:
            average.lerp_(weight, 1 - decay)


class Dimension(NamedTuple):
    """A range to search, on a logarithmic scale or not."""

    low: float
    high: float
    log: bool


@dataclass(frozen=True)
class Kind:
    """A network, its optimiser, what is searched, and what one would try first."""

    network: Callable[..., nn.Module]
    optimizer: type[torch.optim.Optimizer]
    space: dict[str, Dimension]
    usual: dict[str, float]


PLAIN = Kind(
    Plain,
    torch.optim.Adam,
    {
        "learning_rate": Dimension(1e-4, 1e-2, log=True),
        "weight_decay": Dimension(1e-7, 1e-3, log=True),
        "dropout": Dimension(0.0, 0.5, log=False),
    },
    {"learning_rate": 1e-3, "weight_decay": 1e-5, "dropout": 0.0},
)
NET = Kind(
    Averaged,
    torch.optim.AdamW,
    {
        "learning_rate": Dimension(5e-4, 1e-2, log=True),
        "weight_decay": Dimension(1e-3, 0.5, log=True),
        "dropout": Dimension(0.0, 0.5, log=False),
    },
    {"learning_rate": 2e-3, "weight_decay": 1e-2, "dropout": 0.0},
)


# ------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Task:
    """What every training of one contest shares; images are (sample, pixel) in [0, 1].

    Attributes
    ----------
    mean : Tensor, (pixel,)
    components : Tensor, (size, pixel)
        First principal components of ``train``.
    """

    kind: Kind
    train: Tensor
    validation: Tensor
    mean: Tensor
    components: Tensor
    size: int
    hidden: int
    batch_size: int

    def network(self, dropout):
        """Make a fresh network from torch's global generator."""
        return self.kind.network(self, dropout)


def make_task(kind, images, size, seed):
    """Hold a tenth out, and learn from the rest what a network starts with."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    n_held_out = round(HELD_OUT * len(images))
    train, validation = images[order[n_held_out:]], images[order[:n_held_out]]
    mean = train.mean(dim=0)
    centred = (train - mean).double()
    components = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -size:].flip(1).T.float()
    # The automatic widths and batches of aesearch.
    hidden = min(max(images.shape[1] // 2, 128), 2048)
    batch_size = min(max(len(images) // 60, 32), 1000)
    return Task(kind, train, validation, mean, components, size, hidden, batch_size)


def reconstruction_loss(model, images):
    """Mean squared error per pixel, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return F.mse_loss(model(images), images).item()


class Contest:
    """One peer at work: its clock, its trainings, and the best weights that it has seen.

    Parameters
    ----------
    seconds : float
        Processor seconds from now on.
    fewest : int
        With fewer configurations there is no search: each is trained shorter instead.
    """

    def __init__(self, kind, images, size, seed, *, seconds, fewest):
        self.began = processor_seconds()
        self.seconds = seconds
        self.seed = seed
        self.fewest = fewest
        self.tried = set()
        self.best_loss, self.best_params, self.best_weights = math.inf, kind.usual, None
        self.task = make_task(kind, images, size, seed)
        self._generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)

    @property
    def spent(self):
        """Processor seconds since the contest began."""
        return processor_seconds() - self.began

    @property
    def search_until(self):
        """Processor seconds at which the search ends."""
        return SEARCH_SHARE * self.seconds

    def check(self):
        """Leave the search when its share is spent."""
        if self.spent >= self.search_until:
            raise OutOfTimeError

    def offer(self, loss, params, weights):
        """Keep the best weights of all."""
        if loss < self.best_loss:
            self.best_loss, self.best_params, self.best_weights = loss, params, weights

    def max_epochs(self, train=None):
        """Epochs after which a training of the search ends, however well it goes.

        Parameters
        ----------
        train : callable(n_epochs), optional
            What is timed for it; None for our own loop.
        """
        if train is None:

            def train(n_epochs):
                self._train(self.task.kind.usual, n_epochs, None)

        train(1)  # to warm up
        began, n_epochs = self.spent, 2
        train(n_epochs)
        seconds = max((self.spent - began) / n_epochs, 1e-4)
        affordable = (self.search_until - self.spent) / seconds
        return min(max(int(affordable / self.fewest), 5), MAX_EPOCHS)

    def train(self, params, max_epochs, on_epoch=None):
        """Train one configuration of the search; its loss on the held-out tenth.

        Parameters
        ----------
        on_epoch : callable(epoch, loss), optional
            May raise to stop.

        Raises
        ------
        OutOfTimeError
            The share of the search is spent; what was learned until then is kept.
        """
        self.check()
        self.tried.add(tuple(params.values()))
        loss = self._train(params, max_epochs, on_epoch)
        self.check()
        return loss

    def finish(self):
        """Train the winner once more, with all that is left; give the best weights of all."""
        self._train(self.best_params, None, None)
        model = self.task.network(self.best_params["dropout"])
        if self.best_weights is not None:  # there was time for an epoch
            model.load_state_dict(self.best_weights)
        return model.eval()

    def _train(self, params, max_epochs, on_epoch):
        """Train until nothing gets better, the epochs are over, or the time is up.

        ``max_epochs`` None is the last training: it has all that is left of the budget.
        """
        task, is_last = self.task, max_epochs is None
        began = self.spent
        until = END_SHARE * self.seconds if is_last else self.search_until
        model = task.network(params["dropout"])
        optimizer = task.kind.optimizer(
            [weight for weight in model.parameters() if weight.requires_grad],
            lr=params["learning_rate"],
            weight_decay=params["weight_decay"],
            fused=True,
        )
        best, reference, waited, epoch, spent = WORST_LOSS, math.inf, 0, 0, began
        while spent < until and (is_last or (epoch < max_epochs and waited < PATIENCE)):
            model.train()
            order = torch.randperm(len(task.train), generator=self._generator)
            for indices in order.split(task.batch_size):
                spent = self.spent
                if spent >= until:
                    break
                if is_last:
                    left = (until - spent) / (until - began)
                    rate = params["learning_rate"] * min(1.0, left / DECAY_SHARE)
                    optimizer.param_groups[0]["lr"] = rate
                batch = task.train[indices]
                optimizer.zero_grad()
                F.mse_loss(model(batch), batch).backward()
                optimizer.step()
                model.after_step()
            epoch += 1
            loss = reconstruction_loss(model, task.validation)
            best = min(best, loss)
            if loss < self.best_loss:
                weights = {name: value.clone() for name, value in model.state_dict().items()}
                self.offer(loss, params, weights)
            waited += 1
            if loss < reference * (1 - MIN_PROGRESS):
                reference, waited = loss, 0
            if on_epoch is not None:
                on_epoch(epoch, loss)
            spent = self.spent
        return best
