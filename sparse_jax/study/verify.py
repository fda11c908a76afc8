"""The proof that a topology joins every input to every output by the same number of paths, or that it does not."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from sparse_jax.errors import UserError
from sparse_jax.study.inspect import large
from sparse_jax.study.summary import make_console
from sparse_jax.study.topologies import Runs, find
from sparse_jax.topology.graph import Masks, in_degrees, out_degrees
from sparse_jax.topology.paths import Paths, count_paths

LARGEST_FACTOR = 10_000
MOST_DIGITS = 1000  # of a number that is shown in full
UNEQUAL = 1  # exit status


def verify(paths: Sequence[str]) -> int:
    """Count the paths between every input and every output, in integers of any size, and print what that shows.

    Args:
      paths: one: a mask file, a folder of matrices, or the folder of a run.

    Returns:
      the exit status: 0 if all pairs have the same number of paths, and it is not 0; else 1.

    Raises:
      UserError: for anything wrong with the path, or layers that are not in series.
    """
    if len(paths) != 1:
        raise UserError(f"verify takes one path, not {len(paths)}: a mask file, a folder of matrices or a run")
    (path,) = paths
    found = find(path)
    if isinstance(found, Runs):
        raise UserError(f"{path} holds {len(found.topologies)} runs: name one as WORKDIR/runs/RUN")
    if found.no_chain is not None:
        raise UserError(f"{path}: {found.no_chain}, and paths are those through layers in series")
    masks = found.network
    try:
        counted = count_paths(list(masks.values()))
    except ValueError as error:
        raise UserError(f"{path}: {error}; paths are those through layers in series") from None
    console = make_console()
    _print_layers(console, masks)
    _print_paths(console, counted)
    return 0 if equal(counted) else UNEQUAL


def equal(paths: Paths) -> bool:
    """Whether every output is reached from every input by the same number of paths."""
    return 0 < paths.least == paths.most


def factors(value: int) -> str | None:
    """A positive integer as a product of powers, 2^3 · 5; None if that is itself, or has a prime beyond 10,000."""
    powers, whole = [], value
    for factor in itertools.chain([2], range(3, LARGEST_FACTOR, 2)):
        power = 0
        while value % factor == 0:
            value, power = value // factor, power + 1
        powers += [f"{factor}^{power}" if power > 1 else str(factor)] * (power > 0)
        if value == 1:
            break
    return " · ".join(powers) if value == 1 < whole and powers != [str(whole)] else None


# --- what is printed -------------------------------------------------------------------------------


def _print_layers(console: Console, masks: Masks) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("layer", "shape", "connections", "density", "in-degree", "out-degree"):
        table.add_column(name, justify="left" if name in ("layer", "shape") else "right")
    for cells, layers in itertools.groupby(((name, _cells(mask)) for name, mask in masks.items()), lambda row: row[1]):
        first, *others = (name.removesuffix("/kernel") for name, _ in layers)
        table.add_row(f"{first} to {others[-1]}" if others else first, *cells)
    console.print(table)
    if any(mask.ndim > 2 for mask in masks.values()):
        console.print("paths are over channels: those of a pair are one connection, whichever taps it has")
    console.print(count_text(masks.values()))


def _cells(mask: np.ndarray) -> tuple[str, ...]:
    count = int(mask.sum())
    degrees = in_degrees(mask), out_degrees(mask)
    return "×".join(map(str, mask.shape)), f"{count:,}", f"{count / mask.size:.4f}", *map(_span, degrees)


def count_text(masks: Iterable[np.ndarray]) -> str:
    """How many connections all layers have together."""
    of_layers = [(int(mask.sum()), mask.size) for mask in masks]
    connections, entries = (sum(counts) for counts in zip(*of_layers, strict=True))
    return f"{connections:,} of {entries:,} connections, density {connections / entries:.4g}"


def _span(degrees: np.ndarray) -> str:
    least, most = int(degrees.min()), int(degrees.max())
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _print_paths(console: Console, paths: Paths) -> None:
    if not equal(paths):
        what = f"{large(paths.least)} to {large(paths.most)}" if paths.most else "no"
        console.print(f"not equal: {what} paths from an input to an output", soft_wrap=True)
        return
    product = factors(paths.most)
    shown = large(paths.most) + (f" = {product}" if product else "")
    console.print(f"equal: {shown} paths from every input to every output", soft_wrap=True)
    if "e" in large(paths.most) and len(str(paths.most)) <= MOST_DIGITS:
        console.print(str(paths.most), soft_wrap=True)
