"""The networks by name."""

from collections.abc import Callable

import flax.linen as nn

from sparse_jax.config import RunConfig
from sparse_jax.models.mlp import MLP

# name -> (config, classes, activation by layer index) -> network
MODELS: dict[str, Callable[[RunConfig, int, Callable], nn.Module]] = {
    "mlp": lambda config, classes, activation: MLP(config.hidden_sizes, classes, activation, config.dropout),
}
