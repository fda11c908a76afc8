"""The law of accuracy against density of every curve: what it says, where it ends, or why there is none."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sparse_jax.analysis.law import Choice, choose
from sparse_jax.analysis.levels import Levels
from sparse_jax.analysis.reading import invert, parameters, predict
from sparse_jax.analysis.statistics import Interval
from sparse_jax.report.frames import CONFIDENCE, Layout, labelled
from sparse_jax.report.records import Records

CURVE = 48  # points of a drawn law
SHARES = (0.99, 0.95, 0.8)  # of the best mean accuracy, to be looked for by the laws
NO_CHANCE = "the runs do not say how large the largest class of the test part is (majority): no law is fitted"


class Law(NamedTuple):
    """One curve of the study and its law."""

    settings: dict[str, str]  # what varies, but for the level; with `series` and `panel`
    levels: Levels
    names: dict[float, str]  # density -> the level as it was asked for
    chance: float | None
    choice: Choice
    runs: pd.Index  # of the table of runs


def fit_laws(records: Records, layout: Layout) -> list[Law]:
    """A law for each series and panel, over the densities that the runs really had."""
    if layout.level is None:
        return []
    runs = records.finished
    texts = labelled(runs, layout)
    keys = [name for name in (*layout.varied, "series", "panel") if name != layout.level]
    laws = []
    for values, indices in texts.groupby(keys, sort=False, dropna=False).groups.items():
        group = runs.loc[indices]
        by_level = group.groupby(texts.loc[indices, layout.level], sort=False)
        found = {float(1 - level["sparsity"].mean()): (name, level["test_accuracy"]) for name, level in by_level}
        levels = {density: accuracies.tolist() for density, (_, accuracies) in found.items()}
        names = {density: name for density, (name, _) in found.items()}
        chance = group["majority"].mean()
        chance = None if pd.isna(chance) else float(chance)
        choice = Choice(None, {}, NO_CHANCE) if chance is None else choose(levels, chance)
        laws.append(Law(dict(zip(keys, values, strict=True)), levels, names, chance, choice, indices))
    return laws


def dense_beside(law: Law, runs: pd.DataFrame, texts: pd.DataFrame, layout: Layout) -> tuple[pd.DataFrame, str | None]:
    """The dense runs that a curve is measured against, and a remark on those with its settings that are left out.

    A dense network that did not learn is no measure of what sparse ones could: runs that collapsed or diverged are left
    out, unless there are no others.
    """
    same = runs["method"] == "dense"
    for name in (name for name in layout.varied if name not in ("method", layout.level)):
        same &= texts[name] == law.settings[name]
    trained = same & (runs["status"] == "ok")
    kept = trained if trained.any() else same
    lost, count = int((same & ~kept).sum()), int(same.sum())
    return runs[kept], f"{lost} of {count} dense runs, collapsed or diverged, are left out" if lost else None


def drawn(laws: list[Law]) -> pd.DataFrame:
    """The laws as lines: density and accuracy, over the densities that were fitted."""
    tables = []
    for law in laws:
        fit = law.choice.fit
        if fit is None or fit.theta is None:
            continue
        densities = np.geomspace(fit.curve.densities[0], fit.curve.densities[-1], CURVE)
        line = predict(fit, densities, CONFIDENCE).line
        tables.append(pd.DataFrame({**law.settings, "density": densities, "accuracy": line}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def law_table(laws: list[Law], names: list[str]) -> pd.DataFrame:
    """One row for each curve: its family, parameters and errors, or why it has no law."""
    rows = []
    for law in laws:
        fit = law.choice.fit
        row: dict[str, Any] = {name: law.settings[name] for name in names}
        held = law.choice.held_out[fit.family].error if fit is not None else None
        found = parameters(fit, CONFIDENCE) if fit is not None else {}
        row |= {"family": fit.family if fit else None, "chance": law.chance, "held-out error": held}
        words = "; ".join(f"{name} = {_span(value, 3)}" for name, value in found.items())
        rows.append(row | {"R²": fit.r2 if fit else None, "parameters": words, "remark": remark(law)})
    return pd.DataFrame(rows)


def remark(law: Law) -> str:
    """What has to be said beside a law."""
    fit = law.choice.fit
    if fit is None:
        return law.choice.reason or ""
    peak = [] if fit.peak is None else [f"fitted on the sparse side of its peak at density {fit.peak:.3g}"]
    return "; ".join([*peak, *([fit.reason] if fit.reason else [])])


def inversions(laws: list[Law], names: list[str], best: float) -> pd.DataFrame:
    """Which sparsity still gives a share of the best accuracy of the study, by the laws."""
    rows = []
    for law in laws:
        fit = law.choice.fit
        if fit is None:
            continue
        for share in SHARES:
            found = invert(fit, share * best, CONFIDENCE)
            sparsity = found.sparsity or Interval(np.nan, None, None)
            words = [found.reason, "beyond the levels that were trained" if found.extrapolated else None]
            rows.append(
                {name: law.settings[name] for name in names}
                | {"accuracy": share * best, "of the best": share, "sparsity": sparsity.value, "from": sparsity.low}
                | {"to": sparsity.high, "remark": "; ".join(word for word in words if word)}
            )
    columns = [*names, "accuracy", "of the best", "sparsity", "from", "to", "remark"]
    return pd.DataFrame(rows, columns=columns)


def _span(interval: Interval, digits: int) -> str:
    value = f"{interval.value:.{digits}g}"
    return value if interval.low is None else f"{value} [{interval.low:.{digits}g}, {interval.high:.{digits}g}]"
