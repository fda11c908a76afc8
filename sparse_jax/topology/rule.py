"""What a method of topology evolution is, and the topology that it evolves."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax

from sparse_jax.topology.criteria import Criterion, Signals
from sparse_jax.topology.masks import Counts, Masks, Weights
from sparse_jax.topology.patterns import Pattern
from sparse_jax.topology.schedules import Course


class Rule(NamedTuple):
    """A method of topology evolution, for one run. What the law suite checks is read from here."""

    drop: Criterion
    grow: Criterion
    drop_fraction: Callable[[jax.Array], jax.Array]  # progress in [0, 1] -> fraction in [0, 1]
    groups: Callable[[Signals], tuple[jax.Array, ...]]  # who competes for survival, a partition of the active
    remove: Literal["none", "fraction", "below_zero", "below_threshold", "all"]
    count: Literal["constant", "schedule", "accuracy", "extra"]
    density: Callable[[Course, jax.Array], jax.Array]  # of a schedule: share of start − final still there
    gain: Callable[[jax.Array, jax.Array], jax.Array]  # of accuracy: (accuracy, best before) -> g
    scope: str  # layer, global, or what shares the growth out among the layers
    pattern: Pattern
    regrow: bool  # False: what was just dropped grows only where there is no other place
    birth: str
    update: Literal["never", "after_step", "instead_of_step"]
    rates: Mapping[str, jax.Array]  # float32[] by name
    outputs: str  # the layer whose neurons are the network's outputs: they are never cut off
    ablation: float = 0.0  # of SRigL; static
    importance_pruning: float = 0.0  # share of the neurons; static
    grows: bool = True  # False: new masks lie within the old ones
    masked: bool = True  # False: the method has no masks at all
    backward: bool = False  # True: more connections are trained than used (Top-KAST)
    walks: bool = False  # True: weights also take a random walk (DeepR)
    rewind: Literal["no", "weights", "rate"] = "no"

    @property
    def needs(self) -> frozenset[str]:
        """The optional signals that an update looks at."""
        others = {
            "gradient": self.scope == "gradient" or self.birth == "gradient",
            "momentum": self.scope == "momentum",
        }
        return self.drop.needs | self.grow.needs | {name for name, needed in others.items() if needed}


class Topology(NamedTuple):
    """The masks of a network and what is remembered of earlier ones; None where the method needs it not.

    Of a layer that is executed sparsely all is by slot, and the mask says which slots hold a connection.
    """

    masks: Masks  # empty for a dense network
    explored: Masks  # active now or at any time before; without the layers that are executed sparsely
    counts: Counts  # int32[] by layer, the connections a layer is entitled to under a constant count
    accuracy: jax.Array  # float32[], the best at earlier updates; -1 if none
    threshold: jax.Array  # float32[], the |w| below which DSR drops
    momentum: Weights | None  # running mean of the dense gradients
    positive: Masks | None  # the sign that each connection may have
    latent: Weights | None  # values of the connections that are not used, zero inside the masks
    backward: Masks | None  # the connections that are trained, a superset of the masks
    alive: Masks | None  # bool[outputs] by layer, neurons that were not cut off

    @property
    def trained(self) -> Masks:
        """The connections that an optimiser step changes: those of the masks, or more (Top-KAST)."""
        return self.masks if self.backward is None else self.backward
