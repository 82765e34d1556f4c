"""A population: members of one architecture that train as one batched computation.

A population is *defined* as its members trained alone, one after another: a member's result
is a function of its own hyperparameters, images and seed, not of its neighbours.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aesearch.models.autoencoder import Autoencoder, build_autoencoder
from aesearch.models.denoising import Denoising, InputCorruption
from aesearch.models.losses import squared_errors
from aesearch.models.member import EpochLosses, Member, check_one_of, check_population
from aesearch.models.minibatches import (
    Minibatch,
    gather_images,
    padded_minibatches,
    training_orders,
)
from aesearch.models.network import ParameterLayout, PopulationNetwork
from aesearch.models.optimisers import OPTIMISERS, Optimiser
from aesearch.models.precision import PRECISIONS, compute_types
from aesearch.models.randomness import step_keys
from aesearch.models.schedules import Schedule

STATUSES = ("training", "diverged", "stopped")

# Samples that an evaluation takes at a time at least: small training minibatches would
# spend their time between operations. A constant, so that no neighbour shifts a last bit.
EVALUATION_BATCH = 256


class Population:
    """Members that train together, each as if it were alone.

    Own to each member: weights, learning rate, weight decay, dropout, widths, minibatch
    order, training and validation images, optimiser state, step count and learning-rate
    schedule. Shared: the architecture and its depth, and the settings below. A member whose
    loss is not finite is frozen with the status ``"diverged"``.

    Parameters
    ----------
    members : sequence of Member
        Not empty; with hidden widths of equal depth.
    images : Tensor, (image, channel, height, width), uint8
        Kept on the device.
    architecture : {"dense", "conv"}
    channels : sequence of int
    conv_hidden : int
    code_activation : {"linear", "relu"}
        See :func:`aesearch.models.autoencoder.build_autoencoder`.
    optimizer : {"adam", "adamw", "sgd"}
    momentum : float
        Of sgd, in [0, 1).
    schedule : {"none", "exponential", "cosine", "plateau"}
    gamma, factor, patience
        See :class:`aesearch.models.schedules.Schedule`.
    epochs : int
        How many epochs the members train at most; >= 1.
    batch_size : int
        >= 1; the last minibatch of an epoch holds the rest.
    device : str
    precision : {"float32", "float64", "bfloat16"}
        ``bfloat16`` computes with a bfloat16 copy of float32 weights; convolutions on a
        CPU stay in float32 (see ``precision``).
    denoising : Denoising, optional
        How the inputs are corrupted; targets are always the clean images. Without it
        nothing is, whatever level the members have.

    Attributes
    ----------
    members : list of Member
        By position; :meth:`keep` shortens it.
    member_ids : list of int
        Position of each in the members that the population was made of.
    epoch : int
        Epochs completed.
    status : list of str
        ``"training"``, ``"diverged"`` or ``"stopped"``, by position.

    Raises
    ------
    ValueError
        For settings or members out of their range, or members that cannot share one
        population.
    """

    def __init__(
        self,
        members: Sequence[Member],
        images: Tensor,
        *,
        architecture: str,
        channels: Sequence[int],
        conv_hidden: int,
        code_activation: str,
        optimizer: str,
        momentum: float,
        schedule: str,
        gamma: float,
        factor: float,
        patience: int,
        epochs: int,
        batch_size: int,
        device: str = "cpu",
        precision: str = "float32",
        denoising: Denoising | None = None,
    ) -> None:
        check_population(members, images, architecture)
        check_one_of("optimizer", optimizer, OPTIMISERS)
        check_one_of("precision", precision, PRECISIONS)
        for name, value in (("batch_size", batch_size), ("epochs", epochs)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value!r}")
        self.members = list(members)
        self.member_ids = list(range(len(members)))
        self.status = ["training"] * len(members)
        self.epoch = 0
        self._epochs = epochs
        self._batch_size = batch_size
        self._device = torch.device(device)
        self._dtype, self._compute_dtype = compute_types(
            precision, architecture=architecture, device=self._device.type
        )
        self._optimizer = optimizer
        self._momentum = momentum
        self._network_settings: dict[str, Any] = {
            "architecture": architecture,
            "image_shape": tuple(images.shape[1:]),
            "channels": tuple(channels),
            "conv_hidden": conv_hidden,
            "code_activation": code_activation,
        }
        self._images = images.reshape(len(images), -1).to(self._device)
        self._denoising = denoising
        self._schedule = Schedule(
            schedule,
            torch.tensor([member.learning_rate for member in members], dtype=torch.float64),
            epochs=epochs,
            gamma=gamma,
            factor=factor,
            patience=patience,
        )
        hidden = [max(widths) for widths in zip(*(m.hidden for m in members), strict=True)]
        widest = max(member.encoding_dim for member in members)
        template = self._plain(members[0], hidden=hidden, encoding_dim=widest)
        self._layout = ParameterLayout(template)
        modules = (self._plain(member) for member in members)
        rows = torch.cat([self._layout.stack([module], self._dtype) for module in modules])
        # Rows of members that train no more leave the batch and are parked here.
        self._parked: dict[int, Tensor] = {}
        self._steps = torch.zeros(len(members), dtype=torch.int64)
        self._live = list(range(len(members)))
        self._assemble(rows.to(self._device), {})

    @property
    def n_members(self) -> int:
        """How many members there are, frozen ones included."""
        return len(self.members)

    # ------------------------------------------------------------------ training

    def run_epoch(self) -> EpochLosses:
        """Train every member for one epoch and measure it on its validation images.

        Returns
        -------
        EpochLosses
            On the CPU.

        Raises
        ------
        RuntimeError
            After the last epoch.
        """
        if self.epoch >= self._epochs:
            raise RuntimeError(f"epoch must be < {self._epochs}, got {self.epoch}; all are done")
        train = torch.full((self.n_members,), math.nan, dtype=torch.float64)
        validation = train.clone()
        live = list(self._live)
        if live:
            train[live] = self._train_epoch()
            pools = [self.members[position].validation_indices for position in live]
            validation[live] = self._mean_losses(self._network, pools, corrupted=True)
        self.epoch += 1
        self._schedule.observe(train)
        finite = train.isfinite() & validation.isfinite()
        self._freeze([p for p in live if not finite[p]], "diverged")
        return EpochLosses(train, validation)

    def _train_epoch(self) -> Tensor:
        """Losses (live member,) of one epoch of steps."""
        members = [self.members[position] for position in self._live]
        seeds = [member.seed for member in members]
        orders = training_orders(seeds, [member.train_indices for member in members], self.epoch)
        sizes = [len(order) for order in orders]
        minibatches = padded_minibatches(orders, self._batch_size, self._device, self._dtype)
        # Steps taken before: (step, member). Once a member has no samples left its numbers
        # are not true, but then none of its steps counts: see _train_step.
        taken = torch.arange(len(minibatches))[:, None] + self._steps[self._live]
        rates = self._schedule.learning_rates(self.epoch)[self._live]
        self._optimiser.begin_epoch(rates, taken + 1)
        draws = self._has_dropout or self._corruption is not None
        keys = step_keys(seeds, taken).to(self._device) if draws else None
        totals = torch.zeros(len(members), dtype=torch.float64, device=self._device)
        for step, minibatch in enumerate(minibatches):
            totals += self._train_step(step, minibatch, None if keys is None else keys[step])
        self._steps[self._live] += torch.tensor([-(-n // self._batch_size) for n in sizes])
        return totals.cpu() / torch.tensor(sizes)

    def _train_step(self, step: int, minibatch: Minibatch, keys: Tensor | None) -> Tensor:
        """Take one step of all live members; their summed losses (live member,)."""
        inputs, targets = self._inputs_and_targets(minibatch, keys)
        sums, gradient = self._forward(self._network, inputs, targets, minibatch, keys)
        assert gradient is not None
        self._network.backward(gradient.view(inputs.shape))
        buffers = [self._weights, *self._optimiser.buffers.values()]
        absent = minibatch.absent
        # Saved and restored, not masked: no arithmetic on an absent member survives.
        saved = [] if absent is None else [buffer[absent] for buffer in buffers]
        self._optimiser.update(step, self._weights, self._gradient.to(self._dtype))
        for buffer, rows in zip(buffers, saved, strict=False):
            buffer[absent] = rows
        if self._compute_weights is not self._weights:
            self._compute_weights.copy_(self._weights)
        return sums

    def _inputs_and_targets(
        self, minibatch: Minibatch, keys: Tensor | None = None, *, corrupted: bool = True
    ) -> tuple[Tensor, Tensor]:
        """What the network sees (compute type) and what it must give back (weights' type)."""
        targets = gather_images(
            self._images,
            minibatch.indices,
            sample_first=self._network.sample_first,
            dtype=self._dtype,
        )
        inputs = targets
        if corrupted and self._corruption is not None:
            inputs = self._corruption.apply(targets, minibatch.indices, keys)
        inputs = inputs.to(self._compute_dtype)
        if self._network.sample_first:
            _, height, width = self._network.image_shape
            inputs = inputs.view(len(inputs), -1, height, width)
        return inputs, targets

    def _forward(
        self,
        network: PopulationNetwork,
        inputs: Tensor,
        targets: Tensor,
        minibatch: Minibatch,
        keys: Tensor | None,
        *,
        with_gradient: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        logits = network.forward(inputs, keys)
        return squared_errors(
            logits.view(targets.shape),
            targets,
            sample_first=network.sample_first,
            counts=minibatch.counts if with_gradient else None,
            is_sample=minibatch.is_sample,
        )

    # ---------------------------------------------------------------- evaluation

    def evaluate(self, indices: Tensor) -> Tensor:
        """Each member's mean squared error per pixel over the same clean images, without dropout.

        Parameters
        ----------
        indices : Tensor, (sample,), int64
            Into the population's images; not empty.

        Returns
        -------
        Tensor, (member,), float64
            On the CPU; of frozen members too.
        """
        return self._mean_losses(self._network_of_all(), [indices] * self.n_members)

    def validation_losses(self) -> Tensor:
        """Each member's mean squared error per pixel over its validation images: (member,).

        Of the reconstructions of corrupted images where the members learn to denoise.
        """
        pools = [member.validation_indices for member in self.members]
        return self._mean_losses(self._network_of_all(), pools, corrupted=True)

    def _mean_losses(
        self, network: PopulationNetwork, pools: Sequence[Tensor], *, corrupted: bool = False
    ) -> Tensor:
        totals = torch.zeros(len(pools), dtype=torch.float64, device=self._device)
        size = max(self._batch_size, EVALUATION_BATCH)
        for minibatch in padded_minibatches(pools, size, self._device, self._dtype):
            inputs, targets = self._inputs_and_targets(minibatch, corrupted=corrupted)
            sums, _ = self._forward(network, inputs, targets, minibatch, None, with_gradient=False)
            totals += sums
        return totals.cpu() / torch.tensor([len(pool) for pool in pools])

    # ------------------------------------------------------------------- members

    def stop(self, positions: Sequence[int]) -> None:
        """Freeze members as they are, with the status ``"stopped"``."""
        self._freeze([p for p in positions if self.status[p] == "training"], "stopped")

    def keep(self, positions: Sequence[int]) -> None:
        """Drop all members but those at ``positions``, which take that order.

        Raises
        ------
        ValueError
            For a position that is not there, twice there, or none at all.
        """
        positions = list(positions)
        if not positions or len(set(positions)) != len(positions):
            raise ValueError(f"positions must be distinct and not empty, got {positions!r}")
        if min(positions) < 0 or max(positions) >= self.n_members:
            raise ValueError(f"positions must be in [0, {self.n_members}), got {positions!r}")
        rows = [self._live.index(p) for p in positions if p in self._live]
        weights, buffers = self._rows(rows)
        self._parked = {
            new: self._parked[old] for new, old in enumerate(positions) if old in self._parked
        }
        self._live = [new for new, old in enumerate(positions) if old in self._live]
        self.members = [self.members[p] for p in positions]
        self.member_ids = [self.member_ids[p] for p in positions]
        self.status = [self.status[p] for p in positions]
        self._steps = self._steps[positions]
        self._schedule.keep(positions)
        self._assemble(weights, buffers)

    def extract(self, position: int) -> Autoencoder:
        """The member as a plain module with its own widths, on the CPU, in evaluation mode."""
        module = self._plain(self.members[position]).to(self._dtype)
        self._layout.unstack(self.weights(position).cpu(), module)
        return module.eval()

    def weights(self, position: int) -> Tensor:
        """A member's parameters as one row (n_parameters,), a copy; see :meth:`set_weights`."""
        if position in self._parked:
            return self._parked[position].clone()
        return self._weights[self._live.index(position)].clone()

    def set_weights(self, position: int, row: Tensor) -> None:
        """Replace a member's parameters by a row that :meth:`weights` gave."""
        if position in self._parked:
            self._parked[position] = row.to(self._device, self._dtype, copy=True)
            return
        live_row = self._live.index(position)
        self._weights[live_row].copy_(row)
        self._compute_weights[live_row].copy_(row)

    def _freeze(self, positions: Sequence[int], status: str) -> None:
        if not positions:
            return
        for position in positions:
            self._parked[position] = self.weights(position)
            self.status[position] = status
        rows = [row for row, p in enumerate(self._live) if p not in self._parked]
        weights, buffers = self._rows(rows)
        self._live = [p for p in self._live if p not in self._parked]
        self._assemble(weights, buffers)

    def _rows(self, rows: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Copies of the given rows of the weights and of the optimiser's buffers."""
        buffers = self._optimiser.buffers
        return self._weights[rows], {name: buffer[rows] for name, buffer in buffers.items()}

    def _assemble(self, weights: Tensor, buffers: dict[str, Tensor]) -> None:
        """Build optimiser and network around the live members' weights (live member, parameter)."""
        live = [self.members[position] for position in self._live]
        decay = torch.tensor([member.weight_decay for member in live], dtype=torch.float64)
        self._has_dropout = any(member.dropout > 0 for member in live)
        self._weights = weights
        self._optimiser: Optimiser = OPTIMISERS[self._optimizer](
            weights, decay.to(self._device), self._momentum
        )
        for name, buffer in buffers.items():
            self._optimiser.buffers[name].copy_(buffer)
        self._compute_weights = weights.to(self._compute_dtype)
        self._gradient = torch.zeros_like(self._compute_weights)
        self._network = self._network_around(live, self._compute_weights, self._gradient)
        self._corruption = self._corruption_of(live)

    def _network_around(
        self, members: Sequence[Member], weights: Tensor, gradient: Tensor | None
    ) -> PopulationNetwork:
        dropout = torch.tensor([member.dropout for member in members], dtype=torch.float64)
        return PopulationNetwork(self._layout, weights, dropout.to(self._device), gradient)

    def _corruption_of(self, members: Sequence[Member]) -> InputCorruption | None:
        if self._denoising is None:
            return None
        return InputCorruption(
            self._denoising,
            [member.corruption_level for member in members],
            self._network.image_shape,
            sample_first=self._network.sample_first,
            device=self._device,
        )

    def _network_of_all(self) -> PopulationNetwork:
        if not self._parked:
            return self._network
        rows = torch.stack([self.weights(position) for position in range(self.n_members)])
        return self._network_around(self.members, rows.to(self._compute_dtype), None)

    def _plain(
        self,
        member: Member,
        hidden: Sequence[int] | None = None,
        encoding_dim: int | None = None,
    ) -> Autoencoder:
        return build_autoencoder(
            **self._network_settings,
            encoding_dim=member.encoding_dim if encoding_dim is None else encoding_dim,
            hidden=member.hidden if hidden is None else hidden,
            dropout=member.dropout,
            seed=member.seed,
        )

    # --------------------------------------------------------------------- state

    def state(self) -> dict[str, Tensor]:
        """All that a population of the same members needs to continue, bit for bit.

        Returns
        -------
        dict of Tensor
            Flat, contiguous, on the CPU; scalars as tensors.
        """
        rows = torch.stack([self.weights(position) for position in range(self.n_members)])
        state = {
            "epoch": torch.tensor(self.epoch),
            "member_ids": torch.tensor(self.member_ids),
            "status": torch.tensor([STATUSES.index(status) for status in self.status]),
            "steps": self._steps.clone(),
            "weights": rows.cpu(),
        }
        for name, buffer in self._optimiser.buffers.items():
            state[f"optimizer.{name}"] = buffer.cpu().clone()
        for name, values in self._schedule.state.items():
            state[f"schedule.{name}"] = values.clone()
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from a state, in a population made with the same arguments.

        Raises
        ------
        ValueError
            For a state of other members or of a network of another size.
        """
        ids = state["member_ids"].tolist()
        if not set(ids) <= set(self.member_ids):
            raise ValueError(f"member_ids must be among {self.member_ids}, got {ids}")
        n_parameters = state["weights"].shape[1]
        if n_parameters != self._layout.n_parameters:
            raise ValueError(
                f"weights must have {self._layout.n_parameters} parameters, got {n_parameters}; "
                "load the state into a population made with the same arguments"
            )
        self.keep([self.member_ids.index(member_id) for member_id in ids])
        self.epoch = int(state["epoch"])
        self.status = [STATUSES[code] for code in state["status"].tolist()]
        self._steps = state["steps"].clone()
        self._schedule.state = {
            name: state[f"schedule.{name}"].clone() for name in self._schedule.state
        }
        weights = state["weights"].to(self._device, self._dtype, copy=True)
        self._live = [p for p, status in enumerate(self.status) if status == "training"]
        self._parked = {p: weights[p].clone() for p in range(len(ids)) if p not in self._live}
        buffers = {
            name: state[f"optimizer.{name}"].to(self._device) for name in self._optimiser.buffers
        }
        self._assemble(weights[self._live], buffers)
