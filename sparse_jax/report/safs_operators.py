"""The section on which operators a search for activation functions chose, and what the candidates say of each."""

from functools import partial

import pandas as pd

from sparse_jax.report import safs_figures
from sparse_jax.report.exhibits import Figure, Missing, Section, cells_fit, figure
from sparse_jax.report.frames import interval
from sparse_jax.report.safs_frames import by_level, in_order, without_level
from sparse_jax.report.safs_records import DIVERGED, KNOWN, PIPELINE, Safs
from sparse_jax.report.tables import Table

FORMATS = {
    "chosen": "d", "candidates": "d", "mean accuracy": ".2%", "difference": "+.2%", "from": "+.2%", "to": "+.2%",
    "seeds": "d",
}  # fmt: skip
UNSCORED = "No candidate of stage 1 has been scored."


def operators_section(found: Safs, lacks: str) -> Section:
    """What was chosen, and the accuracies that candidates have with each operator."""
    places = scored_places(found)
    order = _order(found, places)
    parts = [
        _choices(found, order, lacks), _chosen(found, lacks), _effects(found, places, order), _table(found, places)
    ]  # fmt: skip
    return Section("operators", "Which operators", parts)


def scored_places(found: Safs) -> pd.DataFrame:
    """One row for each layer of each candidate of stage 1 that was trained and has an accuracy; diverged ones count.

    What was taken over says nothing new, and is left out.
    """
    rows = found.candidates[(found.candidates["stage"] == "stage1") & (found.candidates["fate"] != KNOWN)]
    rows = rows.dropna(subset=["accuracy"])
    columns = [*PIPELINE, "number", "accuracy", "layer", "operator"]
    return pd.DataFrame([
        (*(row[name] for name in columns[:4]), layer, operator)
        for _, row in rows.iterrows() for layer, operator in zip(found.layers, row["operators"], strict=False)
    ], columns=columns)  # fmt: skip


def _order(found: Safs, places: pd.DataFrame) -> list[str]:
    """All operators, those chosen most often first, and of these those with the best candidates."""
    counts = found.chosen["operator"].value_counts().to_dict()
    means = places.groupby("operator")["accuracy"].mean().to_dict()
    known = dict.fromkeys([*counts, *means])
    return sorted(known, key=lambda one: (-(counts.get(one) or 0), -(means.get(one) or 0), one))


def _choices(found: Safs, order: list[str], lacks: str) -> Figure | Missing:
    id, title = "operator-choices", "How often each operator was chosen"
    if found.chosen.empty:
        return Missing(id, title, lacks or "result.json has no operators: stage 1 was not asked for.")
    counts = found.chosen.groupby(["sparsity", "layer", "operator"]).size()
    of = found.chosen.groupby("sparsity")["seed"].nunique()
    grid = pd.MultiIndex.from_product([of.index, found.layers, order], names=counts.index.names)
    rows = counts.reindex(grid, fill_value=0).rename("pipelines").reset_index()
    rows = by_level(found, rows.assign(of=rows["sparsity"].map(of)))
    summary = f"{top_operators(found)}."
    draw = partial(safs_figures.choices, layers=found.layers, operators=order)
    caption = "The number of pipelines, one a seed, in which stage 1 ended with an operator in a layer."
    return figure(id, title, caption, summary, rows, draw, fit=cells_fit(len(found.layers)))


def top_operators(found: Safs, most: int = 3) -> str:
    """The operators chosen most often, in words."""
    counts = found.chosen["operator"].value_counts()
    told = ", ".join(f"{name} {count}" for name, count in counts.head(most).items())
    pipelines = len(found.chosen[PIPELINE].drop_duplicates())
    return f"Chosen most often in {len(found.chosen)} places ({pipelines} × {len(found.layers)} layers): {told}"


def _chosen(found: Safs, lacks: str) -> Table | Missing:
    id, title = "operators", "The operators chosen"
    if found.chosen.empty:
        return Missing(id, title, lacks or "result.json has no operators: stage 1 was not asked for.")
    wide = found.chosen.drop_duplicates([*PIPELINE, "layer"]).pivot(index=PIPELINE, columns="layer", values="operator")
    shown = wide.reindex(columns=list(found.layers)).add_prefix("layer ").reset_index()
    shown = in_order(in_order(shown, found.seeds, "seed"), found.sparsities)
    return Table(id, title, "Of every pipeline and layer.", without_level(found, shown), {})


def _effects(found: Safs, places: pd.DataFrame, order: list[str]) -> Figure | Missing:
    id, title = "operator-effects", "Validation accuracy by layer and operator"
    if places.empty:
        return Missing(id, title, UNSCORED)
    grouped = places.groupby(["sparsity", "layer", "operator"], sort=False)
    rows = grouped.agg(accuracy=("accuracy", "mean"), candidates=("number", "size"), seeds=("seed", "nunique"))
    rows = by_level(found, rows.reset_index())
    best, worst = rows.loc[rows["accuracy"].idxmax()], rows.loc[rows["accuracy"].idxmin()]
    summary = (
        f"{best['operator']} in layer {best['layer']} has the highest mean ({best['accuracy']:.1%}), "
        f"{worst['operator']} in layer {worst['layer']} the lowest ({worst['accuracy']:.1%})."
    )
    diverged = (found.candidates["stage"] == "stage1") & (found.candidates["fate"] == DIVERGED)
    lost = " Those that diverged count with the accuracy they were given." if diverged.any() else ""
    counts = "; in brackets how many there are" if len(found.layers) <= safs_figures.WORDY else ""
    caption = (
        f"Mean over the candidates of stage 1 that have the operator in the layer, in %{counts}. The search does not "
        "try all equally: it stays where it was good, and a mean over few candidates says little. What was never tried "
        f"is empty.{lost}"
    )
    draw = partial(safs_figures.effects, layers=found.layers, operators=order)
    return figure(id, title, caption, summary, rows, draw, fit=cells_fit(len(found.layers)))


def _table(found: Safs, places: pd.DataFrame) -> Table | Missing:
    """Each operator wherever it stands: the candidates that have it, against all of the same pipeline."""
    id, title, rows = "operator-means", "Every operator, in whatever layer", []
    if places.empty:
        return Missing(id, title, UNSCORED)
    having = places.drop_duplicates([*PIPELINE, "number", "operator"])
    every = places.drop_duplicates([*PIPELINE, "number"]).groupby(PIPELINE)["accuracy"].mean()
    chosen = found.chosen.groupby(["sparsity", "operator"]).size()
    for (sparsity, operator), group in having.groupby(["sparsity", "operator"]):
        differences = (group.groupby(PIPELINE)["accuracy"].mean() - every).dropna()
        ends = dict(zip(("difference", "from", "to"), interval(differences), strict=True))
        row = {"sparsity": sparsity, "operator": operator, "chosen": chosen.get((sparsity, operator)) or 0}
        rows.append(row | {"candidates": len(group), "mean accuracy": group["accuracy"].mean()} | ends
                    | {"seeds": len(differences)})  # fmt: skip
    frame = in_order(pd.DataFrame(rows).sort_values("difference", ascending=False), found.sparsities)
    caption = (
        "Validation accuracy of the candidates that have the operator in any layer; the difference is to the mean of "
        "all candidates of the same pipeline, its mean and 95% interval over seeds."
    )
    if found.chosen.empty:
        frame = frame.drop(columns="chosen")
    else:
        caption += " Chosen is in how many places."
    formats = {name: form for name, form in FORMATS.items() if name in frame}
    return Table(id, title, caption, without_level(found, frame), formats)
