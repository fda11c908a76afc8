"""Activation functions with trainable parameters: linen modules, never masked and without weight decay.

Every parameter has one entry a neuron, the last axis of the input. σ is the sigmoid.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

LARGEST_EXPONENT = 60.0  # e⁶⁰ is 1e26: float32 holds it, and its products with gradients


def _uniform(low: float, high: float) -> nn.initializers.Initializer:
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, low, high)


def per_neuron(module: nn.Module, name: str, init: nn.initializers.Initializer, x: jax.Array) -> jax.Array:
    """A parameter for each entry of the last axis of x, with the rank and the dtype of x."""
    value = module.param(name, init, x.shape[-1:]).astype(x.dtype)
    return value.reshape((1,) * (x.ndim - 1) + value.shape)


def _from(module: nn.Module, name: str, start: float, x: jax.Array) -> jax.Array:
    return per_neuron(module, name, nn.initializers.constant(start), x)


def _clipped(value: jax.Array, low: float | jax.Array, high: float | None) -> jax.Array:
    """A parameter within its bounds. Gradients pass, so that one beyond a bound can come back."""
    return lax.stop_gradient(jnp.clip(value, low, high)) + (value - lax.stop_gradient(value))


class SReLU(nn.Module):
    """S-shaped ReLU, four parameters a neuron (Jin et al. 2016, arXiv:1512.07030, eq. 1).

        y = t_r' + a_r (x − t_r')  for x ≥ t_r',      t_r' = t_l + |t_r|
            x                      between
            t_l + a_l (x − t_l)    for x ≤ t_l

    The start t_l = 0, a_l ~ U(0, 1), t_r ~ U(0, 5), a_r = 1 and the form of t_r', which keeps it right of
    t_l, are those of the code of Mocanu et al. 2018; Jin et al. freeze the start for some epochs instead.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        t_left = per_neuron(self, "t_left", nn.initializers.zeros, x)
        a_left = per_neuron(self, "a_left", _uniform(0, 1), x)
        t_right = t_left + jnp.abs(per_neuron(self, "t_right", _uniform(0, 5), x))
        a_right = per_neuron(self, "a_right", nn.initializers.ones, x)
        left = t_left + a_left * (x - t_left)
        right = t_right + a_right * (x - t_right)
        return jnp.where(x <= t_left, left, jnp.where(x >= t_right, right, x))


class PReLU(nn.Module):
    """x for x > 0, else a x, with a slope a per neuron from 0.25 on (He et al. 2015, arXiv:1502.01852)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = _from(self, "slope", 0.25, x)
        return jnp.where(x > 0, x, slope * x)


class SwishBeta(nn.Module):
    """x σ(β x), with β from 1 on (Ramachandran et al. 2017, arXiv:1710.05941)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x * jax.nn.sigmoid(_from(self, "beta", 1, x) * x)


class ACON(nn.Module):
    """ACON-C (Ma et al. 2021, arXiv:2009.04759).

        (p₁ − p₂) x σ(β (p₁ − p₂) x) + p₂ x

    It starts as swish: p₁ = 1, p₂ = 0, β = 1. The authors' code draws p₁ and p₂ from N(0, 1). Where p₁ = p₂ it is
    linear, p₂ x, the identity for 1.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        p1, p2 = _from(self, "p1", 1, x), _from(self, "p2", 0, x)
        difference = (p1 - p2) * x
        return difference * jax.nn.sigmoid(_from(self, "beta", 1, x) * difference) + p2 * x


class TanhSoft1(nn.Module):
    """tanh(α x) softplus(x), with α from 0.87 on, the constant of Biswas et al. 2020 (arXiv:2009.03863)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(_from(self, "alpha", 0.87, x) * x) * jax.nn.softplus(x)


class TanhSoft2(nn.Module):
    """x tanh(β e^{γ x}), with β from 0.6 and γ from 1 on, the constants of Biswas et al. 2020 (arXiv:2009.03863).

    The exponent stops at 60, where tanh is ±1 for any |β| above 1e-25: an infinite one would have gradients 0 · ∞.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        beta, gamma = _from(self, "beta", 0.6, x), _from(self, "gamma", 1, x)
        return x * jnp.tanh(beta * jnp.exp(jnp.minimum(gamma * x, LARGEST_EXPONENT)))


class SRS(nn.Module):
    """Soft-Root-Sign (Zhou et al. 2020, arXiv:2003.00547), with α from 5 and β from 3 on.

        x / (x/α + e^{−x/β})  =  x e^{x/β} / ((x/α) e^{x/β} + 1)

    The first form serves x ≥ 0 and the second x < 0, so that no power of e is above 1. The denominator has its least
    value (1 + ln(α/β)) β/α at x = −β ln(β/α), and a zero if α ≤ β/e. So β is taken as at least 0.1, and α as at
    least β/2 [ours]; within these bounds the parameters are those of the formula.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        beta = _clipped(_from(self, "beta", 3, x), 0.1, None)
        alpha = _clipped(_from(self, "alpha", 5, x), beta / 2, None)
        negative = x < 0
        power = jnp.exp(jnp.where(negative, x, -x) / beta)
        scaled = jnp.where(negative, x * power, x)
        return scaled / (scaled / alpha + jnp.where(negative, 1, power))


class FALU(nn.Module):
    """Fractional Adaptive Linear Unit (Zamora et al. 2022, doi:10.1609/aaai.v36i8.20882), near Dᵅ x σ(β x).

        g + α σ(βx) (1 − g)          for α in [0, 1],      g = x σ(βx)
        h + (α − 1) σ(βx) (1 − 2h)   for α in (1, 2],      h = g + σ(x) (1 − g)

    α is clipped to [0, 2] and β to [1, 10]; their start α = 0, β = 1 is swish [ours]. The second line is that of
    Alijani and Molek (arXiv:2310.11875), who found the published one to be off: surveys quote g + α σ(βx) (1 − 2h).
    The lines meet at α = 1 if β = 1; otherwise there is a step.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        alpha = _clipped(_from(self, "alpha", 0, x), 0, 2)
        gate = jax.nn.sigmoid(_clipped(_from(self, "beta", 1, x), 1, 10) * x)
        g = x * gate
        h = g + jax.nn.sigmoid(x) * (1 - g)
        return jnp.where(alpha <= 1, g + alpha * gate * (1 - g), h + (alpha - 1) * gate * (1 - 2 * h))


LEARNABLE: dict[str, type[nn.Module]] = {
    "srelu": SReLU,
    "prelu": PReLU,
    "swish_beta": SwishBeta,
    "acon": ACON,
    "tanhsoft_1": TanhSoft1,
    "tanhsoft_2": TanhSoft2,
    "srs": SRS,
    "falu": FALU,
}
