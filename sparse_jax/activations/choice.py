"""Activation functions as data: which one a layer has, and whether it is scaled, is a variable of the network.

One compiled program then trains networks that differ in their functions, as a search over them needs.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparse_jax.activations.by_layer import ACTIVATIONS
from sparse_jax.activations.fixed import Activation
from sparse_jax.activations.learnable import LEARNABLE
from sparse_jax.activations.scaling import PARAMETERS

CHOICES = "choices"  # the collection of variables; models with loops over time share it between the steps
OPERATOR, SCALED = "operator", "scaled"
_NAME = "activation_"


Parameters = dict[str, Any]  # of the functions that have any, by name


class Operators(NamedTuple):
    """What the activation function of a layer may be."""

    names: tuple[str, ...]  # of ACTIVATIONS
    all_relu_alpha: float  # the slope of all_relu, positive
    scale: str  # of PARAMETERS: what has an α and a β of its own


class Choice(nn.Module):
    """α h(β x), h the function of the names whose index is the variable `operator`.

    α and β, which start at 1, are trained where the variable `scaled` is true. The parameters of every h that has any
    lie below `base`; those of a function that is not chosen have no gradient. Mapped one after the other, runs compute
    their own function only; where they are vmapped, all functions.
    """

    operators: Operators
    layer: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        index = self.variable(CHOICES, OPERATOR, jnp.int32, 0).value
        scaled = self.variable(CHOICES, SCALED, jnp.bool_, False).value
        alpha, beta = (self._scale(name, scaled, x) for name in ("alpha", "beta"))
        parameters = self.param("base", lambda key: self._parameters(key, x))
        return alpha * _switch(self.operators, self.layer, index, parameters, beta * x)

    def _scale(self, name: str, scaled: jax.Array, x: jax.Array) -> jax.Array:
        value = PARAMETERS[self.operators.scale](self, name, nn.initializers.ones, x)
        return jnp.where(scaled, value, jax.lax.stop_gradient(value))

    def _parameters(self, key: jax.Array, x: jax.Array) -> Parameters:
        names = [name for name in self.operators.names if name in LEARNABLE]
        keys = zip(names, jax.random.split(key, len(names)), strict=True)
        return {name: LEARNABLE[name](parent=None).init(key, x)["params"] for name, key in keys}


def _branch(operators: Operators, layer: int, name: str) -> Callable[[Parameters, jax.Array], jax.Array]:
    """(parameters by name, x) -> h(x)."""
    if name in LEARNABLE:
        return lambda parameters, x: LEARNABLE[name](parent=None).apply({"params": parameters[name]}, x)
    function = ACTIVATIONS[name](layer, operators.all_relu_alpha, name)
    return lambda parameters, x: function(x)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _switch(operators: Operators, layer: int, index: jax.Array, parameters: Parameters, x: jax.Array) -> jax.Array:
    """h(x), with a gradient that XLA compiles in half the time that it takes for that of `lax.switch`.

    h and h' come from one switch, so that no branch is there twice, and nothing is kept but x and h'(x): what a branch
    leaves behind for its gradient would be zeros of that size in all others.
    """
    branches = [_branch(operators, layer, name) for name in operators.names]
    return jax.lax.switch(index, branches, parameters, x)


def _switch_forward(
    operators: Operators, layer: int, index: jax.Array, parameters: Parameters, x: jax.Array
) -> tuple[jax.Array, tuple]:
    def with_slope(name: str) -> Callable[[Parameters, jax.Array], tuple[jax.Array, jax.Array]]:
        branch = _branch(operators, layer, name)
        return lambda parameters, x: jax.jvp(lambda x: branch(parameters, x), (x,), (jnp.ones_like(x),))

    y, slope = jax.lax.switch(index, [with_slope(name) for name in operators.names], parameters, x)
    return y, (index, parameters, x, slope)


def _switch_backward(operators: Operators, layer: int, residuals: tuple, g: jax.Array) -> tuple:
    """For x, g h'(x); for the parameters, a switch of the functions that have any."""
    index, parameters, x, slope = residuals

    def none(g: jax.Array) -> Parameters:
        return jax.tree.map(jnp.zeros_like, parameters)

    def of(name: str) -> Callable[[jax.Array], Parameters]:
        branch = _branch(operators, layer, name)
        return lambda g: jax.vjp(lambda parameters: branch(parameters, x), parameters)[1](g)[0]

    if not parameters:
        return None, parameters, g * slope
    places = {name: place for place, name in enumerate(parameters, start=1)}
    which = jnp.array([places.get(name, 0) for name in operators.names])
    return None, jax.lax.switch(which[index], [none, *map(of, parameters)], g), g * slope


_switch.defvjp(_switch_forward, _switch_backward)


def by_choice(operators: Operators) -> Callable[[int], Activation]:
    """What a model takes as its `activation`: layer index -> callable, whose function is a variable."""
    return lambda i: Choice(operators, i, name=f"{_NAME}{i}")


def chosen(choices: Any, operator: jax.Array, scaled: jax.Array) -> Any:
    """The collection CHOICES of a network with these functions.

    Args:
      choices: the collection, as a network has it when it is made.
      operator: int32[layers], the index of the function of every layer.
      scaled: bool[], whether α and β are trained.
    """

    def value(path: tuple, leaf: jax.Array) -> jax.Array:
        *_, layer, variable = (key.key for key in path)
        return scaled if variable == SCALED else operator[int(layer.removeprefix(_NAME))]

    return jax.tree_util.tree_map_with_path(value, choices)


class Learned(NamedTuple):
    """The function of one layer of a trained network."""

    alpha: list[float]  # one, or one a neuron
    beta: list[float]
    curve: list[float]  # its values, on average over neurons where these have parameters of their own


def learned(operators: Operators, variables: Mapping[str, Any], x: jax.Array) -> list[Learned]:
    """The functions of a network, layer by layer, at some places.

    Args:
      operators: of the network's program.
      variables: its params and its model_state, on the host.
      x: float32[n], the places.
    """
    params, choices = _by_layer(variables["params"]), _by_layer(variables["model_state"][CHOICES])
    return [_learned(operators, i, params[i], choices[i], x) for i in sorted(params)]


def _by_layer(tree: Mapping[str, Any]) -> dict[int, Any]:
    """What lies below the module of every layer, wherever in the tree that is."""
    found = {}
    for name, value in tree.items():
        if name.startswith(_NAME):
            found[int(name.removeprefix(_NAME))] = value
        elif isinstance(value, Mapping):
            found |= _by_layer(value)
    return found


@partial(jax.jit, static_argnums=(0, 1))
def _apply(operators: Operators, layer: int, variables: Any, x: jax.Array) -> jax.Array:
    return Choice(operators, layer).apply(variables, x)


def _learned(operators: Operators, layer: int, params: Any, choices: Any, x: jax.Array) -> Learned:
    neurons = max((jnp.size(leaf) for leaf in jax.tree.leaves(params)), default=1)
    variables = {"params": params, CHOICES: choices}
    values = _apply(operators, layer, variables, jnp.broadcast_to(x[:, None], (x.size, neurons)))
    alpha, beta = (jnp.ravel(params[name]).tolist() for name in ("alpha", "beta"))
    return Learned(alpha, beta, jnp.mean(values, axis=1).tolist())
