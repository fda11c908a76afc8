"""The networks by name."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from sparse_jax.config import RunConfig
from sparse_jax.models.efficientnet import EfficientNetB0
from sparse_jax.models.forms import LENET_300_100, LENETS, RESNETS, VGGS
from sparse_jax.models.layers import Layer, Layers
from sparse_jax.models.lenet import LeNet5
from sparse_jax.models.mlp import MLP, SkipMLP
from sparse_jax.models.recurrent import CELLS, Recurrent
from sparse_jax.models.resnet import ResNet, WideResNet
from sparse_jax.models.transformer import Transformer
from sparse_jax.models.vgg import VGG

# name -> (config, function of gates, the attributes that every model has) -> network
MODELS: dict[str, Callable[[RunConfig, Layer, dict[str, Any]], nn.Module]] = {
    "mlp": lambda config, gate, common: MLP(config.hidden_sizes, **common),
    "skip_mlp": lambda config, gate, common: SkipMLP(config.hidden_sizes, **common),
    "lenet_300_100": lambda config, gate, common: MLP(LENET_300_100, **common),
    **dict.fromkeys(LENETS, lambda config, gate, common: LeNet5(config.model, **common)),
    **dict.fromkeys(VGGS, lambda config, gate, common: VGG(config.model, config.width, **common)),
    **dict.fromkeys(RESNETS, lambda config, gate, common: ResNet(config.model, config.width, **common)),
    "wide_resnet": lambda config, gate, common: WideResNet(config.depth, config.width, **common),
    "efficientnet_b0": lambda config, gate, common: EfficientNetB0(config.width, gate, **common),
    **dict.fromkeys(CELLS, lambda config, gate, common: Recurrent(config.model, config.hidden_sizes, gate, **common)),
    "transformer": lambda config, gate, common: Transformer(
        config.depth, config.width, config.heads, config.patch_size, **common
    ),
}


def make_model(
    config: RunConfig, classes: int, activation: Callable[[int], Layer], gate: Layer, layers: Layers
) -> nn.Module:
    """The network of a configuration.

    Args:
      config: resolved.
      classes: number of outputs.
      activation: layer index -> callable (`activations.by_layer`).
      gate: the function of the gates of recurrent cells and excitations.
      layers: see `models.layers`.
    """
    common = {"classes": classes, "activation": activation, "layers": layers, "dropout": config.dropout}
    return MODELS[config.model](config, gate, common)
