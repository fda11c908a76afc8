"""Activation functions without parameters of their own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]


def linear(x: jax.Array) -> jax.Array:
    """x."""
    return x


def step(x: jax.Array) -> jax.Array:
    """1 for x > 0, else 0. Its gradient is 0 everywhere: the layers below it do not train."""
    return jnp.heaviside(x, 0.0)


def elish(x: jax.Array) -> jax.Array:
    """x σ(x) for x ≥ 0, else (eˣ − 1) σ(x) (Basirat and Roth 2018, arXiv:1808.00783)."""
    return jax.nn.elu(x) * jax.nn.sigmoid(x)


def hard_elish(x: jax.Array) -> jax.Array:
    """ELiSH with min(max((x + 1) / 2, 0), 1) for σ (Basirat and Roth 2018, arXiv:1808.00783)."""
    return jax.nn.elu(x) * jnp.clip((x + 1) / 2, 0, 1)


def symlog(x: jax.Array) -> jax.Array:
    """sign(x) ln(|x| + 1) (Hafner et al. 2023, arXiv:2301.04104)."""
    return _odd(jnp.log1p, x)


def symexp(x: jax.Array) -> jax.Array:
    """sign(x) (e^|x| − 1), the inverse of symlog (Hafner et al. 2023, arXiv:2301.04104). Infinite from |x| = 88.8."""
    return _odd(jnp.expm1, x)


def _odd(half: Activation, x: jax.Array) -> jax.Array:
    """half(x) for x ≥ 0, else −half(−x). sign(x) half(|x|) would have no gradient at 0."""
    negative = x < 0
    value = half(jnp.where(negative, -x, x))
    return jnp.where(negative, -value, value)


def _within_period(x: jax.Array) -> jax.Array:
    """x − 2 n in [−1, 1], exactly: π x of a large x has lost its phase, in half precision from x = 8 on."""
    return x - 2 * jnp.round(x / 2)


def all_relu(alpha: float, layer: int) -> Activation:
    """All-ReLU: x for x > 0, else ∓α x, alternating by layer (Curci et al. 2021, arXiv:2102.01732).

    The slope of the negative side is −α in the first hidden layer (`layer` 0), +α in the second, and so on.
    """
    slope = -alpha if layer % 2 == 0 else alpha
    return lambda x: jnp.where(x > 0, x, slope * x)


# Those of a WANN (Gaier and Ha 2019, arXiv:1906.04358), as its code has them: linear, step, sin_pi, gaussian, tanh,
# sigmoid, negation, abs, relu, cos_pi. σ is the sigmoid.
FIXED: dict[str, Activation] = {
    "relu": jax.nn.relu,  # max(x, 0) (Nair and Hinton 2010)
    "relu6": jax.nn.relu6,  # min(max(x, 0), 6) (Krizhevsky 2010)
    "leaky_relu": jax.nn.leaky_relu,  # x for x ≥ 0, else 0.01 x (Maas et al. 2013)
    "elu": jax.nn.elu,  # x for x > 0, else eˣ − 1 (Clevert et al. 2016, arXiv:1511.07289)
    "selu": jax.nn.selu,  # 1.0507 elu(x), with 1.6733 (eˣ − 1) below 0 (Klambauer et al. 2017, arXiv:1706.02515)
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),  # x Φ(x), Φ of N(0, 1) (Hendrycks 2016, arXiv:1606.08415)
    "swish": jax.nn.swish,  # x σ(x) (Ramachandran et al. 2017, arXiv:1710.05941)
    "hardswish": jax.nn.hard_swish,  # x relu6(x + 3) / 6 (Howard et al. 2019, arXiv:1905.02244)
    "mish": jax.nn.mish,  # x tanh(softplus(x)) (Misra 2019, arXiv:1908.08681)
    "tanh": jnp.tanh,  # (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ)
    "hardtanh": jax.nn.hard_tanh,  # min(max(x, −1), 1) (Collobert 2004)
    "sigmoid": jax.nn.sigmoid,  # σ(x) = 1 / (1 + e⁻ˣ)
    "hard_sigmoid": jax.nn.hard_sigmoid,  # relu6(x + 3) / 6 (Howard et al. 2019, arXiv:1905.02244)
    "softsign": jax.nn.soft_sign,  # x / (1 + |x|) (Bergstra et al. 2009)
    "softplus": jax.nn.softplus,  # ln(1 + eˣ) (Dugas et al. 2001)
    "logsigmoid": jax.nn.log_sigmoid,  # ln σ(x)
    "symlog": symlog,
    "symexp": symexp,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "sin_pi": lambda x: jnp.sin(jnp.pi * _within_period(x)),  # sin(π x)
    "cos_pi": lambda x: jnp.cos(jnp.pi * _within_period(x)),  # cos(π x)
    "step": step,
    "gaussian": lambda x: jnp.exp(-jnp.square(x) / 2),  # e^(−x²/2)
    "negation": jnp.negative,
    "abs": jnp.abs,
    "elish": elish,
    "hard_elish": hard_elish,
    "linear": linear,
}
