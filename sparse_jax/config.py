"""Every setting of the project with its default, its bounds and its help: the only place that has any.

`RunConfig` is what determines one run, `StudyConfig` how a study of many runs is executed. Each field is one
absl flag (`flags.py`). This module imports no jax, so that a wrong flag fails at once; the names of the
families stand here as literal tuples, and a test holds them equal to the keys of the dicts they name.
"""

import dataclasses
from typing import Any

DATASETS = (
    "digits", "synthetic", "separable", "two_spirals", "madelon_like", "mnist", "fashion_mnist", "kmnist",
    "emnist/balanced", "emnist/byclass", "emnist/bymerge", "emnist/digits", "emnist/mnist", "cifar10", "cifar100",
    "svhn_cropped", "imagenet_resized/8x8", "imagenet_resized/16x16", "imagenet_resized/32x32",
    "imagenet_resized/64x64", "madelon", "coil20", "prostate_ge", "basehock", "leukemia", "colon", "lung_small",
)  # fmt: skip
DATASET_FILES = (".npz", ".csv")  # how the path of a data set ends
NORMALIZATIONS = ("none", "unit", "symmetric", "zscore", "channel_zscore", "global_zscore", "per_sample", "l2")
MODELS = (
    "mlp", "skip_mlp", "lenet_300_100", "lenet5", "lenet5_alford", "lenet5_safs", "vgg11", "vgg16", "vgg19",
    "resnet18", "resnet34", "wide_resnet", "efficientnet_b0", "lstm", "gru", "transformer",
)
AUGMENTATIONS = ("none", "crop", "flip", "crop_flip", "rotate_shift", "dubowski", "color_jitter", "alford")
INITIALIZERS = (
    "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal",
)
FANS = ("dense", "active")
GATES = ("sigmoid", "hard_sigmoid")
DTYPES = ("float32", "bfloat16")
ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "swish", "hardswish", "mish", "tanh", "hardtanh", "sigmoid",
    "hard_sigmoid", "softsign", "softplus", "logsigmoid", "symlog", "symexp", "sin", "cos", "sin_pi", "cos_pi", "step",
    "gaussian", "negation", "abs", "elish", "hard_elish", "linear", "all_relu",
    "srelu", "prelu", "swish_beta", "acon", "tanhsoft_1", "tanhsoft_2", "srs", "falu",  # learnable
)  # fmt: skip
ACTIVATION_SCALES = ("fixed", "layer", "neuron")
METHODS = (
    "dense", "static", "set", "set_magnitude", "accset", "accset_level", "rigl", "snfs", "deepr", "dsr", "itop_random",
    "itop_gradient", "itop_unexplored", "mest", "mest_soft", "gmp", "granet", "top_kast", "ac_dc", "srigl", "chts",
    "lottery_ticket", "lr_rewinding",
)  # fmt: skip
ALLOCATIONS = ("uniform", "uniform_dense_first", "erdos_renyi", "erk", "balanced", "global")
DRAWN = ("random", "bernoulli", "fan_in", "fan_out", "expander", "small_world", "scale_free")
SCORED = ("magnitude", "snip", "grasp", "synflow")
CONSTRUCTED = ("radix", "cayley")
INITIAL_TOPOLOGIES = (*DRAWN, "correlation", *SCORED, *CONSTRUCTED)
FILE, FROM_RUN = "file:", "from_run:"  # before a path, where a setting names masks
ORIGINAL, TRAINED = "original:", "trained:"  # before that of a run, where a setting names weights
INITIAL_WEIGHTS = ("seed", "fresh")
DROP_SCORES = ("magnitude", "random", "saliency", "magnitude_and_gradient", "sampled_magnitude")
GROW_SCORES = ("random", "unexplored", "gradient", "momentum", "path3", "sampled_path3")
SAMPLED = ("sampled_magnitude", "sampled_path3")
SHARED = ("momentum", "gradient", "survivors")  # scopes in which the layers share what grows
SCOPES = ("layer", "global", *SHARED)
BIRTHS = ("zero", "kept", "fresh", "gradient")
UPDATE_STEPS = ("take", "skip")
DROP_SCHEDULES = ("constant", "cosine", "linear", "inverse_power")
DENSITY_SCHEDULES = ("constant", "cubic", "linear", "sigmoid", "cyclic", "levels")
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "adamw")
LR_SCHEDULES = ("constant", "cosine", "linear", "step")
LAYOUTS = ("map", "vmap")
PLACEMENTS = ("device", "host")
EXECUTIONS = ("masked", "sparse")
# of a weight agnostic network, in the order of the authors' code (Gaier and Ha 2019, arXiv:1906.04358)
WANN_FUNCTIONS = (
    "linear", "step", "sin_pi", "gaussian", "tanh", "sigmoid", "negation", "abs", "relu", "cos_pi",
)  # fmt: skip
WANN_MUTATIONS = ("add_connection", "add_node", "enable", "change_activation")
FITNESSES = ("loss", "accuracy")
# of launch/search.py safs: how candidates are proposed, hyper-parameters asked for, and trials ended early
SEARCH_STRATEGIES = ("lahc", "annealing", "random", "genetic", "exhaustive")
SAMPLERS = ("tpe", "random", "smac")
PRUNERS = ("none", "hyperband")
# what Loni et al. 2023 (arXiv:2305.10964) search over
SAFS_OPERATORS = (
    "relu6", "hardswish", "swish", "tanhsoft_1", "acon", "gelu", "srs", "elu", "tanh", "softplus", "logsigmoid",
    "symlog", "symexp",
)  # fmt: skip
TRACKERS = ("none", "tensorboard", "wandb")
# of launch/ablate.py: in which order connections are removed, and what else is done to them
ABLATION_ORDERS = (
    "smallest", "largest", "random", "positive", "negative", "decile", "gradient", "activity", "leave_one_out",
)
ORDERS_BY_EXAMPLES = ("gradient", "activity", "leave_one_out")  # of these, whose scores are measured on examples
ABLATION_EDITS = (
    "unchanged", "magnitudes_shuffled", "signs_shuffled", "weights_shuffled", "mean_magnitude", "reinitialised",
)
ABLATION_SCOPES = ("layer", "global")
DECILES = 10  # of the order of that name
SHARED_WEIGHT = "shared_weight"  # the edit that gives all connections one weight
SHARED_WEIGHTS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)  # of Gaier and Ha 2019

AUTO = "auto"
ALONE = "none"  # of --coordinator
JAX_FOR_GPU = "0.11.1"  # before, scan under vmap is wrong there (jax-ml/jax#36958)
SPARSITY = 0.9  # where neither a sparsity nor an epsilon nor a layer sparsity is given
KEPT_BY_A_LEVEL = 0.8  # of the connections, where --levels=auto (Frankle and Carbin 2019)

OPTIMIZER_SLOTS = {"sgd": 0, "momentum": 1, "nesterov": 1, "adam": 2, "adamw": 2}
LEARNING_RATES = {"sgd": 0.1, "momentum": 0.05, "nesterov": 0.05, "adam": 1e-3, "adamw": 1e-3}


def setting(default: Any, kind: str, section: str, help: str, **metadata: Any) -> Any:
    """A dataclass field that is one flag.

    Args:
      default: the value without the flag.
      kind: how the flag's text is read: name, names, text, path, int, float,
        bool, sizes, fractions, numbers, interval, structure, name_or_path, radix, shard, address.
      section: the heading of `--help` under which the flag stands.
      help: one sentence.
      **metadata: `choices` (known names), `paths` (endings of a path that may stand in place of a name), `forms`
        (prefixes with which a path may, and what it leads to),
        `bounds` (an interval such as "[0, 1)"), `auto` (True: the word auto is allowed), `grid` (True: a comma
        list of values spans an axis of the study), `dynamic` (True: only data to the compiled program), `rate`
        (True: dynamic, and a number that the topology or the method uses as it is), `affects` (False: no
        influence on results).
    """
    return dataclasses.field(
        default=default, metadata={"kind": kind, "section": section, "help": help, "affects": True, **metadata}
    )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run. The value `None` means: not used by this run (`dense` has no sparsity)."""

    dataset: str = setting(
        "digits", "name", "1 data",
        "Data set by name, or the path of an .npz or .csv file. An .npz has the keys x_train, y_train, x_test and "
        "y_test. A .csv has one example a row: the label is the column called label, class or target, or y if that is "
        "the first or the last, else the last column. A fifth of its rows becomes the test part.",
        choices=DATASETS, grid=True, paths=DATASET_FILES,
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
        "global_zscore", "name", "1 data",
        "Normalisation of the inputs, fitted on the training part: to [0, 1] (unit) or [-1, 1] (symmetric), to mean 0 "
        "and deviation 1 of every feature, every channel or all values, or of every sample by itself (per_sample), or "
        "to length 1 (l2).",
        choices=NORMALIZATIONS, grid=True,
    )
    augmentation: str = setting(
        "none", "name", "1 data",
        "Random changes of the images of training batches, before normalisation; validation, test and the scores of "
        "--initial_topology see the images as they are.",
        choices=AUGMENTATIONS, grid=True,
    )

    model: str = setting("mlp", "name", "2 model", "Network.", choices=MODELS, grid=True)
    hidden_sizes: tuple[int, ...] | None = setting(
        AUTO, "sizes", "2 model",
        "Widths of the hidden layers, such as 300,100, of lstm and gru their units; a semicolon separates several "
        "networks; auto: the model's.",
        bounds="[1, inf)", grid=True, auto=True,
    )
    depth: int | None = setting(
        AUTO, "int", "2 model", "Depth of wide_resnet as in WRN-22-2, blocks of transformer; auto: 22, and 4.",
        bounds="[1, 10000]", grid=True, auto=True,
    )
    width: float | None = setting(
        AUTO, "float", "2 model",
        "Factor of the channels of vgg, resnet, wide_resnet and efficientnet, and of the 64 features of transformer; "
        "auto: 1, of wide_resnet 2.",
        bounds="(0, 1000]", grid=True, auto=True,
    )
    heads: int | None = setting(
        4, "int", "2 model", "Attention heads of transformer.", bounds="[1, 10000]", grid=True
    )
    patch_size: int | None = setting(
        4, "int", "2 model", "Side of the patches of transformer.", bounds="[1, 10000]", grid=True
    )
    activation: tuple[str, ...] = setting(
        AUTO, "names", "2 model",
        "Activation function, those from srelu on with trainable parameters; relu:tanh:relu names one a hidden layer; "
        "auto: relu, of lstm and gru tanh, of efficientnet_b0 swish, of transformer gelu.",
        choices=ACTIVATIONS, grid=True, auto=True,
    )
    gate_activation: str | None = setting(
        "sigmoid", "name", "2 model", "Function of the gates of lstm, gru and efficientnet_b0.",
        choices=GATES, grid=True,
    )
    relu_logits: bool = setting(
        False, "bool", "2 model", "Pass the outputs through ReLU before the loss, as Alford et al. did.", grid=True
    )
    initializer: str = setting(
        AUTO, "name", "2 model",
        "First weights of the kernels; auto: he_normal of vgg, resnet, wide_resnet and efficientnet, else "
        "glorot_uniform.",
        choices=INITIALIZERS, grid=True, auto=True,
    )
    init_fan: str | None = setting(
        "dense", "name", "2 model",
        "Connections that the initialiser counts: those of the dense layer, or the active ones of each neuron.",
        choices=FANS, grid=True,
    )
    initial_weights: str = setting(
        AUTO, "name_or_path", "2 model",
        "Weights before the first step: drawn by the seed, as in every run of that seed (seed); drawn by it otherwise, "
        "so that not even the run of the same seed began with them (fresh); those that a finished run began with "
        "(original:RUN), as for a lottery ticket, or ended with (trained:RUN). RUN is the folder WORKDIR/runs/RUN or a "
        "pattern as in --initial_topology. auto: fresh with masks from_run, else seed.",
        choices=INITIAL_WEIGHTS, forms={ORIGINAL: "RUN", TRAINED: "RUN"}, grid=True, auto=True,
    )
    dtype: str = setting(
        "float32", "name", "2 model", "Type of the network's arithmetic; parameters, loss and optimiser are float32.",
        choices=DTYPES, grid=True,
    )
    all_relu_alpha: float | None = setting(
        0.6, "float", "2 model", "Slope of all_relu: 0.6 for MNIST, 0.75 for CIFAR-10 in its paper.",
        bounds="(0, inf)", grid=True,
    )
    activation_alpha: float = setting(
        1.0, "float", "2 model",
        "The alpha of alpha h(beta x), h any activation function, or where its training begins; 1 leaves h as it is.",
        bounds="(0, 1000]", grid=True,
    )
    activation_beta: float = setting(
        1.0, "float", "2 model",
        "The beta of alpha h(beta x), h any activation function, or where its training begins; 1 leaves h as it is.",
        bounds="(0, 1000]", grid=True,
    )
    activation_scale: str = setting(
        "fixed", "name", "2 model",
        "Whether alpha and beta of alpha h(beta x) are fixed, or trained: one pair a layer, or a neuron.",
        choices=ACTIVATION_SCALES, grid=True,
    )
    dropout: float = setting(
        0.0, "float", "2 model",
        "Dropout rate: after hidden dense layers, within the blocks of wide_resnet and transformer, after each "
        "recurrent layer, else before the output.",
        bounds="[0, 1)", grid=True,
    )

    sparsity: float | None = setting(
        None, "float", "3 topology",
        f"Inactive share of all maskable connections; {SPARSITY} unless given otherwise.",
        bounds="[0, 1)", grid=True, dynamic=True,
    )
    epsilon: float | None = setting(
        None, "float", "3 topology",
        "Instead of --sparsity: epsilon (n_in + n_out) connections a layer, as SET counts them.",
        bounds="(0, inf)", grid=True, dynamic=True,
    )
    layer_sparsity: str | None = setting(
        "", "text", "3 topology",
        "Instead of --sparsity: that of every maskable layer, as dense_0=0.98:dense_1=0.9:output=0.",
    )
    allocation: str | None = setting(
        AUTO, "name", "3 topology",
        "How the layers share the connections; auto: erdos_renyi with epsilon, else erk. "
        "global: as a score ranks them.",
        choices=ALLOCATIONS, grid=True, auto=True,
    )
    erk_power: float | None = setting(
        1.0, "float", "3 topology", "Power of the relative densities of erk.",
        bounds="[0, 10]", grid=True, dynamic=True,
    )
    dense_layers: str | None = setting(
        "", "text", "3 topology",
        "Regular expression: layers whose names have a match stay dense, as in output or ^conv_0$ (--dry_run lists "
        "the names; an MLP has dense_0, dense_1, ..., output).",
    )
    structure: str | None = setting(
        AUTO, "structure", "3 topology",
        "Where connections may lie: none (anywhere), fan_in (as many for every neuron), N:M as 2:4 (N of M "
        "consecutive inputs), RxC as 4x4 (blocks of inputs x outputs); auto: the method's.",
        grid=True, auto=True,
    )
    initial_topology: str | None = setting(
        AUTO, "name_or_path", "3 topology",
        "First masks: drawn, from a score of the untrained network, constructed (radix, cayley), those of a finished "
        "run (from_run:RUN, the folder WORKDIR/runs/RUN), or of a file (file:PATH). RUN and PATH may be patterns that "
        "one path matches, with settings of the run in braces, as in from_run:W/runs/*-gmp-*-s{sparsity}-seed{seed}-*; "
        "--sparsity is then a name only. auto: the method's.",
        choices=INITIAL_TOPOLOGIES, forms={FROM_RUN: "RUN", FILE: "PATH"}, grid=True, auto=True,
    )
    radix: str | None = setting(
        AUTO, "radix", "3 topology",
        "The RadiX-Net of --initial_topology=radix: its radices, one a masked layer, such as 10:10, with a slash "
        "between lists, 2:2:2/2:2:2; auto: the nearest to --sparsity.",
        grid=True, auto=True,
    )
    shuffle_masks: bool | None = setting(
        False, "bool", "3 topology",
        "Shuffle the masks of --initial_topology=from_run: or file: within every layer by the seed: a control that "
        "keeps only how many connections a layer has.",
        grid=True,
    )
    rewiring: float | None = setting(
        0.1, "float", "3 topology", "Share of the links that --initial_topology=small_world rewires.",
        bounds="[0, 1]", grid=True, rate=True,
    )
    degree_exponent: float | None = setting(
        2.5, "float", "3 topology", "Exponent of the degrees of --initial_topology=scale_free.",
        bounds="(2, 100]", grid=True, rate=True,
    )

    method: str = setting("set", "name", "4 method", "Sparse-training method.", choices=METHODS, grid=True)
    interval: int | None = setting(
        AUTO, "interval", "4 method",
        "Time between two topology updates: steps, or epochs as in 0.5epoch; auto: the method's paper.",
        bounds="[1, inf)", grid=True, auto=True,
    )
    stop_fraction: float | None = setting(
        AUTO, "float", "4 method", "Share of training after which updates stop; auto: the method's paper.",
        bounds="(0, 1]", grid=True, auto=True,
    )
    drop_fraction: float | None = setting(
        AUTO, "float", "4 method", "Share of the connections an update moves; auto: the method's paper.",
        bounds="[0, 1]", grid=True, auto=True, rate=True,
    )
    drop_schedule: str | None = setting(
        AUTO, "name", "4 method", "Course of the drop fraction over training; auto: the method's paper.",
        choices=DROP_SCHEDULES, grid=True, auto=True,
    )
    drop_power: float | None = setting(
        3.0, "float", "4 method", "Exponent of --drop_schedule=inverse_power.", bounds="(0, 100]", grid=True, rate=True,
    )
    drop_score: str | None = setting(
        AUTO, "name", "4 method", "What keeps a connection; auto: the method's.",
        choices=DROP_SCORES, grid=True, auto=True,
    )
    grow_score: str | None = setting(
        AUTO, "name", "4 method", "What makes a connection grow; auto: the method's.",
        choices=GROW_SCORES, grid=True, auto=True,
    )
    scope: str | None = setting(
        AUTO, "name", "4 method",
        "Who competes: the connections of a layer, of all layers (global), or layers for what was dropped, by their "
        "mean |momentum|, mean |gradient| or survivors; auto: the method's.",
        choices=SCOPES, grid=True, auto=True,
    )
    regrow_dropped: bool | None = setting(
        AUTO, "bool", "4 method",
        "Whether what an update drops may grow again in it; if not, only where there is no other place.",
        grid=True, auto=True,
    )
    birth: str | None = setting(
        AUTO, "name", "4 method",
        "Weight of a new connection: zero, kept (the old one, if it was dropped by the same update), fresh (as "
        "initialised), gradient (minus learning rate times gradient); auto: zero.",
        choices=BIRTHS, grid=True, auto=True,
    )
    update_step: str | None = setting(
        AUTO, "name", "4 method", "Whether an update takes the place of an optimiser step (skip); auto: the method's.",
        choices=UPDATE_STEPS, grid=True, auto=True,
    )
    initial_sparsity: float | None = setting(
        AUTO, "float", "4 method",
        "Sparsity at the start of methods with a density schedule; auto: the method's paper.",
        bounds="[0, 1)", grid=True, auto=True, dynamic=True,
    )
    density_schedule: str | None = setting(
        AUTO, "name", "4 method", "Course from the initial sparsity to --sparsity; auto: the method's paper.",
        choices=DENSITY_SCHEDULES, grid=True, auto=True,
    )
    shrink_rate: float | None = setting(
        AUTO, "float", "4 method",
        "Connections that accset does not regrow, as a share of all, per unit of accuracy (zeta_acc); auto: 1.",
        bounds="[0, 1e30)", grid=True, auto=True, rate=True,
    )
    least_share: float | None = setting(
        AUTO, "float", "4 method", "Share of its first connections that every layer keeps under accset; auto: 0.1.",
        bounds="(0, 1]", grid=True, auto=True, dynamic=True,
    )
    gradient_weight: float | None = setting(
        1.0, "float", "4 method", "Weight of |gradient| beside |w| in the drop score of mest.",
        bounds="[0, 1e30)", grid=True, rate=True,
    )
    temperature: float | None = setting(
        1.0, "float", "4 method",
        "Softness of sampled scores, as chts has them: 0 is the best, 1 draws in proportion to the score.",
        bounds="[0, 1e30)", grid=True, rate=True,
    )
    smoothing: float | None = setting(
        0.9, "float", "4 method", "Share of its past in the averaged gradient of snfs.",
        bounds="[0, 1)", grid=True, rate=True,
    )
    ablation: float | None = setting(
        AUTO, "float", "4 method",
        "Neurons of which less than this share of the fan-in is worth keeping lose all inputs; 0 is none; auto: 0.3 "
        "for srigl.",
        bounds="[0, 1]", grid=True, auto=True,
    )
    importance_pruning: float | None = setting(
        AUTO, "float", "4 method",
        "Share of the hidden neurons, those of least sum |incoming w|, that each late update cuts off; auto: none.",
        bounds="[0, 1)", grid=True, auto=True,
    )
    importance_from: float | None = setting(
        0.5, "float", "4 method", "Share of the updates before --importance_pruning begins.",
        bounds="[0, 1]", grid=True, rate=True,
    )
    backward_factor: float | None = setting(
        AUTO, "float", "4 method", "Connections that top_kast trains, as a multiple of those it uses; auto: 2.",
        bounds="[1, 1e30)", grid=True, auto=True, rate=True,
    )
    exploration_decay: float | None = setting(
        AUTO, "float", "4 method",
        "L2 penalty of top_kast on the connections it uses, divided by their density on the others; auto: 1e-4.",
        bounds="[0, 1e30)", grid=True, auto=True, rate=True,
    )
    l1: float | None = setting(
        AUTO, "float", "4 method", "L1 penalty of deepr; auto: 1e-4.",
        bounds="[0, 1e30)", grid=True, auto=True, rate=True,
    )
    noise: float | None = setting(
        AUTO, "float", "4 method", "Temperature of the random walk of deepr; auto: 1e-10.",
        bounds="[0, 1e30)", grid=True, auto=True, rate=True,
    )
    first_threshold: float | None = setting(
        AUTO, "float", "4 method", "The |w| below which dsr drops at first; it adapts; auto: 0.001.",
        bounds="(0, 1e30)", grid=True, auto=True, rate=True,
    )
    levels: int | None = setting(
        AUTO, "int", "4 method",
        "Prunings of lottery_ticket and lr_rewinding, with equal times of training before and after each; auto: "
        "as many as 20 % each takes.",
        bounds="[1, 1000]", grid=True, auto=True,
    )
    rewind_to: int | None = setting(
        "0", "interval", "4 method",
        "Where lottery_ticket and lr_rewinding go back to: steps after the start, or epochs as in 0.5epoch.",
        bounds="[0, inf)", grid=True,
    )

    optimizer: str = setting(
        "momentum", "name", "5 optimisation", "Optimiser.", choices=OPTIMIZERS, grid=True
    )
    learning_rate: float = setting(
        AUTO, "float", "5 optimisation",
        "Learning rate; auto: " + ", ".join(f"{name} {rate}" for name, rate in LEARNING_RATES.items()) + ".",
        bounds="(0, 1e30)", grid=True, auto=True, dynamic=True,
    )
    momentum: float | None = setting(
        0.9, "float", "5 optimisation", "Momentum of momentum and nesterov.", bounds="[0, 1)", grid=True
    )
    weight_decay: float = setting(
        0.0, "float", "5 optimisation",
        "Weight decay of the kernels: added to the gradient (L2), decoupled for adamw.",
        bounds="[0, 1e30)", grid=True, dynamic=True,
    )
    lr_schedule: str = setting(
        "cosine", "name", "5 optimisation", "Course of the learning rate.", choices=LR_SCHEDULES, grid=True
    )
    lr_decay_at: tuple[float, ...] | None = setting(
        (0.5, 0.75), "fractions", "5 optimisation",
        "Shares of training at which --lr_schedule=step decays, as 0.5:0.75.", bounds="(0, 1)", grid=True,
    )
    lr_decay_factor: float | None = setting(
        0.1, "float", "5 optimisation", "Factor of each decay of --lr_schedule=step.",
        bounds="(0, 1)", grid=True,
    )
    warmup_epochs: float = setting(
        0.0, "float", "5 optimisation",
        "Epochs in which the learning rate rises in equal steps to that of --lr_schedule, which takes its course "
        "meanwhile; where a method rewinds to within them, it rises again.",
        bounds="[0, 1e30)", grid=True,
    )
    label_smoothing: float = setting(
        0.0, "float", "5 optimisation",
        "Share of each label that is spread evenly over all classes, in the training loss only.",
        bounds="[0, 1)", grid=True,
    )
    gradient_clip: float = setting(
        0.0, "float", "5 optimisation",
        "Largest norm of the gradient of all that is trained, before weight decay is added; 0: not clipped.",
        bounds="[0, 1e30)", grid=True,
    )
    ema: float = setting(
        0.0, "float", "5 optimisation",
        "Share of its past in a moving average of the weights and batch statistics, which then is what is evaluated, "
        "from validation to the final results; 0: no average.",
        bounds="[0, 1)", grid=True,
    )
    batch_size: int = setting(128, "int", "5 optimisation", "Examples a step.", bounds="[1, inf)", grid=True)
    epochs: int = setting(
        20, "int", "5 optimisation", "Passes over the training part; with 0 the first network is the result.",
        bounds="[0, inf)", grid=True,
    )

    execution: str = setting(
        "masked", "name", "7 execution",
        "How layers multiply: as dense matrices with masks, or by their connections only, in time and memory in "
        "proportion to these; auto: sparse on a CPU where that was measured to be faster, else masked.",
        choices=EXECUTIONS, grid=True, auto=True,
    )

    seed: int = 0  # no flag of its own: --first_seed and --num_seeds


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """How a study is executed, and where its data and results lie."""

    num_seeds: int = setting(1, "int", "6 study", "Runs of each setting, one a seed.", bounds="[1, 65536]")
    first_seed: int = setting(0, "int", "6 study", "The smallest seed.", bounds="[0, 4294967295]")
    workdir: str = setting(
        AUTO, "path", "6 study",
        "Folder of the results; auto: results/<dataset>-<model>-<digest of the settings>.",
        affects=False,
    )
    resume: bool = setting(
        True, "bool", "6 study", "Continue what the workdir holds; --noresume refuses a workdir in use.",
        affects=False,
    )
    dry_run: bool = setting(
        False, "bool", "6 study",
        "Print the plan (cohorts, runs, connections, memory, an estimate of time) and train nothing.",
        affects=False,
    )
    shard: str = setting(
        "1/1", "shard", "6 study",
        "Begin with the i-th of n shares of the cohorts, as 2/8, i from 1 on. Workers need none to share a workdir: "
        "each takes what no other has.",
        affects=False,
    )
    takeover: bool = setting(
        True, "bool", "6 study",
        "After its share of --shard go on with what no other worker of the workdir has; --notakeover trains nothing "
        "else, where every worker has a workdir of its own.",
        affects=False,
    )
    tracker: str = setting(
        "none", "name", "6 study",
        "Where else the course of every run is shown: event files in WORKDIR/tensorboard, or Weights & Biases.",
        choices=TRACKERS, affects=False,
    )
    retry_failed: bool = setting(
        False, "bool", "6 study", "Train the runs again that ended with an error.", affects=False
    )
    data_dir: str = setting(
        "~/tensorflow_datasets", "path", "1 data",
        "Folder of the prepared TFDS sets and of named tabular sets.",
        affects=False,
    )
    checkpoint_seconds: float = setting(
        60.0, "float", "6 study", "Least time between two checkpoints of a cohort; 0: as often as possible.",
        bounds="[0, inf)", affects=False,
    )
    layout: str = setting(
        AUTO, "name", "7 execution",
        "How the runs of a cohort share the hardware: vmap in lanes, or map one after the other on "
        "each device; auto: map on CPU, vmap on accelerators.",
        choices=LAYOUTS, auto=True, affects=False,
    )
    data_placement: str = setting(
        AUTO, "name", "7 execution",
        "Where the training examples lie: on every device, or on the host, from where batches stream; auto: on the "
        "devices if they take less than half of the memory there.",
        choices=PLACEMENTS, auto=True, affects=False,
    )
    lane_width: int = setting(
        32, "int", "7 execution", "Runs that train together: lanes of one device with vmap, of all devices with map.",
        bounds="[1, inf)", affects=False,
    )
    batch_devices: int = setting(
        1, "int", "7 execution",
        "Devices that share the batches of a run, for networks whose activations are too large for one: each trains on "
        "its part, and gradients are averaged. Divides the devices and --batch_size; dropout draws otherwise.",
        bounds="[1, inf)", affects=False,
    )
    exact_seeds: bool = setting(
        False, "bool", "7 execution", "Train each run bit for bit as it would train alone (layout map).",
        affects=False,
    )
    cpu_devices: int = setting(
        AUTO, "int", "7 execution", "CPU devices that share the runs; auto: one a core.",
        bounds="[1, inf)", auto=True, affects=False,
    )
    coordinator: str = setting(
        ALONE, "address", "7 execution",
        "HOST:PORT of the first of several processes that train together, each started with this command and all "
        "their devices used as one machine's; auto: as SLURM, Open MPI or the TPU pod says that started them; none: "
        "this process trains by itself.",
        auto=True, affects=False,
    )
    num_processes: int = setting(
        1, "int", "7 execution", "Processes that train together, with --coordinator=HOST:PORT.", bounds="[1, inf)",
        affects=False,
    )
    process_id: int = setting(
        0, "int", "7 execution",
        "Which of them this one is, from 0 on; 0 runs on HOST and writes the workdir. Data, mask files and runs whose "
        "weights are taken have to lie in the same place for all.",
        bounds="[0, inf)", affects=False,
    )
    compilation_cache: bool = setting(
        True, "bool", "7 execution", "Keep compiled programs in the user's cache folder.", affects=False
    )


@dataclasses.dataclass(frozen=True)
class AblationConfig:
    """What launch/ablate.py does to finished runs: every order in every scope, and every edit, with every training."""

    orders: tuple[str, ...] = tuple(name for name in ABLATION_ORDERS if name != "leave_one_out")  # for small networks
    edits: tuple[str, ...] = (*ABLATION_EDITS, SHARED_WEIGHT)
    fractions: tuple[float, ...] = tuple(tenths / 10 for tenths in range(11))
    scopes: tuple[str, ...] = ("layer",)
    retrain_steps: tuple[int, ...] = (0,)
    retrain_rate: float = 0.1  # of the run's own learning rate
    part: str = "test"
    which: str = "final"
    examples: int = 1000  # of the training part, that scores are measured on
    layers: str = ""  # regular expression; "" for all
    data_dir: str = StudyConfig.data_dir


@dataclasses.dataclass(frozen=True)
class WannConfig:
    """One search for weight agnostic networks: what determines it beside its data."""

    population: int = setting(
        200, "int", "2 search",
        "Networks of a generation; the devices that share them have to divide their number, the others are not used.",
        bounds="[2, 65536]",
    )
    generations: int = setting(600, "int", "2 search", "Generations.", bounds="[1, 1000000]")
    seed: int = setting(0, "int", "2 search", "Of everything that is drawn.", bounds="[0, 4294967295]")
    weights: tuple[float, ...] = setting(
        SHARED_WEIGHTS, "numbers", "2 search",
        "The weights that all connections share, one after the other, as -1:1.",
        bounds="[-1000, 1000]",
    )
    fitness: str = setting(
        "loss", "name", "2 search", "What is ranked by: the mean cross entropy, or the accuracy.", choices=FITNESSES
    )
    parsimony: float = setting(
        0.8, "float", "2 search",
        "Probability that a generation is ranked by mean fitness and fewest connections, else by mean and best.",
        bounds="[0, 1]",
    )
    cull: float = setting(0.2, "float", "2 search", "Worst share that has no offspring.", bounds="[0, 1)")
    elite: float = setting(0.2, "float", "2 search", "Best share that lives on as it is.", bounds="[0, 1)")
    tournament: int = setting(
        8, "int", "2 search", "Networks of which the best has a child, drawn with replacement.", bounds="[1, 65536]"
    )
    batch: int = setting(
        1000, "int", "2 search", "Training examples a generation, others in each; 0, or where there are fewer: all.",
        bounds="[0, inf)",
    )
    layers: int = setting(3, "int", "3 networks", "Hidden layers with room for nodes.", bounds="[1, 64]")
    nodes: int = setting(
        2, "int", "3 networks", "Nodes of each of the ten functions for which a layer has room.", bounds="[1, 1000]"
    )
    init_share: float = setting(
        0.1, "float", "3 networks",
        "Share of the connections from inputs to outputs that are enabled in the first networks; the others are there "
        "for the mutation that enables.",
        bounds="[0, 1]",
    )
    add_connection: float = setting(0.20, "float", "4 mutations", "Odds of a new connection.", bounds="[0, 1]")
    add_node: float = setting(0.25, "float", "4 mutations", "Odds of a node in a connection's place.", bounds="[0, 1]")
    enable: float = setting(0.05, "float", "4 mutations", "Odds of enabling a disabled connection.", bounds="[0, 1]")
    change_activation: float = setting(
        0.50, "float", "4 mutations", "Odds of another function of a node.", bounds="[0, 1]"
    )


@dataclasses.dataclass(frozen=True)
class SafsConfig:
    """One search for the activation functions of sparse networks: what determines it beside the networks."""

    operators: tuple[str, ...] = setting(
        SAFS_OPERATORS, "names", "2 search", "What the activation function of a layer may be, as relu:swish:tanh.",
        choices=ACTIVATIONS,
    )
    strategy: str = setting(
        "lahc", "name", "2 search",
        "How the first stage proposes and accepts: late acceptance hill climbing (lahc), simulated annealing, at "
        "random, a genetic algorithm, or all there are.",
        choices=SEARCH_STRATEGIES,
    )
    steps: int = setting(
        20, "int", "2 search", "Moves of the first stage, after a random start; exhaustive makes what it needs.",
        bounds="[0, 1000000]",
    )
    candidates: int = setting(
        1, "int", "2 search",
        "Candidates of a move, trained side by side: as many climbs beside each other, the population of genetic.",
        bounds="[1, 65536]",
    )
    candidate_epochs: int = setting(
        10, "int", "2 search", "Training of a candidate, and of a trial, before it is scored.", bounds="[1, inf)"
    )
    start_epochs: int = setting(
        AUTO, "int", "2 search", "Training of the networks that the search starts from; auto: --epochs.",
        bounds="[1, inf)", auto=True,
    )
    lahc_history: int = setting(
        3, "int", "2 search", "Energies that lahc compares with; 1 takes what is not worse than the one before.",
        bounds="[1, 65536]",
    )
    annealing_from: float = setting(
        0.05, "float", "2 search", "First temperature of annealing, in units of accuracy.", bounds="(0, 1000]"
    )
    annealing_to: float = setting(
        0.0005, "float", "2 search", "Last temperature of annealing, in units of accuracy.", bounds="(0, 1000]"
    )
    tournament: int = setting(
        2, "int", "2 search", "Candidates of which genetic takes the best as a parent.", bounds="[1, 65536]"
    )
    mutation: float = setting(
        0.2, "float", "2 search", "Probability that genetic redraws the operator of a layer.", bounds="(0, 1]"
    )
    scale: str = setting(
        "layer", "name", "3 tuning", "What has an alpha and a beta of its own in the second stage.",
        choices=ACTIVATION_SCALES[1:],
    )
    trials: int = setting(
        20, "int", "3 tuning", "Hyper-parameters tried in the second stage; 0: no second stage.",
        bounds="[0, 1000000]",
    )
    abreast: int = setting(
        4, "int", "3 tuning", "Trials that are asked for at once, and trained side by side.", bounds="[1, 65536]"
    )
    sampler: str = setting(
        "tpe", "name", "3 tuning",
        "Who proposes hyper-parameters: Optuna's tree-structured Parzen estimator, nobody (random), or SMAC.",
        choices=SAMPLERS,
    )
    pruner: str = setting(
        "none", "name", "3 tuning", "Who ends trials early, after epochs in which others were better.", choices=PRUNERS
    )
    tuned_optimizers: tuple[str, ...] = setting(
        OPTIMIZERS, "names", "3 tuning", "Optimisers to choose from, beside --optimizer.", choices=OPTIMIZERS
    )
    tuned_rates: tuple[float, ...] = setting(
        (0.1, 10.0), "numbers", "3 tuning",
        "Learning rates, in multiples of the optimiser's auto: from and to, or one.", bounds="(0, 1e6]",
    )
    tuned_momenta: tuple[float, ...] = setting(
        (0.5, 0.99), "numbers", "3 tuning", "Momenta of momentum and nesterov: from and to, or one.", bounds="[0, 1)"
    )
    tuned_weight_decays: tuple[float, ...] = setting(
        (1e-6, 1e-2), "numbers", "3 tuning", "Weight decays: from and to, or one.", bounds="(0, 1e6]"
    )
    tuned_schedules: tuple[str, ...] = setting(
        LR_SCHEDULES, "names", "3 tuning", "Learning-rate schedules to choose from, beside --lr_schedule.",
        choices=LR_SCHEDULES,
    )
    storage: str = setting(
        AUTO, "text", "3 tuning",
        "Where Optuna keeps the trials: a URL such as postgresql://USER:PASSWORD@HOST/NAME, at which several machines "
        "share them, or sqlite:///PATH; auto: a file of the workdir.",
        affects=False, auto=True,
    )


def settings(cls: type) -> dict[str, dataclasses.Field]:
    """The fields of a config class that are flags, by name."""
    return {field.name: field for field in dataclasses.fields(cls) if field.metadata}


RATES = tuple(name for name, field in settings(RunConfig).items() if field.metadata.get("rate"))
DYNAMIC = ("seed", *RATES, *(name for name, field in settings(RunConfig).items() if field.metadata.get("dynamic")))
