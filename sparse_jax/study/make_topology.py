"""Topologies that are made for their own sake: RadiX-Nets, Cayley expanders, random graphs; as files."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse_jax.config import DRAWN, RunConfig, settings
from sparse_jax.errors import UserError, unknown
from sparse_jax.study.folder import new_path
from sparse_jax.study.mask_file import save_masks
from sparse_jax.study.matrix_market import KERNEL, write_matrices
from sparse_jax.study.summary import make_console
from sparse_jax.study.verify import count_text
from sparse_jax.topology import cayley, radix
from sparse_jax.topology.allocation import allocate
from sparse_jax.values import within

NAMED = 4  # of the sizes of many layers
Masks = dict[str, np.ndarray]
Kernels = dict[str, tuple[int, int]]
Made = tuple[Masks, list[str]]  # what the user is told of them


class Request(NamedTuple):
    """What the command line says, and the names of the flags that it gives."""

    radix: str
    graph_challenge: int
    widths: str
    layer_sizes: str
    sparsity: float
    family: str
    seed: int
    rewiring: float
    degree_exponent: float
    last: str
    given: frozenset[str]


# what says which topology -> the other flags that go with it
SOURCES = {
    "radix": ("widths", "layer_sizes", "last"),
    "graph_challenge": ("widths", "layer_sizes", "last"),
    "sparsity": ("layer_sizes", "family", "seed", "rewiring", "degree_exponent", "last"),
}
OF_FAMILY = {"seed": DRAWN, "rewiring": ("small_world",), "degree_exponent": ("scale_free",)}


def make(out: str, request: Request) -> int:
    """Write a topology, and print what it is.

    Args:
      out: a new mask file, .npz, or the new folder of MatrixMarket files that a path with / at its end names.
      request: of the command line.

    Returns:
      the exit status, 0.

    Raises:
      UserError: for anything wrong with these; nothing has been written then.
    """
    check_out(out)
    masks, lines = _make(request)
    write(out, masks, lines)
    return 0


def check_out(out: str) -> Path:
    """Where a topology is to be written. Raises UserError if something is there, or its name does not say what."""
    if not out.endswith(("/", ".npz")):
        raise UserError(f"{out}: end it in .npz for a mask file, or in / for a folder of MatrixMarket files")
    return new_path(out, out, folder=out.endswith("/"))


def write(out: str, masks: Masks, lines: list[str]) -> None:
    """Write a topology where `check_out` has no objection, and print some lines and its size."""
    place, save = check_out(out), write_matrices if out.endswith("/") else save_masks
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        save(place, masks)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None
    console = make_console()
    for line in (*lines, f"{out}: {_size(masks)}"):
        console.print(line, soft_wrap=True)


def _size(masks: Masks) -> str:
    sizes = [*(mask.shape[0] for mask in masks.values()), list(masks.values())[-1].shape[1]]
    shown = [*sizes[:NAMED], "…", sizes[-1]] if len(sizes) > NAMED + 2 else sizes
    return f"{'-'.join(map(str, shown))}, {count_text(masks.values())}"


def _make(request: Request) -> Made:
    named = [name for name in SOURCES if name in request.given]
    if len(named) != 1:
        raise UserError("which topology? One of --radix=10:10, --graph_challenge=60 and --sparsity=0.9 says so")
    if extra := sorted(request.given - {*named, *SOURCES[named[0]]}):
        raise UserError(f"--{extra[0]} has no effect with --{named[0]}")
    if named == ["sparsity"]:
        return _of_family(request)
    if named == ["radix"]:
        return _of_lists(request, radix.parse_radix(request.radix))
    return _of_lists(request, radix.graph_challenge(request.graph_challenge).lists)


def _of_lists(request: Request, lists: radix.Lists) -> Made:
    count = sum(map(len, lists)) + 1
    widths = radix.parse_widths(request.widths) if request.widths else None
    widths = widths * count if widths and len(widths) == 1 else widths  # one is that of all layers
    sizes = _sizes(request) if request.layer_sizes else radix.radix_net(lists, widths or (1,) * count).sizes
    masks, notice = radix.radix_topology(_kernels(sizes, request.last), lists, widths, None)
    return masks, [notice] if notice else []


def _of_family(request: Request) -> Made:
    if not request.layer_sizes:
        raise UserError("--sparsity needs the sizes of the layers: --layer_sizes=784,300,100")
    if not 0 <= request.sparsity < 1:
        raise UserError(f"--sparsity={request.sparsity:g} is outside [0, 1)")
    if request.family not in FAMILIES:
        raise unknown("family", request.family, FAMILIES)
    for name, families in OF_FAMILY.items():
        if name in request.given and request.family not in families:
            raise UserError(f"--{name} has no effect with --family={request.family}")
    for name in ("rewiring", "degree_exponent"):
        if not within(value := getattr(request, name), bounds := settings(RunConfig)[name].metadata["bounds"]):
            raise UserError(f"--{name}={value:g} is outside {bounds}")
    return FAMILIES[request.family](_kernels(_sizes(request), request.last), request)


def _sizes(request: Request) -> tuple[int, ...]:
    try:
        sizes = tuple(map(int, request.layer_sizes.split(",")))
    except ValueError:
        sizes = ()
    if len(sizes) < 2 or min(sizes) < 1 or max(sizes) > radix.MOST_NEURONS:
        raise UserError(
            f"--layer_sizes={request.layer_sizes} is not two numbers or more from 1 to {radix.MOST_NEURONS:,}, as in "
            "784,300,100"
        )
    return sizes


def _kernels(sizes: tuple[int, ...], last: str) -> Kernels:
    """Those of an MLP: dense_0, dense_1, …, the last one by the name that it is given."""
    names = [f"dense_{i}" for i in range(len(sizes) - 1)]
    if last and not re.fullmatch(r"[A-Za-z0-9_]+", last):
        raise UserError(f"--last={last!r} is no name of a layer: letters, digits and _, as output")
    if last in names[:-1]:
        raise UserError(f"--last={last} is the name of another layer")
    names[-1] = last or names[-1]
    return {f"{name}{KERNEL}": pair for name, pair in zip(names, itertools.pairwise(sizes), strict=True)}


# --- families --------------------------------------------------------------------------------------


def _radix(kernels: Kernels, request: Request) -> Made:
    masks, line = radix.radix_topology(kernels, None, None, 1 - request.sparsity)
    return masks, [line]


def _cayley(kernels: Kernels, request: Request) -> Made:
    masks, line = cayley.cayley_topology(kernels, 1 - request.sparsity)
    return masks, [line]


def _drawn(kernels: Kernels, request: Request) -> Made:
    """Random graphs, every layer of the same density."""
    counts = allocate("uniform", kernels, sparsity=request.sparsity, epsilon=None).counts
    import jax

    from sparse_jax.topology.initial import INITIAL, InitialSettings

    jax.config.update("jax_platforms", "cpu")
    settings = InitialSettings(np.float32(request.rewiring), np.float32(request.degree_exponent))
    draw = jax.jit(lambda key, counts: INITIAL[request.family](key, kernels, counts, settings))
    drawn = jax.device_get(draw(jax.random.key(request.seed), counts))
    masks = {name: drawn[name] for name in kernels}
    for name, mask in masks.items():
        if not mask.any():
            raise UserError(f"--sparsity={request.sparsity:g} leaves {name.removesuffix(KERNEL)} without connections")
    return masks, []


FAMILIES: dict[str, Callable[[Kernels, Request], Made]] = {
    "radix": _radix,
    "cayley": _cayley,
    **dict.fromkeys(DRAWN, _drawn),
}
