"""The figures: one function each, from a data frame of `frames` or `topologies` to a chart.

A chart has one data set, the frame; panels are facets of it. Its width and columns are for print; the page
fits them to the window. Colours follow the theme, by `range` of its config.
"""

import altair as alt
import numpy as np
import pandas as pd

from sparse_jax.report.frames import EVERY, Layout
from sparse_jax.report.records import NONE
from sparse_jax.report.style import SERIES_LIGHT, SHAPES, needs_pale_ink

PANEL = 214, 150  # width and height for print
COLUMNS = 3
PERCENT = alt.Axis(format=".2~%", tickCount=5)
COUNTS = alt.Axis(grid=False, tickMinStep=1, tickCount=5)
SPARSE = {"tickCount": 4, "grid": False, "labelOverlap": "greedy", "labelSeparation": 8}  # of a logarithmic axis
NAMES = alt.Axis(domain=False, ticks=False)
DENSE = f"datum.label == '{NONE}' ? 'none' : datum.label"  # dense networks have no level
MEAN, LAW, PUBLISHED = "mean", "law", "published"  # what a row of a figure of accuracies is
LABELS = {"sparsity_target": "sparsity"}
NEUTRAL = "#8a8883"  # stands out from white and from black


def label(setting: str) -> str:
    """A setting as a reader calls it."""
    return LABELS.get(setting, setting).replace("_", " ")


def _colour(layout: Layout, symbol: str = "circle") -> alt.Color:
    order = layout.series_order()
    legend = alt.Legend(title=None, values=order, symbolOpacity=1, symbolType=symbol) if len(order) > 1 else None
    return alt.Color("series:N", scale=alt.Scale(domain=order), legend=legend)


def _shape(layout: Layout) -> alt.Shape:
    order = layout.series_order()
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(order))]
    legend = alt.Legend(title=None, values=order) if len(order) > 1 else None
    return alt.Shape("series:N", scale=alt.Scale(domain=order, range=shapes), legend=legend)


def _settings_tips(layout: Layout) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:N", title=label(name)) for name in layout.varied]


def _percent_tip(field: str, title: str) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=title, format=".2%")


def _panels(chart: alt.Chart | alt.LayerChart, frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """The chart, once for each panel if there are several."""
    order = layout.panel_order(frame)
    if len(order) < 2:
        return chart.properties(width=480, height=280)
    chart = chart.properties(width=PANEL[0], height=PANEL[1])
    return chart.facet(alt.Facet("panel:N", sort=order, title=None), columns=COLUMNS).resolve_axis(x="independent")


def _marks(base: alt.Chart, layout: Layout, **encoding: alt.Y | list) -> list[alt.Chart]:
    """Filled marks, and open ones where collapsed or diverged runs are in a mean."""
    marks = base.encode(shape=_shape(layout), color=_colour(layout), **encoding)
    sound = marks.transform_filter("!datum.odd").mark_point(size=46, filled=True, opacity=1)
    return [sound, marks.transform_filter("datum.odd").mark_point(size=46, strokeWidth=1.6, opacity=1)]


def _ends(frame: pd.DataFrame, low: str, high: str, bounds: tuple[float, float]) -> pd.DataFrame:
    """The frame with the ends of its bands, drawn no further than an accuracy can go."""
    ends = {name: frame[end].astype(float).clip(*bounds) for name, end in (("band_low", low), ("band_high", high))}
    return frame.assign(**ends)


def _density() -> alt.X:
    scale, axis = alt.Scale(type="log", nice=False, padding=8), alt.Axis(format="~p", **SPARSE)
    return alt.X("density:Q", title="density (share of connections)", scale=scale, axis=axis)


def accuracy_by_density(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Means over seeds with their intervals; open marks where runs were lost; laws dotted; ticks where published."""
    y = alt.Y("accuracy:Q", title="test accuracy", scale=alt.Scale(zero=False, nice=True), axis=PERCENT)
    base = alt.Chart(_ends(frame, "low", "high", (0, 1))).encode(x=_density(), color=_colour(layout))
    mean, law, published = (base.transform_filter(alt.datum.kind == kind) for kind in (MEAN, LAW, PUBLISHED))
    tips = [*_settings_tips(layout), _percent_tip("accuracy", "accuracy"), _percent_tip("low", "95% from"),
            _percent_tip("high", "to"), alt.Tooltip("density:Q", format=".4~p"), alt.Tooltip("outcome:N", title="runs")]
    band = mean.mark_area(opacity=0.14).encode(y=alt.Y("band_low:Q"), y2="band_high:Q")
    lines = [mean.mark_line(strokeWidth=1.6), law.mark_line(strokeDash=[1.5, 3], strokeWidth=1.6)]
    layers = [*([band] if frame["low"].notna().any() else []), *(line.encode(y=y) for line in lines)]
    layers += _ticks(published, y) if PUBLISHED in set(frame["kind"]) else []
    return _panels(alt.layer(*layers, *_marks(mean, layout, y=y, tooltip=tips)), frame, layout)


def _ticks(base: alt.Chart, y: alt.Y) -> list[alt.Chart]:
    tips = [alt.Tooltip("label:N"), alt.Tooltip("source:N"), _percent_tip("accuracy", "published")]
    bounds = base.mark_rule(strokeWidth=1.6, opacity=0.5).encode(y=alt.Y("band_low:Q"), y2="band_high:Q")
    dashes = base.mark_line(strokeDash=[5, 4], strokeWidth=1.2).encode(y=y, detail="source:N")
    tick = base.mark_tick(orient="horizontal", size=16, thickness=2.5, opacity=1).encode(y=y, tooltip=tips)
    return [bounds, dashes, tick]


def heat_map(frame: pd.DataFrame, layout: Layout, rows: str) -> alt.TopLevelMixin:
    """Accuracy by one setting and the level, the value in every cell; † where runs collapsed or diverged."""
    low, high = frame["accuracy"].min(), frame["accuracy"].max()
    share = (frame["accuracy"] - low) / (high - low) if high > low else frame["accuracy"] * 0
    dagger = np.where(frame["odd"], "†", "")
    cells = frame.assign(
        pale=needs_pale_ink(share.to_numpy(float)),
        text=[f"{100 * value:.1f}{mark}" for value, mark in zip(frame["accuracy"], dagger, strict=True)],
    )
    others = [name for name in layout.told if name not in (rows, layout.level)]
    cells = cells.assign(panel=[" · ".join(values) for values in cells[others].to_numpy()] if others else "")
    base = alt.Chart(cells).encode(
        x=alt.X(f"{layout.level}:O", title=label(layout.level), sort=list(layout.orders[layout.level]),
                axis=alt.Axis(labelAngle=0, domain=False, ticks=False, labelExpr=DENSE)),
        y=alt.Y(f"{rows}:O", title=None, sort=list(layout.orders[rows]), axis=NAMES),
        tooltip=[*_settings_tips(layout), _percent_tip("accuracy", "accuracy"), _percent_tip("low", "95% from"),
                 _percent_tip("high", "to"), alt.Tooltip("outcome:N", title="runs")],
    )  # fmt: skip
    colour = alt.Color("accuracy:Q", scale=alt.Scale(range="heatmap", domain=[low, high], interpolate="rgb"),
                       legend=alt.Legend(title="test accuracy", format=".0%", gradientLength=160))  # fmt: skip
    fill = base.mark_rect().encode(color=colour)
    ink = alt.condition(alt.datum.pale, alt.value("#ffffff"), alt.value("#111111"))
    text = base.mark_text(fontSize=11).encode(text="text:N", color=ink)
    chart = alt.layer(fill, text)
    height, width = 30 * len(layout.orders[rows]), 46 * len(layout.orders[layout.level])
    order = layout._replace(panels=tuple(others)).panel_order(cells)
    if len(order) < 2:
        return chart.properties(width=width + 60, height=height)
    panels = chart.properties(width=width, height=height)
    return panels.facet(alt.Facet("panel:N", sort=order, title=None), columns=2).resolve_axis(x="independent")


def _curves(frame: pd.DataFrame, layout: Layout, names: tuple[str, str, str], title: str,
            bounds: tuple[float, float]) -> alt.TopLevelMixin:  # fmt: skip
    """Means over seeds by epoch with their intervals; dashed where collapsed or diverged runs are in them."""
    value, low, high = names
    base = alt.Chart(_ends(frame, low, high, bounds)).encode(
        x=alt.X("epoch:Q", title="epoch", axis=COUNTS), color=_colour(layout)
    )
    tips = [*_settings_tips(layout), alt.Tooltip("epoch:Q"), _percent_tip(value, title), alt.Tooltip("seeds:Q"),
            alt.Tooltip("odd:N", title="collapsed or diverged")]  # fmt: skip
    y = alt.Y(f"{value}:Q", title=title, scale=alt.Scale(zero=False), axis=PERCENT)
    band = base.mark_area(opacity=0.14).encode(y=alt.Y("band_low:Q"), y2="band_high:Q")
    line = base.mark_line(strokeWidth=1.6)
    sound = line.transform_filter("!datum.odd").encode(y=y)
    odd = line.mark_line(strokeWidth=1.6, strokeDash=[4, 3]).transform_filter("datum.odd").encode(y=y)
    hover = base.mark_point(size=60, opacity=0).encode(y=y, tooltip=tips)
    bands = [band] if frame[low].notna().any() else []
    return _panels(alt.layer(*bands, sound, odd, hover), frame, layout)


def learning_curves(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Mean validation accuracy by epoch."""
    return _curves(frame, layout, ("val_accuracy", "low", "high"), "validation accuracy", (0, 1))


def gap_curves(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """How much better a network is on what it was trained on, by epoch."""
    return _curves(frame, layout, ("gap", "gap_low", "gap_high"), "train − validation accuracy", (-1, 1))


def degree_distributions(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """The share of the neurons with at least so many connections, by layer and side."""
    sides = {"in": "into its outputs", "out": "out of its inputs"}
    rows = frame.assign(place=[f"{a}: {sides[b]}" for a, b in zip(frame["layer"], frame["side"], strict=True)])
    tips = [*_settings_tips(layout), alt.Tooltip("layer:N"), alt.Tooltip("degree:Q"), _percent_tip("share", "share")]
    chart = alt.Chart(rows).mark_line(interpolate="step-before", strokeWidth=1.6, point=False).encode(
        x=alt.X("degree:Q", title="at least so many connections", axis=COUNTS),
        y=alt.Y("share:Q", title="share of neurons", axis=PERCENT),
        color=_colour(layout, "stroke"), detail=[f"{name}:N" for name in layout.panels] or alt.Undefined, tooltip=tips,
    )  # fmt: skip
    chart = chart.properties(width=PANEL[0], height=PANEL[1] - 20)
    places = list(dict.fromkeys(rows["place"]))
    return chart.facet(alt.Facet("place:N", sort=places, title=None), columns=2).resolve_scale(x="independent")


def input_maps(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Connections of every input, as an image for each series and panel."""
    height, width = frame["row"].max() + 1, frame["column"].max() + 1
    names = [" · ".join(filter(None, pair)) for pair in zip(frame["series"], frame["panel"], strict=True)]
    size = 130
    chart = alt.Chart(frame.assign(map=names)).mark_rect().encode(
        x=alt.X("column:O", axis=None), y=alt.Y("row:O", axis=None),
        color=alt.Color("connections:Q", scale=alt.Scale(range="heatmap", interpolate="rgb"),
                        legend=alt.Legend(title="connections", gradientLength=160)),
    ).properties(width=size, height=max(16, round(size * height / width)))  # fmt: skip
    return chart.facet(alt.Facet("map:N", sort=list(dict.fromkeys(names)), title=None), columns=5)


def cost(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """Accuracy against what it cost, by time and by arithmetic."""
    tips = [*_settings_tips(layout), _percent_tip("accuracy", "accuracy"), alt.Tooltip("amount:Q", format=".3~s"),
            alt.Tooltip("outcome:N", title="runs")]  # fmt: skip
    numbers = "datum.value < 10000 ? format(datum.value, '~g') : format(datum.value, '~s')"
    base = alt.Chart(frame).encode(
        x=alt.X("amount:Q", title="a run, mean over seeds", scale=alt.Scale(type="log", nice=False, padding=8),
                axis=alt.Axis(labelExpr=numbers, **SPARSE))
    )  # fmt: skip
    y = alt.Y("accuracy:Q", title="test accuracy", scale=alt.Scale(zero=False), axis=PERCENT)
    chart = alt.layer(*_marks(base, layout, y=y, tooltip=tips))
    kinds = list(dict.fromkeys(frame["measure"]))
    chart = chart.properties(width=300, height=220)
    return chart.facet(alt.Facet("measure:N", sort=kinds, title=None), columns=2).resolve_scale(x="independent")


def rates(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """How often what goes wrong, by density, with intervals where there are some."""
    ends = {name: frame[name].astype(float).fillna(frame["share"]) for name in ("low", "high")}
    base = alt.Chart(frame.assign(**ends)).encode(x=_density(), color=_colour(layout))
    tips = [*_settings_tips(layout), _percent_tip("share", "share"), _percent_tip("low", "95% from"),
            _percent_tip("high", "to"), alt.Tooltip("runs:Q")]  # fmt: skip
    y = alt.Y("share:Q", title="share", scale=alt.Scale(domain=[0, 1]), axis=PERCENT)
    bar = base.mark_rule(strokeWidth=1.6, opacity=0.35).encode(y="low:Q", y2="high:Q")
    line = base.mark_line(strokeWidth=1.6).encode(y=y, detail=[f"{name}:N" for name in layout.panels] or alt.Undefined)
    dot = base.mark_point(size=46, filled=True, opacity=1).encode(y=y, shape=_shape(layout), tooltip=tips)
    chart = alt.layer(bar, line, dot).properties(width=300, height=PANEL[1])
    measures = list(dict.fromkeys(frame["measure"]))
    return chart.facet(alt.Facet("measure:N", sort=measures, title=None), columns=2).resolve_axis(x="independent")


def gains(frame: pd.DataFrame, layout: Layout, factor: str) -> alt.TopLevelMixin:
    """Paired differences to the reference by level, with their intervals; what crosses 0 may be none."""
    levels = [level for level in layout.orders[layout.level] if level in set(frame["level"])]
    order = [name for name in layout.orders[factor] if name in set(frame["value"])]
    zero = alt.condition("datum.value == 0", alt.value(NEUTRAL), alt.value("#88888822"))
    base = alt.Chart(frame).encode(
        x=alt.X("level:O", sort=levels, title=label(layout.level), axis=alt.Axis(labelAngle=0, grid=False)),
        xOffset=alt.XOffset("value:N", sort=order),
        color=alt.Color("value:N", scale=alt.Scale(domain=list(layout.orders[factor])),
                        legend=alt.Legend(title=None, values=order, symbolType="circle")),
    )  # fmt: skip
    title = f"test accuracy less that of {frame['reference'].iloc[0]}"
    tips = [alt.Tooltip("value:N", title=label(factor)), alt.Tooltip("level:N", title=label(layout.level)),
            _percent_tip("difference", "difference"), _percent_tip("low", "95% from"), _percent_tip("high", "to"),
            alt.Tooltip("p:Q", title="p (Holm)", format=".2g"), alt.Tooltip("seeds:Q")]  # fmt: skip
    bar = base.mark_rule(strokeWidth=1.6).encode(y="low:Q", y2="high:Q")
    axis = alt.Axis(format="+.2~%", tickCount=5, gridColor=zero)
    dot = base.mark_point(filled=True, size=48, opacity=1).encode(
        y=alt.Y("difference:Q", title=title, axis=axis), tooltip=tips
    )
    bars = [bar] if frame["low"].notna().any() else []
    return alt.layer(*bars, dot).properties(width=520, height=240)


def rank_bars(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Mean ranks; values whose bars do not overlap differ by more than Nemenyi's critical difference."""
    base = alt.Chart(frame).encode(y=alt.Y("value:N", sort=list(frame["value"]), title=None, axis=NAMES))
    x = alt.X("rank:Q", title="mean rank (1 is best)", scale=alt.Scale(zero=False, nice=True))
    bar = base.mark_rule(strokeWidth=5, opacity=0.35, strokeCap="round").encode(x=alt.X("low:Q"), x2="high:Q")
    dot = base.mark_point(filled=True, size=60, opacity=1, color=SERIES_LIGHT[0]).encode(
        x=x, tooltip=[alt.Tooltip("value:N"), alt.Tooltip("rank:Q", format=".2f", title="mean rank")]
    )
    return alt.layer(bar, dot).properties(width=480, height=max(60, 26 * len(frame)))


def contour(frame: pd.DataFrame, layout: Layout) -> alt.TopLevelMixin:
    """The density at which each curve crosses half of the way from chance to dense."""
    rows = frame.assign(curve=[text or EVERY for text in frame["panel"]])
    base = alt.Chart(rows).encode(
        y=alt.Y("curve:N", title=None, sort=list(dict.fromkeys(rows["curve"])), axis=NAMES),
        yOffset=alt.YOffset("series:N", sort=layout.series_order()), color=_colour(layout),
    )  # fmt: skip
    x = alt.X("density:Q", title="density at which accuracy is half way between chance and dense",
              scale=alt.Scale(type="log", nice=False, padding=12), axis=alt.Axis(format="~p", tickCount=5))  # fmt: skip
    tips = [alt.Tooltip("curve:N"), alt.Tooltip("series:N"), alt.Tooltip("density:Q", format=".3~p"),
            alt.Tooltip("mean fan-in:Q", format=".3~g"), _percent_tip("accuracy", "accuracy there")]  # fmt: skip
    bar = base.mark_rule(strokeWidth=1.6).encode(x=alt.X("low:Q"), x2="high:Q")
    dot = base.mark_point(size=56, filled=True, opacity=1).encode(x=x, shape=_shape(layout), tooltip=tips)
    bars = [bar] if rows["low"].notna().any() else []
    return alt.layer(*bars, dot).properties(width=480, height=max(80, 15 * len(rows)))
