"""Sparse training of your own network in your own loop: a convolutional network with batch norm, by RigL.

    python configs/tutorials/own_convnet.py      (with sparse_jax installed: pip install -e .)

Three lines make a dense training loop a sparse one: `make_sparsifier`, `init`, and the choice between `step` and
`update`. Batch norm, biases and the optimiser need nothing: only the kernels that `layers` finds get masks.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from sparse_jax.sparsify import make_sparsifier

STEPS, BATCH, TRAIN = 600, 64, 1500


class ConvNet(nn.Module):
    """Two convolutions with batch norm, and a linear layer."""

    @nn.compact
    def __call__(self, x, train):
        for features in (32, 64):
            x = nn.Conv(features, (3, 3))(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


def main() -> float:
    """Train at 95 % sparsity; returns the accuracy on the images that training has not seen."""
    digits = load_digits()
    x, y = jnp.float32(digits.images / 16)[..., None], jnp.int32(digits.target)
    model = ConvNet()
    key, init_key, batch_key = jax.random.split(jax.random.key(0), 3)  # the sparsifier has one of its own
    variables = model.init(init_key, x[:1], train=False)
    params, batch_stats = variables["params"], variables["batch_stats"]

    # The first convolution stays dense; all other kernels share the connections as Erdős-Rényi-Kernel has them.
    sparsifier = make_sparsifier(
        params,
        optax.adamw(optax.cosine_decay_schedule(3e-3, STEPS)),
        steps=STEPS,
        method="rigl",
        sparsity=0.95,
        allocation="erk",
        dense_layers="^Conv_0",
        interval=20,
    )
    network = sparsifier.init(key, params)

    @jax.jit
    def gradients(params, batch_stats, step):
        rows = jax.random.randint(jax.random.fold_in(batch_key, step), (BATCH,), 0, TRAIN)

        def loss_fn(params):
            variables = {"params": params, "batch_stats": batch_stats}
            logits, changed = model.apply(variables, x[rows], train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean(), changed["batch_stats"]

        return jax.grad(loss_fn, has_aux=True)(params)

    step_fn, update_fn = jax.jit(sparsifier.step), jax.jit(sparsifier.update)
    for step in range(STEPS):
        grads, batch_stats = gradients(network.params, batch_stats, step)
        move = update_fn if sparsifier.update_due(step) else step_fn
        network = move(key, step, network, grads)

    for name, count in sparsifier.connections(network).items():
        print(f"{name:16} {count:6,} of {network.topology.masks[name].size:6,} connections")
    logits = model.apply({"params": network.params, "batch_stats": batch_stats}, x[TRAIN:], train=False)
    accuracy = float((logits.argmax(-1) == y[TRAIN:]).mean())
    print(f"accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
