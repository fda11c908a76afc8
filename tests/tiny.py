"""A problem small enough that every law can be tried on every method and activation function."""

import dataclasses
from typing import Any

import jax
import numpy as np

from sparse_jax.config import RATES, RunConfig
from sparse_jax.data.arrays import DatasetInfo
from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data
from sparse_jax.data.normalization import fit
from sparse_jax.models.layers import make_layers
from sparse_jax.recipes import RECIPES
from sparse_jax.study.execution import executed
from sparse_jax.study.grid import Run
from sparse_jax.study.group import hyper_params
from sparse_jax.study.resolve import Connections, connections_of, settings_of
from sparse_jax.study.sources import Lent
from sparse_jax.topology.allocation import Allocation
from sparse_jax.training.problem import Problem, make_problem
from sparse_jax.training.state import HyperParams

SIZES = (32, 8, 12)
CLASSES = 3
INTERVAL = 3
LAYERS = make_layers("glorot_uniform", "float32")

_DEEP = {"gradient_clip": 1.0}  # on so few examples their gradients grow without bound, layer by layer
_CHANNELS = _DEEP | {"width": 1 / 16}
# model -> the shape of an example, and the settings that make a small network
MODELS = {
    "mlp": ((6, 2, 1), {"hidden_sizes": (14, 10)}),
    "skip_mlp": ((6, 2, 1), {"hidden_sizes": (9, 7)}),
    "lenet_300_100": ((6, 2), {}),
    "lenet5": ((16, 16, 1), {}),
    "lenet5_alford": ((8, 8, 2), {}),
    "lenet5_safs": ((16, 16, 2), {}),
    "vgg11": ((8, 8, 2), _CHANNELS),
    "vgg16": ((8, 8, 2), _CHANNELS),
    "vgg19": ((8, 8, 2), _CHANNELS),
    "resnet18": ((8, 8, 2), _CHANNELS),
    "resnet34": ((8, 8, 2), _CHANNELS),
    "wide_resnet": ((8, 8, 2), _DEEP | {"depth": 10, "width": 0.25}),
    "efficientnet_b0": ((8, 8, 2), _DEEP | {"width": 1 / 8}),
    "lstm": ((5, 4), {"hidden_sizes": (8, 7)}),
    "gru": ((5, 4), {"hidden_sizes": (8, 7)}),
    "transformer": ((8, 8, 2), {"depth": 2, "width": 1 / 8, "heads": 2}),
}


def make_config(method: str = "set", activation: str = "relu", model: str = "mlp", **changes: Any) -> RunConfig:
    """A resolved configuration: 12-14-10-3, batches of 8, an update every three steps, nothing that changes in time."""
    config = settings_of(
        RunConfig(
            **{"learning_rate": 0.1} | MODELS[model][1],
            dataset="synthetic",
            model=model,
            activation=(activation,),
            activation_beta=0.1 if activation == "symexp" else 1.0,  # e^e^x leaves float32 at x = 4.5
            method=method,
            sparsity=0.6,
            allocation="erk",
            lr_schedule="constant",
            batch_size=8,
            epochs=10,
        )
    )
    recipe = RECIPES[method]
    if "drop_schedule" in recipe:
        config = dataclasses.replace(config, drop_schedule="constant")
    if "interval" in recipe:
        config = dataclasses.replace(config, interval=INTERVAL, stop_fraction=1.0)
    if "levels" in recipe:  # 40 steps: a pruning after 3, and 2 steps of each level to be made again
        config = dataclasses.replace(config, interval=INTERVAL, levels=12, rewind_to=0)
    return dataclasses.replace(config, **changes)


def make_tiny_problem(config: RunConfig, hyper: HyperParams | None = None) -> Problem:
    """The problem of a configuration on the data of `make_data`; what is executed sparsely has slots by `hyper`."""
    info = DatasetInfo("tiny", MODELS[config.model][0], CLASSES, SIZES[0] + SIZES[1], SIZES[2])
    problem = make_problem(config, info, SIZES)
    if config.execution == "masked":
        return problem
    start, final = ({name: int(n) for name, n in counts.items()} for counts in (hyper.start, hyper.counts))
    return executed(config, problem, Connections(Allocation(start, None), start, final))[1]


def make_data(model: str = "mlp") -> Data:
    """52 examples in three noisy clusters: 32 for training, 8 for validation, 12 for testing."""
    rng = np.random.default_rng(0)
    y = np.arange(sum(SIZES), dtype=np.int32) % CLASSES
    centres = rng.normal(size=(CLASSES, *MODELS[model][0]))
    x = (centres[y] + 0.5 * rng.normal(size=(y.size, *MODELS[model][0]))).astype(np.float32)
    return jax.device_put(Data(x, y, fit("global_zscore", x[: SIZES[0]]), levels_of(x[: SIZES[0]])))


def make_hyper(config: RunConfig, seed: int = 0, sparsity: float = 0.6, **changes: Any) -> HyperParams:
    """The dynamic settings of a run at a sparsity; `drop_fraction` and other rates may be changed, too."""
    problem = make_tiny_problem(dataclasses.replace(config, execution="masked"))
    dynamic = {"sparsity": sparsity} if config.sparsity is not None else {}
    dynamic |= {"initial_sparsity": 0.1} if config.initial_sparsity is not None else {}
    dynamic |= {"shrink_rate": 0.5, "least_share": 0.25} if config.shrink_rate is not None else {}
    dynamic |= {"drop_fraction": 0.3} if config.drop_fraction is not None else {}
    dynamic |= {"noise": 0.05} if config.noise is not None else {}
    dynamic |= {"first_threshold": 0.1} if config.first_threshold is not None else {}
    dynamic |= {name: changes.pop(name) for name in RATES if name in changes}
    config = dataclasses.replace(config, seed=seed, weight_decay=1e-3, **dynamic)
    connections = connections_of(config, problem, Lent())
    return hyper_params(Run("run", config, problem, *connections, Lent()))._replace(**changes)
