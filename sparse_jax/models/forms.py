"""What distinguishes networks of one kind: widths, channels, blocks. Imports no jax."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class LeNetForm(NamedTuple):
    """One of the networks called LeNet-5."""

    convolutions: tuple[int, ...]  # channels
    dense: tuple[int, ...]  # widths
    padding: str
    response_norm: bool


class Residual(NamedTuple):
    """One block of a residual network."""

    name: str
    inputs: int  # channels
    channels: int
    stride: int
    projects: bool  # its input passes a convolution before it is added


class Inverted(NamedTuple):
    """One block of EfficientNet."""

    name: str
    inputs: int  # channels
    expanded: int
    channels: int
    size: int
    stride: int
    squeezed: int


LENETS = {
    "lenet5": LeNetForm((20, 50), (500,), "VALID", False),
    "lenet5_alford": LeNetForm((20, 50), (384,), "SAME", True),
    "lenet5_safs": LeNetForm((6, 16), (120, 84), "VALID", False),
}
POOL = 0  # among the channels of VGGS
VGGS = {
    "vgg11": (64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL),
    "vgg16": (64, 64, POOL, 128, 128, POOL, *(256,) * 3, POOL, *(512,) * 3, POOL, *(512,) * 3, POOL),
    "vgg19": (64, 64, POOL, 128, 128, POOL, *(256,) * 4, POOL, *(512,) * 4, POOL, *(512,) * 4, POOL),
}
RESNETS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}  # blocks of the stages
LENET_300_100 = (300, 100)
CELL_GATES = {"lstm": "ifgo", "gru": "rzn"}  # a kernel each, for the inputs and for what recurs
EMBEDDING = 64  # features of a token of width 1
STEM, HEAD = 32, 1280  # channels of EfficientNet-B0 before and after the blocks, which are
_INVERTED = (  # widening, channels, how many, stride of the first, size
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip


def scaled(channels: int, width: float) -> int:
    """`channels` by a factor, to the nearest integer and at least 1."""
    return max(1, round(channels * width))


def residual_blocks(inputs: int, base: int, counts: tuple[int, ...], width: float) -> Iterator[Residual]:
    """The blocks of a residual network whose stages have base, 2 base, 4 base ... channels, by a factor."""
    for stage, count in enumerate(counts):
        channels = scaled(base * 2**stage, width)
        for block in range(count):
            stride = 2 if stage and not block else 1
            yield Residual(f"block_{stage}_{block}", inputs, channels, stride, stride > 1 or inputs != channels)
            inputs = channels


def wide_stages(depth: int) -> tuple[int, int, int]:
    """How many blocks the stages of a wide residual network have."""
    return ((depth - 4) // 6,) * 3


def stem_stride(sides: Sequence[int]) -> int:
    """The stride of the first convolution of EfficientNet-B0, by the height and width of the images."""
    return 2 if min(sides) >= 64 else 1


def inverted_blocks(width: float) -> Iterator[Inverted]:
    """The blocks of EfficientNet-B0, channels by a factor."""
    inputs, number = scaled(STEM, width), itertools.count()
    for widening, channels, count, stride, size in _INVERTED:
        for i in range(count):
            outputs, squeezed = scaled(channels, width), max(1, inputs // 4)
            first = stride if i == 0 else 1
            yield Inverted(f"block_{next(number)}", inputs, widening * inputs, outputs, size, first, squeezed)
            inputs = outputs
