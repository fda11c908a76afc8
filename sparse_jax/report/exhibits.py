"""What a report consists of: figures, tables, and what keeps one from being; and all that they are made from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from sparse_jax.report import comparisons, laws
from sparse_jax.report.ablations import Ablations, read_ablations
from sparse_jax.report.crossings import TEST_ACCURACY, Study, study_of
from sparse_jax.report.figures import label
from sparse_jax.report.frames import Layout, points
from sparse_jax.report.logs import Log, read_logs
from sparse_jax.report.records import Records
from sparse_jax.report.tables import Table
from sparse_jax.report.topologies import Map

NO_RESULTS = "No run has finished yet."
ODD = "mean that collapsed or diverged runs are in the mean."
NO_LEVEL = "Neither sparsity nor epsilon was varied, so there is no axis of density."
ONLY_LEVEL = "Only the level was varied, so there is nothing to cross it with."


class Fit(NamedTuple):
    """How the page fits a figure to the window, in pixels."""

    least: int = 200  # of a panel, where the number of columns can be chosen
    floor: int = 130  # of a panel in any case
    most: int = 4  # panels beside each other
    widest: int = 460  # of a panel
    margin: int = 76  # beside a panel: its axis
    ratio: float | None = 0.64  # height by width of panels; None where the height is that of the chart


PANELS = Fit()


class Figure(NamedTuple):
    """A figure, its data and its words."""

    id: str
    title: str
    caption: str
    summary: str  # what it shows, in a sentence, for who cannot see it
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame], alt.TopLevelMixin]
    single: dict[str, str]  # settings of which one value is shown at a time, and the first to be shown
    maps: tuple[Map, ...]  # what the page shows in place of the chart
    fit: Fit


class Missing(NamedTuple):
    """A figure or table that cannot be, and why, in one sentence."""

    id: str
    title: str
    reason: str


class Section(NamedTuple):
    """A section of the page."""

    id: str
    title: str
    parts: list[Figure | Table | Missing]


class Words(NamedTuple):
    """What a page says beside its sections."""

    kind: str  # what it is the report of, a study or a search
    title: str
    varied: str
    completeness: str
    headline: list[str]
    notes: list[str]
    again: list[dict[str, Any]]  # of `provenance`, one a workdir


class Compared(NamedTuple):
    """The values of one setting against each other."""

    blocks: pd.DataFrame
    gains: pd.DataFrame


class Findings(NamedTuple):
    """What sections and headline are made from, computed once."""

    records: Records
    layout: Layout
    points: pd.DataFrame
    laws: list[laws.Law]
    logs: dict[int, Log]
    compared: dict[str, Compared]  # by setting
    crossed: Study
    ablations: Ablations


def find(records: Records, layout: Layout) -> Findings:
    """Everything that is computed of a study, but for what only one section needs."""
    compared = {}
    for factor in (name for name in layout.varied if name != layout.level):
        table = comparisons.blocks(records, layout, factor)
        compared[factor] = Compared(table, comparisons.gains(table, layout, factor))
    fitted = laws.fit_laws(records, layout)
    crossed = study_of(records, layout, TEST_ACCURACY)
    logs, ablations = read_logs(records), read_ablations(records)
    return Findings(records, layout, points(records, layout), fitted, logs, compared, crossed, ablations)


def seeds_note(found: pd.DataFrame) -> str:
    """What the bands are, or why there are none."""
    most = int(found["seeds"].max()) if len(found) else 0
    if most > 1:
        return "Bands are 95% intervals of the mean over seeds."
    return "There is one seed, so no interval is shown."


def figure(id: str, title: str, caption: str, summary: str, data: pd.DataFrame, draw: Callable,
            single: dict[str, str] | None = None, maps: tuple[Map, ...] = (), fit: Fit = PANELS) -> Figure:  # fmt: skip
    """A figure; one that shows everything at a time, as a chart, unless it is said."""
    return Figure(id, title, caption, summary, data, draw, single or {}, maps, fit)


def cells_fit(columns: int) -> Fit:
    """Of a heat map with so many columns of numbers."""
    return Fit(least=50 * columns, floor=34 * columns, most=3, widest=64 * columns, margin=110, ratio=None)


def odd_note(found: pd.DataFrame, sign: str) -> str:
    """What tells a mean over runs that collapsed or diverged from others, if there is one."""
    return f" {sign} {ODD}" if found["odd"].any() else ""


def measured(findings: Findings) -> pd.DataFrame:
    """The points of the grid that have an accuracy."""
    return findings.points[findings.points["accuracy"].notna()]


def labels(names: list[str]) -> dict[str, str]:
    """Columns of settings -> what readers call them."""
    return {name: label(name) for name in names}
