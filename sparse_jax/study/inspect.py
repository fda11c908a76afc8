"""What the terminal shows of topologies that are on disk."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sparse_jax.analysis.topology import (
    Comparison,
    Degrees,
    Network,
    Topology,
    compare,
    describe,
    describe_network,
)
from sparse_jax.errors import UserError
from sparse_jax.study.files import write_atomic
from sparse_jax.study.summary import make_console
from sparse_jax.study.topologies import NO_MASKS, Found, Runs, find
from sparse_jax.topology.graph import Agreement, Masks

READABLE_DIGITS = 20
NONE = "–"
NAMED = 3  # of the runs that a table does not have


def inspect(paths: Sequence[str], json_file: str) -> int:
    """Print the measures of one topology, of two and what they share, or of every run of a workdir.

    Args:
      paths: one or two of: a mask file, the folder of a run, a workdir or one of its checkpoints (alone).
      json_file: where to write all of it, too; "" for nowhere.

    Returns:
      the exit status, 0.

    Raises:
      UserError: for anything wrong with the paths or what they hold.
    """
    if len(paths) not in (1, 2):
        raise UserError(f"inspect takes one path or two, not {len(paths)}: mask files, run folders or a workdir")
    found = [find(path) for path in paths]
    console = make_console()
    if len(paths) == 1 and isinstance(found[0], Runs):
        report = _inspect_runs(console, found[0])
    else:
        for path, one in zip(paths, found, strict=True):
            if isinstance(one, Runs):
                raise UserError(f"{path} holds {len(one.topologies)} runs: name two as WORKDIR/runs/RUN")
        report = _inspect_topologies(console, paths, found)
    if json_file:
        _write_json(json_file, report)
    return 0


def _inspect_topologies(console: Console, paths: Sequence[str], found: Sequence[Found]) -> dict:
    comparison = _compare(paths, [one.masks for one in found]) if len(found) == 2 else None
    topologies = [describe(one.network, one.no_chain) for one in found]
    for path, one, topology in zip(paths, found, topologies, strict=True):
        _print_topology(console, path if one.step is None else f"{path}, unfinished, at step {one.step:,}", topology)
        console.print("")
    if comparison is not None:
        _print_comparison(console, comparison)
    return {
        "topologies": [
            {"path": path, "step": one.step} | dataclasses.asdict(topology)
            for path, one, topology in zip(paths, found, topologies, strict=True)
        ],
        "comparison": comparison and dataclasses.asdict(comparison),
    }


def _compare(paths: Sequence[str], masks: Sequence[Masks]) -> Comparison:
    try:
        return compare(*masks)
    except ValueError as error:
        raise UserError(f"{' and '.join(paths)} are masks of different networks: {error}") from None


def _inspect_runs(console: Console, runs: Runs) -> dict:
    networks = {run: describe_network(one.network, one.no_chain) for run, one in runs.topologies.items()}
    steps = {run: found.step for run, found in runs.topologies.items()}
    _print_networks(console, networks, steps)
    damaged = (runs.damaged, "masks gone or damaged")
    for names, why in ((runs.dense, NO_MASKS), (runs.waiting, "no checkpoint yet"), damaged):
        if names:
            others = f" and {len(names) - NAMED} others" if len(names) > NAMED else ""
            console.print(f"not shown: {', '.join(names[:NAMED])}{others}: {why}")
    return {"networks": {run: {"step": steps[run]} | dataclasses.asdict(networks[run]) for run in networks}}


def _write_json(path: str, report: dict) -> None:
    try:
        write_atomic(Path(path).expanduser(), json.dumps(report, indent=2, allow_nan=False) + "\n")
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"--json={path} cannot be written: {reason}") from None


# --- tables ----------------------------------------------------------------------------------------


def _table(columns: Sequence[str], left: int, **options: Any) -> Table:
    """A table whose first `left` columns are text and the others numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", caption_justify="left", **options)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < left else "right", vertical="bottom", overflow="fold")
    return table


def _short(layer: str) -> str:
    return layer.removesuffix("/kernel")


def _share(value: float | None, digits: int = 4) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def large(value: int) -> str:
    """An integer in full up to 20 digits, then rounded, with the number of its digits."""
    digits = Decimal(value).adjusted() + 1
    return f"{value:,}" if digits <= READABLE_DIGITS else f"{Decimal(value):.4e} ({digits} digits)"


def _degree_cells(degrees: Degrees) -> list[str]:
    law, neurons = degrees.power_law, sum(degrees.distribution)
    return [
        f"{degrees.least:,}", f"{degrees.mean:,.1f}", f"{degrees.most:,}",
        NONE if law is None else f"{law.exponent:.2f} ({law.tail / neurons:.0%})",
    ]  # fmt: skip


def _print_topology(console: Console, title: str, topology: Topology) -> None:
    connections = _table(
        ("layer", "shape", "connections", "sparsity", "effective\nsparsity", "without\ninput", "without\noutput",
         "modularity"),
        left=2,
    )  # fmt: skip
    degrees = _table(
        ("layer", "in-degree\nmin", "\nmean", "\nmax", "\npower law",
         "out-degree\nmin", "\nmean", "\nmax", "\npower law"),
        left=1,
    )  # fmt: skip
    for name, layer in topology.layers.items():
        connections.add_row(
            _short(name), "×".join(map(str, layer.shape)), _count(layer.connections), _share(layer.sparsity),
            _share(layer.effective_sparsity), _count(layer.no_input), _count(layer.no_output),
            _share(layer.modularity, 3),
        )  # fmt: skip
        degrees.add_row(_short(name), *_degree_cells(layer.in_degree), *_degree_cells(layer.out_degree))
    console.print(title, soft_wrap=True)
    console.print(connections, degrees)
    _print_network(console, topology.network)


def _print_network(console: Console, network: Network) -> None:
    lines = Table.grid(padding=(0, 2))
    lines.add_row("connections", f"{network.connections:,} of {network.entries:,}, sparsity {network.sparsity:.4f}")
    chain = network.chain
    if chain is None:
        lines.add_row("paths", f"not measured: {network.no_chain}")
    else:
        lines.add_row(
            "effective", f"{chain.effective_connections:,} on a path, effective sparsity {chain.effective_sparsity:.4f}"
        )
        lines.add_row("inputs", f"{chain.inputs:,}, {chain.unused_inputs:,} without a connection")
        lines.add_row("hidden neurons", f"{chain.hidden:,}, {chain.dead:,} dead, {chain.disconnected:,} disconnected")
        of_a_pair = f"{large(chain.paths.least)} to {large(chain.paths.most)}, by input and output"
        lines.add_row("paths", large(chain.paths.total))
        lines.add_row("paths of a pair", of_a_pair)
    lines.add_row("layer collapse", _collapse(network))
    console.print(lines)


def _collapse(network: Network) -> str:
    if network.empty_layers:
        return f"no connection in {', '.join(map(_short, network.empty_layers))}"
    if network.chain is not None and not network.chain.effective_connections:
        return "no input reaches an output"
    return "none"


def _print_comparison(console: Console, comparison: Comparison) -> None:
    table = _table(
        ("layer", "common", "in either", "overlap", "by chance", "Jaccard"), left=1, title="what they have in common",
        caption="overlap: common connections / those of the smaller topology",
    )  # fmt: skip
    for name, layer in (*comparison.layers.items(), ("all", comparison.network)):
        table.add_row(_short(name), *_agreement_cells(layer))
    console.print(table)


def _agreement_cells(layer: Agreement) -> list[str]:
    return [
        _count(layer.common), _count(layer.either), _share(layer.overlap), _share(layer.chance), _share(layer.jaccard)
    ]  # fmt: skip


def _print_networks(console: Console, networks: Mapping[str, Network], steps: Mapping[str, int | None]) -> None:
    """A row for each run; the step only if one of them is unfinished."""
    unfinished = any(step is not None for step in steps.values())
    table = _table(
        ("run", *["step"] * unfinished, "connections", "sparsity", "effective\nsparsity", "dead", "off\npath", "paths"),
        left=1, padding=(0, 1, 0, 0),
        caption="dead: hidden neurons without input or output; off path: those on no path from input to output",
    )  # fmt: skip
    for run, network in networks.items():
        chain, cells = network.chain, [NONE] * 4
        if chain is not None:
            cells = [_share(chain.effective_sparsity), _count(chain.dead), _count(chain.disconnected)]
            cells.append(large(chain.paths.total).split(" ")[0])
        step = ["end" if steps[run] is None else f"{steps[run]:,}"] * unfinished
        table.add_row(run, *step, _count(network.connections), _share(network.sparsity), *cells)
    console.print(table)
