"""What `auto` stands for in each method, what is fixed about it, and which settings a run uses. Imports no jax.

A recipe names the values of its method's paper, or of its reference code; where METHODS.md says so they are ours. A
setting that the recipe of a method does not name has no meaning for it, and is refused where no run of a study uses it.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from sparse_jax.config import CONSTRUCTED, FILE, FROM_RUN, SAMPLED

_SPARSE = {"structure": "none", "initial_topology": "random"}
_GIVEN = (FROM_RUN, FILE)  # before first masks that exist
_EVOLVING = _SPARSE | {
    "interval": "1epoch", "stop_fraction": 1.0, "drop_fraction": 0.3, "drop_schedule": "constant",
    "drop_score": "magnitude", "grow_score": "random", "scope": "layer", "regrow_dropped": True, "birth": "zero",
    "update_step": "take", "importance_pruning": 0.0,
}  # fmt: skip
_BELOW = {name: value for name, value in _EVOLVING.items() if name != "drop_score"}  # drop what is below a threshold
_SHRINKING = _EVOLVING | {"shrink_rate": 1.0, "least_share": 0.1}
_RIGL = _EVOLVING | {
    "interval": "100", "stop_fraction": 0.75, "drop_schedule": "cosine", "grow_score": "gradient",
    "update_step": "skip",
}  # fmt: skip
_ITOP = _EVOLVING | {"interval": "1500", "drop_fraction": 0.5, "drop_schedule": "cosine"}
_MEST = _EVOLVING | {"drop_score": "magnitude_and_gradient", "drop_schedule": "linear"}
_PRUNING = _SPARSE | {
    "interval": "100", "stop_fraction": 0.75, "initial_sparsity": 0.0, "density_schedule": "cubic",
    "drop_score": "magnitude", "scope": "layer", "update_step": "take", "importance_pruning": 0.0,
}  # fmt: skip
_LEVELS = _SPARSE | {
    "initial_sparsity": 0.0, "density_schedule": "levels", "drop_score": "magnitude", "scope": "layer",
    "levels": "auto",
}  # fmt: skip

RECIPES: dict[str, dict[str, Any]] = {
    "dense": {},
    "static": _SPARSE,
    "set": _EVOLVING,  # Mocanu et al. 2018
    "set_magnitude": _EVOLVING,
    "accset": _SHRINKING,
    "accset_level": _SHRINKING,
    "rigl": _RIGL,  # Evci et al. 2020
    "snfs": _EVOLVING | {  # Dettmers and Zettlemoyer 2019
        "drop_fraction": 0.5, "drop_schedule": "cosine", "grow_score": "momentum", "scope": "momentum",
    },
    "deepr": {  # Bellec et al. 2018
        **{name: value for name, value in _BELOW.items() if not name.startswith(("drop_", "birth"))},
        "interval": "1", "l1": 1e-4, "noise": 1e-10,
    },
    "dsr": _BELOW | {"scope": "survivors", "first_threshold": 1e-3},  # Mostafa and Wang 2019
    "itop_random": _ITOP,  # Liu et al. 2021, CIFAR-10
    "itop_gradient": _ITOP | {"grow_score": "gradient"},
    "itop_unexplored": _ITOP | {"grow_score": "unexplored"},
    "mest": _MEST,  # Yuan et al. 2021
    "mest_soft": _MEST,
    "gmp": _PRUNING,  # Zhu and Gupta 2017
    "granet": _RIGL | {  # Liu et al. 2021; the interval is ours
        "drop_fraction": 0.5, "update_step": "take", "initial_sparsity": 0.5, "density_schedule": "cubic",
    },
    "top_kast": _SPARSE | {  # Jayakumar et al. 2020
        "interval": "1", "stop_fraction": 1.0, "scope": "layer", "initial_topology": "magnitude",
        "backward_factor": 2.0, "exploration_decay": 1e-4,
    },
    "ac_dc": _PRUNING | {  # Peste et al. 2021, ImageNet
        "interval": "5epoch", "stop_fraction": 1.0, "density_schedule": "cyclic",
    },
    "srigl": _RIGL | {"structure": "fan_in", "ablation": 0.3},  # Lasby et al. 2024
    "chts": _EVOLVING | {"drop_score": "sampled_magnitude", "grow_score": "sampled_path3"},  # Zhang et al. 2025
    "lottery_ticket": _LEVELS | {"rewind_to": None},  # Frankle and Carbin 2019; Frankle et al. 2020
    "lr_rewinding": _LEVELS | {"rewind_to": None},  # Renda et al. 2020
}  # fmt: skip


_LENET = {"activation": ("relu",), "initializer": "glorot_uniform"}
_CONVOLUTIONAL = {"activation": ("relu",), "initializer": "he_normal", "width": 1.0}
_RECURRENT = {
    "hidden_sizes": (128,), "activation": ("tanh",), "initializer": "glorot_uniform", "gate_activation": None,
}  # fmt: skip

MODEL_RECIPES: dict[str, dict[str, Any]] = {
    "mlp": _LENET | {"hidden_sizes": (300, 100)},
    "skip_mlp": _LENET | {"hidden_sizes": (300, 100)},
    "lenet_300_100": _LENET,
    "lenet5": _LENET,
    "lenet5_alford": _LENET,
    "lenet5_safs": _LENET,
    "vgg11": _CONVOLUTIONAL,
    "vgg16": _CONVOLUTIONAL,
    "vgg19": _CONVOLUTIONAL,
    "resnet18": _CONVOLUTIONAL,
    "resnet34": _CONVOLUTIONAL,
    "wide_resnet": _CONVOLUTIONAL | {"depth": 22, "width": 2.0},  # of Dettmers and Zettlemoyer 2019, and of RigL
    "efficientnet_b0": _CONVOLUTIONAL | {"activation": ("swish",), "gate_activation": None},
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "transformer": _LENET | {
        "activation": ("gelu",), "depth": 4, "width": 1.0, "heads": None, "patch_size": None,
    },
}  # fmt: skip


class Nature(NamedTuple):
    """What other settings have to fit about a method. Its rule says the same, and a test holds them equal."""

    count: Literal["constant", "schedule", "accuracy", "extra"] = "constant"  # what the connections of a layer follow
    grows: bool = True  # False: new masks lie within the old ones
    by_sign: bool = False  # True: it looks at the sign of every single weight


_PRUNES = Nature("schedule", grows=False)
NATURES = dict.fromkeys(RECIPES, Nature()) | {
    "set": Nature(by_sign=True),
    "accset": Nature("accuracy", by_sign=True),
    "accset_level": Nature("accuracy", by_sign=True),
    "deepr": Nature(by_sign=True),
    "mest_soft": Nature("extra"),
    "gmp": _PRUNES,
    "granet": Nature("schedule"),
    "ac_dc": Nature("schedule"),
    "lottery_ticket": _PRUNES,
    "lr_rewinding": _PRUNES,
}

_COUNTING = ("sparsity", "epsilon", "layer_sparsity", "allocation", "dense_layers")
METHOD_SETTINGS = {name: frozenset((*_COUNTING, *recipe) if recipe else ()) for name, recipe in RECIPES.items()}


def _one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: bool({*names}.intersection(value if isinstance(value, tuple) else (value,)))


def known_masks(initial_topology: str) -> bool:
    """Whether the first masks are there before anything is computed: they say how many connections a run has."""
    return initial_topology.startswith(_GIVEN) or initial_topology in CONSTRUCTED


_ALWAYS = frozenset.intersection(*map(frozenset, MODEL_RECIPES.values()))  # settings that every model uses

# Settings that only some values of other settings use: {setting: {other setting: whether its value does}}.
USED_BY: dict[str, dict[str, Callable[[Any], bool]]] = {
    **{
        name: {"method": _one_of(*(method for method, used in METHOD_SETTINGS.items() if name in used))}
        for name in sorted(frozenset().union(*METHOD_SETTINGS.values()))
    },
    **{
        name: {"model": _one_of(*(model for model, used in MODEL_RECIPES.items() if name in used))}
        for name in sorted(frozenset().union(*MODEL_RECIPES.values()) - _ALWAYS)
    },
    "init_fan": {"method": _one_of(*(method for method, used in METHOD_SETTINGS.items() if used))},
    "erk_power": {"allocation": _one_of("erk")},
    "rewiring": {"initial_topology": _one_of("small_world")},
    "degree_exponent": {"initial_topology": _one_of("scale_free")},
    "radix": {"initial_topology": _one_of("radix")},
    "shuffle_masks": {"initial_topology": lambda value: value.startswith(_GIVEN)},
    "drop_power": {"drop_schedule": _one_of("inverse_power")},
    "gradient_weight": {"drop_score": _one_of("magnitude_and_gradient")},
    "temperature": {"drop_score": _one_of(*SAMPLED), "grow_score": _one_of(*SAMPLED)},
    "smoothing": {"grow_score": _one_of("momentum"), "scope": _one_of("momentum")},
    "importance_from": {"importance_pruning": bool},
    "momentum": {"optimizer": _one_of("momentum", "nesterov")},
    "lr_decay_at": {"lr_schedule": _one_of("step")},
    "lr_decay_factor": {"lr_schedule": _one_of("step")},
    "all_relu_alpha": {"activation": _one_of("all_relu")},
}
