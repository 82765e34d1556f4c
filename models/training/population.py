"""A population: members of one architecture that train as one batched computation.

A population is *defined* as its members trained alone, one after another: a member's result
is a function of its own hyperparameters, images and seed, not of its neighbours. In the last bits
it is one of their widths too, which decide how sums are cut; who stands beside whom is a function
of the study.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aesearch.models.autoencoder import Autoencoder, build_autoencoder
from aesearch.models.network import ParameterLayout, PopulationNetwork
from aesearch.models.precision import PRECISIONS, sum_dtype
from aesearch.models.principal import Principal, principal_components
from aesearch.models.shortcut import set_mean, start_at
from aesearch.models.training.denoising import Denoising, InputCorruption
from aesearch.models.training.device_images import DeviceImages
from aesearch.models.training.losses import binary_accuracies, sample_errors, squared_errors
from aesearch.models.training.member import EpochLosses, Member, check_one_of, check_population
from aesearch.models.training.member_states import MemberStates
from aesearch.models.training.minibatches import (
    Minibatch,
    index_table,
    intensities,
    training_order,
)
from aesearch.models.training.optimisers import OPTIMISERS, Optimiser
from aesearch.models.training.passes import Pass
from aesearch.models.training.randomness import step_keys
from aesearch.models.training.schedules import Schedule

# Samples that an evaluation takes at a time at least: small training minibatches would
# spend their time between operations. A constant, so that no neighbour shifts a last bit.
EVALUATION_BATCH = 256
# But no more values than these, unless the minibatches of the training hold them.
EVALUATION_VALUES = 2**24


def evaluation_size(batch_size: int, n_pixels: int) -> int:
    """Samples that an evaluation takes at a time, beside training minibatches of ``batch_size``."""
    return max(batch_size, min(EVALUATION_BATCH, EVALUATION_VALUES // n_pixels))


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
    images : Tensor, (image, channel, height, width), uint8, or DeviceImages
        What the members give back. As ``DeviceImages`` they may have noisy ones beside them, which
        the members see in their place, and need not all be on the device at once.
    architecture : {"dense", "conv"}
    channels : sequence of int
    conv_hidden : int
    code_activation : {"linear", "relu"}
    activation : {"relu", "gelu"}
    shortcut : {"none", "pca"}
        ``pca``: a member starts as PCA of its own training images.
    output : {"sigmoid", "clamp"}
    initialization : {"torch", "he"}
        See :func:`aesearch.models.autoencoder.build_autoencoder`.
    optimizer : {"adam", "adamw", "sgd"}
    momentum : float
        Of sgd, in [0, 1).
    schedule : {"none", "exponential", "cosine", "plateau"}
    gamma, factor, patience
        See :class:`aesearch.models.training.schedules.Schedule`.
    averaging : float or None
        Decay of a moving average of the weights, in [0, 1): at a member's step t it is at most
        (1 + t) / (10 + t). The average is what is validated, kept and extracted. None for none.
    epochs : int
        How many epochs the members train at most; >= 1.
    batch_size : int
        >= 1; the last minibatch of an epoch holds the rest.
    device : str
        Where a tensor of images is put.
    precision : {"float32", "float64", "bfloat16"}
        ``bfloat16`` computes with a bfloat16 copy of float32 weights.
    denoising : Denoising, optional
        How the inputs are corrupted; targets are always the clean images. Without it
        nothing is, whatever level the members have. Not beside noisy images.

    Attributes
    ----------
    members : list of Member
        By position; :meth:`keep` shortens it.
    epoch : int
        Epochs completed.
    starts_as_pca : bool

    Raises
    ------
    ValueError
        For settings or members out of their range, or members that cannot share one
        population.
    """

    _training: Pass
    _validation: Pass
    _drawn: list[Tensor]  # orders of the next epoch, where they were drawn ahead

    def __init__(
        self,
        members: Sequence[Member],
        images: Tensor | DeviceImages,
        *,
        architecture: str,
        channels: Sequence[int],
        conv_hidden: int,
        code_activation: str,
        activation: str,
        shortcut: str,
        output: str,
        initialization: str,
        optimizer: str,
        momentum: float,
        schedule: str,
        gamma: float,
        factor: float,
        patience: int,
        averaging: float | None,
        epochs: int,
        batch_size: int,
        device: str = "cpu",
        precision: str = "float32",
        denoising: Denoising | None = None,
    ) -> None:
        if isinstance(images, Tensor):
            images = DeviceImages(images, device)
        check_population(members, len(images), architecture)
        if denoising is not None and images.has_noisy:
            raise ValueError("denoising must be None beside noisy images, got both")
        check_one_of("optimizer", optimizer, OPTIMISERS)
        check_one_of("precision", precision, PRECISIONS)
        for name, value in (("batch_size", batch_size), ("epochs", epochs)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value!r}")
        if averaging is not None and not 0.0 <= averaging < 1.0:
            raise ValueError(f"averaging must be in [0, 1) or None, got {averaging!r}")
        self.members = list(members)
        self.epoch = 0
        self._epochs = epochs
        self._batch_size = batch_size
        self._images = images
        self._device = images.device
        self._dtype, self._compute_dtype = PRECISIONS[precision]
        self._optimizer = optimizer
        self._momentum = momentum
        self._averaging = averaging
        self._output = output
        self.starts_as_pca = shortcut == "pca"
        self._network_settings: dict[str, Any] = {
            "architecture": architecture,
            "image_shape": images.image_shape,
            "channels": tuple(channels),
            "conv_hidden": conv_hidden,
            "code_activation": code_activation,
            "activation": activation,
            "shortcut": shortcut,
            "output": output,
            "initialization": initialization,
        }
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
        self._components: dict[tuple[bytes, int], Principal] = {}
        started = [self._started(member) for member in members]
        self._components.clear()
        rows = torch.cat([row for row, _ in started]).to(self._device)
        means = [mean for _, mean in started if mean is not None]
        self._means = torch.stack(means).to(self._device) if means else None
        self._states = MemberStates(rows, self._new_optimiser, averaged=averaging is not None)
        self._assemble()

    def _started(self, member: Member) -> tuple[Tensor, Tensor | None]:
        """A member's weights before its first step (1, parameter), and the mean it takes off."""
        module, mean = self._plain(member), None
        if self.starts_as_pca:
            principal = self._principal(member.train_indices, member.encoding_dim)
            start_at(module.encoder, module.decoder, principal)
            # As the weights: rounded to float32 first, so that one start serves every precision.
            mean = principal.mean.float().to(self._dtype)
        return self._layout.stack([module], self._dtype), mean

    def _principal(self, indices: Tensor, n_components: int) -> Principal:
        """Components of images; those of a fold come from the device once."""
        key = (indices.numpy().tobytes(), n_components)
        if key not in self._components:
            self._components[key] = principal_components(self._images.rows, indices, n_components)
        return self._components[key]

    @property
    def device(self) -> torch.device:
        """Where the members are."""
        return self._device

    @property
    def n_members(self) -> int:
        """How many members there are, frozen ones included."""
        return len(self.members)

    @property
    def member_ids(self) -> list[int]:
        """By position: the position in the members that the population was made of."""
        return self._states.member_ids

    @property
    def status(self) -> list[str]:
        """By position: ``"training"``, ``"diverged"`` or ``"stopped"``."""
        return self._states.status

    # ------------------------------------------------------------------ training

    def run_epoch(self, *, binary_accuracy: bool = False) -> EpochLosses:
        """Train every member for one epoch and measure it on its validation images.

        Parameters
        ----------
        binary_accuracy : bool
            Measure that too.

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
        validation, accuracy = train.clone(), train.clone()
        live = list(self._states.live)
        if live:
            totals = self._train_epoch()
            self._validate(binary_accuracy=binary_accuracy)
            self._draw_ahead()
            # Only here is the device asked for anything.
            train[live] = totals.cpu().double() / self._n_train
            validation[live], accuracy[live] = self._validation_losses()
        self.epoch += 1
        self._schedule.observe(train)
        finite = train.isfinite() & validation.isfinite()
        self._freeze([p for p in live if not finite[p]], "diverged")
        return EpochLosses(train, validation, accuracy)

    def _train_epoch(self) -> Tensor:
        """Take an epoch of steps; the sums of the losses (live member,), on the device."""
        live = self._states.live
        orders = self._drawn or self._orders(self.epoch)
        self._drawn = []
        # Steps taken before: (step, member). Once a member has no samples left its numbers
        # are not true, but then none of its steps counts: see _train_step.
        taken = torch.arange(self._training.n_steps)[:, None] + self._states.steps[live]
        rates = self._schedule.learning_rates(self.epoch)[live]
        tables = self._states.optimiser.tables(rates, taken + 1)
        if self._has_dropout or self._corruption is not None:
            tables["keys"] = step_keys([self.members[p].seed for p in live], taken)
        if self._averaging is not None:
            counts = taken.double()
            decays = ((1.0 + counts) / (10.0 + counts)).clamp(max=self._averaging)
            tables["fresh"] = (1.0 - decays).unsqueeze(-1).to(self._dtype)
        self._training.load(index_table(orders, self._batch_size), tables)
        self._train_totals.zero_()
        self._training.run(self._train_step)
        n_steps = [-(-len(order) // self._batch_size) for order in orders]
        self._states.steps[live] += torch.tensor(n_steps)
        return self._train_totals

    def _orders(self, epoch: int) -> list[Tensor]:
        """Each live member's training images, in the order of an epoch."""
        live = (self.members[position] for position in self._states.live)
        return [training_order(member.seed, member.train_indices, epoch) for member in live]

    def _draw_ahead(self) -> None:
        """Draw the next epoch's orders while the device works through this one."""
        if self._device.type != "cpu" and self.epoch + 1 < self._epochs:
            self._drawn = self._orders(self.epoch + 1)

    def _train_step(self, minibatch: Minibatch, row: Mapping[str, Tensor]) -> None:
        """Take one step of all live members, and add up their losses."""
        inputs, targets = self._inputs_and_targets(row, minibatch.width)
        sums, gradient = squared_errors(
            self._network.forward(inputs, row.get("keys")).view(targets.shape),
            targets,
            output=self._output,
            sample_first=self._network.sample_first,
            counts=minibatch.counts,
            is_sample=minibatch.is_sample,
        )
        assert gradient is not None
        self._network.backward(gradient.view(inputs.shape))
        weights, optimiser = self._states.weights, self._states.optimiser
        average = self._states.average
        buffers = [weights, *optimiser.buffers.values()]
        if average is not None:
            buffers.append(average)
        absent = minibatch.absent
        # Saved and restored, not masked: no arithmetic on an absent member survives.
        saved = [] if absent is None else [buffer[absent] for buffer in buffers]
        optimiser.update(row, weights, self._gradient.to(self._dtype))
        if average is not None:
            average.lerp_(weights, row["fresh"])
        for buffer, rows in zip(buffers, saved, strict=False):
            buffer[absent] = rows
        if self._compute_weights is not weights:
            self._compute_weights.copy_(weights)
        self._train_totals += sums

    def _inputs_and_targets(self, row: Mapping[str, Tensor], width: int) -> tuple[Tensor, Tensor]:
        """What the network sees, and what it must give back; in the weights' type."""
        places = row["places"][:, :width]
        if self._network.sample_first:
            places = places.t()
        targets = intensities(self._images.targets, places, self._dtype)
        inputs = targets
        if self._images.has_noisy:
            inputs = intensities(self._images.noisy, places, self._dtype)
        elif self._corruption is not None:
            inputs = self._corruption.apply(targets, row["indices"][:, :width], row.get("keys"))
        if self._network.sample_first:
            _, height, width = self._network.image_shape
            inputs = inputs.view(len(inputs), -1, height, width)
        return inputs, targets

    def measure(self, positions: Sequence[int], pools: Sequence[Tensor]) -> Tensor:
        """Mean squared errors per pixel of members as they are, trained or frozen.

        Parameters
        ----------
        positions : sequence of int
        pools : sequence of Tensor, (sample,), int64
            Images of each, which need not be its validation images; corrupted like those.

        Returns
        -------
        Tensor, (position,), float64
            On the CPU; in the precision of the weights, which is what is delivered.
        """
        rows = torch.stack([self._states.row(position) for position in positions])
        network = self._network_of(positions, rows)
        steps = self._evaluation_pass(pools)
        totals = self._new_totals(2, len(pools))
        steps.run(lambda minibatch, row: self._evaluate_step(network, totals[0], minibatch, row))
        return _means(totals, pools)[0]

    def validation_errors(self) -> list[Tensor]:
        """Measure every member as it is, trained or frozen, on each of its validation images.

        Returns
        -------
        list of Tensor, (member,) of (sample,), float64
            Mean squared errors per pixel, on the CPU.
        """
        network = self._network_of(range(self.n_members), self._states.rows())
        pools = [member.validation_indices for member in self.members]
        table = index_table(pools, self._evaluation_size)
        found = []
        for row in self._images.each_step(table):
            inputs, targets = self._inputs_and_targets(row, table.shape[-1])
            outputs = network.forward(inputs, None).view(targets.shape)
            found.append(
                sample_errors(
                    outputs, targets, output=self._output, sample_first=network.sample_first
                )
            )
        errors = torch.cat(found, dim=1).cpu().double()
        return [row[: len(pool)] for row, pool in zip(errors, pools, strict=True)]

    def _validate(self, *, binary_accuracy: bool) -> None:
        """Measure the live members on their validation images; the sums stay on the device."""
        average = self._states.average
        if average is not None and self._evaluation_weights is not average:
            self._evaluation_weights.copy_(average)
        losses, accuracies = self._validation_totals
        losses.zero_()
        accuracies.fill_(0.0 if binary_accuracy else math.nan)

        def step(minibatch: Minibatch, row: Mapping[str, Tensor]) -> None:
            measured = accuracies if binary_accuracy else None
            self._evaluate_step(self._evaluation_network, losses, minibatch, row, measured)

        self._validation.run(step, kind="accuracy" if binary_accuracy else "loss")

    def _validation_losses(self) -> Tensor:
        """Losses and binary accuracies of the live members: (2, member), on the CPU."""
        pools = [self.members[position].validation_indices for position in self._states.live]
        return _means(self._validation_totals, pools)

    def _evaluate_step(
        self,
        network: PopulationNetwork,
        losses: Tensor,
        minibatch: Minibatch,
        row: Mapping[str, Tensor],
        accuracies: Tensor | None = None,
    ) -> None:
        """Add up the members' losses, and binary accuracies where they are asked for."""
        inputs, targets = self._inputs_and_targets(row, minibatch.width)
        how: dict[str, Any] = {
            "output": self._output,
            "sample_first": network.sample_first,
            "is_sample": minibatch.is_sample,
        }
        outputs = network.forward(inputs, None).view(targets.shape)
        if accuracies is not None:
            accuracies += binary_accuracies(outputs, targets, **how)
        losses += squared_errors(outputs, targets, counts=None, **how)[0]

    def _evaluation_pass(self, pools: Sequence[Tensor]) -> Pass:
        """Lay out steps over the images at ``pools``, one of (sample,) for each member."""
        size = self._evaluation_size
        steps = Pass([len(pool) for pool in pools], size, self._images, self._dtype)
        steps.load(index_table(pools, size), {})
        return steps

    @property
    def _evaluation_size(self) -> int:
        return evaluation_size(self._batch_size, math.prod(self._images.image_shape))

    def _new_totals(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=sum_dtype(self._device), device=self._device)

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
        self.members = [self.members[p] for p in positions]
        self._schedule.keep(positions)
        self._states.keep(positions)
        if self._means is not None:
            self._means = self._means[positions]
        self._assemble()

    def extract(self, position: int) -> Autoencoder:
        """The member as a plain module with its own widths, on the CPU, in evaluation mode."""
        module = self._plain(self.members[position]).to(self._dtype)
        self._layout.unstack(self._states.row(position).cpu(), module)
        if self._means is not None:
            set_mean(module.encoder, self._means[position].cpu())
        return module.eval()

    def weights(self, position: int) -> Tensor:
        """A member's parameters as one row (n_parameters,), a copy; see :meth:`set_weights`."""
        return self._states.row(position)

    def all_weights(self) -> Tensor:
        """All members' parameters (member, n_parameters), a copy."""
        return self._states.rows()

    def set_weights(self, position: int, row: Tensor) -> None:
        """Replace a member's parameters by a row that :meth:`weights` gave."""
        self._states.set_row(position, row)
        if self._compute_weights is not self._states.weights:
            self._compute_weights.copy_(self._states.weights)

    def restart(self, positions: Sequence[int]) -> None:
        """Make members PCA of all their images, of those that validate too; they train no more."""
        assert self._means is not None, "the members must start as PCA"
        for position in positions:
            member = self.members[position]
            both = torch.cat([member.train_indices, member.validation_indices]).sort().values
            row, mean = self._started(replace(member, train_indices=both))
            assert mean is not None
            self._means[position] = mean.to(self._device)
            self.set_weights(position, row[0].to(self._device))
        self._components.clear()
        self.stop(positions)
        self._assemble()

    def _freeze(self, positions: Sequence[int], status: str) -> None:
        if positions:
            self._states.park(positions, status)
            self._assemble()

    def _new_optimiser(self, weights: Tensor, positions: Sequence[int]) -> Optimiser:
        decay = [self.members[position].weight_decay for position in positions]
        decays = torch.tensor(decay, dtype=torch.float64)
        return OPTIMISERS[self._optimizer](weights, decays, self._momentum)

    def _assemble(self) -> None:
        """Build what trains the live members around their weights (live member, parameter)."""
        positions = self._states.live
        live = [self.members[position] for position in positions]
        self._has_dropout = any(member.dropout > 0 for member in live)
        self._compute_weights = self._states.weights.to(self._compute_dtype)
        self._gradient = torch.zeros_like(self._compute_weights)
        self._network = self._network_of(positions, self._compute_weights, self._gradient)
        self._evaluation_weights = self._compute_weights
        if self._states.average is not None:
            self._evaluation_weights = self._states.average.to(self._compute_dtype)
        self._evaluation_network = self._network_of(positions, self._evaluation_weights)
        self._corruption = self._corruption_of(live)
        self._drawn = []
        self._train_totals = self._new_totals(len(live))
        self._validation_totals = self._new_totals(2, len(live))
        if live:
            sizes = [len(member.train_indices) for member in live]
            self._n_train = torch.tensor(sizes)
            self._training = Pass(sizes, self._batch_size, self._images, self._dtype)
            self._validation = self._evaluation_pass([m.validation_indices for m in live])

    def _network_of(
        self, positions: Sequence[int], weights: Tensor, gradient: Tensor | None = None
    ) -> PopulationNetwork:
        """Build the network of the members at ``positions`` around their weights."""
        dropout = torch.tensor([self.members[p].dropout for p in positions], dtype=torch.float64)
        means = None if self._means is None else self._means[list(positions)]
        return PopulationNetwork(self._layout, weights, dropout, gradient, means=means)

    def _corruption_of(self, members: Sequence[Member]) -> InputCorruption | None:
        if self._denoising is None:
            return None
        return InputCorruption(
            self._denoising,
            [member.corruption_level for member in members],
            self._network.image_shape,
            sample_first=self._network.sample_first,
            like=self._states.weights,
        )

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
        state = {"epoch": torch.tensor(self.epoch), **self._states.dump()}
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
        self._states.load(state)
        self.epoch = int(state["epoch"])
        self._schedule.state = {
            name: state[f"schedule.{name}"].clone() for name in self._schedule.state
        }
        self._assemble()


def _means(totals: Tensor, pools: Sequence[Tensor]) -> Tensor:
    """Sums on the device over the samples of each member, as means: on the CPU."""
    return totals.cpu().double() / torch.tensor([len(pool) for pool in pools])
