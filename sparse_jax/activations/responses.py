"""What the neurons of a network answer to examples: the values of its activation functions, if they are asked for."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict

from sparse_jax.activations.fixed import Activation

RESPONSES = "intermediates"  # the collection, by flax's name, which models give an axis for time where they have one
_MODULE, _VALUES = "response_", "values"


class Response(nn.Module):
    """The identity; what passes is added to the collection RESPONSES, where that is mutable."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        self.sow(RESPONSES, _VALUES, x)
        return x


def with_responses(activation: Callable[[int], Activation]) -> Callable[[int], Activation]:
    """The same activation functions, by layer index; a model that is applied with RESPONSES mutable returns values."""

    def of_layer(i: int) -> Activation:
        function, response = activation(i), Response(name=f"{_MODULE}{i}")
        return lambda x: response(function(x))

    return of_layer


def responses_of(collection: Mapping[str, Any]) -> dict[int, tuple[jax.Array, ...]]:
    """Layer index, in order -> float[batch, ..., neurons] of every use of the function: a cell of an LSTM has two."""
    by_layer = {int(path[-2].removeprefix(_MODULE)): uses for path, uses in flatten_dict(collection).items()}
    return dict(sorted(by_layer.items()))  # of names, 10 comes before 2
