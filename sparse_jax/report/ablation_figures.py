"""The figures of the section on ablations, as those of `figures`."""

import altair as alt
import pandas as pd

from sparse_jax.config import ABLATION_ORDERS
from sparse_jax.report.figures import COLUMNS, PANEL, PERCENT, label
from sparse_jax.report.frames import Layout
from sparse_jax.report.style import SHAPES


def curves(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Accuracy against the share of the connections that are gone, by order; a panel for each setting."""
    orders = [name for name in ABLATION_ORDERS if name in set(frame["order"])]
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(orders))]
    legend = alt.Legend(title=None, values=orders, symbolOpacity=1)
    base = alt.Chart(frame).encode(
        x=alt.X("removed:Q", title="share removed", axis=alt.Axis(format="~%", tickCount=5, grid=False)),
        color=alt.Color("order:N", scale=alt.Scale(domain=orders), legend=legend),
    )  # fmt: skip
    y = alt.Y("mean:Q", title="accuracy", axis=PERCENT)
    tips = [*(alt.Tooltip(f"{name}:N", title=label(name)) for name in layout.varied), alt.Tooltip("order:N"),
            alt.Tooltip("variant:N"), alt.Tooltip("removed:Q", format="~%"),
            alt.Tooltip("mean:Q", title="accuracy", format=".2%"), alt.Tooltip("low:Q", title="95% from", format=".2%"),
            alt.Tooltip("high:Q", title="to", format=".2%"), alt.Tooltip("seeds:Q")]  # fmt: skip
    band = base.mark_area(opacity=0.12).encode(y=alt.Y("band_low:Q"), y2="band_high:Q")
    line = base.mark_line(strokeWidth=1.6).encode(y=y)
    shape = alt.Shape("order:N", scale=alt.Scale(domain=orders, range=shapes), legend=legend)
    marks = base.mark_point(size=30, filled=True, opacity=1).encode(y=y, shape=shape, tooltip=tips)
    chart = alt.layer(*([band] if frame["low"].notna().any() else []), line, marks)
    return _panels(chart, frame)


def deciles(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Accuracy lost without each tenth of the connections, the smallest weights first."""
    series = layout.series_order()
    legend = alt.Legend(title=None, values=series, symbolOpacity=1) if len(series) > 1 else None
    base = alt.Chart(frame).encode(
        x=alt.X("decile:O", title="tenth of the connections, by |w|", axis=alt.Axis(labelAngle=0, grid=False)),
        color=alt.Color("series:N", scale=alt.Scale(domain=series), legend=legend),
    )
    y = alt.Y("mean:Q", title="accuracy lost", axis=PERCENT)
    tips = [*(alt.Tooltip(f"{name}:N", title=label(name)) for name in layout.varied), alt.Tooltip("decile:O"),
            alt.Tooltip("mean:Q", title="lost", format=".2%"), alt.Tooltip("low:Q", title="95% from", format=".2%"),
            alt.Tooltip("high:Q", title="to", format=".2%"), alt.Tooltip("seeds:Q")]  # fmt: skip
    band = base.mark_area(opacity=0.12).encode(y=alt.Y("band_low:Q"), y2="band_high:Q")
    line = base.mark_line(strokeWidth=1.6).encode(y=y)
    marks = base.mark_point(size=30, filled=True, opacity=1).encode(y=y, tooltip=tips)
    return _panels(alt.layer(*([band] if frame["low"].notna().any() else []), line, marks), frame)


def _panels(chart: alt.LayerChart, frame: pd.DataFrame) -> alt.TopLevelMixin:
    """The chart, once for each value of `place`."""
    order = list(dict.fromkeys(frame["place"]))
    if len(order) < 2:
        return chart.properties(width=480, height=280)
    panels = chart.properties(width=PANEL[0], height=PANEL[1])
    return panels.facet(alt.Facet("place:N", sort=order, title=None), columns=COLUMNS).resolve_axis(x="independent")
