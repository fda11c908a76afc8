"""All settings that vary, crossed: the analysis of variance of a response and the rules that follow from it."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from sparse_jax.analysis.crossing import RUN, SEED, STATUS, VALUE, Crossed, Response, cross
from sparse_jax.analysis.effects import effects
from sparse_jax.analysis.rules import LEAST_SEEDS, Rule, rules
from sparse_jax.analysis.variance import Variance, analyse
from sparse_jax.report.figures import label
from sparse_jax.report.frames import CONFIDENCE, Layout, interval, labelled
from sparse_jax.report.records import FINISHED, NONE, Records


class Measure(NamedTuple):
    """A column of the runs, and how it is told."""

    column: str
    response: Response


TEST_ACCURACY = Measure("test_accuracy", Response("test accuracy", "points", 100, 0.005))


class Study(NamedTuple):
    """What is known of one response.

    Attributes:
      measure: of what.
      crossed: the runs behind it; factors have the names that readers call them.
      variance: None where nothing can be said; `reason` then says why.
      rules: the largest effect first.
      tested: the number of contrasts that were tested.
      reason: why there is no analysis of variance, in a sentence.
      no_rules: why there are no rules, in a sentence.
    """

    measure: Measure
    crossed: Crossed
    variance: Variance | None
    rules: list[Rule]
    tested: int
    reason: str | None
    no_rules: str | None


def study_of(records: Records, layout: Layout, measure: Measure) -> Study:
    """The analysis of a column of the runs, over the settings that tell them apart."""
    runs = records.runs
    table = labelled(runs, layout)[list(layout.told)].rename(columns=label)
    values = runs[measure.column].where(runs["status"].isin(FINISHED))
    table = table.assign(**{SEED: runs["seed"], VALUE: values, RUN: runs["run_id"], STATUS: runs["status"]})
    crossed = cross(table, {label(name): layout.orders[name] for name in layout.told}, NONE)
    if len(crossed.factors) < 2:
        return Study(measure, crossed, None, [], 0, _too_few(crossed), None)
    variance = analyse(crossed, CONFIDENCE)
    if variance is None:
        reason = f"All runs have the same {measure.response.name}, or too few of them are left to tell chance by."
        return Study(measure, crossed, None, [], 0, reason, None)
    found = effects(crossed)
    tested = sum(one.adjusted_p is not None for one in found)
    supported = rules(crossed, found, measure.response, CONFIDENCE)
    reason = None if supported else _unsupported(crossed, tested)
    return Study(measure, crossed, variance, supported, tested, None, reason)


def _too_few(crossed: Crossed) -> str:
    if crossed.table.empty:
        return "No finished run has a value of every setting that varies, so there is nothing to cross."
    only = f"Only {crossed.factors[0]} varies" if crossed.factors else "Nothing varies"
    return f"{only} among the runs that have a value of every setting, so there is nothing to cross."


def _unsupported(crossed: Crossed, tested: int) -> str:
    seeds = crossed.table[SEED].nunique()
    if seeds < LEAST_SEEDS:
        have = "is one" if seeds == 1 else f"are {seeds}"
        return f"A rule needs at least {LEAST_SEEDS} seeds, and there {have}."
    return f"None of the {tested} contrasts that were tested is supported."


def cell_means(study: Study, factors: tuple[str, ...]) -> pd.DataFrame:
    """The mean response for every pair of values of two factors, with its interval over seeds.

    Over everything else that all pairs were trained with, where there is such; otherwise over what there is, and
    `even` is false.
    """
    table = study.crossed.table
    others = [name for name in study.crossed.factors if name not in factors]
    combinations = len(table.drop_duplicates(list(factors)))
    counts = table.groupby([*others, SEED], sort=False)[VALUE].transform("size")
    complete = table[counts == combinations]
    even = len(complete) > 0
    rows = []
    used = complete if even else table
    for values, group in used.groupby(list(factors), sort=False):
        mean, low, high = interval(group.groupby(SEED, sort=True)[VALUE].mean())
        odd = bool(group[STATUS].isin(("collapsed", "diverged")).any())
        row = dict(zip(factors, values, strict=True)) | {"mean": mean, "low": low, "high": high}
        rows.append(row | {"seeds": group[SEED].nunique(), "runs": len(group), "odd": odd, "even": even})
    frame = pd.DataFrame(rows)
    places = [frame[name].map(study.crossed.orders[name].index) for name in factors]
    return frame.iloc[np.lexsort(places[::-1])].reset_index(drop=True)
