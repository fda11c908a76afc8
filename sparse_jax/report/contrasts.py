"""The sections that set values against each other: differences, ranks, categories, and the extreme contour."""

from functools import partial

import pandas as pd

from sparse_jax.report import comparisons, contours, figures
from sparse_jax.report.exhibits import NO_LEVEL, NO_RESULTS, Figure, Findings, Missing, figure, labels, measured
from sparse_jax.report.figures import label
from sparse_jax.report.tables import Table


def comparison_parts(findings: Findings) -> list[Figure | Table | Missing]:
    """Of every setting that varies but the level: differences to a reference, and ranks."""
    if not findings.compared:
        reason = "No setting but the level was varied, so nothing is compared."
        return [Missing("comparisons", "Paired comparisons", reason)]
    return [part for factor in findings.compared for part in _compared(findings, factor)]


def _compared(findings: Findings, factor: str) -> list:
    layout, name = findings.layout, label(factor)
    table, rows = findings.compared[factor]
    title = f"By {name}: differences to a reference"
    if rows.empty:
        return [Missing(f"gains-{factor}", title, "No two values were trained with equal other settings and seeds.")]
    caption = (
        f"Differences of test accuracy to {rows['reference'].iloc[0]}, paired by seed, over everything that all values "
        "were trained with; 95% intervals; p values are Holm's, adjusted within a level."
    )
    if rows["seeds"].max() < 2:
        caption += " There is one seed, so there are neither intervals nor p values."
    formats = {"difference": "+.2%", "low": "+.2%", "high": "+.2%", "p": ".2g", "seeds": ".0f"}
    parts: list = [Table(f"gains-{factor}", title, caption, rows.rename(columns={"value": name}), formats)]
    at_levels = rows[rows["level"] != "all"]
    if len(at_levels):
        top = at_levels.loc[at_levels["difference"].idxmax()]
        summary = f"The largest mean difference is {top['difference']:+.2%}, of {top['value']} at {top['level']}."
        draw, head = partial(figures.gains, layout=layout, factor=factor), f"By {name}: gain at each level"
        words = "Over all else, paired by seed, with 95% intervals; one that crosses 0 may be chance."
        at_levels = at_levels.assign(**{factor: at_levels["value"], layout.level: at_levels["level"]})
        parts.insert(0, figure(f"gain-{factor}", head, words, summary, at_levels, draw))
    return [*parts, _ranks(table, factor)]


def _ranks(table: pd.DataFrame, factor: str) -> Figure | Missing:
    title, found = f"By {label(factor)}: mean ranks", comparisons.ranked(table)
    if found is None:
        return Missing(f"ranks-{factor}", title, "Ranks need three values and two blocks of equal other settings.")
    rows = comparisons.rank_rows(found)
    rows = rows.assign(**{factor: rows["value"]})
    caption = (
        f"Mean ranks over {found.blocks} blocks; bars are half of Nemenyi's critical difference, "
        f"{found.critical_difference:.2f}, either way: values whose bars do not overlap differ. Friedman "
        f"p = {found.p_value:.2g}."
    )
    summary = ", ".join(f"{name} {rank:.2f}" for name, rank in found.mean_ranks.items())
    return figure(f"ranks-{factor}", title, caption, f"Mean ranks: {summary}.", rows, figures.rank_bars)


def extreme_parts(findings: Findings) -> list[Figure | Table | Missing]:
    """The category of every level, and the contour."""
    titles = "What each level has come to", "The extreme sparse contour"
    if not findings.laws or measured(findings).empty:
        reason = NO_LEVEL if findings.layout.level is None else NO_RESULTS
        return [Missing(id, title, reason) for id, title in zip(("categories", "contour"), titles, strict=True)]
    if all(law.chance is None for law in findings.laws):
        reason = "The runs do not say how large the largest class of the test part is (majority)."
        return [Missing(id, title, reason) for id, title in zip(("categories", "contour"), titles, strict=True)]
    names = list(dict.fromkeys(name for name in findings.layout.varied if name != findings.layout.level))
    return [_categories(findings, names, titles[0]), *_contour(findings, names, titles[1])]


def _categories(findings: Findings, names: list[str], title: str) -> Table | Missing:
    found = comparisons.categories(findings.records, findings.layout, findings.laws)
    if not found:
        return Missing("categories", title, "The number of test examples is not known.")
    rows = [
        {label(name): law.settings[name] for name in names}
        | {law.names[at]: level.category + ("" if level.certain else " ?") for at, level in one.levels.items()}
        | {"dense is": one.reference_is, "dense accuracy": one.reference.value if one.reference else None}
        | ({"remark": lost} if lost else {})
        for law, one, lost in found
    ]
    levels = [name for name in findings.layout.orders[findings.layout.level] if any(name in row for row in rows)]
    last = ["remark"] if any("remark" in row for row in rows) else []
    columns = [*map(label, names), *levels, "dense is", "dense accuracy", *last]
    doubt = "A question mark: the interval reaches into another category, or there is none."
    caption = f"By {label(findings.layout.level)}. {doubt}"
    return Table("categories", title, caption, pd.DataFrame(rows)[columns], {"dense accuracy": ".2%"})


def _contour(findings: Findings, names: list[str], title: str) -> list:
    rows = contours.contour_rows(findings.records, findings.layout, findings.laws)
    caption = (
        "The density at which mean accuracy is half way between chance and dense; intervals from five seeds on. It is "
        "the fan-in that runs out."
    )
    shown = [*names, "density", "low", "high", "mean fan-in", "accuracy", "seeds", "remark"]
    formats = {"density": ".3g", "low": ".3g", "high": ".3g", "mean fan-in": ".3g", "accuracy": ".2%", "seeds": ".0f"}
    table = Table("contour-table", f"{title}: values", caption, rows[shown].rename(columns=labels(names)), formats)
    crossed = rows[rows["density"].notna()]
    if crossed.empty:
        return [Missing("contour", title, "No curve crosses that line between its levels."), table]
    span = f"{crossed['density'].min():.3g} to {crossed['density'].max():.3g}"
    summary = f"{len(crossed)} of {len(rows)} curves cross, at densities from {span}."
    draw = partial(figures.contour, layout=findings.layout)
    return [figure("contour", title, caption, summary, crossed, draw), table]
