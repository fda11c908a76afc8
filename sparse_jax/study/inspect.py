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
from sparse_jax.study.mask_file import load_masks
from sparse_jax.study.store import MASKS, Store, write_atomic
from sparse_jax.study.summary import make_console
from sparse_jax.topology.graph import Agreement, Masks

READABLE_DIGITS = 20
NONE = "–"


def inspect(paths: Sequence[str], json_file: str) -> int:
    """Print the measures of one topology, of two and what they share, or of every run of a workdir.

    Args:
      paths: one or two of: a mask file, the folder of a run, a workdir (alone).
      json_file: where to write all of it, too; "" for nowhere.

    Returns:
      the exit status, 0.

    Raises:
      UserError: for anything wrong with the paths or what they hold.
    """
    if len(paths) not in (1, 2):
        raise UserError(f"inspect takes one path or two, not {len(paths)}: mask files, run folders or a workdir")
    files = [_mask_files(path) for path in paths]
    console = make_console()
    if len(paths) == 1 and isinstance(files[0], dict):
        report = _inspect_workdir(console, files[0])
    else:
        for path, found in zip(paths, files, strict=True):
            if isinstance(found, dict):
                raise UserError(f"{path} is a workdir of {len(found)} runs: name two of the folders in its runs/")
        report = _inspect_files(console, paths, files)
    if json_file:
        _write_json(json_file, report)
    return 0


def _mask_files(path: str) -> Path | dict[str, Path]:
    """The mask file at a path; by run, of every finished run that has one, if the path is a workdir."""
    try:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            return folder
        if (folder / MASKS).exists():
            return folder / MASKS
        runs = {run: folder / "runs" / run / MASKS for run in Store(folder).read_results()}
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read: {error}; name a mask file, a run folder or a workdir") from None
    with_masks = {run: file for run, file in runs.items() if file.exists()}
    if not with_masks:
        what = f"no finished run with a {MASKS}" if (folder / "runs").is_dir() else f"no {MASKS} and no runs"
        raise UserError(f"{path} holds {what}: name a mask file, the folder of a sparse run, or a workdir")
    return with_masks


def _inspect_files(console: Console, paths: Sequence[str], files: Sequence[Path]) -> dict:
    masks = [load_masks(file) for file in files]
    comparison = _compare(paths, masks) if len(masks) == 2 else None
    topologies = [describe(found) for found in masks]
    for path, topology in zip(paths, topologies, strict=True):
        _print_topology(console, path, topology)
        console.print("")
    if comparison is not None:
        _print_comparison(console, comparison)
    return {
        "topologies": [
            {"path": path} | dataclasses.asdict(topology) for path, topology in zip(paths, topologies, strict=True)
        ],
        "comparison": comparison and dataclasses.asdict(comparison),
    }


def _compare(paths: Sequence[str], masks: Sequence[Masks]) -> Comparison:
    try:
        return compare(*masks)
    except ValueError as error:
        raise UserError(f"{' and '.join(paths)} are masks of different networks: {error}") from None


def _inspect_workdir(console: Console, files: Mapping[str, Path]) -> dict:
    networks = {run: describe_network(load_masks(file)) for run, file in files.items()}
    _print_networks(console, networks)
    return {"networks": {run: dataclasses.asdict(network) for run, network in networks.items()}}


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
    digits = len(str(value))
    return f"{value:,}" if digits <= READABLE_DIGITS else f"{Decimal(value):.4e} ({digits} digits)"


def _degree_cells(degrees: Degrees) -> list[str]:
    law, neurons = degrees.power_law, sum(degrees.distribution)
    return [
        f"{degrees.least:,}", f"{degrees.mean:,.1f}", f"{degrees.most:,}",
        NONE if law is None else f"{law.exponent:.2f} ({law.tail / neurons:.0%})",
    ]  # fmt: skip


def _print_topology(console: Console, path: str, topology: Topology) -> None:
    connections = _table(
        ("layer", "shape", "connections", "sparsity", "effective\nsparsity", "without\ninput", "without\noutput",
         "modularity"),
        left=2, title=path,
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


def _print_networks(console: Console, networks: Mapping[str, Network]) -> None:
    table = _table(
        ("run", "connections", "sparsity", "effective\nsparsity", "dead", "off\npath", "paths"), left=1,
        padding=(0, 1, 0, 0),
        caption="dead: hidden neurons without input or output; off path: those on no path from input to output",
    )  # fmt: skip
    for run, network in networks.items():
        chain, cells = network.chain, [NONE] * 4
        if chain is not None:
            cells = [_share(chain.effective_sparsity), _count(chain.dead), _count(chain.disconnected)]
            cells.append(large(chain.paths.total).split(" ")[0])
        table.add_row(run, _count(network.connections), _share(network.sparsity), *cells)
    console.print(table)
