"""The page: what the sections hold, as one HTML file that asks nothing of the network."""

import base64
import datetime
import functools
import json
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import numpy as np
import pandas as pd
import vl_convert
from markupsafe import Markup

from sparse_jax.report import headline
from sparse_jax.report.exhibits import Figure, Findings, Missing, Section, Words
from sparse_jax.report.figures import label
from sparse_jax.report.provenance import again
from sparse_jax.report.records import setting_text
from sparse_jax.report.style import RAMP, theme
from sparse_jax.report.tables import Table, cells
from sparse_jax.report.topologies import Map

HERE = Path(__file__).parent
SCHEMA = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])  # of Vega-Lite, that the charts are written in
DIGITS = 6  # of the numbers of figures on the page; the CSV beside it has all
FEW = 0.5  # texts by rows, below which a column travels as its texts and their places


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The chart in Vega-Lite, however many rows it has."""
    with alt.data_transformers.enable("default", max_rows=None):
        return chart.to_dict()


def render(findings: Findings, sections: list[Section], follow: float | None) -> str:
    """The page of a study; `follow` is after how many seconds it loads itself again, None for never."""
    records = findings.records
    words = Words(
        "study", headline.title(records), headline.varied(records), headline.completeness(records),
        headline.sentences(findings), [*records.notes, *headline.failures(records)], again(records.sources),
    )  # fmt: skip
    filters = [{"name": name, "label": label(name), "choices": list(records.orders[name])} for name in records.told]
    return fill(words, sections, filters, _runs(findings), follow)


def fill(words: Words, sections: list[Section], filters: list[dict[str, Any]], runs: dict[str, Any] | None,
         follow: float | None) -> str:  # fmt: skip
    """The page of anything.

    Args:
      words: what stands beside the sections.
      sections: in their order; figures and tables are counted through them.
      filters: settings by which figures and runs can be chosen; may be empty.
      runs: the table of all runs with its rows, None where there are no runs.
      follow: seconds after which the page loads itself again, None for never.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    themes = {"light": theme(dark=False), "dark": theme(dark=True), "ramp": RAMP}
    return environment.get_template("page.html").render(
        **words._asdict(),
        filters=filters,
        sections=[_shown(section) for section in _numbered(sections)],
        runs=runs,
        follow=None if follow is None else f"{follow:g}",
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        themes=in_script(themes),
        bundle=Markup(bundle()),
        css=Markup((HERE / "page.css").read_text("utf-8")),
        js=Markup((HERE / "page.js").read_text("utf-8")),
    )


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed, to be written into the page once."""
    return vl_convert.javascript_bundle(vl_version=SCHEMA).replace("</script", "<\\/script").replace("<!--", "<\\!--")


def in_script(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in, whatever texts it has."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _numbered(sections: list[Section]) -> list[tuple[Section, list[tuple[int, Any]]]]:
    """Figures and tables are counted through the page, each for itself."""
    counts = {Figure: 0, Table: 0, Missing: 0}
    numbered = []
    for section in sections:
        parts = []
        for part in section.parts:
            counts[type(part)] += 1
            parts.append((counts[type(part)], part))
        numbered.append((section, parts))
    return numbered


def _shown(numbered: tuple[Section, list[tuple[int, Any]]]) -> dict[str, Any]:
    section, parts = numbered
    shown = [_part(number, part) for number, part in parts]
    return {"id": section.id, "title": section.title, "parts": shown}


def _part(number: int, part: Figure | Table | Missing) -> dict[str, Any]:
    """What the template needs of one part."""
    if isinstance(part, Missing):
        return {"kind": "missing", **part._asdict()}
    words = {"number": number, "id": part.id, "title": part.title, "caption": part.caption}
    if isinstance(part, Table):
        return {"kind": "table", **words, "table": part, "rows": cells(part)}
    return {
        "kind": "figure", **words, "summary": part.summary, "maps": bool(part.maps),
        "json": in_script(_payload(part)),
    }  # fmt: skip


def _payload(figure: Figure) -> dict[str, Any]:
    """What the page's script needs of a figure: specification, rows, and how it fits a window."""
    listed = [name for name in figure.data if name not in ("series", "panel", "kind")]
    payload = {
        "single": figure.single, "labels": {name: label(name) for name in figure.single}, "listed": listed,
        "spec": None, "dataset": None, "maps": None,
    }  # fmt: skip
    if figure.maps:
        settings = [name for name in figure.data if name not in ("row", "column", "connections")]
        table = figure.data.groupby(settings, sort=False)["connections"]
        sums = table.agg(["min", "mean", "max"]).reset_index()
        listed = [name for name in sums if name not in ("series", "panel")]
        return payload | {"maps": [_map(one) for one in figure.maps], "table": columnar(sums), "listed": listed}
    spec = specification(figure.draw(figure.data))
    (dataset, rows), = spec.pop("datasets").items()  # fmt: skip
    payload |= {"spec": spec, "dataset": dataset, "table": columnar(pd.DataFrame(rows))}
    return payload | figure.fit._asdict()


def _map(one: Map) -> dict[str, Any]:
    """A map as bytes, from 0 for its own least count to 255 for its largest."""
    low, top = float(one.frames.min()), float(one.frames.max())
    data = np.round(255 * (one.frames - low) / ((top - low) or 1.0)).astype(np.uint8)
    return {
        "settings": one.settings, "height": one.height, "width": one.width, "epochs": one.epochs,
        "low": low, "top": top,
        "frames": base64.b64encode(data.tobytes()).decode(),
    }  # fmt: skip


def columnar(frame: pd.DataFrame) -> dict[str, Any]:
    """A frame as its columns, which travels in a third of the room that rows need."""
    return {"names": list(frame), "length": len(frame), "columns": [_column(frame[name]) for name in frame]}


def _column(values: pd.Series) -> list | dict[str, list]:
    plain = [_short(value) for value in values.tolist()]
    if plain and all(isinstance(value, str) for value in plain):
        texts = dict.fromkeys(plain)
        if len(texts) < FEW * len(plain):
            places = {text: place for place, text in enumerate(texts)}
            return {"of": list(texts), "at": [places[text] for text in plain]}
    return plain


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
    return None if value is pd.NA else value


RUN_FORMATS = {
    "test_accuracy": ".2%", "val_accuracy": ".2%", "train_accuracy": ".2%", "sparsity": ".4f", "connections": ",.0f",
    "seconds": ".2f", "training_flops": ".3g",
}  # fmt: skip


def runs_table(findings: Findings) -> Table:
    """The table of all runs: what varies, how it ended, what was measured, and where it comes from if from several."""
    records = findings.records
    runs = records.runs.copy()
    for name in records.varied:
        runs[name] = runs[name].map(setting_text)
    dead = runs["dead_classes"]
    runs["dead_classes"] = [":".join(map(str, classes)) if isinstance(classes, list) else None for classes in dead]
    names = ["run_id", *records.varied, "seed", "status", *(name for name in RUN_FORMATS if name in runs)]
    names += ["dead_classes"] if runs["dead_classes"].any() else []
    names += ["message"] if runs["message"].notna().any() else []
    names += ["store"] if len(records.sources) > 1 else []
    formats = {name: spec for name, spec in RUN_FORMATS.items() if name in names} | {"seed": ".0f"}
    shown = runs[names].dropna(axis="columns", how="all").rename(columns={"sparsity_target": "sparsity asked"})
    return Table("runs", "All runs", "", shown, {name: spec for name, spec in formats.items() if name in shown})


def _runs(findings: Findings) -> dict[str, Any]:
    table, records = runs_table(findings), findings.records
    settings = [{name: setting_text(run[name]) for name in records.varied} for _, run in records.runs.iterrows()]
    statuses = records.runs["status"]
    rows = [
        {"cells": row, "settings": json.dumps(chosen), "status": status}
        for row, chosen, status in zip(cells(table), settings, statuses, strict=True)
    ]
    return {"table": table, "rows": rows}
