"""What a run is made of while it trains. No array has an axis for runs: cohorts add it by vmap or map."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from sparse_jax.data.batches import Data
from sparse_jax.topology.masks import Counts, Masks
from sparse_jax.topology.paths import Connectivity
from sparse_jax.topology.rule import Topology
from sparse_jax.training.average import Average


class Chosen(NamedTuple):
    """What a run has of settings that are data to its program, because a search is over them."""

    operator: jax.Array  # int32[layers], of the activation function of every layer
    scaled: jax.Array  # bool[], whether α and β of α h(β x) are trained
    optimizer: jax.Array  # int32[]
    momentum: jax.Array  # float32[]
    lr_schedule: jax.Array  # int32[]


class HyperParams(NamedTuple):
    """The settings that may differ between the runs of a cohort."""

    seed: jax.Array  # uint32[]
    weights_seed: jax.Array  # uint32[], of the weights before the first step
    start: Counts  # int32[] by layer, connections at the first step
    counts: Counts  # int32[] by layer, connections aimed at
    rates: dict[str, jax.Array]  # float32[] by name, settings of the topology and the method
    masks: Masks  # the first ones, where they are given; int32[2, connections] if executed sparsely; else empty
    network: Any  # params and model_state before the first step, where they are given; else empty
    learning_rate: jax.Array  # float32[]
    weight_decay: jax.Array  # float32[]
    chosen: Chosen | None = None  # indices into the `Choices` of the program, if it has any


class Running(NamedTuple):
    """Sums over the training batches since the last evaluation."""

    loss: jax.Array  # float32[], sum of the batch means
    correct: jax.Array  # int32[], examples
    batches: jax.Array  # int32[]
    moved: jax.Array  # int32[], connections


class Best(NamedTuple):
    """The network of highest validation accuracy so far, the earlier one of equals; of those pruned to the end."""

    correct: jax.Array  # int32[], examples of the validation part; -1 before the first evaluation
    step: jax.Array  # int32[]
    params: Any
    model_state: Any
    masks: Masks  # of the layers that are not executed sparsely


class Rewind(NamedTuple):
    """The network that a method with rewinding goes back to."""

    params: Any  # unmasked
    model_state: Any


class RunState(NamedTuple):
    """The whole state of a run; saving and restoring it continues the run bit for bit."""

    step: jax.Array  # int32[]
    params: Any  # zero outside the masks
    model_state: Any  # the model's other variables: batch statistics; links of the layers that are executed sparsely
    opt_state: Any  # slots zero outside the masks
    topology: Topology
    key: jax.Array  # never changes: every draw folds in the step
    running: Running
    diverged: jax.Array  # bool[], a training loss was not finite
    best: Best | None  # None without a validation part
    rewind: Rewind | None  # None for most methods
    average: Average | None  # of params and model_state; None without --ema

    @property
    def evaluated(self) -> Average:
        """The network that every evaluation is of, and that accset goes by; what is trained are `params`."""
        return Average(self.params, self.model_state) if self.average is None else self.average


class Tally(NamedTuple):
    """Loss and hits over a part of the data; the host divides, so that equal accuracies are equal."""

    loss: jax.Array  # float32[], mean; NaN of nothing
    correct: jax.Array  # int32[], examples


class Range(NamedTuple):
    """The least and the largest value of every neuron of a layer; NaN if one is, ∞ and −∞ over no examples."""

    low: jax.Array  # float32[neurons]
    high: jax.Array  # float32[neurons]


class Evaluation(NamedTuple):
    """What a network does on a part of the data: its tally, and what detectors of unstable training look at."""

    loss: jax.Array  # as of a Tally
    correct: jax.Array
    predicted: jax.Array  # int32[classes], examples
    ranges: dict[int, Range]  # of the values of the activation functions, by layer index


class Report(NamedTuple):
    """What one run says of itself at an evaluation."""

    train: Tally  # means over the training batches since the last report, as trained: augmented, dropout on
    train_examples: jax.Array  # int32[], in those batches
    validation: Tally  # of nothing without a validation part
    connections: jax.Array  # int32[]
    explored: jax.Array  # int32[], connections active now or at any time before
    connectivity: Connectivity | None  # None where the layers are not in series
    moved: jax.Array  # int32[], since the last report
    diverged: jax.Array  # bool[]


class TrainFns(NamedTuple):
    """The pure functions of one run; `make_train` has done all Python work."""

    init: Callable[[HyperParams, Data], RunState]
    steps: Callable[[RunState, HyperParams, Data, jax.Array], RunState]  # int32[]: how many
    update: Callable[[RunState, HyperParams, Data], RunState]
    evaluate: Callable[[Any, Any, Data, jax.Array, jax.Array], Evaluation]  # params, model_state, rows
    validate: Callable[[RunState, Data], tuple[RunState, Report]]
    update_steps: int  # training steps that an update takes the place of: 0, or 1 (RigL)
