"""A problem small enough that every law can be tried on every method and activation function."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from sparse_jax.config import RECIPES, Recipe, RunConfig
from sparse_jax.data.arrays import DatasetInfo
from sparse_jax.data.batches import Data
from sparse_jax.data.normalization import fit
from sparse_jax.topology.allocation import allocate
from sparse_jax.training.problem import Problem, make_problem
from sparse_jax.training.state import HyperParams

INFO = DatasetInfo("tiny", (6, 2), 3, 40, 12)
SIZES = (32, 8, 12)
INTERVAL = 3


def make_config(method: str = "set", activation: str = "relu", **changes: Any) -> RunConfig:
    """A resolved configuration: 12-14-10-3, batches of 8, an update every three steps."""
    recipe = RECIPES[method] if method in RECIPES else Recipe("", None)
    evolving, moving = method in RECIPES, recipe.drop_fraction is not None
    config = RunConfig(
        dataset="synthetic",
        hidden_sizes=(14, 10),
        activation=(activation,),
        method=method,
        sparsity=None if method == "dense" else 0.6,
        allocation=None if method == "dense" else "erk",
        dense_layers=None,
        drop_fraction=0.3 if moving else None,
        drop_schedule="constant" if moving else None,
        density_schedule=recipe.density_schedule,
        interval=INTERVAL if evolving else None,
        stop_fraction=1.0 if evolving else None,
        learning_rate=0.1,
        lr_schedule="constant",
        batch_size=8,
        epochs=10,
    )
    return dataclasses.replace(config, **changes)


def make_tiny_problem(config: RunConfig) -> Problem:
    """The problem of a configuration on the data of `make_data`."""
    return make_problem(config, INFO, SIZES)


def make_data() -> Data:
    """52 examples in three noisy clusters: 32 for training, 8 for validation, 12 for testing."""
    rng = np.random.default_rng(0)
    y = np.arange(sum(SIZES), dtype=np.int32) % INFO.classes
    centres = rng.normal(size=(INFO.classes, *INFO.input_shape))
    x = (centres[y] + 0.5 * rng.normal(size=(y.size, *INFO.input_shape))).astype(np.float32)
    return jax.device_put(Data(x, y, fit("global_zscore", x[: SIZES[0]])))


def make_hyper(config: RunConfig, seed: int = 0, sparsity: float = 0.6, **changes: Any) -> HyperParams:
    """The dynamic settings of a run at a sparsity."""
    shapes = make_tiny_problem(config).masked_shapes
    aimed = allocate("erk", shapes, sparsity=sparsity, epsilon=None).counts if shapes else {}
    start = aimed
    if config.density_schedule:
        start = allocate("erk", shapes, sparsity=0.1, epsilon=None).counts
    if config.method.startswith("accset"):
        aimed = {name: math.ceil(count / 4) for name, count in start.items()}
    hyper = HyperParams(
        seed=np.uint32(seed),
        start={name: np.int32(count) for name, count in start.items()},
        counts={name: np.int32(count) for name, count in aimed.items()},
        shrink_rate=np.float32(0.5),
        drop_fraction=np.float32(0.3),
        learning_rate=np.float32(0.1),
        weight_decay=np.float32(1e-3),
    )
    return hyper._replace(**changes)
