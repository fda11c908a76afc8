"""First masks from an untrained network: scores of its maskable connections, of which the largest are kept.

Magnitude, SNIP and GraSP rank once: `topology.initial.from_scores` turns their scores into masks. SynFlow ranks
again and again and returns masks. All are functions of one network, and of its model only through a closure
`params -> loss, logits or outputs`. `names` are those of the maskable kernels.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sparse_jax.topology.initial import from_scores, from_scores_globally
from sparse_jax.topology.masks import Counts, Masks, Weights, apply_masks, name_of, put, select

GRASP_TEMPERATURE = 200.0  # of the paper
SYNFLOW_ROUNDS = 100  # of the paper
SYNFLOW_LEVEL = 2.0**-110  # of inputs and outputs beside shortcuts: R · 2⁻²²⁰ is in float32 for R up to 10⁷⁰


def magnitude(params: Any, names: Collection[str]) -> Weights:
    """|w|."""
    return jax.tree.map(jnp.abs, select(params, names))


def snip(loss: Callable[[Any], jax.Array], params: Any, names: Collection[str]) -> Weights:
    """The connection sensitivity of SNIP (Lee et al. 2019, arXiv:1810.02340, section 4.1).

        s_j = |∂L(c ⊙ w)/∂c_j| at c = 1 = |w_j ∂L/∂w_j|

    The paper divides by Σ_k s_k, which changes no rank and is left out.

    Args:
      loss: params -> float32[], L on one mini-batch.
      params: of the untrained network.
      names: of the maskable kernels.

    Returns:
      name to float32[...], at least 0.
    """
    gradients = select(jax.grad(loss)(params), names)
    return jax.tree.map(lambda w, g: jnp.abs(w * g), select(params, names), gradients)


def grasp(
    logits: Callable[[Any], jax.Array], labels: jax.Array, params: Any, names: Collection[str], temperature: float
) -> Weights:
    """How much a connection adds to the gradient flow (GraSP, Wang et al. 2020, arXiv:2002.07376).

        g = ∂L/∂w,   H = ∂²L/∂w²,   s = w ⊙ H g,   L = cross entropy of softmax(logits / T)

    To take w_j away changes gᵀg by −2 w_j (H g)_j to first order. The paper removes the largest S(−w) = −w ⊙ H g;
    s = −S(−w), so that the largest s are kept. g and H are of the kernels `names` alone, as in the paper's code,
    which leaves out biases and normalisation. H g is the derivative of ∂L/∂w along g, forward over reverse, on the
    batch of g. Departures from that code: it normalises by |Σ s|, which changes no rank, and draws the weights of
    fully connected layers anew for the scores; here they are scored as they are.

    Args:
      logits: params -> float32[batch, classes], on one mini-batch.
      labels: int32[batch].
      params: of the untrained network.
      names: of the maskable kernels.
      temperature: T, positive.

    Returns:
      name to float32[...], of either sign.
    """

    def loss(weights):
        scaled = logits(put(params, weights)) / temperature
        return optax.softmax_cross_entropy_with_integer_labels(scaled, labels).mean()

    weights, gradient = select(params, names), jax.grad(loss)
    _, product = jax.jvp(gradient, (weights,), (gradient(weights),))
    return jax.tree.map(jnp.multiply, weights, product)


def synaptic_flow(forward: Callable[[Any], jax.Array], params: Any, masks: Masks, in_series: bool) -> Weights:
    """The share of every connection in the flow through a network (Tanaka et al. 2020, arXiv:2006.05467, section 6).

        s = |w| ⊙ ∂R/∂|w|,   R = 1ᵀ |W_L| ⋯ |W_2| |W_1| 1

    Biases are taken as 0 and every other leaf by its absolute value. `forward` sees such parameters and must be
    linear in its input: linear activations, ones as input, batch normalisation at its initial statistics
    (train=False; with scale 1 it only divides by √(1 + ε)). The authors' code takes the biases by their absolute
    value; then the flow is no longer conserved.

    R of a deep network leaves float32. Let every path from input to output pass every kernel once: the kernels are
    `in_series`. Then R is linear in each kernel, and kernels W_l / a_l give the flow R / Π a_l and the scores
    s / Π a_l. The factor is common to all layers, so no rank changes, and as the a_l are powers of two, not a bit
    of the significands does. Beside a shortcut the factor of a path depends on its kernels; there, and where
    kernels recur, the ranking is the paper's only without rescaling. There `forward` may begin and end with
    SYNFLOW_LEVEL, which is a common factor, too; for what is beyond, flags are refused (`study.counts`).

    Args:
      forward: params -> float32[...], the outputs.
      params: of the untrained network.
      masks: name to bool[...], of the maskable kernels; the flow passes active connections only.
      in_series: whether every path passes every kernel once, which allows for rescaling. Static.

    Returns:
      name to float32[...], at least 0 and exactly 0 outside the masks; up to one common factor if in series.
    """
    positive = apply_masks(jax.tree_util.tree_map_with_path(_without_sign, params), masks)
    if in_series:
        positive = jax.tree.map(_unit_gain, positive)
    gradients = jax.grad(lambda params: jnp.sum(forward(params)))(positive)
    return jax.tree.map(jnp.multiply, select(positive, masks), select(gradients, masks))


def _without_sign(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    return jnp.zeros_like(leaf) if name_of(path).endswith("bias") else jnp.abs(leaf)


def _unit_gain(kernel: jax.Array) -> jax.Array:
    """A kernel, at least 0, divided by the power of two nearest to a bound on its gain; vectors as they are.

        ‖|W| x‖₂ ≤ √(max_i Σ_j |w_ij| · max_j Σ_i |w_ij|) ‖x‖₂    (Schur's test)

    The bound is sharp for equal weights of regular in- and out-degree. A convolution counts as the matrix of the
    sums over its window.
    """
    if kernel.ndim < 2:
        return kernel
    matrix = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
    gain = jnp.sqrt(matrix.sum(axis=0).max()) * jnp.sqrt(matrix.sum(axis=1).max())
    _, exponent = jnp.frexp(math.sqrt(2) * gain)  # 2^(exponent − 1) is the power nearest to the gain; 0 of 0
    return jnp.ldexp(kernel, 1 - exponent)


def synflow(
    forward: Callable[[Any], jax.Array], params: Any, names: Collection[str], counts: Counts, rounds: int,
    in_series: bool,
) -> Masks:  # fmt: skip
    """The masks of SynFlow, every layer with its own count: each round ranks the connections of each layer.

    Args:
      forward: params -> float32[...], see `synaptic_flow`.
      params: of the untrained network.
      names: of the maskable kernels.
      counts: name to int32[], may be traced.
      rounds: n, at least 1. Static.
      in_series: see `synaptic_flow`. Static.

    Returns:
      name to bool[...], with exactly counts[name] set.
    """

    def keep(scores, progress):
        return from_scores(scores, {name: _left(s.size, counts[name], progress) for name, s in scores.items()})

    return _prune(forward, params, names, keep, rounds, in_series)


def synflow_globally(
    forward: Callable[[Any], jax.Array], params: Any, names: Collection[str], total: jax.Array, rounds: int,
    in_series: bool,
) -> Masks:  # fmt: skip
    """The masks of SynFlow as published (Tanaka et al. 2020, algorithm 1): all connections compete.

    The scores of every layer sum to R, so that the fewer connections a layer has left, the more each counts; with
    enough rounds no layer loses its last connection while another can spare one (their theorem 3).

    Args:
      total: int32[], connections of all layers together, may be traced. The others are those of `synflow`.

    Returns:
      name to bool[...], with exactly `total` set.
    """

    def keep(scores, progress):
        return from_scores_globally(scores, _left(sum(s.size for s in scores.values()), total, progress))

    return _prune(forward, params, names, keep, rounds, in_series)


def _left(size: int, count: jax.Array, progress: jax.Array) -> jax.Array:
    """int32[], ⌈size · (count / size)^progress⌉, exactly `count` at progress 1."""
    left = jnp.ceil(size * (count / size) ** progress).astype(jnp.int32)
    return jnp.where(progress < 1, left, count)


def _prune(
    forward: Callable[[Any], jax.Array],
    params: Any,
    names: Collection[str],
    keep: Callable[[Weights, jax.Array], Masks],
    rounds: int,
    in_series: bool,
) -> Masks:
    """Rounds k = 1..n: the flow through what is left is scored, and `keep` chooses for the progress k/n."""

    def prune(i, masks):
        scores = synaptic_flow(forward, params, masks, in_series)
        alive = jax.tree.map(lambda mask, score: jnp.where(mask, score, -1), masks, scores)  # what went stays away
        return keep(alive, (i + 1) / rounds)

    everything = jax.tree.map(lambda w: jnp.ones(w.shape, bool), select(params, names))
    return lax.fori_loop(0, rounds, prune, everything)
