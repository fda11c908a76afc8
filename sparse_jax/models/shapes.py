"""What is known of every model before jax is imported: its kernels, its activation functions, what inputs it takes.

Flags are validated with it: a sparsity that leaves a layer without connections, a `dense_layers` that matches
nothing, images that are too small. A test holds the kernels equal to those of the initialised models.
"""

import itertools
import math
from collections.abc import Callable, Iterator
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
    wide_stages,
)

Shapes = dict[str, tuple[int, ...]]
Shape = tuple[int, ...]


# --- kernels ---------------------------------------------------------------------------------------


def _chain(names: list[str], widths: list[int]) -> Shapes:
    return {f"{name}/kernel": tuple(widths[i : i + 2]) for i, name in enumerate(names)}


def _mlp(hidden_sizes: tuple[int, ...], inputs: Shape, classes: int) -> Shapes:
    names = [*(f"dense_{i}" for i in range(len(hidden_sizes))), "output"]
    return _chain(names, [math.prod(inputs), *hidden_sizes, classes])


def _lenet5(config: RunConfig, inputs: Shape, classes: int) -> Shapes:
    form, (*sides, channels) = LENETS[config.model], inputs
    shapes = {}
    for i, width in enumerate(form.convolutions):
        shapes[f"conv_{i}/kernel"] = (5, 5, channels, width)
        sides = [(side - (4 if form.padding == "VALID" else 0)) // 2 for side in sides]
        channels = width
    names = [*(f"dense_{i}" for i in range(len(form.dense))), "output"]
    return shapes | _chain(names, [math.prod(sides) * channels, *form.dense, classes])


def _vgg(config: RunConfig, inputs: Shape, classes: int) -> Shapes:
    widths = [scaled(channels, config.width) for channels in VGGS[config.model] if channels != POOL]
    pairs = itertools.pairwise([inputs[-1], *widths])
    shapes = {f"conv_{i}/kernel": (3, 3, *pair) for i, pair in enumerate(pairs)}
    return shapes | {"output/kernel": (widths[-1], classes)}


def _residual(blocks: Iterator[Residual]) -> tuple[Shapes, int]:
    shapes = {}
    for block in blocks:
        shapes[f"{block.name}_conv_0/kernel"] = (3, 3, block.inputs, block.channels)
        shapes[f"{block.name}_conv_1/kernel"] = (3, 3, block.channels, block.channels)
        if block.projects:
            shapes[f"{block.name}_shortcut/kernel"] = (1, 1, block.inputs, block.channels)
    return shapes, block.channels


def _resnet(config: RunConfig, inputs: Shape, classes: int) -> Shapes:
    first = scaled(64, config.width)
    shapes, last = _residual(residual_blocks(first, 64, RESNETS[config.model], config.width))
    return {"conv_0/kernel": (3, 3, inputs[-1], first)} | shapes | {"output/kernel": (last, classes)}


def _wide_resnet(config: RunConfig, inputs: Shape, classes: int) -> Shapes:
    shapes, last = _residual(residual_blocks(16, 16, wide_stages(config.depth), config.width))
    return {"conv_0/kernel": (3, 3, inputs[-1], 16)} | shapes | {"output/kernel": (last, classes)}


def _efficientnet(config: RunConfig, inputs: Shape, classes: int) -> Shapes:
    shapes = {"conv_0/kernel": (3, 3, inputs[-1], scaled(STEM, config.width))}
    for block in inverted_blocks(config.width):
        if block.expanded != block.inputs:
            shapes[f"{block.name}_expand/kernel"] = (1, 1, block.inputs, block.expanded)
        shapes[f"{block.name}_depthwise/kernel"] = (block.size, block.size, 1, block.expanded)
        shapes[f"{block.name}_squeeze/kernel"] = (block.expanded, block.squeezed)
        shapes[f"{block.name}_excite/kernel"] = (block.squeezed, block.expanded)
        shapes[f"{block.name}_project/kernel"] = (1, 1, block.expanded, block.channels)
    head = scaled(HEAD, config.width)
    return shapes | {"conv_head/kernel": (1, 1, block.channels, head), "output/kernel": (head, classes)}


def _recurrent(config: RunConfig, inputs: Shape, classes: int) -> Shapes:
    gates = CELL_GATES[config.model]
    features, shapes = math.prod(inputs[1:]), {}
    for i, units in enumerate(config.hidden_sizes):
        layer = f"{config.model}_{i}"
        shapes |= {f"{layer}/input_{gate}/kernel": (features, units) for gate in gates}
        shapes |= {f"{layer}/recurrent_{gate}/kernel": (units, units) for gate in gates}
        features = units
    return shapes | {"output/kernel": (features, classes)}


def _transformer(config: RunConfig, inputs: Shape, classes: int) -> Shapes:
    features = scaled(EMBEDDING, config.width)
    shapes = {"embedding/kernel": (config.patch_size**2 * inputs[-1], features)}
    for i in range(config.depth):
        attention = dict.fromkeys(("query", "key", "value", "out"), (features, features))
        block = attention | {"dense_0": (features, 4 * features), "dense_1": (4 * features, features)}
        shapes |= {f"block_{i}_{name}/kernel": shape for name, shape in block.items()}
    return shapes | {"output/kernel": (features, classes)}


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

    kernels: Callable[[RunConfig, Shape, int], Shapes]  # input shape, classes -> in the order of the layers
    activations: Callable[[RunConfig], int]  # how many activation functions it has
    check: Callable[[RunConfig, Shape], None]  # input shape; raises UserError for one that it does not take
    in_series: bool = False  # every path from an input to an output passes every kernel once, in their order
    homogeneous: bool = False  # c > 0 times the input gives c times the outputs, if the activation functions are linear


def _mlp_outline(sizes: Callable[[RunConfig], tuple[int, ...]]) -> Outline:
    def kernels(config: RunConfig, inputs: Shape, classes: int) -> Shapes:
        return _mlp(sizes(config), inputs, classes)

    return Outline(kernels, lambda config: len(sizes(config)), _anything, in_series=True, homogeneous=True)


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
