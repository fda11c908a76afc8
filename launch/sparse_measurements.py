"""What `benchmark.py` measures of sparse execution: against masks, and against PyTorch."""

import dataclasses
import importlib.util
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from measurements import Bench, Measurement, advancing, alternate, images, milliseconds

from sparse_jax.config import RunConfig

BATCH = 128
MNIST, CIFAR = (28, 28, 1), (32, 32, 3)
# name -> (settings, shape of an example, steps a round of the masked one, target)
NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, ...], int, str]] = {
    "784-1000-1000-1000-10": ({"hidden_sizes": (1000, 1000, 1000)}, MNIST, 20, "≤ 1/7"),
    "3072-4000-1000-4000-10": ({"hidden_sizes": (4000, 1000, 4000)}, CIFAR, 4, "≤ 1/10"),
    "LeNet-300-100": ({"model": "lenet_300_100"}, MNIST, 200, "≤ 1/2.5"),
}


def _steps(bench: Bench, config: RunConfig, shape: tuple[int, ...], steps: int) -> tuple[Callable[[], float], Callable]:
    """Seconds of a training step, and of a topology update, of one run."""
    fns, advance = advancing(bench.hardware, config, images(5_000, shape))

    def step() -> float:
        return advance(fns.steps, np.int32(steps)) / steps

    step()
    return step, lambda: advance(fns.update)


def sparse_step(bench: Bench) -> list[Measurement]:
    """A training step of SET's networks at epsilon 20, executed sparsely and masked."""
    lines = []
    for name, (settings, shape, steps, target) in NETWORKS.items():
        steps, rounds = (1, 1) if bench.smoke else (steps, 9)
        config = RunConfig(epsilon=20.0, **settings)
        ours, _ = _steps(bench, dataclasses.replace(config, execution="sparse"), shape, 5 * steps)
        other, _ = _steps(bench, config, shape, steps)
        a, b, ratio = alternate(ours, other, rounds)
        detail = f"{name}, SET, epsilon 20, batch {config.batch_size}, momentum, one run; other: masked"
        lines.append(Measurement("sparse step", milliseconds(a), milliseconds(b), ratio, target, detail))
    return lines


def sparse_epoch(bench: Bench) -> list[Measurement]:
    """An epoch of the study of activation functions on CIFAR-10, its topology update included."""
    hidden, epoch = ((40, 10, 40), 2) if bench.smoke else ((4000, 1000, 4000), 500)
    config = RunConfig(
        hidden_sizes=hidden, epsilon=20.0, batch_size=100, activation=("srelu",), dropout=0.3, dense_layers="output",
        augmentation="dubowski", normalization="global_zscore",
    )  # fmt: skip
    rounds = 1 if bench.smoke else 3
    sides = []
    for execution, steps in (("sparse", min(epoch, 100)), ("masked", min(epoch, 20))):
        step, update = _steps(bench, dataclasses.replace(config, execution=execution), CIFAR, steps)
        update()
        sides.append(lambda step=step, update=update: epoch * step() + update())
    a, b, ratio = alternate(*sides, rounds)
    detail = "3072-4000-1000-4000-10, epsilon 20, SReLU, dropout, augmentation, 50,000 images, batch 100; by some steps"
    return [Measurement("sparse epoch", f"{a:.1f} s", f"{b:.0f} s", ratio, "≤ 1/8", detail)]


def sparse_peer(bench: Bench) -> list[Measurement]:
    """A training step of SET's network for MNIST, against a masked loop in PyTorch (extra `peer`)."""
    name = "784-1000-1000-1000-10"
    detail = f"{name}, SET, epsilon 20, batch {BATCH}, momentum; other: PyTorch, masked"
    if importlib.util.find_spec("torch") is None:
        return [Measurement("sparse peer", "–", "–", None, "≤ 1/9", f"{detail}: pip install -e '.[peer]' brings it")]
    import torch

    settings, shape, steps, _ = NETWORKS[name]
    steps, rounds = (1, 1) if bench.smoke else (steps, 9)
    ours, _ = _steps(bench, RunConfig(epsilon=20.0, execution="sparse", **settings), shape, 5 * steps)
    torch.manual_seed(0)
    widths = [np.prod(shape), *settings["hidden_sizes"], 10]
    layers = [torch.nn.Linear(int(i), int(o)) for i, o in itertools.pairwise(widths)]
    masks = [torch.rand(layer.weight.shape) < 20 * sum(layer.weight.shape) / layer.weight.numel() for layer in layers]
    model = torch.nn.Sequential(*(part for layer in layers for part in (layer, torch.nn.ReLU())))[:-1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = images(5_000, shape)
    x, y = torch.from_numpy(x.reshape(len(x), -1)), torch.from_numpy(y).long()

    def other() -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            chosen = torch.randint(len(x), (BATCH,))
            loss = torch.nn.functional.cross_entropy(model(x[chosen].float() / 255), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for layer, mask in zip(layers, masks, strict=True):
                    layer.weight *= mask
        return (time.perf_counter() - begin) / steps

    other()
    a, b, ratio = alternate(ours, other, rounds)
    return [Measurement("sparse peer", milliseconds(a), milliseconds(b), ratio, "≤ 1/9", detail)]


SPARSE_MEASUREMENTS = (sparse_step, sparse_epoch, sparse_peer)
