"""The page of a search for weight agnostic networks (Gaier and Ha 2019): what it found, and its course."""

import math
from functools import partial
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from sparse_jax.analysis.statistics import rate
from sparse_jax.report.exhibits import Figure, Fit, Missing, Section, Words, figure
from sparse_jax.report.figures import COUNTS, PERCENT
from sparse_jax.report.frames import CONFIDENCE
from sparse_jax.report.headline import counted
from sparse_jax.report.logs import thinned
from sparse_jax.report.provenance import again_search
from sparse_jax.report.search_files import RESULT, SETTINGS, Search, entries, number, text
from sparse_jax.report.tables import Table, signed
from sparse_jax.search.wann_files import COURSE

POINTS = 600  # of a curve, at most; more are thinned evenly
PARTS = ("validation", "test")
# columns of course.csv -> what the curves of a figure are called
FITNESS = {"best": "best network", "mean": "mean of all networks", "validation": "best so far, validation part"}
SIZES = {"connections": "connections", "hidden": "hidden nodes"}
FORMATS = dict.fromkeys(("validation", "test", "from", "to"), ".2%") | {"test loss": ".4f"}


class Wann(NamedTuple):
    """One search."""

    dataset: str | None
    result: dict[str, Any]  # result.json, empty where there is none
    course: pd.DataFrame  # columns of course.csv, numbers; empty where it cannot be read
    lacks: str  # why there is no result


def wann_page(search: Search) -> tuple[Words, list[Section]]:
    """What the page says, as far as the search has come."""
    settings, result = search.begun["settings"], search.result or {}
    found = Wann(text(settings.get("dataset")), result, _course(search), search.lacks)
    title = "Weight agnostic networks" + (f" on {found.dataset}" if found.dataset else "")
    made = number(result.get("generations"))
    more = {} if math.isnan(made) else {"generations": f"{made:.0f}"}
    notes = [search.lacks] if search.ended and search.lacks else []
    words = Words("search", title, _varied(settings), _completeness(found, search.ended), _headline(found), notes,
                  again_search(search.root, SETTINGS, search.begun, more))  # fmt: skip
    sections = [
        Section("weights", "One weight for all connections", [_accuracies(found)]),
        Section("course", "The course of the search", [_fitness(found, settings), _sizes(found)]),
        Section("functions", "The network found", [_functions(found)]),
    ]
    return words, sections


def _course(search: Search) -> pd.DataFrame:
    """The generations that course.csv has whole."""
    names = ["generation", *dict.fromkeys((*FITNESS, "best_accuracy", *SIZES))]
    try:
        frame = pd.read_csv(search.root / COURSE, usecols=names, on_bad_lines="skip")
    except (OSError, ValueError):  # absent, empty, without these columns, or no text at all
        return pd.DataFrame(columns=names)
    return frame.apply(pd.to_numeric, errors="coerce").dropna(subset=["generation"], ignore_index=True)


def _varied(settings: dict[str, Any]) -> str:
    told = {"population": "{} networks a generation", "weights": "shared weights {}", "seed": "seed {}"}
    known = {name: text(settings.get(name)) for name in told}
    texts = {name: value.replace(":", ", ").replace("-", "−") for name, value in known.items() if value}
    return "; ".join(told[name].format(value) for name, value in texts.items())


def _completeness(found: Wann, ended: bool) -> str:
    made = number(found.result.get("generations"))
    last = found.course["generation"].max() if len(found.course) else 0
    count = counted(int(last if math.isnan(made) else made), "generation")
    return f"{count}; ended." if ended else f"{count} so far; the search has not ended."


# --- accuracies --------------------------------------------------------------------------------------


def _test_accuracy(found: Wann) -> tuple[str, float, float] | None:
    """The weight chosen, its accuracies on the validation and the test part; None where one is missing."""
    weight = text(found.result.get("best_weight"))
    both = [number(entries(entries(found.result.get(part)).get("accuracy")).get(weight)) for part in PARTS]
    return None if weight is None or any(map(math.isnan, both)) else (weight, *both)


def _ends(accuracy: float, examples: float) -> tuple[float, float]:
    """The exact binomial interval of an accuracy; NaN where it is not known of how many examples."""
    if not (examples >= 1 and 0 <= accuracy <= 1):
        return math.nan, math.nan
    share = rate(round(accuracy * examples), round(examples), CONFIDENCE)
    return share.low, share.high


def _headline(found: Wann) -> list[str]:
    best = _test_accuracy(found)
    if best is None:
        return _so_far(found)
    weight, validation, accuracy = best
    test = entries(found.result.get("test"))
    low, high = _ends(accuracy, number(test.get("examples")))
    ends = "" if math.isnan(low) else f" (95% interval {low:.1%} to {high:.1%}, over its examples)"
    first = (
        f"With the weight {signed(weight)} for all its connections the network found classifies {accuracy:.1%} of the "
        f"test part{ends}; the weight is the best on the validation part, where it gives {validation:.1%}."
    )
    means = {name: number(test.get(f"{key}_accuracy")) for name, key in (("mean", "mean"), ("vote", "vote"))}
    told = [f"their {name} is right in {value:.1%}" if name == "vote" else f"the mean accuracy is {value:.1%}"
            for name, value in means.items() if not math.isnan(value)]  # fmt: skip
    count = len(entries(test.get("accuracy")))
    second = [f"Over all {count} weights {' and '.join(told)}."] if told else []
    return [first, *second, *_size(found), "It is one search with one seed: the interval says nothing of others."]


def _size(found: Wann) -> list[str]:
    names = ("connections", "hidden_nodes", "found_in_generation", "generations", "seconds")
    values = [number(found.result.get(name)) for name in names]
    if any(map(math.isnan, values)):
        return []
    links, nodes, at, made, seconds = values
    size = f"{counted(int(links), 'connection')} and {counted(int(nodes), 'hidden node')}"
    return [f"It has {size}, and is of generation {at:,.0f} of {made:,.0f}, which took {seconds:,.0f} s."]


def _so_far(found: Wann) -> list[str]:
    if found.course.empty:
        return [found.lacks or f"{RESULT} has no test accuracy."]
    last = found.course.iloc[-1]
    return [
        f"In generation {last['generation']:.0f} the best network has a mean accuracy of {last['best_accuracy']:.1%} "
        f"over all weights, on training examples. {found.lacks}".strip()
    ]


def _accuracies(found: Wann) -> Table | Missing:
    """Accuracies at every weight, and of all together."""
    id, title = "weights-table", "Accuracy at every shared weight"
    validation, test = (entries(found.result.get(part)) for part in PARTS)
    weights = list(entries(test.get("accuracy")))
    if not weights:
        return Missing(id, title, found.lacks or f"{RESULT} has no accuracies.")
    examples, best = number(test.get("examples")), text(found.result.get("best_weight"))
    rows = []
    for weight in weights:
        accuracies = [number(entries(part.get("accuracy")).get(weight)) for part in (validation, test)]
        loss = number(entries(test.get("loss")).get(weight))
        name = f"{signed(weight)} (chosen)" if weight == best else signed(weight)
        rows.append((name, *accuracies, *_ends(accuracies[1], examples), loss))
    for name, key in (("mean of all", "mean_accuracy"), ("vote of all", "vote_accuracy")):
        accuracies = [number(part.get(key)) for part in (validation, test)]
        ends = _ends(accuracies[1], examples) if key == "vote_accuracy" else (math.nan, math.nan)
        rows.append((name, *accuracies, *ends, number(test.get("mean_loss")) if key == "mean_accuracy" else math.nan))
    frame = pd.DataFrame(rows, columns=["weight", *PARTS, "from", "to", "test loss"])
    caption = (
        "The network found, with one weight for all connections and without training; the weight chosen is the best "
        "on the validation part. From and to are the exact binomial interval of the test accuracy at 95%."
    )
    return Table(id, title, caption, frame, FORMATS)


def _functions(found: Wann) -> Table | Missing:
    """How many nodes have which activation function."""
    title = "The activation functions of its hidden nodes"
    counts = {str(name): number(count) for name, count in entries(found.result.get("functions")).items()}
    known = {name: int(count) for name, count in counts.items() if count >= 0}
    if not known:
        return Missing("functions-table", title, found.lacks or "It has no hidden node, so there is none.")
    total = sum(known.values())
    rows = sorted(known.items(), key=lambda pair: -pair[1])
    frame = pd.DataFrame(rows, columns=["function", "nodes"])
    frame["share"] = frame["nodes"] / total
    return Table("functions-table", title, f"Of {counted(total, 'node')}.", frame, {"nodes": "d", "share": ".1%"})


# --- the course --------------------------------------------------------------------------------------


def _long(found: Wann, names: dict[str, str]) -> pd.DataFrame:
    """One row a generation and curve, thinned."""
    kept = thinned(found.course["generation"].tolist(), POINTS)
    rows = found.course[found.course["generation"].isin(kept)]
    table = rows.melt("generation", list(names), "curve", "value").dropna(ignore_index=True)
    return table.assign(curve=table["curve"].map(names))


def _fitness(found: Wann, settings: dict[str, Any]) -> Figure | Missing:
    id, title = "fitness", "Fitness by generation"
    rows = _long(found, FITNESS)
    if rows.empty:
        return Missing(id, title, f"{COURSE} is not there yet, or has no generation that can be read.")
    accuracy = settings.get("fitness") == "accuracy"
    axis = "mean accuracy over the weights" if accuracy else "mean −loss over the weights"
    ends = rows.groupby("curve", sort=False)["value"].last()
    summary = f"In the end: {', '.join(f'{name} {value:.3g}' for name, value in ends.items())}.".replace("-", "−")
    caption = (
        "The mean over all weights of what networks are ranked by: of the best network of a generation and of all on "
        "the training examples of that generation, and of the best so far on the validation part."
    )
    draw = partial(fitness_curves, axis=axis, percent=accuracy)
    return figure(id, title, caption, summary, rows, draw)


def fitness_curves(frame: pd.DataFrame, axis: str, percent: bool) -> alt.TopLevelMixin:
    """Fitness of the best network and of all by generation."""
    names = [name for name in FITNESS.values() if name in set(frame["curve"])]
    return alt.Chart(frame).mark_line(strokeWidth=1.6).encode(
        x=alt.X("generation:Q", title="generation", axis=COUNTS, scale=alt.Scale(nice=False)),
        y=alt.Y("value:Q", title=axis, scale=alt.Scale(zero=False),
                axis=PERCENT if percent else alt.Axis(tickCount=5)),
        color=alt.Color("curve:N", scale=alt.Scale(domain=names),
                        legend=alt.Legend(title=None, values=names, symbolType="stroke", labelLimit=240)),
        tooltip=[alt.Tooltip("curve:N"), alt.Tooltip("generation:Q"),
                 alt.Tooltip("value:Q", title=axis, format=".2%" if percent else ".4~g")],
    ).properties(width=480, height=260)  # fmt: skip


def _sizes(found: Wann) -> Figure | Missing:
    id, title = "sizes", "Size of the best network by generation"
    rows = _long(found, SIZES)
    if rows.empty:
        return Missing(id, title, f"{COURSE} is not there yet, or has no generation that can be read.")
    ends = rows.groupby("curve", sort=False)["value"].last()
    summary = f"In the end {' and '.join(f'{value:,.0f} {name}' for name, value in ends.items())}."
    caption = "Connections that are enabled, and places for nodes that are taken, of each generation's best network."
    return figure(id, title, caption, summary, rows, size_curves, fit=Fit(least=290, most=2))


def size_curves(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Connections and hidden nodes by generation, a panel each."""
    chart = alt.Chart(frame).mark_line(strokeWidth=1.6, interpolate="step-after").encode(
        x=alt.X("generation:Q", title="generation", axis=COUNTS, scale=alt.Scale(nice=False)),
        y=alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=5, tickMinStep=1)),
        color=alt.Color("curve:N", scale=alt.Scale(domain=list(SIZES.values())), legend=None),
        tooltip=[alt.Tooltip("curve:N"), alt.Tooltip("generation:Q"), alt.Tooltip("value:Q", format=",.0f")],
    ).properties(width=300, height=170)  # fmt: skip
    panels = alt.Facet("curve:N", sort=list(SIZES.values()), title=None)
    return chart.facet(panels, columns=2).resolve_scale(y="independent").resolve_axis(x="independent")
