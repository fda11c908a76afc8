"""Sparse training of a small transformer in your own loop, by SET, with the whole loop compiled.

    python configs/tutorials/own_transformer.py      (with sparse_jax installed: pip install -e .)

Attention kernels of flax have three axes: `input_axes` says which of them are inputs, so that the allocation sees the
matrices they are. The steps between two topology updates run in one compiled `lax.fori_loop`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from sparse_jax.sparsify import make_sparsifier

STEPS, INTERVAL, BATCH, TRAIN = 500, 25, 64, 1500


class Transformer(nn.Module):
    """Two encoder blocks over the eight rows of an image."""

    width: int = 48

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width, name="embed")(x)
        x += self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for _ in range(2):
            x += nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
            hidden = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x += nn.Dense(self.width)(hidden)
        return nn.Dense(10, name="head")(nn.LayerNorm()(x).mean(1))


def main() -> float:
    """Train at 80 % sparsity; returns the accuracy on the images that training has not seen."""
    digits = load_digits()
    x, y = jnp.float32(digits.images / 16), jnp.int32(digits.target)
    model = Transformer()
    key, init_key, batch_key = jax.random.split(jax.random.key(0), 3)  # the sparsifier has one of its own
    params = model.init(init_key, x[:1])["params"]
    sparsifier = make_sparsifier(
        params,
        optax.adamw(optax.cosine_decay_schedule(3e-3, STEPS)),
        steps=STEPS,
        method="set",
        sparsity=0.8,
        interval=INTERVAL,
        dense_layers="embed|head",
        input_axes={"(query|key|value)/kernel$": 1},  # one axis of inputs, two of outputs: heads, and their width
    )

    def gradients(params, step):
        rows = jax.random.randint(jax.random.fold_in(batch_key, step), (BATCH,), 0, TRAIN)

        def loss_fn(params):
            logits = model.apply({"params": params}, x[rows])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

        return jax.grad(loss_fn)(params)

    @jax.jit
    def steps(network, first, last):
        def one(step, network):
            return sparsifier.step(key, step, network, gradients(network.params, step))

        return jax.lax.fori_loop(first, last, one, network)

    @jax.jit
    def update(network, step):
        return sparsifier.update(key, step, network, gradients(network.params, step))

    network = sparsifier.init(key, params)
    done = 0
    for due in [step for step in range(STEPS) if sparsifier.update_due(step)]:
        network = update(steps(network, done, due), due)
        done = due + 1
    network = steps(network, done, STEPS)

    counts = sparsifier.connections(network)
    print(f"{sum(counts.values()):,} connections in {len(counts)} kernels")
    accuracy = float((model.apply({"params": network.params}, x[TRAIN:]).argmax(-1) == y[TRAIN:]).mean())
    print(f"accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
