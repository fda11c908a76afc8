"""The numbers behind the figures: means and intervals over seeds, and nothing but seeds."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from sparse_jax.analysis.statistics import mean_interval
from sparse_jax.report.logs import EPOCHS, Log, thinned
from sparse_jax.report.records import LEVELS, NONE, STATUSES, Records, setting_text

CONFIDENCE = 0.95
NOTABLE = ("collapsed", "diverged", "failed", "unfinished")
EVERY = "all runs"  # the series of a study in which no setting stands for colours


class Layout(NamedTuple):
    """How the settings that vary are laid out in a figure."""

    varied: tuple[str, ...]
    told: tuple[str, ...]  # those that tell all combinations apart
    orders: dict[str, tuple[str, ...]]
    series: str | None  # the setting that colours stand for
    panels: tuple[str, ...]  # those that panels stand for
    level: str | None  # sparsity_target or epsilon, along an axis

    def panel_order(self, frame: pd.DataFrame) -> list[str]:
        """The panels of a figure, by the first setting first."""
        keys = frame.drop_duplicates("panel")
        ranks = [keys[name].map(self.orders[name].index) for name in self.panels]
        return [text for *_, text in sorted(zip(*ranks, keys["panel"], strict=True))] if ranks else list(keys["panel"])

    def series_order(self) -> list[str]:
        """What colours stand for, in the order of the legend."""
        return list(self.orders[self.series]) if self.series else [EVERY]


def layout_of(records: Records) -> Layout:
    """Colours for the first masks, the method, or the activation function; an axis of levels; panels for all others."""
    level = next((name for name in LEVELS if name in records.varied), None)
    others = [name for name in records.told if name != level]
    series = next((name for name in ("initial_topology", "method", "activation", *others) if name in others), None)
    panels = sorted((name for name in others if name != series), key=lambda name: name == "activation")
    return Layout(records.varied, records.told, records.orders, series, tuple(panels), level)


def labelled(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """The settings that vary as text, and the series and panel that follow from them."""
    texts = pd.DataFrame({name: frame[name].map(setting_text) for name in layout.varied}, index=frame.index)
    texts["series"] = texts[layout.series] if layout.series else EVERY
    texts["panel"] = [" · ".join(row) for row in texts[list(layout.panels)].to_numpy()] if layout.panels else ""
    return texts


def interval(values: pd.Series) -> tuple[float, float, float]:
    """Mean and ends of its interval over seeds; NaN ends where one seed gives none, NaN everywhere of no value."""
    known = [float(value) for value in values if pd.notna(value)]
    if not known:
        return (np.nan,) * 3
    found = mean_interval(known, CONFIDENCE)
    return tuple(np.nan if end is None else float(end) for end in (found.value, found.low, found.high))


MEANS = ("train_accuracy", "val_accuracy", "seconds", "training_flops", "connections", "majority")
MEASURED = ("density", "accuracy", "low", "high", *MEANS, "seeds", "outcome", "odd", "runs", "collapsed", "diverged")


def points(records: Records, layout: Layout) -> pd.DataFrame:
    """One row for each point of the grid: the means over its seeds, and how its runs ended.

    Runs that collapsed or diverged are in the means, and `odd` says so; runs without a result cannot be.
    """
    runs = records.runs
    texts = labelled(runs, layout)
    keys = [*layout.varied, "series", "panel"]
    rows = []
    for values, indices in texts.groupby(keys, sort=False, dropna=False).groups.items():
        group = runs.loc[indices]
        mean, low, high = interval(group["test_accuracy"])
        ended = {name: int((group["status"] == name).sum()) for name in STATUSES}
        row = dict(zip(keys, values, strict=True))
        row |= {"density": 1 - group["sparsity"].mean(), "accuracy": mean, "low": low, "high": high}
        row |= {name: group[name].mean() for name in MEANS}
        row |= {"seeds": int(group["test_accuracy"].notna().sum()), "outcome": outcome(ended)}
        lost = {name: ended[name] for name in ("collapsed", "diverged")}
        rows.append(row | lost | {"odd": any(lost.values()), "runs": len(group)})
    frame = pd.DataFrame(rows, columns=[*keys, *MEASURED])
    return frame.sort_values(["density"], ascending=False, kind="stable", ignore_index=True)


def outcome(ended: dict[str, int]) -> str:
    """What became of the runs of a point, in words."""
    odd = [f"{ended[name]} {name}" for name in NOTABLE if ended[name]]
    total = sum(ended.values())
    return f"{total} {'seed' if total == 1 else 'seeds'}" + (f" ({', '.join(odd)})" if odd else "")


LEARNING = ("epoch", "train_accuracy", "val_accuracy", "low", "high", "gap", "gap_low", "gap_high", "seeds", "odd")


def learning(records: Records, layout: Layout, logs: dict[int, Log]) -> pd.DataFrame:
    """One row for each point of the grid and epoch: mean accuracies over its seeds, and their difference."""
    runs, keys = records.runs, [*layout.varied, "series", "panel"]
    curves = [log.curve.assign(run=index) for index, log in logs.items() if not log.curve.empty]
    if not curves:
        return pd.DataFrame(columns=[*keys, *LEARNING])
    table = pd.concat(curves, ignore_index=True)
    kept = thinned(sorted(table["epoch"].unique()), EPOCHS)
    table = table[table["epoch"].isin(kept)].join(labelled(runs, layout), on="run")
    table["odd"] = table["run"].map(runs["status"].isin(("collapsed", "diverged")))
    table["gap"] = table["train_accuracy"] - table["val_accuracy"]
    return _means(table, [*keys, "epoch"])[[*keys, *LEARNING]]


def _means(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    rows = []
    for values, group in table.groupby(keys, sort=False, dropna=False):
        value, low, high = interval(group["val_accuracy"])
        gap, gap_low, gap_high = interval(group["gap"])
        rows.append(
            dict(zip(keys, values, strict=True))
            | {"train_accuracy": group["train_accuracy"].mean(), "val_accuracy": value, "low": low, "high": high}
            | {"gap": gap, "gap_low": gap_low, "gap_high": gap_high, "seeds": len(group)}
            | {"odd": bool(group["odd"].any())}
        )
    return pd.DataFrame(rows)


def applies(frame: pd.DataFrame, chosen: dict[str, str]) -> pd.DataFrame:
    """The rows with these values of settings, and those that a setting does not apply to."""
    for name, value in chosen.items():
        frame = frame[frame[name].isin((value, NONE))]
    return frame
