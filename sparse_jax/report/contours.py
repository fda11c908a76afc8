"""Where each curve falls half of the way from dense to chance: its extreme sparse contour."""

import math

import pandas as pd

from sparse_jax.analysis.contour import Crossing, crossing
from sparse_jax.analysis.statistics import Interval
from sparse_jax.report.frames import CONFIDENCE, Layout, labelled
from sparse_jax.report.laws import Law, dense_beside
from sparse_jax.report.records import Records


def contour_rows(records: Records, layout: Layout, laws: list[Law]) -> pd.DataFrame:
    """One row a curve: the density at which it crosses, or on which side of what was measured that lies."""
    runs = records.finished
    texts, rows = labelled(runs, layout), []
    for law in laws:
        if law.chance is None:
            continue
        dense, lost = dense_beside(law, runs, texts, layout)
        own = runs.loc[law.runs]
        by_level = [level for _, level in own.groupby(texts.loc[own.index, layout.level], sort=False)]
        curve = {1 - level["sparsity"].mean(): _by_seed(level) for level in by_level}
        fan_in = {1 - level["sparsity"].mean(): _fan_in(level) for level in by_level}
        known = {density: value for density, value in fan_in.items() if value is not None and density > 0}
        found = crossing(curve, _by_seed(dense), known, law.chance, CONFIDENCE)
        rows.append({**law.settings, **_row(found, lost)})
    return pd.DataFrame(rows)


def _by_seed(runs: pd.DataFrame) -> dict:
    return dict(zip(runs["seed"], runs["test_accuracy"], strict=True))


def _fan_in(runs: pd.DataFrame) -> float | None:
    """Mean incoming connections of a neuron: connections by outputs, of all kernels."""
    kernels = next((one for one in runs["kernels"] if isinstance(one, dict)), None) if "kernels" in runs else None
    return float(runs["connections"].mean()) / sum(shape[-1] for shape in kernels.values()) if kernels else None


def _row(found: Crossing, lost: str | None) -> dict:
    density = found.density or Interval(math.nan, None, None)
    fan_in = found.fan_in.value if found.fan_in else None
    remarks = [found.side, None if found.dense_measured else "the best level stands for dense", lost]
    return {
        "density": density.value, "low": density.low, "high": density.high, "mean fan-in": fan_in,
        "accuracy": found.target, "seeds": found.seeds, "remark": "; ".join(word for word in remarks if word),
    }  # fmt: skip
