"""The sections on the course of a search for activation functions, on what was learned, and on what it cost."""

from functools import partial

import pandas as pd

from sparse_jax.report import safs_figures
from sparse_jax.report.exhibits import Figure, Fit, Missing, Section, figure
from sparse_jax.report.safs_frames import CALLED, by_level, by_pipeline, in_order, joined, without_level
from sparse_jax.report.safs_records import DIVERGED, FATES, KNOWN, PIPELINE, STAGES, STOPPED, TUNED, Safs
from sparse_jax.report.tables import Table

SEARCHED = {
    "stage1": "Stage 1: an operator for every layer",
    "stage2": "Stage 2: α, β and hyper-parameters, with the default activation function",
    "both": "Stage 2: α, β and hyper-parameters, with the operators found",
}
TUNED_FORMATS = {"learning rate": ".3g", "momentum": ".3f", "weight decay": ".3g", "best validation": ".2%"}
SCALE_FORMATS = dict.fromkeys(("α", "α from", "α to", "β", "β from", "β to"), ".3f")
# a part of the search, by the name that candidates and result.json's seconds have for it -> what the table calls it
PARTS = {"start": "networks to start from"} | {name: CALLED[name] for name in STAGES} | {"final": "final training"}
COST_FORMATS = dict.fromkeys(("candidates", KNOWN, STOPPED, DIVERGED, "epochs"), ",.0f")
COST_FORMATS |= {"seconds": ",.1f", "FLOPs": ".3g"}


def _none(found: Safs, stage: str, lacks: str) -> str:
    return f"No candidate of {CALLED[stage]} has been scored{' yet' if lacks else ''}."


def course_section(found: Safs, lacks: str) -> Section:
    """Every candidate of each stage. `lacks` says why there is no result."""
    parts = [_course(found, stage, lacks) for stage in STAGES]
    return Section("course", "The course of the search", parts)


def _course(found: Safs, stage: str, lacks: str) -> Figure | Missing:
    id, rows = f"course-{stage}", found.candidates[found.candidates["stage"] == stage]
    if rows.empty or (rows["accuracy"].isna()).all():
        return Missing(id, SEARCHED[stage], _none(found, stage, lacks))
    rows = rows.assign(choice=[_choice(row) for _, row in rows.iterrows()])
    rows = by_pipeline(found, rows.drop(columns=["operators"]))
    counts = {fate: int((rows["fate"] == fate).sum()) for fate in FATES}
    told = ", ".join(f"{count} {fate}" for fate, count in counts.items() if count)
    last = rows.groupby(PIPELINE)["best"].last().dropna()
    spans = dict.fromkeys(f"{value:.1%}" for value in (last.min(), last.max()))
    ends = f" The best of a pipeline {'lie between' if len(spans) > 1 else 'is'} {' and '.join(spans)} in the end."
    ends = ends if len(last) else ""
    unseen = int(rows["accuracy"].isna().sum())
    caption = (
        "Validation accuracy of every candidate of a pipeline in their order; grey steps are the best so far of those "
        "trained to the end."
        + (" What was taken over had the operators of an earlier candidate." if counts[KNOWN] else "")
        + (f" {unseen} without an accuracy are not shown." if unseen else "")
    )
    words = "candidate" if stage == "stage1" else "trial"
    draw = partial(safs_figures.course, words=words)
    return figure(id, SEARCHED[stage], caption, f"{told}.{ends}", rows, draw)


def _choice(row: pd.Series) -> str:
    if row["stage"] == "stage1":
        return ", ".join(row["operators"])
    return f"{row['optimizer']}, learning rate {row['learning_rate']:.2g}"


# --- what was learned --------------------------------------------------------------------------------


def learned_section(found: Safs, lacks: str) -> Section:
    """α and β, and the functions that they make."""
    return Section("learned", "What was learned", [_functions(found, lacks), _scales(found, lacks)])


def _functions(found: Safs, lacks: str) -> Figure | Missing:
    id, title = "functions", "The learned activation functions"
    network = next((name for name in reversed(STAGES) if (found.curves["network"] == name).any()), None)
    if network is None:
        return Missing(id, title, lacks or "result.json has no curves.")
    rows = found.curves[found.curves["network"].isin((network, "default"))]
    rows = by_level(found, in_order(rows.assign(default=rows["network"] == "default"), found.layers, "layer"))
    rows["panel"] = [joined(head, f"layer {layer}") for head, layer in zip(rows["panel"], rows["layer"], strict=True)]
    rows["curve"] = rows["sparsity"] + " " + rows["seed"] + " " + rows["operator"]
    usual = " Dashed is the default activation function." if rows["default"].any() else ""
    whole = " A layer with α and β for every neuron has one line for all of them." if _by_neuron(found.scales) else ""
    caption = (
        f"The functions f(x) = α h(β x) of the network {CALLED[network]}, h being the operator of its layer: a line a "
        f"seed.{usual}{whole}"
    )
    kinds = rows[~rows["default"]].groupby("layer", sort=False)["operator"].unique()
    summary = "; ".join(f"{layer} {', '.join(names)}" for layer, names in kinds.items())
    draw = partial(safs_figures.functions, seeds=found.seeds)
    return figure(id, title, caption, f"Operators by layer: {summary}.", rows, draw, fit=Fit(widest=300, ratio=0.75))


def _by_neuron(scales: pd.DataFrame) -> bool:
    """Whether layers have several α or β."""
    return any((scales[f"{sign} from"] < scales[f"{sign} to"]).any() for sign in "αβ")


def _scales(found: Safs, lacks: str) -> Table | Missing:
    id, title, rows = "scales", "α and β", found.scales
    if rows.empty:
        return Missing(id, title, lacks or "result.json has no scales: stage 2 was not asked for.")
    several = _by_neuron(rows)
    spread = " Of layers with a pair for every neuron it is the mean; from and to are the least and the largest."
    caption = f"Of α h(β x), as they were learned; both begin as 1.{spread if several else ''}"
    shown = rows.assign(network=rows["network"].map(CALLED))
    if not several:
        shown = shown.drop(columns=[f"{sign} {end}" for sign in "αβ" for end in ("from", "to")])
    formats = {name: form for name, form in SCALE_FORMATS.items() if name in shown}
    return Table(id, title, caption, without_level(found, shown), formats, rows)


# --- hyper-parameters --------------------------------------------------------------------------------


def tuned_section(found: Safs, lacks: str) -> Section:
    """What stage 2 chose, and what it tried."""
    return Section("tuned", "Hyper-parameters", [_chosen(found, lacks), _rates(found, lacks)])


def _chosen(found: Safs, lacks: str) -> Table | Missing:
    id, title, rows = "tuned", "The hyper-parameters chosen", found.tuned
    if rows.empty:
        return Missing(id, title, lacks or "result.json has no hyper-parameters: stage 2 was not asked for.")
    trials = found.candidates.rename(columns={"stage": "network"})
    best = trials.groupby([*PIPELINE, "network"])["best"].last().rename("best validation")
    shown = rows.join(best, on=[*PIPELINE, "network"])
    caption = (
        "Those of the best trial of each pipeline, that the final network was trained with. Best validation is the "
        "accuracy of that trial, the highest of several and therefore too high to be expected again."
    )
    shown = shown.assign(network=shown["network"].map(CALLED))
    shown = without_level(found, shown.rename(columns={name: name.replace("_", " ") for name in TUNED}))
    return Table(id, title, caption, shown.rename(columns={"lr schedule": "schedule"}), TUNED_FORMATS)


def _rates(found: Safs, lacks: str) -> Figure | Missing:
    id, title = "rates", "Accuracy by learning rate"
    rows = found.candidates[found.candidates["stage"] != "stage1"].dropna(subset=["accuracy", "optimizer"])
    rows = rows[rows["learning_rate"] > 0].drop(columns=["operators"])
    if rows.empty:
        return Missing(id, title, _none(found, "stage2", lacks))
    rows = in_order(rows.assign(panel=rows["stage"].map(CALLED)), STAGES, "stage")
    ended = rows[~rows["fate"].isin((STOPPED, DIVERGED))]
    best = ended.groupby("optimizer")["accuracy"].max().sort_values(ascending=False)
    summary = f"The best trials: {', '.join(f'{name} {value:.1%}' for name, value in best.items())}."
    open_ = " Open marks are trials that were stopped early or diverged." if len(ended) < len(rows) else ""
    caption = f"Validation accuracy of every trial of all pipelines; the other hyper-parameters vary, too.{open_}"
    return figure(id, title, caption, summary, rows, safs_figures.rates, fit=Fit(least=290, most=2))


# --- cost --------------------------------------------------------------------------------------------


def cost_section(found: Safs, lacks: str) -> Section:
    """Candidates, seconds and FLOPs by stage."""
    id, title, rows = "cost", "Candidates, seconds and FLOPs by stage", []
    for part, name in PARTS.items():
        group = found.candidates[found.candidates["stage"] == part]
        rows.append({"part": name, "seconds": found.seconds.get(part)} | (_sums(group) if len(group) else {}))
    columns = ["candidates", KNOWN, STOPPED, DIVERGED, "epochs", "seconds", "FLOPs"]
    frame = pd.DataFrame(rows, columns=["part", *columns]).dropna(how="all", subset=columns)
    if frame.empty:
        return Section(id, "What it cost", [Missing(id, title, lacks or "Nothing that it cost is recorded.")])
    total = frame[columns].sum(min_count=1).to_dict() | {"part": "together"}
    frame = pd.concat([frame, pd.DataFrame([total])], ignore_index=True).dropna(axis="columns", how="all")
    caption = (
        "What was taken over cost nothing. Of the time of networks that are trained side by side each has its share, "
        "with compiling; FLOPs are those of the candidates, theoretical, and count active connections only."
    )
    formats = {name: form for name, form in COST_FORMATS.items() if name in frame}
    return Section(id, "What it cost", [Table(id, title, caption, frame, formats)])


def _sums(group: pd.DataFrame) -> dict[str, float]:
    counts = {fate: int((group["fate"] == fate).sum()) for fate in (KNOWN, STOPPED, DIVERGED)}
    spent = {name: group[name].sum(min_count=1) for name in ("epochs", "seconds")}
    return {"candidates": len(group)} | counts | spent | {"FLOPs": group["flops"].sum(min_count=1)}
