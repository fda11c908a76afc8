"""What a configuration amounts to on its data: sizes and shapes, known before jax is imported."""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from sparse_jax.config import RunConfig
from sparse_jax.data.catalog import DatasetInfo
from sparse_jax.errors import UserError
from sparse_jax.models.shapes import OUTLINES, Shapes


class Problem(NamedTuple):
    """The static facts of a run beside its configuration."""

    input_shape: tuple[int, ...]
    classes: int
    train: int  # examples
    validation: int
    test: int
    kernels: Shapes  # all of them, in the order of the layers
    masked: tuple[str, ...]  # the kernels that have a mask, sorted
    steps_per_epoch: int
    steps: int
    slots: Mapping[str, int] = MappingProxyType({})  # of the kernels executed sparsely: connections at the first step

    @property
    def masked_shapes(self) -> Shapes:
        """Shapes of the masked kernels."""
        return {name: self.kernels[name] for name in self.masked}

    @property
    def masked_size(self) -> int:
        """Entries of the masked kernels together."""
        return sum(math.prod(self.kernels[name]) for name in self.masked)


def masked_names(config: RunConfig, kernels: Shapes) -> tuple[str, ...]:
    """The kernels that have a mask, sorted. Raises UserError for `dense_layers` that match no layer or all."""
    if config.method == "dense":
        return ()
    if not config.dense_layers:
        return tuple(sorted(kernels))
    try:
        matches = {name for name in kernels if re.search(config.dense_layers, name.removesuffix("/kernel"))}
    except re.error as error:
        message = f"--dense_layers={config.dense_layers!r} is not a regular expression: {error}"
        raise UserError(message) from error
    layers = ", ".join(name.removesuffix("/kernel") for name in kernels)
    if not matches:
        raise UserError(f"--dense_layers={config.dense_layers!r} matches no layer. Layers: {layers}")
    if len(matches) == len(kernels):
        raise UserError(f"--dense_layers={config.dense_layers!r} leaves no layer sparse: use --method=dense")
    return tuple(sorted(set(kernels) - matches))


def _kernels(config: RunConfig, info: DatasetInfo) -> Shapes:
    outline = OUTLINES[config.model]
    try:
        outline.check(config, info.input_shape)
    except UserError as error:
        raise UserError(f"{error}; an example of {info.name} has shape {info.input_shape}") from None
    return outline.kernels(config, info.input_shape, info.classes)


def make_problem(config: RunConfig, info: DatasetInfo, sizes: tuple[int, int, int]) -> Problem:
    """The problem of a run on a data set of which `sizes` examples are for training, validation and test.

    Raises:
      UserError: for inputs that the model or the augmentation does not take, a batch larger than the training part,
        or `dense_layers` that match no layer or all.
    """
    train, validation, test = sizes
    if config.batch_size > train:
        raise UserError(f"--batch_size={config.batch_size} is larger than the {train} training examples")
    if config.augmentation != "none" and len(info.input_shape) != 3:
        raise UserError(
            f"--augmentation={config.augmentation} is for images, height × width × channels, and an example of "
            f"--dataset={config.dataset} has the shape {'×'.join(map(str, info.input_shape))}: use --augmentation=none"
        )
    kernels = _kernels(config, info)
    per_epoch = train // config.batch_size
    if per_epoch * config.epochs >= 2**31:
        raise UserError(f"--epochs={config.epochs} makes {per_epoch * config.epochs} steps: 2^31 - 1 is the most")
    return Problem(
        info.input_shape, info.classes, train, validation, test, kernels, masked_names(config, kernels),
        per_epoch, per_epoch * config.epochs,
    )
