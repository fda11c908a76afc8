"""The section on which weights matter: curves, areas, tenths, edits, shared weights, correlations, and rules."""

from functools import partial

import pandas as pd

from sparse_jax.analysis.crossing import Response
from sparse_jax.report import ablation_figures
from sparse_jax.report.ablations import AREA, RANDOM, UNCHANGED, Ablations, less, over_seeds, plain_areas
from sparse_jax.report.crossings import Measure, study_of
from sparse_jax.report.exhibits import Figure, Findings, Missing, figure, labels, seeds_note
from sparse_jax.report.factors import rules_part
from sparse_jax.report.frames import Layout
from sparse_jax.report.tables import Table

NOT_MADE = "was not made: python launch/ablate.py WORKDIR"
KEPT = Measure(AREA, Response("accuracy kept while the smallest connections go", "points", 100, 0.005))
ENDS = ("mean", "low", "high")


def ablation_parts(findings: Findings, single: dict[str, str]) -> list[Figure | Table | Missing]:
    """What networks can do without. `single`: the level that is shown first, where one is shown at a time."""
    found = findings.ablations
    if found.empty:
        return [Missing("ablation", "Ablation", f"None {NOT_MADE}.")]
    return [
        _curves(findings, found, single), _areas(findings, found), _deciles(findings, found, single),
        _edits(findings, found), _shared(findings, found), _correlations(findings, found), _rules(findings, found),
    ]  # fmt: skip


def _placed(frame: pd.DataFrame, names: tuple[str, ...], least: float) -> pd.DataFrame:
    """With the texts of some columns together, which panels stand for, and the ends of bands within [least, 1]."""
    place = [" · ".join(dict.fromkeys(filter(None, row))) for row in frame[list(names)].to_numpy()]
    ends = {f"band_{end}": frame[end].astype(float).clip(least, 1) for end in ("low", "high")}
    return frame.assign(place=place, **ends)


def _curves(findings: Findings, found: Ablations, single: dict[str, str]) -> Figure | Missing:
    id, title = "ablation-curves", "Accuracy while connections go"
    if found.curves.empty:
        return Missing(id, title, f"It {NOT_MADE} --order=smallest,largest,random.")
    rows = over_seeds(found.curves, "accuracy", ("order", "variant", "removed"), findings.records, findings.layout)
    rows = _placed(rows, ("series", "panel", "variant"), 0)
    usual = {name: plain_areas(found, name) for name in rows["order"].unique()}
    means = {name: areas.mean() for name, areas in usual.items() if len(areas)}
    told = ", ".join(f"{name} {means[name]:.1%}" for name in sorted(means, key=means.get, reverse=True))
    summary = f"Mean accuracy along the curves: {told}." if told else f"{len(usual)} orders."
    caption = (
        "Connections are removed in an order, the first of it first, without further training unless it is said. Of "
        f"positive and negative the share is that of their sign. {seeds_note(rows)}"
    )
    draw = partial(ablation_figures.curves, layout=findings.layout)
    return figure(id, title, caption, summary, rows, draw, single)


def _told(layout: Layout, rows: pd.DataFrame) -> list[str]:
    """The columns of settings, and how experiments were made if there are several ways."""
    return [*layout.told, *(["variant"] if rows["variant"].nunique() > 1 else [])]


def _areas(findings: Findings, found: Ablations) -> Table | Missing:
    id, title = "ablation-areas", "Areas under these curves"
    if found.areas["area"].isna().all():
        return Missing(id, title, f"They need two fractions; the ablation {NOT_MADE} --fractions=0,0.5,1.")
    shown = _beside(findings, found.areas, "area", "order", RANDOM)
    caption = (
        "The mean accuracy over all shares removed; and how much more that is than of connections removed at random, "
        "paired by run. 95% intervals over seeds."
    )
    return Table(id, title, caption, shown, _formats(shown))


def _beside(findings: Findings, frame: pd.DataFrame, value: str, name: str, reference: str) -> pd.DataFrame:
    """Means of a value by setting and `name`, and of what it is more than that of the reference in the same run."""
    both, layout = less(frame, value, name, reference), findings.layout
    rows, gains = (over_seeds(both, one, (name, "variant"), findings.records, layout) for one in (value, "less"))
    merged = rows.merge(gains, "left", [*layout.varied, name, "variant"], suffixes=("", " less"))
    names = {"mean": value, "low": "from", "high": "to", "mean less": f"less {reference}", "low less": "from ",
             "high less": "to "}  # fmt: skip
    columns = [*_told(layout, rows), name, *names, "seeds"]
    return merged[columns].rename(columns=names | labels(list(layout.varied)))


def _formats(shown: pd.DataFrame) -> dict[str, str]:
    """Of the columns that `_beside` makes of numbers."""
    return dict.fromkeys(list(shown)[-7:-1], ".2%") | {"seeds": "d"}


def _deciles(findings: Findings, found: Ablations, single: dict[str, str]) -> Figure | Missing:
    id, title = "ablation-deciles", "Accuracy lost without each tenth"
    if found.deciles.empty:
        return Missing(id, title, f"It {NOT_MADE} --order=decile.")
    rows = over_seeds(found.deciles, "lost", ("decile", "variant"), findings.records, findings.layout)
    rows = _placed(rows, ("panel", "variant"), -1)
    means = found.deciles.groupby("decile")["lost"].mean()
    over = "" if rows["variant"].nunique() == 1 else " over all ways of removing it"
    ends = f"{means.iloc[0]:.1%} without the smallest tenth and {means.iloc[-1]:.1%} without the largest"
    summary = f"On average{over} {ends}."
    caption = (
        "Each tenth of the connections by |w|, of every layer unless it is said otherwise, is removed by itself. "
        f"{seeds_note(rows)}"
    )
    draw = partial(ablation_figures.deciles, layout=findings.layout)
    return figure(id, title, caption, summary, rows, draw, single)


def _edits(findings: Findings, found: Ablations) -> Table | Missing:
    id, title = "ablation-edits", "Magnitudes, signs, places"
    if found.edits.empty:
        return Missing(id, title, f"It {NOT_MADE} --edit=signs_shuffled.")
    shown = _beside(findings, found.edits, "accuracy", "edit", UNCHANGED)
    caption = (
        "All weights are changed at once, within their layers: magnitudes or signs or both shuffled among the "
        "connections, every magnitude that of the layer's mean, or all drawn anew as before training. 95% intervals "
        "over seeds."
    )
    return Table(id, title, caption, shown, _formats(shown))


def _shared(findings: Findings, found: Ablations) -> Table | Missing:
    id, title, layout = "shared-weights", "One weight for all connections", findings.layout
    if found.shared.empty:
        return Missing(id, title, f"It {NOT_MADE} --edit=shared_weight.")
    rows = over_seeds(found.shared, "accuracy", ("weight", "variant"), findings.records, layout)
    keys, weights = _told(layout, rows), list(dict.fromkeys(rows["weight"]))
    wide = rows.pivot_table(index=keys or ["series"], columns="weight", values="mean", sort=False)[weights]
    caption = (
        "The accuracy of the topology alone, all connections having one weight and no neuron a bias (Gaier and Ha "
        "2019): at every weight, on average, at the best, and by the vote of all. Means over seeds."
    )
    shown = wide.reset_index().rename(columns=labels(list(layout.varied)))
    return Table(id, title, caption, shown.drop(columns=[] if keys else ["series"]), dict.fromkeys(weights, ".2%"))


def _correlations(findings: Findings, found: Ablations) -> Table | Missing:
    id, title, layout = "importance", "Which score knows what a connection is worth", findings.layout
    if found.correlations.empty:
        return Missing(id, title, f"It {NOT_MADE} --order=leave_one_out; for small networks.")
    rows = over_seeds(found.correlations, "correlation", ("where", "order", "examples"), findings.records, layout)
    if rows.empty:
        return Missing(id, title, "None is defined: there are fewer than three connections, or all are alike.")
    rows[list(ENDS)] = rows[list(ENDS)].astype(float).clip(-1, 1)
    names = {"order": "score", "mean": "ρ", "low": "from", "high": "to"}
    several = ["examples"] if rows["examples"].nunique() > 1 else []
    columns = [*layout.told, *several, "where", *names, "seeds"]
    caption = (
        "Spearman's correlation of a score with by how much the training loss rises without the connection alone: "
        "smallest is |w|, gradient |w ∂L/∂w|, activity |w| E|x|. 95% intervals over seeds."
    )
    formats = dict.fromkeys(("ρ", "from", "to"), "+.2f") | {"seeds": "d"}
    return Table(id, title, caption, rows[columns].rename(columns=names | labels(list(layout.varied))), formats)


def _rules(findings: Findings, found: Ablations) -> Table | Missing:
    """What makes networks keep their accuracy: the rules of the areas."""
    id, title, records = "ablation-rules", "What makes networks robust: rules", findings.records
    areas = plain_areas(found, "smallest")
    if areas.empty:
        return Missing(id, title, f"It needs the order smallest, by layer and without training; it {NOT_MADE}.")
    runs = records.runs.assign(**{AREA: areas.reindex(records.runs.index)})
    study = study_of(records._replace(runs=runs), findings.layout, KEPT)
    return Missing(id, title, study.reason) if study.reason else rules_part(study, id, title)


def ablation_sentence(found: Ablations) -> list[str]:
    """What the headline says: mean accuracies along the curves, smallest first, at random, largest first."""
    areas = pd.concat([plain_areas(found, name).rename(name) for name in ("smallest", RANDOM, "largest")], axis=1)
    if (known := areas.dropna()).empty:
        return []
    smallest, chance, largest = (f"{100 * mean:.1f}" for mean in known.mean())
    return [
        f"While connections go, mean accuracy over all shares is {smallest}% with the smallest first, {chance}% at "
        f"random and {largest}% with the largest first, in {len(known)} networks."
    ]
