"""What is known of every model before jax is imported: its kernels, its activation functions, what inputs it takes.

Flags are validated with it: a sparsity that leaves a layer without connections, a `dense_layers` that matches
nothing, images that are too small; and operations are counted with it. Tests hold the kernels and how often each is
applied equal to those of the models.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sparse_jax.config import RunConfig
from sparse_jax.errors import UserError
from sparse_jax.models.forms import (
    CELL_GATES,
    EMBEDDING,
    HEAD,
    LENET_300_100,
    LENETS,
    POOL,
    RESNETS,
    STEM,
    VGGS,
    Residual,
    inverted_blocks,
    residual_blocks,
    scaled,
    stem_stride,
    wide_stages,
)

Shapes = dict[str, tuple[int, ...]]
Shape = tuple[int, ...]

ATTENTION = ("query", "key", "value", "out")


class Kernel(NamedTuple):
    """A kernel, and how many times an example is multiplied by it."""

    shape: Shape
    applications: int = 1  # positions of a convolution's output, steps of a recurrence, tokens


Kernels = dict[str, Kernel]


# --- kernels ---------------------------------------------------------------------------------------


def _strided(sides: Sequence[int], stride: int) -> list[int]:
    """Sides of what a convolution or a pool with padding SAME makes of an image."""
    return [-(-side // stride) for side in sides]


def _chain(names: list[str], widths: list[int]) -> Kernels:
    return {f"{name}/kernel": Kernel(tuple(widths[i : i + 2])) for i, name in enumerate(names)}


def _mlp(hidden_sizes: tuple[int, ...], inputs: Shape, classes: int) -> Kernels:
    names = [*(f"dense_{i}" for i in range(len(hidden_sizes))), "output"]
    return _chain(names, [math.prod(inputs), *hidden_sizes, classes])


def _skip_mlp(config: RunConfig, inputs: Shape, classes: int) -> Kernels:
    seen, kernels = math.prod(inputs), {}
    for i, width in enumerate(config.hidden_sizes):
        kernels[f"dense_{i}/kernel"] = Kernel((seen, width))
        seen += width
    return kernels | {"output/kernel": Kernel((seen, classes))}


def _lenet5(config: RunConfig, inputs: Shape, classes: int) -> Kernels:
    form, (*sides, channels) = LENETS[config.model], inputs
    kernels = {}
    for i, width in enumerate(form.convolutions):
        sides = [side - (4 if form.padding == "VALID" else 0) for side in sides]
        kernels[f"conv_{i}/kernel"] = Kernel((5, 5, channels, width), math.prod(sides))
        sides, channels = [side // 2 for side in sides], width
    names = [*(f"dense_{i}" for i in range(len(form.dense))), "output"]
    return kernels | _chain(names, [math.prod(sides) * channels, *form.dense, classes])


def _vgg(config: RunConfig, inputs: Shape, classes: int) -> Kernels:
    (*sides, channels), index, kernels = inputs, itertools.count(), {}
    for width in VGGS[config.model]:
        if width == POOL:
            sides = _strided(sides, 2)
        else:
            shape = (3, 3, channels, scaled(width, config.width))
            kernels[f"conv_{next(index)}/kernel"], channels = Kernel(shape, math.prod(sides)), shape[-1]
    return kernels | {"output/kernel": Kernel((channels, classes))}


def _residual(first: int, blocks: Iterator[Residual], inputs: Shape, classes: int) -> Kernels:
    sides = inputs[:2]
    kernels = {"conv_0/kernel": Kernel((3, 3, inputs[-1], first), math.prod(sides))}
    for block in blocks:
        sides = _strided(sides, block.stride)
        places = math.prod(sides)
        kernels[f"{block.name}_conv_0/kernel"] = Kernel((3, 3, block.inputs, block.channels), places)
        kernels[f"{block.name}_conv_1/kernel"] = Kernel((3, 3, block.channels, block.channels), places)
        if block.projects:
            kernels[f"{block.name}_shortcut/kernel"] = Kernel((1, 1, block.inputs, block.channels), places)
    return kernels | {"output/kernel": Kernel((block.channels, classes))}


def _resnet(config: RunConfig, inputs: Shape, classes: int) -> Kernels:
    first = scaled(64, config.width)
    return _residual(first, residual_blocks(first, 64, RESNETS[config.model], config.width), inputs, classes)


def _wide_resnet(config: RunConfig, inputs: Shape, classes: int) -> Kernels:
    return _residual(16, residual_blocks(16, 16, wide_stages(config.depth), config.width), inputs, classes)


def _efficientnet(config: RunConfig, inputs: Shape, classes: int) -> Kernels:
    sides = _strided(inputs[:2], stem_stride(inputs[:2]))
    kernels = {"conv_0/kernel": Kernel((3, 3, inputs[-1], scaled(STEM, config.width)), math.prod(sides))}
    for block in inverted_blocks(config.width):
        if block.expanded != block.inputs:
            kernels[f"{block.name}_expand/kernel"] = Kernel((1, 1, block.inputs, block.expanded), math.prod(sides))
        sides = _strided(sides, block.stride)
        places = math.prod(sides)
        kernels[f"{block.name}_depthwise/kernel"] = Kernel((block.size, block.size, 1, block.expanded), places)
        kernels[f"{block.name}_squeeze/kernel"] = Kernel((block.expanded, block.squeezed))
        kernels[f"{block.name}_excite/kernel"] = Kernel((block.squeezed, block.expanded))
        kernels[f"{block.name}_project/kernel"] = Kernel((1, 1, block.expanded, block.channels), places)
    head = scaled(HEAD, config.width)
    last = {"conv_head/kernel": Kernel((1, 1, block.channels, head), places), "output/kernel": Kernel((head, classes))}
    return kernels | last


def _recurrent(config: RunConfig, inputs: Shape, classes: int) -> Kernels:
    gates, (steps, *rest), kernels = CELL_GATES[config.model], inputs, {}
    features = math.prod(rest)
    for i, units in enumerate(config.hidden_sizes):
        layer = f"{config.model}_{i}"
        kernels |= {f"{layer}/input_{gate}/kernel": Kernel((features, units), steps) for gate in gates}
        kernels |= {f"{layer}/recurrent_{gate}/kernel": Kernel((units, units), steps) for gate in gates}
        features = units
    return kernels | {"output/kernel": Kernel((features, classes))}


def _transformer(config: RunConfig, inputs: Shape, classes: int) -> Kernels:
    features, patches = scaled(EMBEDDING, config.width), math.prod(inputs[:2]) // config.patch_size**2
    kernels = {"embedding/kernel": Kernel((config.patch_size**2 * inputs[-1], features), patches)}
    for i in range(config.depth):
        attention = dict.fromkeys(ATTENTION, (features, features))
        block = attention | {"dense_0": (features, 4 * features), "dense_1": (4 * features, features)}
        # the tokens are the patches and the class token, which alone is read out
        kernels |= {f"block_{i}_{name}/kernel": Kernel(shape, patches + 1) for name, shape in block.items()}
    return kernels | {"output/kernel": Kernel((features, classes))}


def multiplies_vectors(name: str, shape: Shape) -> bool:
    """Whether a kernel is that of a dense layer: not of a convolution, nor of a recurrent cell, nor of attention."""
    layer = name.removesuffix("/kernel")
    return len(shape) == 2 and "/" not in layer and layer.rsplit("_", 1)[-1] not in ATTENTION


# --- inputs ----------------------------------------------------------------------------------------


def _anything(config: RunConfig, inputs: Shape) -> None:
    """Whatever the shape, it is flattened."""


def _images(config: RunConfig, inputs: Shape) -> None:
    if len(inputs) != 3:
        raise UserError(f"--model={config.model} needs images (height, width, channels)")


def _images_for_lenet(config: RunConfig, inputs: Shape) -> None:
    _images(config, inputs)
    least = 16 if LENETS[config.model].padding == "VALID" else 4
    if min(inputs[:2]) < least:
        raise UserError(f"--model={config.model} needs images of {least} × {least} or larger")


def _images_of_patches(config: RunConfig, inputs: Shape) -> None:
    _images(config, inputs)
    if any(side % config.patch_size for side in inputs[:2]):
        raise UserError(f"--patch_size={config.patch_size} does not divide the sides of the images")
    if scaled(EMBEDDING, config.width) % config.heads:
        raise UserError(
            f"--heads={config.heads} does not divide the {scaled(EMBEDDING, config.width)} features of "
            f"--width={config.width:g}"
        )


def _stages(config: RunConfig, inputs: Shape) -> None:
    _images(config, inputs)
    if config.depth < 10 or (config.depth - 4) % 6:
        raise UserError(f"--depth={config.depth} is not 6 n + 4, as --model={config.model} has it: use 10, 16, 22, ...")


def _sequences(config: RunConfig, inputs: Shape) -> None:
    if len(inputs) < 2:
        raise UserError(f"--model={config.model} needs sequences: images, or (steps, features)")


# --- models ----------------------------------------------------------------------------------------


class Outline(NamedTuple):
    """A model by its configuration."""

    walk: Callable[[RunConfig, Shape, int], Kernels]  # input shape, classes -> in the order of the layers
    activations: Callable[[RunConfig], int]  # how many activation functions it has
    check: Callable[[RunConfig, Shape], None]  # input shape; raises UserError for one that it does not take
    in_series: bool = False  # every path from an input to an output passes every kernel once, in their order
    homogeneous: bool = False  # c > 0 times the input gives c times the outputs, if the activation functions are linear

    def kernels(self, config: RunConfig, inputs: Shape, classes: int) -> Shapes:
        """The shapes of the kernels, in the order of the layers; `inputs` is the shape of an example."""
        return {name: kernel.shape for name, kernel in self.walk(config, inputs, classes).items()}

    def applications(self, config: RunConfig, inputs: Shape) -> dict[str, int]:
        """How many times an example of shape `inputs` is multiplied by each kernel, whatever the classes."""
        return {name: kernel.applications for name, kernel in self.walk(config, inputs, 1).items()}


def _mlp_outline(sizes: Callable[[RunConfig], tuple[int, ...]]) -> Outline:
    def walk(config: RunConfig, inputs: Shape, classes: int) -> Kernels:
        return _mlp(sizes(config), inputs, classes)

    return Outline(walk, lambda config: len(sizes(config)), _anything, in_series=True, homogeneous=True)


def _cells(config: RunConfig) -> int:
    return len(config.hidden_sizes)


def _blocks(counts: tuple[int, ...]) -> int:
    return 1 + 2 * sum(counts)


def _lenet(name: str) -> Outline:
    form = LENETS[name]
    layers = len(form.convolutions) + len(form.dense)
    scales = not form.response_norm
    return Outline(_lenet5, lambda config: layers, _images_for_lenet, in_series=True, homogeneous=scales)


def _vgg_outline(name: str) -> Outline:
    layers = sum(channels != POOL for channels in VGGS[name])
    return Outline(_vgg, lambda config: layers, _images, in_series=True, homogeneous=True)


OUTLINES: dict[str, Outline] = {
    "mlp": _mlp_outline(lambda config: config.hidden_sizes),
    "skip_mlp": Outline(_skip_mlp, lambda config: len(config.hidden_sizes), _anything, homogeneous=True),
    "lenet_300_100": _mlp_outline(lambda config: LENET_300_100),
    **{name: _lenet(name) for name in LENETS},
    **{name: _vgg_outline(name) for name in VGGS},
    **dict.fromkeys(
        RESNETS, Outline(_resnet, lambda config: _blocks(RESNETS[config.model]), _images, homogeneous=True)
    ),
    "wide_resnet": Outline(_wide_resnet, lambda config: _blocks(wide_stages(config.depth)), _stages, homogeneous=True),
    "efficientnet_b0": Outline(
        _efficientnet,
        lambda config: 2 + sum(2 + (block.expanded != block.inputs) for block in inverted_blocks(config.width)),
        _images,
    ),
    **dict.fromkeys(CELL_GATES, Outline(_recurrent, _cells, _sequences)),
    "transformer": Outline(_transformer, lambda config: config.depth, _images_of_patches),
}
