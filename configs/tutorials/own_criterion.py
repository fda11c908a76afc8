"""A criterion of your own: connections grow at random, but the likelier the larger their gradient is.

    python configs/tutorials/own_criterion.py      (with sparse_jax installed: pip install -e .)

SET grows anywhere, RigL where the gradient is largest; this is between them. A criterion is a pure function of the
signals of a layer, which `make_sparsifier` takes as `drop` or `grow`. Five networks, each with its own masks, train in
one program: the functions of a sparsifier are vmapped like any other. For launch/train.py the same function is an entry
of `GROW` in sparse_jax/topology/criteria.py, and its name one in sparse_jax/config.py.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from sparse_jax.sparsify import make_sparsifier
from sparse_jax.topology.criteria import Criterion, Signals

STEPS, INTERVAL, BATCH, TRAIN, SEEDS, SPARSITY = 600, 30, 64, 1500, 5, 0.98


def sampled_gradient(key: jax.Array, signals: Signals) -> jax.Array:
    """log |∂L/∂w| + Gumbel noise: the k largest are k draws without replacement, in proportion to the gradient."""
    return jnp.log(jnp.abs(signals.gradient) + 1e-12) + jax.random.gumbel(key, signals.mask.shape)


GROW = {
    "random": {},
    "gradient": {"grow_score": "gradient"},
    "sampled gradient": {"grow": Criterion(sampled_gradient, needs=frozenset({"gradient"}))},
}


class Network(nn.Module):
    """Two hidden layers."""

    @nn.compact
    def __call__(self, x):
        for width in (200, 100):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


def accuracies(**settings: Any) -> jax.Array:
    """Of every seed under a method of these settings, on the images that training has not seen; float32[SEEDS]."""
    digits = load_digits()
    x, y = jnp.float32(digits.data / 16), jnp.int32(digits.target)
    model = Network()
    params = jax.vmap(lambda key: model.init(key, x[:1])["params"])(jax.random.split(jax.random.key(1), SEEDS))
    keys, batch_key = jax.random.split(jax.random.key(2), SEEDS), jax.random.key(3)
    one = jax.eval_shape(lambda: model.init(batch_key, x[:1])["params"])
    settings = {"method": "set_magnitude", "sparsity": SPARSITY, "interval": INTERVAL} | settings
    sparsifier = make_sparsifier(one, optax.adam(3e-3), steps=STEPS, **settings)

    def loss(params, step):
        rows = jax.random.randint(jax.random.fold_in(batch_key, step), (BATCH,), 0, TRAIN)
        logits = model.apply({"params": params}, x[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    def moved(move):
        """All networks by one move of the sparsifier."""
        each = jax.vmap(lambda key, step, net: move(key, step, net, jax.grad(loss)(net.params, step)), (0, None, 0))
        return jax.jit(each)

    step_fn, update_fn = moved(sparsifier.step), moved(sparsifier.update)
    networks = jax.vmap(sparsifier.init)(keys, params)
    for step in range(STEPS):
        networks = (update_fn if sparsifier.update_due(step) else step_fn)(keys, step, networks)
    named = jax.vmap(lambda params: model.apply({"params": params}, x[TRAIN:]).argmax(-1))(networks.params)
    return (named == y[TRAIN:][None]).mean(1)


def main() -> float:
    """Compare three ways to grow over the same seeds; returns the mean accuracy of ours."""
    found = {name: accuracies(**settings) for name, settings in GROW.items()}
    for name, values in found.items():
        print(f"{name:18} {values.mean():.4f}   by seed {' '.join(f'{value:.4f}' for value in values)}")
    return float(found["sampled gradient"].mean())


if __name__ == "__main__":
    main()
