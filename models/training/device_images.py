"""Images where members train: all on the device, or some there and the rest as steps need them.

Every image has a number, and on the device a place. Those with the first numbers stay at theirs;
the places behind them are a window, which the host fills anew before the steps that need other
images. A step finds its images by their places, so it gives the same bits wherever they lie.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


class DeviceImages:
    """Images, and where there are such the noisy ones beside them, for steps on a device.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width), uint8
        With 255 as the largest intensity; on the host or the device.
    device : device or str
    noisy : Tensor, of the shape of ``images``, uint8, optional
        What networks see in the place of each image.
    n_resident : int, optional
        How many stay on the device; None for all of them.
    window : int
        Places for the others, >= 1 where there are any.

    Attributes
    ----------
    rows : Tensor, (image, pixel), uint8
        All of them: on the device where all stay there, else on the host.
    image_shape : tuple of int
        Channel, height, width.
    device : torch.device
    streams : bool
        Whether some come and go.
    window : int
        Places for those that do.

    Raises
    ------
    ValueError
        For images or noisy images of another type or shape.
    """

    def __init__(
        self,
        images: Tensor,
        device: torch.device | str,
        *,
        noisy: Tensor | None = None,
        n_resident: int | None = None,
        window: int = 0,
    ) -> None:
        _check(images, noisy)
        channel, height, width = images.shape[1:]
        self.image_shape = (channel, height, width)
        self.device = torch.device(device)
        self.has_noisy = noisy is not None
        self.streams = n_resident is not None and n_resident < len(images)
        self.window = window if self.streams else 0
        whole = [part.reshape(len(part), -1) for part in (images, noisy) if part is not None]
        if not self.streams:
            self._at_places = [part.to(self.device) for part in whole]
            self.rows = self._at_places[0]
            return
        assert n_resident is not None
        if window < 1:
            raise ValueError(f"window must be >= 1 where not all images stay, got {window}")
        self.rows = whole[0]
        self._host = whole
        self._n_resident = n_resident
        self._at_places = [
            torch.cat(
                [
                    part[:n_resident].to(self.device),
                    torch.zeros(window, part.shape[1], dtype=torch.uint8, device=self.device),
                ]
            )
            for part in whole
        ]
        self._place_of = torch.arange(len(images))
        self._stages = [_Stage(whole, window, self.device) for _ in range(2)]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.rows)

    def targets(self, places: Tensor) -> Tensor:
        """Images at places of the device, as bytes (place, pixel)."""
        # index_select of uint8 rows is ten times faster here than indexing with brackets.
        return self._at_places[0].index_select(0, places)

    def noisy(self, places: Tensor) -> Tensor:
        """What networks see in the place of images at places of the device, as bytes."""
        return self._at_places[1].index_select(0, places)

    def plan(self, table: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Lay out which images come before which step, and where each step finds its own.

        Parameters
        ----------
        table : Tensor, (step, member, sample), int64
            Numbers of images, on the host.

        Returns
        -------
        arrivals : dict from step to Tensor, (image,), int64
            Numbers of the images that fill the window before that step.
        places : Tensor, of the shape of ``table``, int64
            On the host.

        Raises
        ------
        torch.OutOfMemoryError
            The window is too small for one step; fewer members need less.
        """
        arrivals: dict[int, Tensor] = {}
        places = torch.empty_like(table)
        first, numbers = 0, [self._visitors(row) for row in table]
        while first < len(table):
            present = torch.zeros(len(self), dtype=torch.bool)
            came: list[Tensor] = []
            count, last = 0, first
            while last < len(table):
                fresh = numbers[last][~present[numbers[last]]]
                if count + len(fresh) > self.window:
                    break
                present[fresh] = True
                came.append(fresh)
                count, last = count + len(fresh), last + 1
            if last == first:
                raise torch.OutOfMemoryError(
                    f"a step must need at most {self.window} images that are not on the device, "
                    f"got {len(numbers[first])}"
                )
            arriving = torch.cat(came)
            self._place_of[arriving] = self._n_resident + torch.arange(count)
            places[first:last] = self._place_of[table[first:last]]
            if count:
                arrivals[first] = arriving
            first = last
        return arrivals, places

    def _visitors(self, numbers: Tensor) -> Tensor:
        """Those of a step that do not stay on the device, each once."""
        visitors: Tensor = numbers[numbers >= self._n_resident].unique()
        return visitors

    def bring(self, numbers: Tensor) -> None:
        """Fill the window, in this order; what was launched before still sees the former."""
        self._stages.reverse()
        self._stages[0].bring(self._host, numbers, self._at_places, self._n_resident)

    def each_step(self, table: Tensor) -> Iterator[dict[str, Tensor]]:
        """Go over steps: ``indices`` and ``places`` of their images, (member, sample)."""
        arrivals, places = self.plan(table) if self.streams else ({}, table)
        on_device = zip(table.to(self.device), places.to(self.device), strict=True)
        for step, (indices, where) in enumerate(on_device):
            if step in arrivals:
                self.bring(arrivals[step])
            yield {"indices": indices, "places": where}


class _Stage:
    """Memory of the host from which images go to a device while the next are put together."""

    def __init__(self, parts: list[Tensor], window: int, device: torch.device) -> None:
        pinned = device.type == "cuda" and torch.cuda.is_available()
        self._rows = [
            torch.empty(window, part.shape[1], dtype=torch.uint8, pin_memory=pinned)
            for part in parts
        ]
        self._copied = torch.cuda.Event() if pinned else None

    def bring(self, parts: list[Tensor], numbers: Tensor, to: list[Tensor], first: int) -> None:
        """Copy images to the places from ``first`` on."""
        if self._copied is not None:
            self._copied.synchronize()
        count = len(numbers)
        for part, rows, places in zip(parts, self._rows, to, strict=True):
            torch.index_select(part, 0, numbers, out=rows[:count])
            places[first : first + count].copy_(rows[:count], non_blocking=True)
        if self._copied is not None:
            self._copied.record()


def _check(images: Tensor, noisy: Tensor | None) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            "images must be uint8 (image, channel, height, width), "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    if noisy is not None and (noisy.shape != images.shape or noisy.dtype != torch.uint8):
        raise ValueError(
            f"noisy must be uint8 of the shape of the images, {tuple(images.shape)}, got "
            f"{noisy.dtype} {tuple(noisy.shape)}"
        )
