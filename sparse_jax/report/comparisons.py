"""The values of one setting against each other: where everything else is equal, block by block and seed by seed."""

import math
from typing import Any

import pandas as pd

from sparse_jax.analysis.categories import Categories, categorize
from sparse_jax.analysis.comparison import Comparison, Ranks, compare, ranks
from sparse_jax.analysis.statistics import Interval
from sparse_jax.report.frames import CONFIDENCE, Layout, labelled
from sparse_jax.report.laws import Law, dense_beside
from sparse_jax.report.records import NONE, Records

REFERENCE = {"method": "static", "activation": "relu"}  # what the others are compared with, where it is among them
RANKS = ["value", "rank", "low", "high"]


def blocks(records: Records, layout: Layout, factor: str) -> pd.DataFrame:
    """Test accuracies, one column a value of the setting, one row for what else is equal; none of them missing.

    The index is the other settings that vary and the seed. Values that have no level, such as the method dense, are
    in no block.
    """
    runs = records.finished
    texts = labelled(runs, layout)[list(layout.varied)].assign(seed=runs["seed"], accuracy=runs["test_accuracy"])
    if layout.level is not None:
        texts = texts[texts[layout.level] != NONE]
    others = [name for name in layout.varied if name != factor]
    if texts.empty:
        return pd.DataFrame()
    table = texts.pivot_table(index=[*others, "seed"], columns=factor, values="accuracy", aggfunc="first", sort=False)
    return table[[name for name in layout.orders[factor] if name in table]].dropna()


def reference_of(table: pd.DataFrame, factor: str) -> str | None:
    """What all others are compared with: the usual reference, or else the best on average."""
    usual = REFERENCE.get(factor)
    if usual in table:
        return usual
    return None if table.empty else str(table.mean().idxmax())


def gains(table: pd.DataFrame, layout: Layout, factor: str) -> pd.DataFrame:
    """Every value less the reference: over all levels together, then at each level; pairs are seeds.

    p values are Holm's, adjusted among the comparisons of a level.
    """
    reference, rows = reference_of(table, factor), []
    if reference is None or len(table.columns) < 2:
        return pd.DataFrame()
    levels = [] if layout.level is None or layout.level == factor else list(layout.orders[layout.level])
    parts = {"all": table}
    if levels:
        at = table.index.get_level_values(layout.level)
        parts |= {level: table[at == level] for level in levels if (at == level).any()}
    for level, part in parts.items():
        by_seed = part.groupby(level="seed", sort=True).mean()
        found = compare({str(name): by_seed[name].to_dict() for name in by_seed}, CONFIDENCE, reference)
        rows += [{"level": level, **_gain(one)} for one in found]
    return pd.DataFrame(rows)


def _gain(one: Comparison) -> dict[str, Any]:
    mean = one.difference.mean or Interval(math.nan, None, None)  # where no seed has both
    ends = {"difference": mean.value, "low": mean.low, "high": mean.high}
    return {"value": one.first, "reference": one.second, **ends, "p": one.adjusted_p, "seeds": one.difference.pairs}


def ranked(table: pd.DataFrame) -> Ranks | None:
    """The values ranked block by block, a block being the mean over seeds of what else is equal."""
    if table.empty or table.index.nlevels < 2:
        return None
    others = list(range(table.index.nlevels - 1))
    means = table.groupby(level=others, sort=False).mean()
    means.index = [str(key) for key in means.index]
    return ranks({str(name): means[name].to_dict() for name in means}, CONFIDENCE)


def rank_rows(found: Ranks) -> pd.DataFrame:
    """One row a value, the best first, with half the critical difference on either side of its mean rank."""
    half = found.critical_difference / 2
    ranked_names = found.mean_ranks.items()
    return pd.DataFrame([(name, rank, rank - half, rank + half) for name, rank in ranked_names], columns=RANKS)


def categories(records: Records, layout: Layout, laws: list[Law]) -> list[tuple[Law, Categories, str | None]]:
    """Every curve of the study with the category of each of its levels, and the remark of `dense_beside`.

    Curves of an unknown chance are left out.
    """
    runs = records.finished
    texts = labelled(runs, layout)
    found = []
    for law in laws:
        examples = _test_examples(runs.loc[law.runs])
        if law.chance is not None and examples is not None:
            dense, lost = dense_beside(law, runs, texts, layout)
            found.append((law, categorize(law.levels, dense["test_accuracy"], law.chance, examples, CONFIDENCE), lost))
    return found


def _test_examples(runs: pd.DataFrame) -> int | None:
    """The number of test examples, if the runs say it and it is one."""
    sizes = set(runs["test_examples"].dropna()) if "test_examples" in runs else set()
    return int(sizes.pop()) if len(sizes) == 1 else None
