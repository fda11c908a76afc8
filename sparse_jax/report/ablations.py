"""What networks can do without, from the ablations of their runs: long tables, and means over seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sparse_jax.analysis.curves import decile_losses
from sparse_jax.config import SHARED_WEIGHT, AblationConfig
from sparse_jax.report.frames import Layout, interval, labelled
from sparse_jax.report.records import Records
from sparse_jax.study.ablations import area_of, read_experiments
from sparse_jax.study.store import Store

# how an experiment was made, beside what it is, in words
WORDS = {
    "scope": lambda value: {"layer": "by layer", "global": "global"}.get(value, ""),
    "retrain_steps": lambda value: f"+{value} steps" if value else "",
    "retrain_rate": lambda value: "" if value is None else f"rate × {value:g}",
    "part": lambda value: f"{value} part",
    "which": lambda value: f"{value} network",
    "layers": lambda value: f"of {value}" if value else "",
    "fractions": lambda value: "" if value is None else f"at {', '.join(f'{one:g}' for one in value)}",
    "examples": lambda value: "" if value is None else f"{value:,} examples",
}
RANDOM, UNCHANGED = "random", "unchanged"
AREA = "area of smallest"  # of a run
_USUAL = AblationConfig()
# how launch/ablate.py makes the experiments of an order unless it is told otherwise
PLAIN = {
    "scope": _USUAL.scopes[0], "retrain_steps": _USUAL.retrain_steps[0], "part": _USUAL.part, "which": _USUAL.which,
    "layers": _USUAL.layers, "fractions": list(_USUAL.fractions),
}  # fmt: skip


class Ablations(NamedTuple):
    """All experiments, one row a point, a run or a correlation; `run` is the index of the run in the records."""

    curves: pd.DataFrame  # run, order, variant, removed (share), accuracy; None where training diverged
    areas: pd.DataFrame  # run, order, variant, plain (made in the usual way), area
    deciles: pd.DataFrame  # run, variant, decile (1 to 10), lost
    edits: pd.DataFrame  # run, edit, variant, accuracy
    shared: pd.DataFrame  # run, variant, weight (text, or mean, best, vote), accuracy
    correlations: pd.DataFrame  # run, order, examples, where, correlation

    @property
    def empty(self) -> bool:
        """Whether there are none."""
        return all(frame.empty for frame in self)


COLUMNS = {
    "curves": ("run", "order", "variant", "removed", "accuracy"),
    "areas": ("run", "order", "variant", "plain", "area"),
    "deciles": ("run", "variant", "decile", "lost"),
    "edits": ("run", "edit", "variant", "accuracy"),
    "shared": ("run", "variant", "weight", "accuracy"),
    "correlations": ("run", "order", "examples", "where", "correlation"),
}


def read_ablations(records: Records) -> Ablations:
    """The experiments on the weights that the finished runs have."""
    found = [
        (index, experiment)
        for index, run in records.finished.iterrows()
        for experiment in read_experiments(Store(Path(run["store"])), run["run_id"], run).values()
    ]
    told = _told([experiment["settings"] for _, experiment in found])
    rows: dict[str, list[tuple]] = {name: [] for name in COLUMNS}
    for index, experiment in found:
        kind, variant = experiment["settings"]["kind"], _variant(experiment["settings"], told)
        _READ[kind](rows, index, variant, experiment)
    frames = {name: pd.DataFrame(rows[name], columns=list(columns)) for name, columns in COLUMNS.items()}
    return Ablations(**{name: frame.drop_duplicates(ignore_index=True) for name, frame in frames.items()})


def _told(settings: Sequence[dict[str, Any]]) -> list[str]:
    """What of the way of making them is not the same in all experiments to which it applies."""
    return [name for name in WORDS if len({str(one[name]) for one in settings if one.get(name) is not None}) > 1]


def _variant(settings: dict[str, Any], told: Sequence[str]) -> str:
    return ", ".join(filter(None, (WORDS[name](settings.get(name)) for name in told)))


def _order(rows: dict[str, list[tuple]], index: int, variant: str, experiment: dict[str, Any]) -> None:
    order, points = experiment["settings"]["name"], experiment["points"]
    if order == "decile":
        rows["deciles"] += [(index, variant, i, lost) for i, lost in enumerate(decile_losses(points), 1)]
        return
    rows["curves"] += [(index, order, variant, point["to"], point["accuracy"]) for point in points]
    plain = all(experiment["settings"].get(name) == value for name, value in PLAIN.items())
    rows["areas"].append((index, order, variant, plain, area_of(experiment)))
    if "correlations" not in experiment:
        return
    examples = experiment["settings"]["examples"]
    for where, found in experiment["correlations"].items():
        place = "all layers" if where == "all" else where.removesuffix("/kernel")
        rows["correlations"] += [(index, name, examples, place, value) for name, value in found.items()]


def _edit(rows: dict[str, list[tuple]], index: int, variant: str, experiment: dict[str, Any]) -> None:
    (point,) = experiment["points"]
    rows["edits"].append((index, experiment["settings"]["name"], variant, point["accuracy"]))


def _shared(rows: dict[str, list[tuple]], index: int, variant: str, experiment: dict[str, Any]) -> None:
    accuracies = {f"{point['weight']:g}": point["accuracy"] for point in experiment["points"]}
    known = [value for value in accuracies.values() if value is not None]
    more = {"mean": sum(known) / len(known), "best": max(known)} if len(known) == len(accuracies) else {}
    more["vote"] = experiment["vote_accuracy"]
    rows["shared"] += [(index, variant, weight, value) for weight, value in (accuracies | more).items()]


_READ = {"order": _order, "edit": _edit, SHARED_WEIGHT: _shared}


def over_seeds(frame: pd.DataFrame, value: str, by: Sequence[str], records: Records, layout: Layout) -> pd.DataFrame:
    """One row for each point of the grid and each combination of `by`: mean and interval of a value over seeds.

    The columns are the settings that vary as text, series, panel, `by`, mean, low, high, seeds.
    """
    table = frame.dropna(subset=[value]).join(labelled(records.runs, layout), on="run")
    keys, rows = [*layout.varied, "series", "panel", *by], []
    for values, group in table.groupby(keys, sort=False, dropna=False):
        mean, low, high = interval(group[value])
        of_seeds = {"mean": mean, "low": low, "high": high, "seeds": len(group)}
        rows.append(dict(zip(keys, values, strict=True)) | of_seeds)
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high", "seeds"])


def less(frame: pd.DataFrame, value: str, name: str, reference: str) -> pd.DataFrame:
    """The frame with a column `less`: the value less that of the reference in the same run, variant and all else."""
    keys = [one for one in frame if one not in (name, value)]
    base = frame[frame[name] == reference].set_index(keys)[value]
    at = pd.MultiIndex.from_frame(frame[keys])
    return frame.assign(less=frame[value].to_numpy() - base.reindex(at).to_numpy())


def plain_areas(ablations: Ablations, order: str) -> pd.Series:
    """By run, the area under the curve of an order that was made in the usual way."""
    areas = ablations.areas[ablations.areas["plain"].astype(bool) & (ablations.areas["order"] == order)]
    return areas.dropna(subset=["area"]).drop_duplicates("run").set_index("run")["area"].astype(float)
