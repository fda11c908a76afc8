"""The figures of the section on factors, as those of `figures`."""

from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from sparse_jax.report.figures import PERCENT, label
from sparse_jax.report.style import SHAPES


def effect_sizes(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Partial ω² of every term with its interval, the largest first."""
    axis = alt.Axis(domain=False, ticks=False, labelLimit=170)
    base = alt.Chart(frame).encode(
        y=alt.Y("term:N", sort=list(frame["term"]), title=None, axis=axis),
        color=alt.Color("kind:N", scale=alt.Scale(domain=["setting", "interaction"]),
                        legend=alt.Legend(title=None, symbolType="circle")),
    )  # fmt: skip
    tips = [alt.Tooltip("term:N"), alt.Tooltip("size:Q", title="partial ω²", format=".3f"),
            alt.Tooltip("low:Q", title="95% from", format=".3f"), alt.Tooltip("high:Q", title="to", format=".3f"),
            alt.Tooltip("p:Q", title="p (Holm)", format=".2g")]  # fmt: skip
    bar = base.mark_rule(strokeWidth=5, opacity=0.35, strokeCap="round").encode(x=alt.X("low:Q"), x2="high:Q")
    x = alt.X("size:Q", title="partial ω²", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5))
    dot = base.mark_point(filled=True, size=60, opacity=1).encode(x=x, tooltip=tips)
    bars = [bar] if frame["low"].notna().any() else []
    return alt.layer(*bars, dot).properties(width=420, height=max(60, 24 * len(frame)))


def interaction(frame: pd.DataFrame, axis: str, colour: str, orders: Mapping[str, Sequence[str]],
                name: str) -> alt.TopLevelMixin:  # fmt: skip
    """Means by two settings with their intervals; lines that are not parallel are what the interaction is."""
    order = list(orders[colour])
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(order))]
    legend = alt.Legend(title=None, values=order, symbolOpacity=1)
    base = alt.Chart(frame).encode(
        x=alt.X(f"{axis}:O", sort=list(orders[axis]), title=label(axis), axis=alt.Axis(labelAngle=0, grid=False)),
        xOffset=alt.XOffset(f"{colour}:N", sort=order),
        color=alt.Color(f"{colour}:N", scale=alt.Scale(domain=order), legend=legend),
    )  # fmt: skip
    y = alt.Y("mean:Q", title=name, scale=alt.Scale(zero=False), axis=PERCENT)
    tips = [alt.Tooltip(f"{one}:N", title=label(one)) for one in (axis, colour)]
    tips += [alt.Tooltip(f"{one}:Q", title=words, format=".2%") for one, words in
             (("mean", name), ("low", "95% from"), ("high", "to"))]  # fmt: skip
    tips += [alt.Tooltip("seeds:Q"), alt.Tooltip("runs:Q")]
    shape = alt.Shape(f"{colour}:N", scale=alt.Scale(domain=order, range=shapes), legend=legend)
    marks = base.encode(y=y, shape=shape, tooltip=tips)
    sound = marks.transform_filter("!datum.odd").mark_point(size=46, filled=True, opacity=1)
    odd = marks.transform_filter("datum.odd").mark_point(size=46, strokeWidth=1.6, opacity=1)
    bar = base.mark_rule(strokeWidth=1.6).encode(y="low:Q", y2="high:Q")
    bars = [bar] if frame["low"].notna().any() else []
    return alt.layer(*bars, sound, odd).properties(width=520, height=240)
