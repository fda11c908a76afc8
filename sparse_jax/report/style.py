"""How figures look, in light and in dark: colours, ramps, type. Colours keep 3:1 against their ground."""

from typing import Any

import numpy as np

FONT = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
LIGHT = {"ground": "#ffffff", "ink": "#1d1d1b", "soft": "#5d5c58", "rule": "#d9d7d1", "grid": "#eceae4"}
DARK = {"ground": "#17181a", "ink": "#e9e7e1", "soft": "#a8a69f", "rule": "#3d3f42", "grid": "#2a2c2f"}
# blue, vermilion, green, purple, ochre, sky, rose, grey: after Okabe and Ito, darkened or lightened to 3:1
SERIES_LIGHT = ("#1a66b0", "#c44e08", "#04805a", "#9a3f93", "#9a7000", "#2288b8", "#c0405f", "#55534e")
SERIES_DARK = ("#6ba8ee", "#ff9351", "#3cc293", "#d793d0", "#dcb23c", "#7dd0f0", "#ff8fa6", "#b9b6ae")
RAMP = ("#f3efe4", "#bcd3d8", "#6fa3bf", "#2d6a9f", "#12325c")  # low to high: lightness alone tells the order
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "stroke")


def theme(dark: bool) -> dict[str, Any]:
    """The Vega-Lite config of every figure."""
    colours = DARK if dark else LIGHT
    axis = {
        "labelColor": colours["soft"], "titleColor": colours["soft"], "tickColor": colours["rule"],
        "domainColor": colours["rule"], "gridColor": colours["grid"], "labelFontSize": 11, "titleFontSize": 11.5,
        "titleFontWeight": "normal", "labelPadding": 4, "titlePadding": 8, "tickSize": 4, "labelFlush": False,
    }  # fmt: skip
    text = {"labelColor": colours["ink"], "titleColor": colours["soft"], "titleFontWeight": "normal"}
    return {
        "font": FONT,
        "background": "transparent" if dark else colours["ground"],
        "aria": False,
        "view": {"stroke": None},
        "axis": axis,
        "legend": {**text, "labelFontSize": 12, "titleFontSize": 11.5, "symbolSize": 70, "orient": "top",
                   "symbolStrokeWidth": 2, "symbolOpacity": 1, "columnPadding": 16, "offset": 10,
                   "direction": "horizontal"},
        "header": {**text, "labelFontSize": 12.5, "labelFontWeight": 600, "labelAnchor": "start", "labelPadding": 6,
                   "title": None},
        "text": {"color": colours["ink"], "fontSize": 11},
        "rule": {"color": colours["soft"]},
        "range": {"category": list(SERIES_DARK if dark else SERIES_LIGHT), "ramp": list(RAMP), "heatmap": list(RAMP)},
    }  # fmt: skip


def needs_pale_ink(values: np.ndarray) -> np.ndarray:
    """Whether white stands out more than black on the colour that the ramp has for values in [0, 1]."""
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in RAMP]) / 255
    at = np.clip(np.nan_to_num(values), 0, 1) * (len(RAMP) - 1)
    rgb = np.stack([np.interp(at, np.arange(len(RAMP)), stops[:, i]) for i in range(3)], axis=-1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05
