"""How a population's inputs are corrupted; the corruptions themselves are in corruptions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aesearch.models.training.corruptions import Corruption, image_keys, training_keys


@dataclass(frozen=True)
class Denoising:
    """What the inputs of a population suffer; the level in training is each member's own.

    Attributes
    ----------
    corruption : str
        One of ``CORRUPTIONS``.
    clamp : bool
        Whether gaussian and uniform noise is cut to [0, 1].
    validation_level : float
        Of the validation images, one for all members, whatever they train on: else the
        member with the easiest images would win.
    validation_seed : int
        By which an image is corrupted, the same in every epoch and for every member.
    """

    corruption: str
    clamp: bool
    validation_level: float
    validation_seed: int


class InputCorruption:
    """Corrupts minibatches of a population, in the layout of its network.

    Parameters
    ----------
    denoising : Denoising
    levels : sequence of float, (member,)
        Of the training images.
    image_shape : (channel, height, width)
    sample_first : bool
        Whether minibatches are (sample, member, pixel), else (member, sample, pixel).
    like : Tensor
        Of the type and on the device of the images.

    Raises
    ------
    ValueError
        For an unknown corruption or a level out of its range.
    """

    def __init__(
        self,
        denoising: Denoising,
        levels: Sequence[float],
        image_shape: Sequence[int],
        *,
        sample_first: bool,
        like: Tensor,
    ) -> None:
        def of(rows: Sequence[float]) -> Corruption:
            column = torch.tensor(rows, dtype=torch.float64)
            return Corruption(
                denoising.corruption,
                column if sample_first else column.unsqueeze(1),
                image_shape,
                clamp=denoising.clamp,
                like=like,
            )

        self._training, self._validation = of(levels), of([denoising.validation_level])
        self._validation_seed = denoising.validation_seed
        self._sample_first = sample_first

    def apply(self, images: Tensor, indices: Tensor, step_keys: Tensor | None) -> Tensor:
        """Corrupt a minibatch; the images themselves stay as they are.

        Parameters
        ----------
        images : Tensor, (member, sample, pixel) or (sample, member, pixel)
            Intensities in [0, 1].
        indices : Tensor, (member, sample), int64
            Numbers of the images in the data set.
        step_keys : Tensor, (member,), int32, or None
            Keys of a training step: corrupts at the members' levels, anew in each step. None
            corrupts an image at the validation level, always in the same way.
        """
        if step_keys is None:
            corruption, keys = self._validation, image_keys(self._validation_seed, indices)
        else:
            corruption, keys = self._training, training_keys(step_keys, indices.shape[1])
        return corruption.apply(images, keys.t() if self._sample_first else keys)
