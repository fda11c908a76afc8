"""Published accuracies beside those of the runs that have their settings."""

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from sparse_jax.analysis.statistics import Interval, Outcome, Summary, summarize
from sparse_jax.report import figures
from sparse_jax.report.exhibits import Figure, Findings, Missing, Section, figure, odd_note, seeds_note
from sparse_jax.report.figures import MEAN, PUBLISHED, label
from sparse_jax.report.frames import CONFIDENCE, Layout, labelled, outcome
from sparse_jax.report.published import Published
from sparse_jax.report.records import FINISHED, LEVELS, STATUSES, Records, setting_text
from sparse_jax.report.tables import Table

NEAR = 5e-4  # of a sparsity that nobody asked for: that of given masks is right up to whole connections
NAMED = 3  # values of a setting that a remark names
ALWAYS = ("mean", "from", "to", "difference", "within")  # columns that are shown even if they are empty
FORMATS = dict.fromkeys(("published", "published from", "published to", "mean", "from", "to", "mean of ok runs"), ".2%")
FORMATS |= {"difference": "+.2%", "runs": "d"}


class Replication(NamedTuple):
    """One published accuracy, and what the study has of it."""

    row: Published
    runs: pd.DataFrame  # those with its settings, unfinished ones too
    summary: Summary | None  # of those that ended, if nothing but seeds tells them apart
    remark: str

    @property
    def mean(self) -> Interval | None:
        """The mean accuracy of all runs with a result."""
        return self.summary.mean if self.summary else None

    @property
    def within(self) -> bool | None:
        """Whether the published accuracy lies in the interval of the mean; None without an interval."""
        if self.mean is None or self.mean.low is None or self.mean.high is None:
            return None
        return self.mean.low <= self.row.accuracy <= self.mean.high


def replicate(row: Published, records: Records) -> Replication:
    """Find the runs that have the settings of a published accuracy, and what they came to."""
    fits = {name: _fits(records.runs, name, text) for name, text in row.settings.items()}
    runs = records.runs[pd.DataFrame(fits, index=records.runs.index).all(axis="columns")]
    if runs.empty:
        nowhere = [f"{label(name)} {row.settings[name]}" for name, fit in fits.items() if not fit.any()]
        return Replication(row, runs, None, f"not run: no run has {' or '.join(nowhere) or 'all of these settings'}")
    texts = {name: list(dict.fromkeys(runs[name].map(setting_text))) for name in records.varied}
    differing = [f"{label(name)} ({_few(values)})" for name, values in texts.items() if len(values) > 1]
    if differing:
        return Replication(row, runs, None, f"no mean: these runs differ in {', '.join(differing)}")
    ended = runs[runs["status"] != STATUSES[-1]]
    summary = summarize(map(Outcome, ended["status"], ended["test_accuracy"]), CONFIDENCE)
    unfinished = f"{len(runs) - len(ended)} unfinished" if len(ended) < len(runs) else None
    return Replication(row, runs, summary, "; ".join(word for word in (summary.caveat, unfinished) if word))


def _few(values: list[str]) -> str:
    return ", ".join([*values[:NAMED], *(["…"] if len(values) > NAMED else [])])


def _fits(runs: pd.DataFrame, name: str, text: str) -> pd.Series:
    """Which runs have this value. `sparsity` is the one that was asked for, or that obtained where none was."""
    if name != "sparsity":
        return runs[name].map(partial(_equal, text=text, tolerance=0))
    asked, obtained = runs["sparsity_target"], runs["sparsity"].map(partial(_equal, text=text, tolerance=NEAR))
    return asked.map(partial(_equal, text=text, tolerance=0)).where(asked.notna(), obtained)


def _equal(value: Any, text: str, tolerance: float) -> bool:
    """Whether the text is the value, as a number or as the page shows it, or a shell pattern of it, in either case."""
    if isinstance(value, int | float):
        try:
            return math.isclose(value, float(text), rel_tol=1e-9, abs_tol=tolerance)
        except ValueError:  # a pattern, or the sign of what does not apply
            pass
    return fnmatchcase(setting_text(value).lower(), text.lower())


def published_section(findings: Findings, rows: Sequence[Published]) -> Section:
    """Every published accuracy beside that of the runs with its settings: against density, and as a table."""
    found = [replicate(row, findings.records) for row in rows]
    return Section("published", "Published and obtained", [_figure(found, findings.layout), _table(found)])


def _figure(found: list[Replication], layout: Layout) -> Figure | Missing:
    id, title = "published-density", "Published and obtained accuracy against density"
    if not any(one.row.settings.keys() & {"sparsity", *LEVELS} for one in found):
        return Missing(id, title, "No published accuracy has a sparsity or epsilon, so there is no axis of density.")
    obtained = [one for one in found if one.mean]
    if not obtained:
        return Missing(id, title, "No run with a result has the settings of a published accuracy.")
    data = pd.DataFrame([point for one in obtained for point in _points(one, layout)])
    ours = data[data["kind"] == MEAN]
    far = max(obtained, key=lambda one: abs(one.mean.value - one.row.accuracy))
    summary = (
        f"{len(obtained)} published accuracies beside ours, from density {ours['density'].min():.3g} to "
        f"{ours['density'].max():.3g}; the furthest from ours is {far.row.accuracy:.2%} where we have "
        f"{far.mean.value:.2%}."
    )
    caption = (
        "Ticks, joined by dashes where one source has several, are published; marks are our means, at the density that "
        f"our runs had. {seeds_note(ours)}{odd_note(ours, 'Open marks')}"
    )
    return figure(id, title, caption, summary, data, partial(figures.accuracy_by_density, layout=layout))


def _points(one: Replication, layout: Layout) -> list[dict[str, Any]]:
    """Our mean and the published accuracy, as rows of the figure."""
    finished = one.runs[one.runs["status"].isin(FINISHED)]
    ended = {name: int((one.runs["status"] == name).sum()) for name in STATUSES}
    place = labelled(one.runs.iloc[:1], layout).iloc[0].to_dict() | {"density": 1 - finished["sparsity"].mean()}
    place |= {"label": one.row.label, "source": one.row.source}
    odd = bool(ended["collapsed"] + ended["diverged"])
    ours = {"seeds": len(finished), "outcome": outcome(ended), "odd": odd, "within": one.within}
    theirs = dict.fromkeys(ours) | {"odd": False}
    return [
        place | {"kind": MEAN, **dict(zip(("accuracy", "low", "high"), one.mean, strict=True)), **ours},
        place | {"kind": PUBLISHED, "accuracy": one.row.accuracy, "low": one.row.low, "high": one.row.high, **theirs},
    ]


def _table(found: list[Replication]) -> Table:
    first = found[0].row.settings.items() if len(found) > 1 else ()
    common = {name: text for name, text in first if all(one.row.settings.get(name) == text for one in found)}
    frame = pd.DataFrame([_cells(one, common) for one in found])
    frame = frame[[name for name in frame if name in ALWAYS or frame[name].notna().any()]]
    formats = {name: form for name, form in FORMATS.items() if name in frame}
    beside, within = sum(one.mean is not None for one in found), sum(one.within is True for one in found)
    caption = (
        f"{beside} of {len(found)} published accuracies have results of ours beside them; {within} lie within our "
        "interval. The mean is over all runs with a result, with Student's t interval (BCa bootstrap from 20 seeds on) "
        "at 95%; the difference is ours less the published. The interval is that of a mean: what one run of a paper "
        "gave may lie outside it by chance."
    )
    every = ", ".join(f"{label(name)} {text}" for name, text in common.items())
    caption += f" Every row has {every}." if every else ""
    return Table("published", "Every published accuracy", caption, frame, formats)


def _cells(one: Replication, common: dict[str, str]) -> dict[str, Any]:
    """A row of the table."""
    row, mean = one.row, one.mean or Interval(math.nan, None, None)
    own = [f"{label(name)} {text}" for name, text in row.settings.items() if name not in common]
    ok = one.summary.mean_ok if one.summary and one.summary.caveat else None
    return {
        "label": row.label or None, "settings": ", ".join(own) or None, "published": row.accuracy,
        "mean": mean.value, "from": mean.low, "to": mean.high, "difference": mean.value - row.accuracy,
        "within": {None: None, True: "yes", False: "no"}[one.within], "runs": len(one.runs),
        "mean of ok runs": ok.value if ok else None, "remark": one.remark or None,
        "published from": row.low, "published to": row.high, "source": row.source or None, "note": row.note or None,
    }  # fmt: skip
