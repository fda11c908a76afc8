"""How often training goes wrong: runs that are lost, classes that die, losses that spike, neurons that fall silent."""

import itertools
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd

from sparse_jax.analysis.statistics import Interval, rate
from sparse_jax.report import figures
from sparse_jax.report.exhibits import NO_RESULTS, Figure, Findings, Missing, figure, labels
from sparse_jax.report.frames import CONFIDENCE, Layout, interval, labelled
from sparse_jax.report.records import Records, setting_text
from sparse_jax.report.seeds import share
from sparse_jax.report.tables import Table

DEAD, SPIKES, SILENT = "dead classes", "loss spikes", "silent neurons"
RATES = ("collapsed", "diverged", DEAD, SPIKES)
MEASURED = ("density", "measure", "share", "low", "high", "runs")
FORMATS = {"runs": "d", SILENT: ".1%", "from": ".1%", "to": ".1%"}
CLASS_FORMATS = dict.fromkeys(("class", "runs", "dead in", "of these ok"), "d")


def stability_parts(findings: Findings) -> list[Figure | Table | Missing]:
    """Rates of what may go wrong by setting, and the classes that die."""
    title, layout = "How often training goes wrong", findings.layout
    found = rate_rows(findings.records, layout)
    if found.empty:
        return [Missing("stability", title, NO_RESULTS)]
    lacking = [name for name in (*RATES, SILENT) if name not in set(found["measure"])]
    note = f" The runs do not tell of {', '.join(lacking)}." if lacking else ""
    caption = (
        "The shares of runs that collapsed or diverged, that never predict some class of the test part, and whose "
        "training loss rises on the way, as it does after a pruning, with exact binomial intervals. Of the hidden "
        "neurons the mean share that gives one value for all training examples, with its interval over seeds. All at "
        f"95%, over the runs that tell: of one that diverged neither classes nor neurons are known.{note}"
    )
    worst = found.loc[found.groupby("measure", sort=False)["share"].idxmax()]
    tops = "; ".join(f"{row.measure} {row.share:.0%} at density {row.density:.3g}" for row in worst.itertuples())
    rows = _by_setting(found, list(layout.told)).rename(columns=labels(list(layout.told)))
    return [
        figure("stability", title, caption, f"At most: {tops}.", found, partial(figures.rates, layout=layout)),
        Table("stability-table", "The same in numbers", "Runs are those with a result.", rows, FORMATS),
        _classes(findings),
    ]


def outcomes(runs: pd.DataFrame) -> dict[str, pd.Series]:
    """Name in RATES -> 1 or 0 of every finished run, whether it happened; NaN where the run does not tell."""
    dead = runs["dead_classes"].map(lambda classes: len(classes) if isinstance(classes, list) else np.nan)
    counts = {DEAD: dead.astype(float), SPIKES: runs["loss_spikes"]}
    lost = {name: (runs["status"] == name).astype(float) for name in RATES[:2]}
    return lost | {name: (count > 0).astype(float).where(count.notna()) for name, count in counts.items()}


def rate_rows(records: Records, layout: Layout) -> pd.DataFrame:
    """One row for each combination of the settings that vary and each measure, over the runs that tell of it."""
    runs, keys, rows = records.finished, [*layout.varied, "series", "panel"], []
    for values, indices in labelled(runs, layout).groupby(keys, sort=False, dropna=False).groups.items():
        group = runs.loc[indices]
        ends = {name: rate(int(known.sum()), len(known), CONFIDENCE) for name, known in _known(group).items()}
        if len(silent := group["silent_share"].dropna()):
            ends[SILENT] = np.clip(interval(silent), 0, 1).tolist()
        of_setting = dict(zip(keys, values, strict=True))
        of_setting |= {"runs": len(group), "density": 1 - group["sparsity"].mean()}
        for name, three in ends.items():
            rows.append(of_setting | {"measure": name} | dict(zip(("share", "low", "high"), three, strict=True)))
    frame = pd.DataFrame(rows, columns=[*keys, *MEASURED])
    return frame.sort_values("density", ascending=False, kind="stable", ignore_index=True)


def _known(runs: pd.DataFrame) -> dict[str, pd.Series]:
    """The outcomes of those runs that tell of them, where there are some."""
    found = {name: ended.dropna() for name, ended in outcomes(runs).items()}
    return {name: ended for name, ended in found.items() if len(ended)}


def _by_setting(found: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The rows of `rate_rows` as one for each combination of settings."""
    rows = []
    for values, group in found.groupby([*names, "series", "panel"], sort=False, dropna=False):
        row = dict(zip(names, values, strict=False)) | {"runs": int(group["runs"].max())}
        row |= {one.measure: share(Interval(one.share, one.low, one.high)) for one in group.itertuples()}
        for one in group[group["measure"] == SILENT].itertuples():
            row |= {SILENT: one.share, "from": one.low, "to": one.high}
        rows.append(row)
    columns = [*names, "runs", *RATES, SILENT, "from", "to"]
    return pd.DataFrame(rows)[[name for name in columns if any(name in row for row in rows)]]


def class_rows(records: Records, layout: Layout) -> pd.DataFrame:
    """One row for each data set, level and class that dies, over the runs that tell of it."""
    runs = records.finished
    runs = runs[[isinstance(classes, list) for classes in runs["dead_classes"]]]
    keys, rows = ["dataset", *([layout.level] if layout.level else [])], []
    for values, part in runs[keys].map(setting_text).groupby(keys, sort=False):
        group = runs.loc[part.index]
        every, ok = (Counter(itertools.chain.from_iterable(some["dead_classes"])) for some in (group, _ok(group)))
        for one, count in sorted(every.items(), key=lambda pair: (-pair[1], pair[0])):
            row = dict(zip(keys, values, strict=True)) | {"class": one, "runs": len(group), "dead in": count}
            rows.append(row | {"rate": share(rate(count, len(group), CONFIDENCE)), "of these ok": ok[one]})
    return pd.DataFrame(rows).drop(columns=[] if "dataset" in layout.varied or not rows else ["dataset"])


def _ok(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["status"] == "ok"]


def _classes(findings: Findings) -> Table | Missing:
    id, title, layout = "dead-classes", "The classes that die", findings.layout
    rows = class_rows(findings.records, layout)
    if not rows.empty:
        caption = (
            "Classes of the test part that a run never predicts, with exact 95% intervals. Where one has collapsed to "
            "a single class, all others are dead."
        )
        return Table(id, title, caption, rows.rename(columns=labels(list(layout.varied))), CLASS_FORMATS)
    told = outcomes(findings.records.finished)[DEAD].notna().any()
    return Missing(id, title, "Every run predicts every class." if told else "The runs do not tell of dead classes.")
