"""How many connections a share of them is, where programs compute it in float32. Imports no jax."""

import math

import numpy as np

_ULP = 2.0**-23  # of a number and of a product: half of it each


def most_of(share: float, count: int) -> int:
    """At least ⌊s n⌋ as float32 has it, for every s up to the share and n up to the count."""
    return math.floor(float(np.float32(share)) * count * (1 + 2 * _ULP))
