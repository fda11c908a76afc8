"""The sections of a report, in order; each is whole, and says in a sentence what is missing in it."""

from functools import partial

import pandas as pd

from sparse_jax.report import figures, laws
from sparse_jax.report.ablation_parts import ablation_parts
from sparse_jax.report.contrasts import comparison_parts, extreme_parts
from sparse_jax.report.exhibits import (
    NO_LEVEL,
    NO_RESULTS,
    ONLY_LEVEL,
    Figure,
    Findings,
    Missing,
    Section,
    cells_fit,
    figure,
    labels,
    measured,
    odd_note,
    seeds_note,
)  # fmt: skip
from sparse_jax.report.factors import factor_parts
from sparse_jax.report.figures import LAW, MEAN, label
from sparse_jax.report.frames import Layout, learning
from sparse_jax.report.records import NONE
from sparse_jax.report.seeds import FORMATS, seed_rows
from sparse_jax.report.stability import stability_parts
from sparse_jax.report.tables import Table, signed
from sparse_jax.report.topologies import Map, map_rows, read_topologies


def sections(findings: Findings) -> list[Section]:
    """Every section, also those whose data are missing."""
    return [
        Section("accuracy", "Accuracy against density", _accuracy(findings)),
        Section("heat", "Accuracy at a glance", [*_heat_maps(findings), _seeds(findings)]),
        Section("learning", "Learning", _learning(findings)),
        Section("stability", "Stability", stability_parts(findings)),
        Section("topology", "Topology", _topology(findings)),
        Section("cost", "What it cost", _cost(findings)),
        Section("factors", "What matters, and by how much", factor_parts(findings)),
        Section("ablation", "Which weights matter", ablation_parts(findings, _level(findings))),
        Section("comparisons", "Comparisons", comparison_parts(findings)),
        Section("extremes", "Towards the extreme", extreme_parts(findings)),
    ]


def _accuracy(findings: Findings) -> list:
    layout, found = findings.layout, measured(findings)
    title = "Test accuracy against density"
    if found.empty:
        return [Missing("accuracy-density", title, NO_RESULTS)]
    lines = laws.drawn(findings.laws)
    data = pd.concat([found.assign(kind=MEAN), lines.assign(kind=LAW)] if len(lines) else [found.assign(kind=MEAN)])
    names = list(dict.fromkeys(one for one in layout.told if one != layout.level))
    law = "Dotted lines are the fitted law. " if len(lines) else ""
    best = found.loc[found["accuracy"].idxmax()]
    summary = (
        f"{len(found)} points from density {found['density'].min():.3g} to {found['density'].max():.3g}; the highest "
        f"mean is {best['accuracy']:.2%} at density {best['density']:.3g}, the lowest {found['accuracy'].min():.2%}."
    )
    draw = partial(figures.accuracy_by_density, layout=layout)
    caption = f"{law}{seeds_note(found)}{odd_note(found, 'Open marks')}"
    chart = figure("accuracy-density", title, caption, summary, data, draw)
    return [chart, *_law_tables(findings, names)]


def _law_tables(findings: Findings, names: list[str]) -> list:
    title = "The law of accuracy against density"
    if not findings.laws:
        return [Missing("laws", title, f"No law is fitted. {NO_LEVEL}")]
    chosen = laws.law_table(findings.laws, names)
    if all(law.choice.fit is None for law in findings.laws):
        reasons = "; ".join(dict.fromkeys(law.choice.reason or "" for law in findings.laws))
        return [Missing("laws", title, f"{reasons[:1].upper()}{reasons[1:]}.")]
    caption = (
        "Of each curve the family of least held-out error: every level predicted from the others, mean absolute error. "
        "Brackets are 95% intervals."
    )
    formats = {"chance": ".3f", "held-out error": ".2%", "R²": ".3f"}
    best = measured(findings)["accuracy"].max()
    shares = "%, ".join(f"{100 * share:g}" for share in laws.SHARES)
    turned = laws.inversions(findings.laws, names, best)
    words = f"The largest sparsity at which the law still gives {shares}% of the best mean accuracy, {best:.2%}."
    spans = {"accuracy": ".2%", "of the best": ".0%", "sparsity": ".2%", "from": ".2%", "to": ".2%"}
    return [
        Table("laws", title, caption, chosen.rename(columns=labels(names)), formats),
        Table("inversions", "The law turned round", words, turned.rename(columns=labels(names)), spans),
    ]


def _heat_maps(findings: Findings) -> list:
    layout, found = findings.layout, measured(findings)
    if found.empty:
        return [Missing("heat-maps", "Heat maps", NO_RESULTS)]
    others = [name for name in layout.told if name != layout.level]
    rows = [name for name in ("method", "activation") if name in others] or others[:1]
    if layout.level is None or not rows:
        return [Missing("heat-maps", "Heat maps", NO_LEVEL if layout.level is None else ONLY_LEVEL)]
    parts = []
    for name in rows:
        title = f"Test accuracy by {label(name)} and {label(layout.level)}"
        caption = f"Mean over seeds, in %.{odd_note(found, 'Daggers')}"
        by = found.groupby(name, sort=False)["accuracy"].mean()
        ends = f"{by.idxmax()} is highest ({by.max():.2%}) and {by.idxmin()} lowest ({by.min():.2%})"
        summary = f"On average over the cells {ends}."
        draw = partial(figures.heat_map, layout=layout, rows=name)
        fit = cells_fit(len(layout.orders[layout.level]))
        parts.append(figure(f"heat-{name}", title, caption, summary, found, draw, fit=fit))
    return parts


def _seeds(findings: Findings) -> Table | Missing:
    title, rows = "Every setting over its seeds", seed_rows(findings.records, findings.layout)
    if rows.empty:
        return Missing("seeds", title, NO_RESULTS)
    caption = (
        "The mean is over all runs with a result, with Student's t interval (BCa bootstrap from 20 seeds on); beside "
        "it the mean of the runs that neither collapsed nor diverged, the interquartile mean (interval from 5 seeds "
        "on), and how often runs were lost, with exact binomial intervals. All at 95%."
    )
    return Table("seeds", title, caption, rows.rename(columns=labels(list(findings.layout.varied))), FORMATS)


def _first_level(layout: Layout, found: pd.DataFrame) -> dict[str, str]:
    """The level to show first, where one is shown at a time: the sparsest at which something was learned."""
    if layout.level is None:
        return {}
    levels = [level for level in layout.orders[layout.level] if level != NONE]
    best = found.groupby(layout.level)["accuracy"].max()
    sound = found[~found["odd"]].groupby(layout.level)["accuracy"].max()
    able = [level for level in levels if level in sound.index and sound[level] > best.max() / 2]
    order = able or levels
    return {layout.level: order[-1] if layout.level == "sparsity_target" else order[0]}


def _level(findings: Findings) -> dict[str, str]:
    """The level to show first; none without results."""
    found = measured(findings)
    return {} if found.empty else _first_level(findings.layout, found)


def _learning(findings: Findings) -> list:
    titles = {"learning-curves": "Validation accuracy by epoch", "gap": "Train minus validation accuracy by epoch"}
    found = learning(findings.records, findings.layout, findings.logs)
    if found.empty:
        reason = "No metrics with training and validation accuracies were logged."
        return [Missing(id, title, reason) for id, title in titles.items()]
    layout, single = findings.layout, _level(findings)
    last, end = found[found["epoch"] == found["epoch"].max()], f"At epoch {found['epoch'].max():g} mean"
    spans = last[["val_accuracy", "gap"]].agg(["min", "max"])
    accuracies, gaps = (" and ".join(signed(f"{end:.2%}") for end in spans[name]) for name in spans)
    summaries = f"{end} validation accuracies lie between {accuracies}.", f"{end} gaps lie between {gaps}."
    caption = f"{seeds_note(found)}{odd_note(found, 'Dashes')}"
    draws = (figures.learning_curves, figures.gap_curves)
    return [
        figure(id, title, caption, summary, found, partial(draw, layout=layout), single)
        for (id, title), summary, draw in zip(titles.items(), summaries, draws, strict=True)
    ]


def _topology(findings: Findings) -> list:
    layout, single = findings.layout, _level(findings)
    titles = "Degrees of the neurons at the end", "Connections of every input"
    found = read_topologies(findings.records, layout, findings.logs)
    lost = f" {found.missing} finished runs have no readable mask file." if found.missing else ""
    if found.degrees.empty:
        reason = f"No finished run has a mask file.{lost}"
        return [Missing(id, title, reason) for id, title in zip(("degrees", "inputs"), titles, strict=True)]
    chosen = single | {name: layout.orders[name][0] for name in layout.panels}
    caption = f"The share of the neurons of all seeds that have at least so many connections.{lost}"
    layers = ", ".join(dict.fromkeys(found.degrees["layer"]))
    summary = f"Layers {layers}; degrees up to {found.degrees['degree'].max():g}."
    draw = partial(figures.degree_distributions, layout=layout)
    degrees = figure("degrees", titles[0], caption, summary, found.degrees, draw, chosen)
    return [degrees, _inputs(findings, found.maps, titles[1], single)]


def _inputs(findings: Findings, maps: list[Map], title: str, single: dict[str, str]) -> Figure | Missing:
    if not maps:
        return Missing("inputs", title, "The first layer is no dense layer with masks, so there is nothing to show.")
    kind = "pixel" if all(one.image for one in maps) else "input"
    moving = any(len(one.epochs) > 1 for one in maps)
    course = "" if moving else " Only the end was recorded: the metrics have no input_connections."
    caption = f"How many connections leave each {kind}, mean over seeds; dark is many.{course}"
    top = max(maps, key=lambda one: one.frames[-1].max())
    most = f"at most {top.frames[-1].max():.1f} connections a cell"
    summary = f"{len(maps)} maps of {top.height} × {top.width} cells; {most}."
    draw = partial(figures.input_maps, layout=findings.layout)
    return figure("inputs", title, caption, summary, map_rows(maps), draw, single, tuple(maps))


MEASURES = {"seconds": "seconds of training", "training_flops": "FLOPs of training"}


def _cost(findings: Findings) -> list:
    title, found = "Test accuracy against cost", measured(findings)
    keep = [name for name in found if name not in MEASURES]
    data = found.melt(keep, list(MEASURES), "measure", "amount").replace({"measure": MEASURES})
    data = data[data["amount"] > 0]
    if data.empty:
        return [Missing("cost", title, NO_RESULTS if found.empty else "The runs have neither seconds nor FLOPs.")]
    lacking = [words for words in MEASURES.values() if words not in set(data["measure"])]
    note = f" The runs have no {' and no '.join(lacking)}." if lacking else ""
    caption = (
        "Means over seeds. Seconds are those of a run's share of the cohort it trained in; FLOPs are theoretical and "
        f"count active connections only.{odd_note(found, 'Open marks')}{note}"
    )
    amounts = data.groupby("measure")["amount"].agg(["min", "max"])
    spans = [f"{words} from {low:.3g} to {high:.3g}" for words, low, high in amounts.itertuples()]
    draw = partial(figures.cost, layout=findings.layout)
    return [figure("cost", title, caption, f"{'; '.join(spans)}.", data, draw)]
