"""Every setting over its seeds: the means of all runs and of those that are ok, and how often runs were lost."""

import pandas as pd

from sparse_jax.analysis.statistics import Interval, Outcome, Summary, summarize
from sparse_jax.report.frames import CONFIDENCE, Layout, labelled
from sparse_jax.report.records import STATUSES, Records

FORMATS = dict.fromkeys(("mean", "from", "to", "mean of ok runs", "IQM", "IQM from", "IQM to"), ".2%") | dict.fromkeys(
    ("runs", "collapsed", "diverged", "failed"), "d"
)


def seed_rows(records: Records, layout: Layout) -> pd.DataFrame:
    """One row for each combination of the settings that vary, of the runs that ended."""
    runs = records.runs[records.runs["status"] != STATUSES[-1]]
    rows, names = [], list(layout.told)
    if runs.empty:
        return pd.DataFrame()
    by_setting = labelled(runs, layout).groupby([*names, "series", "panel"], sort=False, dropna=False)
    for values, indices in by_setting.groups.items():
        ended = runs.loc[indices]
        outcomes = [Outcome(*pair) for pair in zip(ended["status"], ended["test_accuracy"], strict=True)]
        rows.append(dict(zip(names, values, strict=False)) | _row(summarize(outcomes, CONFIDENCE)))
    return pd.DataFrame(rows)


def _row(found: Summary) -> dict[str, float | int | str | None]:
    mean, middle = (one or Interval(float("nan"), None, None) for one in (found.mean, found.iqm))
    return {
        "runs": found.count, "mean": mean.value, "from": mean.low, "to": mean.high,
        "mean of ok runs": found.mean_ok.value if found.mean_ok else None,
        "IQM": middle.value, "IQM from": middle.low, "IQM to": middle.high,
        "collapsed": found.collapsed, "collapse rate": share(found.collapse_rate),
        "diverged": found.diverged, "divergence rate": share(found.divergence_rate), "failed": found.failed,
    }  # fmt: skip


def share(rate: Interval | None) -> str | None:
    """A rate with its interval as text."""
    return None if rate is None else f"{rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}]"
