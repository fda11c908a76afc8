"""Ranking by several objectives at once: NSGA-II (Deb et al. 2002, doi:10.1109/4235.996017), with static shapes."""

import jax
import jax.numpy as jnp
from jax import lax


def dominated_by(objectives: jax.Array) -> jax.Array:
    """bool[n, n], whether individual i is dominated by j.

        j dominates i  ⇔  ∀m f_m(j) ≥ f_m(i)  and  ∃m f_m(j) > f_m(i)

    Args:
      objectives: float[n, m], larger is better, without NaN.
    """
    ours, theirs = objectives[:, None], objectives[None]
    return jnp.all(theirs >= ours, axis=2) & jnp.any(theirs > ours, axis=2)


def fronts(objectives: jax.Array) -> jax.Array:
    """int32[n], the front of every individual: 0 is dominated by nobody, 1 by those of front 0 only, and so on.

    Args:
      objectives: float[n, m], larger is better, without NaN.
    """
    dominated = dominated_by(objectives)

    def peel(state):
        front, number = state
        left = front < 0
        first = left & ~jnp.any(dominated & left[None], axis=1)
        return jnp.where(first, number, front), number + 1

    start = jnp.full(objectives.shape[0], -1, jnp.int32), jnp.int32(0)
    return lax.while_loop(lambda state: jnp.any(state[0] < 0), peel, start)[0]


def crowding(objectives: jax.Array, front: jax.Array) -> jax.Array:
    """float[n], the crowding distance of every individual within its front; infinite at the ends of an objective.

        d(i) = Σ_m (f_m(next i) − f_m(previous i)) / (max f_m − min f_m)

    neighbours, maximum and minimum are those of the front [ours: the paper does not say of whom the extremes are],
    equal values in the order of the individuals. Where all values are equal the middle ones add 0.

    Args:
      objectives: float[n, m], finite.
      front: int32[n], as `fronts` has them.
    """
    n = front.size

    def of_one(values: jax.Array) -> jax.Array:
        order = jnp.lexsort((values, front))
        value, of = values[order], front[order]
        low = jax.ops.segment_min(value, of, n, indices_are_sorted=True)[of]
        high = jax.ops.segment_max(value, of, n, indices_are_sorted=True)[of]
        edge = of[1:] != of[:-1]
        end = jnp.concatenate([jnp.ones(1, bool), edge]) | jnp.concatenate([edge, jnp.ones(1, bool)])
        gap = jnp.roll(value, -1) - jnp.roll(value, 1)
        distance = jnp.where(high > low, gap / jnp.where(high > low, high - low, 1), 0)
        return jnp.zeros(n, values.dtype).at[order].set(jnp.where(end, jnp.inf, distance))

    return jnp.sum(jax.vmap(of_one, 1)(objectives), axis=0)


def ranking(objectives: jax.Array) -> jax.Array:
    """int32[n], the individuals from the best to the worst: by front, then the less crowded first, then by index.

    Args:
      objectives: float[n, m], larger is better, finite.
    """
    front = fronts(objectives)
    return jnp.lexsort((-crowding(objectives, front), front)).astype(jnp.int32)
