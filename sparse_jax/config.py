"""Every setting of the project with its default, its bounds and its help: the only place that has any.

`RunConfig` is what determines one run, `StudyConfig` how a study of many runs is executed. Each field is one
absl flag (`flags.py`). This module imports no jax, so that a wrong flag fails at once; the names of the
families stand here as literal tuples, and a test holds them equal to the keys of the dicts they name.
"""

import dataclasses
from typing import Any, NamedTuple

DATASETS = (
    "digits", "synthetic", "mnist", "fashion_mnist", "cifar10", "madelon", "coil20", "prostate_ge",
    "basehock", "leukemia", "colon", "lung_small",
)
NORMALIZATIONS = ("none", "unit", "symmetric", "zscore", "global_zscore", "per_sample", "l2")
MODELS = ("mlp",)
ACTIVATIONS = (
    "relu", "leaky_relu", "elu", "selu", "gelu", "swish", "tanh", "sigmoid", "softsign", "softplus",
    "srelu", "all_relu", "prelu", "linear",
)
METHODS = (
    "dense", "static", "set", "set_magnitude", "accset", "accset_level", "rigl", "itop_random", "itop_gradient",
    "itop_unexplored", "gmp", "granet",
)  # fmt: skip
ALLOCATIONS = ("uniform", "erdos_renyi", "erk")
DROP_SCHEDULES = ("constant", "cosine", "linear")
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "adamw")
DENSITY_SCHEDULES = ("cubic", "linear")
LR_SCHEDULES = ("constant", "cosine", "step")
LAYOUTS = ("map", "vmap")

AUTO = "auto"
SPARSITY = 0.9  # where neither a sparsity nor an epsilon is given
REPLACE_STEPS = ("rigl",)  # methods whose update takes the place of an optimiser step


class Recipe(NamedTuple):
    """What `auto` means for a method: the values of its paper (or of its reference code)."""

    interval: str
    stop_fraction: float
    drop_fraction: float | None = None
    drop_schedule: str | None = None
    initial_sparsity: float | None = None
    density_schedule: str | None = None


RECIPES = {
    "set": Recipe("1epoch", 1.0, 0.3, "constant"),  # Mocanu et al. 2018
    "set_magnitude": Recipe("1epoch", 1.0, 0.3, "constant"),
    "accset": Recipe("1epoch", 1.0, 0.3, "constant"),
    "accset_level": Recipe("1epoch", 1.0, 0.3, "constant"),
    "rigl": Recipe("100", 0.75, 0.3, "cosine"),  # Evci et al. 2020
    "itop_random": Recipe("1500", 1.0, 0.5, "cosine"),  # Liu et al. 2021, CIFAR-10
    "itop_gradient": Recipe("1500", 1.0, 0.5, "cosine"),
    "itop_unexplored": Recipe("1500", 1.0, 0.5, "cosine"),
    "gmp": Recipe("100", 0.75, initial_sparsity=0.0, density_schedule="cubic"),  # Zhu and Gupta 2017
    "granet": Recipe("100", 0.75, 0.5, "cosine", 0.5, "cubic"),  # Liu et al. 2021; the interval is ours
}

OPTIMIZER_SLOTS = {"sgd": 0, "momentum": 1, "nesterov": 1, "adam": 2, "adamw": 2}
LEARNING_RATES = {"sgd": 0.1, "momentum": 0.05, "nesterov": 0.05, "adam": 1e-3, "adamw": 1e-3}

_SPARSE = ("sparsity", "epsilon", "allocation", "dense_layers")
_PRUNING = (*_SPARSE, "interval", "stop_fraction", "initial_sparsity", "density_schedule")
_EVOLVING = (*_SPARSE, "drop_fraction", "drop_schedule", "interval", "stop_fraction")
_SHRINKING = (*_EVOLVING, "shrink_rate", "least_share")

# Settings that only some values of another setting use: {setting: {value: settings it uses}}.
USES: dict[str, dict[str, tuple[str, ...]]] = {
    "method": {
        "dense": (),
        "static": _SPARSE,
        "set": _EVOLVING,
        "set_magnitude": _EVOLVING,
        "accset": _SHRINKING,
        "accset_level": _SHRINKING,
        "rigl": _EVOLVING,
        "itop_random": _EVOLVING,
        "itop_gradient": _EVOLVING,
        "itop_unexplored": _EVOLVING,
        "gmp": _PRUNING,
        "granet": (*_EVOLVING, "initial_sparsity", "density_schedule"),
    },
    "optimizer": {"sgd": (), "momentum": ("momentum",), "nesterov": ("momentum",), "adam": (), "adamw": ()},
    "lr_schedule": {"constant": (), "cosine": (), "step": ("lr_decay_at", "lr_decay_factor")},
    "activation": {name: ("all_relu_alpha",) if name == "all_relu" else () for name in ACTIVATIONS},
}


def setting(default: Any, kind: str, section: str, help: str, **metadata: Any) -> Any:
    """A dataclass field that is one flag.

    Args:
      default: the value without the flag.
      kind: how the flag's text is read: name, names, text, path, int, float,
        bool, sizes, fractions, interval.
      section: the heading of `--help` under which the flag stands.
      help: one sentence.
      **metadata: `choices` (known names), `bounds` (an interval such as "[0, 1)"), `auto` (True: the
        word auto is allowed), `grid` (True: a comma list of values spans an axis of the study),
        `dynamic` (True: only data to the compiled program), `affects` (False: no influence on results).
    """
    return dataclasses.field(
        default=default, metadata={"kind": kind, "section": section, "help": help, "affects": True, **metadata}
    )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run. The value `None` means: not used by this run (`dense` has no sparsity)."""

    dataset: str = setting(
        "digits", "name", "1 data", "Data set by name, or the path of an .npz file.",
        choices=DATASETS, grid=True, paths=True,
    )
    train_size: int = setting(
        0, "int", "1 data", "Examples of the training split to use, stratified; 0 is all.", bounds="[0, inf)"
    )
    test_size: int = setting(
        0, "int", "1 data", "Examples of the test split to use, stratified; 0 is all.", bounds="[0, inf)"
    )
    validation_fraction: float = setting(
        0.1, "float", "1 data", "Share of the training examples held out for validation.", bounds="[0, 1)"
    )
    normalization: str = setting(
        "global_zscore", "name", "1 data", "Normalisation of the inputs, fitted on the training part.",
        choices=NORMALIZATIONS, grid=True,
    )

    model: str = setting("mlp", "name", "2 model", "Network.", choices=MODELS, grid=True)
    hidden_sizes: tuple[int, ...] = setting(
        (300, 100), "sizes", "2 model",
        "Widths of the hidden layers, such as 300,100; a semicolon separates several networks.",
        bounds="[1, inf)", grid=True,
    )
    activation: tuple[str, ...] = setting(
        ("relu",), "names", "2 model", "Activation function; relu:tanh:relu names one a hidden layer.",
        choices=ACTIVATIONS, grid=True,
    )
    all_relu_alpha: float | None = setting(
        0.6, "float", "2 model", "Slope of all_relu: 0.6 for MNIST, 0.75 for CIFAR-10 in its paper.",
        bounds="(0, inf)", grid=True,
    )
    dropout: float = setting(
        0.0, "float", "2 model", "Dropout rate after each hidden activation.", bounds="[0, 1)", grid=True
    )

    method: str = setting("set", "name", "3 topology", "Sparse-training method.", choices=METHODS, grid=True)
    sparsity: float | None = setting(
        None, "float", "3 topology",
        f"Inactive share of all maskable connections; {SPARSITY} unless --epsilon is given.",
        bounds="[0, 1)", grid=True, dynamic=True,
    )
    epsilon: float | None = setting(
        None, "float", "3 topology",
        "Instead of --sparsity: epsilon (n_in + n_out) connections a layer, as SET counts them.",
        bounds="(0, inf)", grid=True, dynamic=True,
    )
    allocation: str | None = setting(
        AUTO, "name", "3 topology",
        "How the layers share the connections; auto: erdos_renyi with epsilon, erk with sparsity.",
        choices=ALLOCATIONS, grid=True, auto=True,
    )
    dense_layers: str | None = setting(
        "", "text", "3 topology",
        "Regular expression: layers it matches stay dense (an MLP has dense_0, dense_1, ..., output).",
    )
    drop_fraction: float | None = setting(
        AUTO, "float", "3 topology", "Share of the connections an update moves; auto: the method's paper.",
        bounds="[0, 1]", grid=True, auto=True, dynamic=True,
    )
    drop_schedule: str | None = setting(
        AUTO, "name", "3 topology", "Course of the drop fraction over training; auto: the method's paper.",
        choices=DROP_SCHEDULES, grid=True, auto=True,
    )
    interval: int | None = setting(
        AUTO, "interval", "3 topology",
        "Time between two topology updates: steps, or epochs as in 0.5epoch; auto: the method's paper.",
        grid=True, auto=True,
    )
    stop_fraction: float | None = setting(
        AUTO, "float", "3 topology", "Share of training after which updates stop; auto: the method's paper.",
        bounds="(0, 1]", grid=True, auto=True,
    )
    initial_sparsity: float | None = setting(
        AUTO, "float", "3 topology", "Sparsity at the start of gmp and granet; auto: the method's paper.",
        bounds="[0, 1)", grid=True, auto=True, dynamic=True,
    )
    density_schedule: str | None = setting(
        AUTO, "name", "3 topology", "Course of gmp and granet from the initial sparsity to --sparsity.",
        choices=DENSITY_SCHEDULES, grid=True, auto=True,
    )
    shrink_rate: float | None = setting(
        1.0, "float", "3 topology",
        "Connections that accset does not regrow, as a share of all, per unit of accuracy (zeta_acc).",
        bounds="[0, 1e30)", grid=True, dynamic=True,
    )
    least_share: float | None = setting(
        0.1, "float", "3 topology", "Share of its first connections that every layer keeps under accset.",
        bounds="(0, 1]", grid=True, dynamic=True,
    )

    optimizer: str = setting(
        "momentum", "name", "4 optimisation", "Optimiser.", choices=OPTIMIZERS, grid=True
    )
    learning_rate: float = setting(
        AUTO, "float", "4 optimisation",
        "Learning rate; auto: " + ", ".join(f"{name} {rate}" for name, rate in LEARNING_RATES.items()) + ".",
        bounds="(0, 1e30)", grid=True, auto=True, dynamic=True,
    )
    momentum: float | None = setting(
        0.9, "float", "4 optimisation", "Momentum of momentum and nesterov.", bounds="[0, 1)", grid=True
    )
    weight_decay: float = setting(
        0.0, "float", "4 optimisation",
        "Weight decay of the kernels: added to the gradient (L2), decoupled for adamw.",
        bounds="[0, 1e30)", grid=True, dynamic=True,
    )
    lr_schedule: str = setting(
        "cosine", "name", "4 optimisation", "Course of the learning rate.", choices=LR_SCHEDULES, grid=True
    )
    lr_decay_at: tuple[float, ...] | None = setting(
        (0.5, 0.75), "fractions", "4 optimisation",
        "Shares of training at which --lr_schedule=step decays, as 0.5:0.75.", bounds="(0, 1)", grid=True,
    )
    lr_decay_factor: float | None = setting(
        0.1, "float", "4 optimisation", "Factor of each decay of --lr_schedule=step.",
        bounds="(0, 1)", grid=True,
    )
    batch_size: int = setting(128, "int", "4 optimisation", "Examples a step.", bounds="[1, inf)", grid=True)
    epochs: int = setting(
        20, "int", "4 optimisation", "Passes over the training part.", bounds="[1, inf)", grid=True
    )

    seed: int = 0  # no flag of its own: --first_seed and --num_seeds


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """How a study is executed, and where its data and results lie."""

    num_seeds: int = setting(1, "int", "5 study", "Runs of each setting, one a seed.", bounds="[1, 65536]")
    first_seed: int = setting(0, "int", "5 study", "The smallest seed.", bounds="[0, 4294967295]")
    workdir: str = setting(
        AUTO, "path", "5 study",
        "Folder of the results; auto: results/<dataset>-<model>-<digest of the settings>.",
        affects=False,
    )
    resume: bool = setting(
        True, "bool", "5 study", "Continue what the workdir holds; --noresume refuses a workdir in use.",
        affects=False,
    )
    dry_run: bool = setting(
        False, "bool", "5 study", "Print the plan (cohorts, runs, connections, memory) and train nothing.",
        affects=False,
    )
    data_dir: str = setting(
        "~/tensorflow_datasets", "path", "1 data",
        "Folder of the prepared TFDS sets and of named tabular sets.",
        affects=False,
    )
    checkpoint_seconds: float = setting(
        60.0, "float", "5 study", "Least time between two checkpoints of a cohort; 0: as often as possible.",
        bounds="[0, inf)", affects=False,
    )
    layout: str = setting(
        AUTO, "name", "6 execution",
        "How the runs of a cohort share the hardware: vmap in lanes, or map one after the other on "
        "each device; auto: map on CPU, vmap on accelerators.",
        choices=LAYOUTS, auto=True, affects=False,
    )
    lane_width: int = setting(
        32, "int", "6 execution", "Runs that train together: lanes of one device with vmap, of all devices with map.",
        bounds="[1, inf)", affects=False,
    )
    exact_seeds: bool = setting(
        False, "bool", "6 execution", "Train each run bit for bit as it would train alone (layout map).",
        affects=False,
    )
    cpu_devices: int = setting(
        AUTO, "int", "6 execution", "CPU devices that share the runs; auto: one a core.",
        bounds="[1, inf)", auto=True, affects=False,
    )
    compilation_cache: bool = setting(
        True, "bool", "6 execution", "Keep compiled programs in the user's cache folder.", affects=False
    )


def settings(cls: type) -> dict[str, dataclasses.Field]:
    """The fields of a config class that are flags, by name."""
    return {field.name: field for field in dataclasses.fields(cls) if field.metadata}


DYNAMIC = (
    "seed",
    *(name for name, field in settings(RunConfig).items() if field.metadata.get("dynamic")),
)
