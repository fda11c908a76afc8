"""What the final masks of the runs say: the degrees of their neurons, and where their inputs are looked at."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sparse_jax.errors import UserError
from sparse_jax.report.frames import Layout, labelled
from sparse_jax.report.logs import FRAMES, Log, spread
from sparse_jax.report.records import Records
from sparse_jax.study.mask_file import Pairs, load_topology
from sparse_jax.study.store import MASKS
from sparse_jax.topology import graph

LAYERS = 4  # of a network, at most, that degrees are shown of
STEPS = 32  # points of a curve, at most
CELLS = 1024  # of a strip, at most
MAP_BYTES = 2_000_000  # of all frames of all maps together


class Map(NamedTuple):
    """The connections of every input of one point of the grid, mean over its seeds, as they changed."""

    settings: dict[str, str]  # of the layout, with `series` and `panel`
    height: int
    width: int
    image: bool  # whether the inputs are the pixels of an image
    epochs: list[float | None]  # of the frames; None is that of the final masks
    frames: np.ndarray  # float[frames, height × width], channels added up


class Topologies(NamedTuple):
    """What the masks of a study say."""

    degrees: pd.DataFrame
    maps: list[Map]
    missing: int  # finished runs with connections to choose, without a readable mask file


def read_topologies(records: Records, layout: Layout, logs: dict[int, Log]) -> Topologies:
    """Read the masks of every finished run once."""
    runs, texts, missing = records.finished, labelled(records.finished, layout), 0
    rows: list[pd.DataFrame] = []
    maps: list[Map] = []
    keys = [*layout.varied, "series", "panel"]
    for key, indices in texts.groupby(keys, sort=False, dropna=False).groups.items():
        settings = dict(zip(keys, key, strict=True))
        found = []
        for index, run in runs.loc[indices].iterrows():
            masks = _masks(run)
            missing += masks is None and run["method"] != "dense"
            found += [(run, masks, logs[index])] if masks else []
        if found:
            rows += [frame.assign(**settings) for frame in _degree_rows([masks for _, masks, _ in found])]
            maps += _maps(settings, found)
    columns = [*layout.varied, "series", "panel", "layer", "side", "degree", "share"]
    degrees = pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)
    return Topologies(degrees, fewer_frames(maps), missing)


def _masks(run: pd.Series) -> dict[str, Any] | None:
    """The masks of a run, the layers in the order of the network; None where no file can be read."""
    try:
        masks = load_topology(Path(run["store"]) / "runs" / run["run_id"] / MASKS)
    except UserError:
        return None
    kernels = run.get("kernels")
    order = list(kernels) if isinstance(kernels, dict) else []
    return dict(sorted(masks.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _degrees(mask: np.ndarray | Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Connections into every output, and out of every input, of a layer."""
    if isinstance(mask, Pairs):
        return np.bincount(mask.outputs, minlength=mask.shape[1]), np.bincount(mask.inputs, minlength=mask.shape[0])
    return graph.in_degrees(mask), graph.out_degrees(mask)


def _degree_rows(networks: list[dict]) -> Iterator[pd.DataFrame]:
    """Of every layer and side, the share of the neurons of all seeds with at least so many connections."""
    names = list(networks[0])
    for name in (names[i] for i in spread(len(names), LAYERS)):
        both = zip(*(_degrees(masks[name]) for masks in networks if name in masks), strict=True)
        for side, degrees in zip(("in", "out"), both, strict=True):
            degree, share = survival(np.concatenate(degrees))
            layer = name.removesuffix("/kernel")
            yield pd.DataFrame({"layer": layer, "side": side, "degree": degree, "share": share})


def survival(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The degrees that occur (thinned evenly), and the share of the neurons that have at least that many."""
    values, counts = np.unique(degrees, return_counts=True)
    share = counts[::-1].cumsum()[::-1] / degrees.size
    keep = spread(len(values), STEPS)
    return values[keep], share[keep]


def _maps(settings: dict[str, str], found: list[tuple[pd.Series, dict, Log]]) -> list[Map]:
    """The map of one point of the grid: what was logged while it trained, then its final masks."""
    run, masks, _ = found[0]
    first = next(iter(masks))
    kernels = run.get("kernels")
    begins = next(iter(kernels)) if isinstance(kernels, dict) and kernels else first
    if first != begins or len(masks[first].shape) != 2:
        return []
    final = np.mean([_degrees(network[first])[1] for _, network, _ in found], axis=0)
    shape = image_shape(run, final.size)
    logged = _course([log for *_, log in found], final.size)
    frames = np.stack([*logged.values(), final])
    height, width, cells = _cells(frames, shape)
    return [Map(settings, height, width, shape is not None, [*logged, None], cells)]


def _course(logs: list[Log], inputs: int) -> dict[float, np.ndarray]:
    """Epoch -> connections of every input, mean over the seeds that logged it."""
    by_epoch: dict[float, list[np.ndarray]] = {}
    for log in logs:
        for epoch, counts in log.inputs.items():
            if counts.size == inputs:
                by_epoch.setdefault(epoch, []).append(counts)
    return {epoch: np.mean(by_epoch[epoch], axis=0) for epoch in sorted(by_epoch)}


def image_shape(run: pd.Series, inputs: int) -> tuple[int, int, int] | None:
    """Height, width and channels of the inputs of a run, if they are images."""
    shape = run.get("input_shape")
    return tuple(shape) if isinstance(shape, list) and len(shape) == 3 and math.prod(shape) == inputs else None


def _cells(frames: np.ndarray, shape: tuple[int, int, int] | None) -> tuple[int, int, np.ndarray]:
    """Channels added up to one image; a strip of too many inputs as the means of neighbours."""
    if shape:
        return shape[0], shape[1], frames.reshape(len(frames), -1, shape[2]).sum(axis=-1)
    parts = np.array_split(frames, min(CELLS, frames.shape[1]), axis=1)
    return 1, len(parts), np.stack([part.mean(axis=1) for part in parts], axis=1)


def fewer_frames(maps: list[Map]) -> list[Map]:
    """The maps with as many frames as a page can carry, the first and the last among them."""
    room = MAP_BYTES // max(1, sum(one.frames.shape[1] for one in maps))
    most = max(1, min(FRAMES, room))
    chosen = []
    for one in maps:
        keep = spread(len(one.epochs), most)
        chosen.append(one._replace(epochs=[one.epochs[i] for i in keep], frames=one.frames[keep]))
    return chosen


def map_rows(maps: list[Map]) -> pd.DataFrame:
    """The final maps as a table: one row for each cell."""
    tables = []
    for one in maps:
        row, column = np.divmod(np.arange(one.height * one.width), one.width)
        tables.append(pd.DataFrame({**one.settings, "row": row, "column": column, "connections": one.frames[-1]}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
