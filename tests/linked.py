"""What is executed sparsely, seen as dense arrays: what holds for masks is checked on both executions alike."""

import numpy as np
import optax

from sparse_jax.sparse.links import Links, inputs_of_slots
from sparse_jax.topology.masks import mask_tree, put, select
from sparse_jax.training.parts import links_of


def scattered(links: Links, values) -> np.ndarray:
    """The values of slots in the shape of the kernel; asserts that empty slots have none, and that all is sorted."""
    values, n = np.asarray(values), int(links.input_starts[-1])
    at = np.asarray(inputs_of_slots(links))[:n], np.asarray(links.outputs)[:n]
    assert (np.diff(np.ravel_multi_index(at, links.shape)) > 0).all()
    assert not values[n:].any()
    kernel = np.zeros(links.shape, values.dtype)
    kernel[at] = values[:n]
    return kernel


def view_of(tx: optax.GradientTransformation, state):
    """The state with kernels, masks and slots of the kernels' shapes; of what is executed masked it is the state."""
    links = links_of(state.model_state)
    if not links:
        return state

    def params_of(network):
        now = links_of(network.model_state)
        return put(network.params, {name: scattered(now[name], w) for name, w in select(network.params, now).items()})

    # links are no leaves: a tree of the parameters has them as one object each
    layers = mask_tree(state.params, {name: _Opaque(of_layer) for name, of_layer in links.items()})
    opt_state = optax.tree.map_params(
        tx, lambda slot, layer: slot if layer is True else scattered(layer.links, slot), state.opt_state, layers
    )
    masks = {name: scattered(of_layer, state.topology.masks[name]) for name, of_layer in links.items()}
    return state._replace(
        params=params_of(state),
        opt_state=opt_state,
        topology=state.topology._replace(masks=state.topology.masks | masks),
        average=state.average and state.average._replace(params=params_of(state.average)),
    )


class _Opaque:
    """Links as a leaf."""

    def __init__(self, links: Links):
        self.links = links
