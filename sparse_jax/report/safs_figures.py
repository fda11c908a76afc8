"""The figures of a search for activation functions, as those of `figures`. Panels are the column `panel`."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from sparse_jax.report.figures import COLUMNS, NAMES, NEUTRAL, PANEL, PERCENT, SPARSE
from sparse_jax.report.safs_records import FATES, TRAINED, TUNED
from sparse_jax.report.style import SERIES_LIGHT, SHAPES, needs_pale_ink

WORDY = 8  # layers up to which the cells of a map have room for a count
WRITTEN = 20  # layers up to which they have room for anything
ROW = 24  # height of a row of a map
MANY = len(SERIES_LIGHT)  # seeds that colours can tell apart


def _faceted(chart: alt.Chart | alt.LayerChart, frame: pd.DataFrame, columns: int = COLUMNS,
             size: tuple[int, int] = PANEL, alone: tuple[int, int] = (480, 280)) -> alt.TopLevelMixin:  # fmt: skip
    """The chart, once for each panel in the order of the frame if there are several."""
    order = list(dict.fromkeys(frame["panel"]))
    if len(order) < 2:
        return chart.properties(width=alone[0], height=alone[1])
    panels = chart.properties(width=size[0], height=size[1])
    return panels.facet(alt.Facet("panel:N", sort=order, title=None), columns=columns).resolve_axis(x="independent")


def _seed_colour(seeds: Sequence[str], symbol: str) -> alt.Color:
    """A colour for each seed, as many as can be told apart; else one for all."""
    if not 1 < len(seeds) <= MANY:
        return alt.value(SERIES_LIGHT[0])
    legend = alt.Legend(title="seed", symbolType=symbol, symbolOpacity=1)
    return alt.Color("seed:N", scale=alt.Scale(domain=list(seeds)), legend=legend)


def _percent(field: str, title: str) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=title, format=".2%")


def networks(frame: pd.DataFrame, order: Sequence[str], seeds: Sequence[str]) -> alt.TopLevelMixin:
    """Test accuracy of every network of every seed, those of a seed joined; beside them the means."""
    base = alt.Chart(frame).encode(
        x=alt.X("network:O", sort=list(order), title=None, scale=alt.Scale(paddingOuter=0.35),
                axis=alt.Axis(labelAngle=0, grid=False, domain=False, ticks=False, labelOverlap=False)),
        y=alt.Y("accuracy:Q", title="test accuracy", scale=alt.Scale(zero=False), axis=PERCENT),
    )  # fmt: skip
    tips = [*(alt.Tooltip(f"{name}:N") for name in ("sparsity", "seed", "network")), _percent("accuracy", "accuracy")]
    means = [alt.Tooltip("network:N"), _percent("accuracy", "mean"), _percent("low", "95% from"),
             _percent("high", "to"), alt.Tooltip("seeds:Q")]  # fmt: skip
    seed = base.transform_filter("datum.kind == 'seed'").encode(color=_seed_colour(seeds, "circle"))
    line = seed.mark_line(strokeWidth=1.2, opacity=0.45).encode(detail="seed:N")
    dot = seed.mark_point(filled=True, size=46, opacity=0.95).encode(tooltip=tips)
    mean = base.transform_filter("datum.kind == 'mean'")
    bar = mean.mark_rule(strokeWidth=1.6, color=NEUTRAL, xOffset=14).encode(y=alt.Y("band_low:Q"), y2="band_high:Q")
    tick = mean.mark_tick(orient="horizontal", size=12, thickness=2.5, opacity=1, color=NEUTRAL, xOffset=14)
    bars = [bar] if frame["low"].notna().any() else []
    return _faceted(alt.layer(line, dot, *bars, tick.encode(tooltip=means)), frame, 2, (300, 190), (480, 260))


def course(frame: pd.DataFrame, words: str) -> alt.TopLevelMixin:
    """Validation accuracy of every candidate in the order of a pipeline, and the best so far as steps."""
    kinds = [fate for fate in FATES if fate in set(frame["fate"])]
    legend = alt.Legend(title=None, values=kinds, symbolOpacity=1) if kinds != [TRAINED] else None
    shapes = list(SHAPES[: len(FATES)])  # a fate has the same sign in every figure
    base = alt.Chart(frame).encode(
        x=alt.X("number:Q", title=words, axis=alt.Axis(grid=False, tickMinStep=1, tickCount=5),
                scale=alt.Scale(nice=False, padding=6)),
    )  # fmt: skip
    y = alt.Y("accuracy:Q", title="validation accuracy", scale=alt.Scale(zero=False), axis=PERCENT)
    tips = [alt.Tooltip("sparsity:N"), alt.Tooltip("seed:N"), alt.Tooltip("number:Q", title=words),
            _percent("accuracy", "accuracy"), _percent("best", "best so far"), alt.Tooltip("choice:N"),
            alt.Tooltip("epochs:Q"), alt.Tooltip("fate:N")]  # fmt: skip
    best = base.transform_filter("isValid(datum.best)").mark_line(
        interpolate="step-after", strokeWidth=1.8, color=NEUTRAL
    )
    dot = base.transform_filter("isValid(datum.accuracy)").mark_point(filled=True, size=36, opacity=0.9).encode(
        y=y, color=alt.Color("fate:N", scale=alt.Scale(domain=list(FATES)), legend=legend),
        shape=alt.Shape("fate:N", scale=alt.Scale(domain=list(FATES), range=shapes), legend=legend), tooltip=tips,
    )  # fmt: skip
    return _faceted(alt.layer(best.encode(y=alt.Y("best:Q")), dot), frame)


def _map(frame: pd.DataFrame, layers: Sequence[str], operators: Sequence[str], value: str,
         colour: alt.Color, tips: list[alt.Tooltip]) -> alt.TopLevelMixin:  # fmt: skip
    """A cell for each operator and layer, with the column `text` in it; none where the value is 0."""
    low, high = frame[value].min(), frame[value].max()
    share = (frame[value] - low) / (high - low) if high > low else frame[value] * 0
    base = alt.Chart(frame.assign(pale=needs_pale_ink(share.to_numpy(float)))).encode(
        x=alt.X("layer:O", title="layer", sort=list(layers),
                axis=alt.Axis(labelAngle=0, domain=False, ticks=False, labelOverlap="greedy")),
        y=alt.Y("operator:O", title=None, sort=list(operators), axis=NAMES),
        tooltip=[alt.Tooltip("sparsity:N"), alt.Tooltip("layer:O"), alt.Tooltip("operator:N"), *tips],
    )  # fmt: skip
    fill = base.transform_filter(f"datum.{value} > 0").mark_rect().encode(color=colour)
    ink = alt.condition(alt.datum.pale, alt.value("#ffffff"), alt.value("#111111"))
    chart = alt.layer(fill, base.mark_text(fontSize=11).encode(text="text:N", color=ink))
    size = 46 * len(layers), ROW * len(operators)
    return _faceted(chart, frame, 2, size, (size[0] + 60, size[1]))


def choices(frame: pd.DataFrame, layers: Sequence[str], operators: Sequence[str]) -> alt.TopLevelMixin:
    """How many pipelines chose an operator for a layer."""
    top = max(1, int(frame["pipelines"].max()))
    shown = np.where(frame["pipelines"] > 0, frame["pipelines"].astype(str), "")
    texts = shown if len(layers) <= WRITTEN else ""
    colour = alt.Color("pipelines:Q", scale=alt.Scale(range="heatmap", domain=[0, top], interpolate="rgb"),
                       legend=alt.Legend(title="pipelines", gradientLength=160, tickCount=min(top, 5), format="d"))
    tips = [alt.Tooltip("pipelines:Q", title="chosen by"), alt.Tooltip("of:Q", title="of pipelines")]
    return _map(frame.assign(text=texts), layers, operators, "pipelines", colour, tips)


def effects(frame: pd.DataFrame, layers: Sequence[str], operators: Sequence[str]) -> alt.TopLevelMixin:
    """Mean validation accuracy of the candidates that have an operator in a layer."""
    values, counts = frame["accuracy"], frame["candidates"]
    texts = [f"{100 * value:.0f}" + (f" ({count})" if len(layers) <= WORDY else "")
             for value, count in zip(values, counts, strict=True)]  # fmt: skip
    span = [values.min(), values.max()]
    colour = alt.Color("accuracy:Q", scale=alt.Scale(range="heatmap", domain=span, interpolate="rgb"),
                       legend=alt.Legend(title="validation accuracy", format=".0%", gradientLength=160))  # fmt: skip
    tips = [_percent("accuracy", "mean accuracy"), alt.Tooltip("candidates:Q"), alt.Tooltip("seeds:Q")]
    return _map(frame.assign(text=texts if len(layers) <= WRITTEN else ""), layers, operators, "accuracy", colour, tips)


def functions(frame: pd.DataFrame, seeds: Sequence[str]) -> alt.TopLevelMixin:
    """The activation functions of every layer as they were learned, a line a seed; the default one dashed."""
    base = alt.Chart(frame).encode(
        x=alt.X("x:Q", title="x", axis=alt.Axis(tickCount=5, grid=False), scale=alt.Scale(nice=False)),
        y=alt.Y("y:Q", title="f(x)", axis=alt.Axis(tickCount=4)),
    )  # fmt: skip
    tips = [alt.Tooltip("layer:N"), alt.Tooltip("seed:N"), alt.Tooltip("operator:N"), alt.Tooltip("x:Q", format=".3~g"),
            alt.Tooltip("y:Q", title="f(x)", format=".3~g")]  # fmt: skip
    learned = base.transform_filter("!datum.default").encode(color=_seed_colour(seeds, "stroke"), detail="curve:N")
    usual = base.transform_filter("datum.default").encode(detail="curve:N")
    dashes = usual.mark_line(strokeWidth=1.4, strokeDash=[4, 3], color=NEUTRAL)
    hover = learned.mark_point(size=40, opacity=0).encode(tooltip=tips)
    layers = [*([dashes] if frame["default"].any() else []), learned.mark_line(strokeWidth=1.8), hover]
    chart = _faceted(alt.layer(*layers), frame)
    return chart.resolve_scale(y="independent") if frame["panel"].nunique() > 1 else chart


def rates(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Validation accuracy by learning rate; colours are optimisers, open marks candidates that did not end."""
    names = sorted(frame["optimizer"].unique())
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(names))]
    legend = alt.Legend(title=None, values=names, symbolOpacity=1)
    base = alt.Chart(frame).encode(
        x=alt.X("learning_rate:Q", title="learning rate", scale=alt.Scale(type="log", nice=False, padding=8),
                axis=alt.Axis(format="~g", **SPARSE)),
        y=alt.Y("accuracy:Q", title="validation accuracy", scale=alt.Scale(zero=False), axis=PERCENT),
        color=alt.Color("optimizer:N", scale=alt.Scale(domain=names), legend=legend),
        shape=alt.Shape("optimizer:N", scale=alt.Scale(domain=names, range=shapes), legend=legend),
        tooltip=[alt.Tooltip("sparsity:N"), alt.Tooltip("seed:N"), _percent("accuracy", "accuracy"),
                 *(alt.Tooltip(f"{name}:{'N' if name in ('optimizer', 'lr_schedule') else 'Q'}",
                               title=name.replace("_", " ")) for name in TUNED), alt.Tooltip("fate:N")],
    )  # fmt: skip
    sound = base.transform_filter(f"datum.fate == '{TRAINED}'").mark_point(size=40, filled=True, opacity=0.9)
    odd = base.transform_filter(f"datum.fate != '{TRAINED}'").mark_point(size=36, strokeWidth=1.4, opacity=0.9)
    return _faceted(alt.layer(sound, odd), frame, 2, (300, 190))
