"""One pass over the members' minibatches, a step after the other; what a step does is not here."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from aesearch.models.training.capture import Calls
from aesearch.models.training.device_images import DeviceImages
from aesearch.models.training.minibatches import Minibatch, padded_minibatches

# From a minibatch and the step's rows of the tables to nothing: it writes tensors that stay.
Step = Callable[[Minibatch, Mapping[str, Tensor]], None]


class Pass:
    """Steps over every member's samples, which the device repeats by itself where it can.

    What differs from one step to the next lies in tables on the device, a row for each step, and
    so does the number of the step: a step is a function of the device's memory alone.

    Parameters
    ----------
    sizes : sequence of int, (member,)
        Samples of each member.
    batch_size : int
    images : DeviceImages
        Which the steps see; some may have to be brought to the device before a step.
    dtype : torch.dtype
        Of what the minibatches hold of padding.

    Attributes
    ----------
    n_steps : int
    """

    def __init__(
        self, sizes: Sequence[int], batch_size: int, images: DeviceImages, dtype: torch.dtype
    ) -> None:
        device = images.device
        self._images = images
        self._arrivals: dict[int, Tensor] = {}
        self._minibatches = padded_minibatches(sizes, batch_size, device, dtype)
        self.n_steps = len(self._minibatches)
        self._tables: dict[str, Tensor] = {}
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        self._calls = Calls(device)

    def load(self, indices: Tensor, tables: Mapping[str, Tensor]) -> None:
        """Take over an epoch's images and its other tables; the same ones every time.

        A step finds the numbers of its images as ``indices``, their places as ``places``.

        Parameters
        ----------
        indices : Tensor, (step, member, sample), int64
        tables : mapping of str to Tensor, (step, ...)
        """
        tables = {**tables, "indices": indices}
        if self._images.streams:
            self._arrivals, tables["places"] = self._images.plan(indices)
        for name, table in tables.items():
            if name in self._tables:
                self._tables[name].copy_(table)
            else:
                self._tables[name] = table.to(self._number.device, copy=True)

    def run(self, step: Step, *, kind: str = "") -> None:
        """Take every step once.

        Parameters
        ----------
        step : callable
            The same one for the same ``kind``.
        kind : str
        """
        self._number.zero_()
        for number, minibatch in enumerate(self._minibatches):
            if number in self._arrivals:
                self._images.bring(self._arrivals[number])
            self._calls((minibatch, kind), partial(self._take, step, minibatch))

    def _take(self, step: Step, minibatch: Minibatch) -> None:
        rows = {
            name: table.index_select(0, self._number).squeeze(0)
            for name, table in self._tables.items()
        }
        rows.setdefault("places", rows["indices"])
        step(minibatch, rows)
        self._number.add_(1)
