"""One-time pruning of a finished run: the mask file of its largest trained weights."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.config import RunConfig
from sparse_jax.errors import UserError
from sparse_jax.study.finished import find
from sparse_jax.study.make_topology import check_out, write
from sparse_jax.study.trained import FINAL, load
from sparse_jax.study.transplant import dense_kernels
from sparse_jax.topology.allocation import allocate
from sparse_jax.topology.initial import from_scores, from_scores_globally
from sparse_jax.topology.masks import Masks, Weights
from sparse_jax.training.problem import masked_names

SCOPES = ("layer", "global")
DEVIATIONS = "std"  # after a threshold that is in standard deviations


class Request(NamedTuple):
    """What the command line says."""

    threshold: str | None  # of |w|, or in standard deviations of each layer as 1.5std
    sparsity: float | None  # of the layers that are pruned
    scope: str  # who is ranked together, for a sparsity
    dense_layers: str  # regular expression


def prune(paths: Sequence[str], request: Request) -> int:
    """Write the masks of the weights that stay, and print how many these are.

    Args:
      paths: a finished run, then a new mask file or folder of MatrixMarket files.
      request: of the command line.

    Returns:
      the exit status, 0.

    Raises:
      UserError: for anything wrong with these; nothing has been written then.
    """
    if len(paths) != 2:
        raise UserError("prune takes two paths: the folder of a finished run, and a new .npz or a new folder with /")
    if (request.threshold is None) == (request.sparsity is None):
        raise UserError("how much? One of --threshold=0.05, --threshold=1.5std and --sparsity=0.9 says so")
    threshold, relative = (None, False) if request.threshold is None else _threshold(request.threshold)
    if request.scope not in SCOPES:
        raise UserError(f"--scope={request.scope}: one of {', '.join(SCOPES)}")
    run, _ = find(paths[0]), check_out(paths[1])
    jax.config.update("jax_platforms", "cpu")
    trained = load(run, FINAL)
    kernels = dense_kernels(trained)
    pruned = masked_names(RunConfig(dense_layers=request.dense_layers), {name: w.shape for name, w in kernels.items()})
    weights = {name: kernel for name, kernel in kernels.items() if name in pruned}
    masks = _to_sparsity(weights, request) if threshold is None else above(weights, threshold, relative)
    if fewer := [name for name, mask in masks.items() if trained.connections.get(name, mask.size) < mask.sum()]:
        raise UserError(f"{paths[0]} has fewer connections in {', '.join(map(_short, fewer))} than that: prune more")
    if empty := [name for name, mask in masks.items() if not mask.any()]:
        layers = ", ".join(map(_short, empty))
        raise UserError(f"nothing would be left of {layers}: prune less, or exempt it by --dense_layers")
    write(paths[1], jax.device_get(masks), [])
    return 0


def _threshold(text: str) -> tuple[float, bool]:
    """The number, and whether it is in standard deviations. Raises UserError for what is none."""
    relative = text.endswith(DEVIATIONS)
    try:
        value = float(text.removesuffix(DEVIATIONS))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UserError(f"--threshold={text} is neither a |w| from 0 on, as 0.05, nor deviations, as 1.5{DEVIATIONS}")
    return value, relative


def above(weights: Weights, threshold: float, relative: bool) -> Masks:
    """The connections with |w| > t, or with |w| > t σ of their layer (Han et al. 2015, arXiv:1506.02626, section 3.1).

    Args:
      weights: layer name -> float32[...].
      threshold: t.
      relative: whether t is in σ, the standard deviation of the weights of a layer.
    """
    scales = {name: jnp.std(weight) if relative else 1.0 for name, weight in weights.items()}
    return {name: jnp.abs(weight) > threshold * scales[name] for name, weight in weights.items()}


def _to_sparsity(weights: Weights, request: Request) -> Masks:
    if not 0 <= request.sparsity < 1:
        raise UserError(f"--sparsity={request.sparsity:g} is outside [0, 1)")
    sizes = {name: jnp.abs(weight) for name, weight in weights.items()}
    shapes = {name: size.shape for name, size in sizes.items()}
    counts = allocate("uniform", shapes, sparsity=request.sparsity, epsilon=None).counts
    if request.scope == "global":
        return from_scores_globally(sizes, jnp.int32(sum(counts.values())))
    return from_scores(sizes, {name: jnp.int32(count) for name, count in counts.items()})


def _short(layer: str) -> str:
    return layer.removesuffix("/kernel")
