"""The networks of a search for activation functions: their test accuracies, and what stages gain, paired by seed."""

from functools import partial
from typing import NamedTuple

import pandas as pd

from sparse_jax.analysis.statistics import Interval, mean_interval
from sparse_jax.report import safs_figures
from sparse_jax.report.exhibits import Figure, Fit, Missing, Section, figure
from sparse_jax.report.frames import CONFIDENCE, interval
from sparse_jax.report.safs_frames import CALLED, by_level, level, without_level
from sparse_jax.report.safs_records import COLUMNS, Safs
from sparse_jax.report.tables import Table, signed

COUNTED = ("No", "One", "Two", "Three", "Four", "Five")
# a network, and what it is set against
PAIRS = (
    ("default", "dense"), ("stage1", "default"), ("stage2", "default"), ("both", "default"), ("both", "stage1"),
    ("both", "stage2"),
)  # fmt: skip
GAIN_FORMATS = dict.fromkeys(("gain", "from", "to"), "+.2%") | {"seeds": "d"}
MEANING = (
    "Dense is no sparse network; default is sparse, with the default activation function; stage 1 has the operators "
    "found; stage 2 keeps the default activation function, with learned α and β and tuned hyper-parameters; both has "
    "the operators found and stage 2."
)


class Gain(NamedTuple):
    """A network against another one of the same pipelines, in test accuracy."""

    network: str
    against: str
    before: float  # mean of `against` over the seeds that have both
    after: float
    points: Interval  # the mean difference, paired by seed
    seeds: int

    @property
    def doubtful(self) -> bool:
        """Whether there is an interval, and it contains 0."""
        low, high = self.points.low, self.points.high
        return low is not None and high is not None and low <= 0 <= high


def gain(found: Safs, sparsity: str, network: str, against: str) -> Gain | None:
    """What a network has more than another at a sparsity; None where no seed has both.

    They are computed from the networks themselves, so that they agree with the figure beside them.
    """
    rows = found.networks[found.networks["sparsity"] == sparsity].dropna(subset=["test"])
    wide = rows.pivot(index="seed", columns="network", values="test").reindex(columns=[network, against]).dropna()
    if wide.empty:
        return None
    points = mean_interval((wide[network] - wide[against]).tolist(), CONFIDENCE)
    return Gain(network, against, wide[against].mean(), wide[network].mean(), points, len(wide))


def networks_section(found: Safs, lacks: str) -> Section:
    """All networks and their gains. `lacks` says why there is no result."""
    measured = found.networks.dropna(subset=["test"])
    number = measured["network"].nunique()
    id, title = "networks", f"{COUNTED[number]} network{'s' if number > 1 else ''}" if number else "Networks"
    if not number:
        reason = lacks or "No network has a test accuracy."
        titles = {"networks-table": "Test accuracies", "networks": "Test accuracies by seed", "gains": "Gains"}
        return Section(id, title, [Missing(*pair, reason) for pair in titles.items()])
    return Section(id, title, [_table(found, measured), _figure(found, measured), _gains(found)])


def _names(measured: pd.DataFrame) -> list[str]:
    return [name for name in COLUMNS if name in set(measured["network"])]


def _means(found: Safs, measured: pd.DataFrame) -> pd.DataFrame:
    """One row for each sparsity and network: means over seeds, with the interval of the test accuracy."""
    rows = []
    for sparsity in found.sparsities:
        for name in _names(measured):
            group = measured[(measured["sparsity"] == sparsity) & (measured["network"] == name)]
            if not group.empty:
                mean, low, high = interval(group["test"])
                means = {one: group[one].mean() for one in ("validation", "test_loss", "connections")}
                row = {"sparsity": sparsity, "network": name, "mean": mean, "from": low, "to": high} | means
                rows.append(row | {"seeds": len(group), "diverged": int(group["diverged"].sum())})
    return pd.DataFrame(rows)


def _table(found: Safs, measured: pd.DataFrame) -> Table:
    means = _means(found, measured)
    rows = []
    for sparsity, group in means.groupby("sparsity", sort=False):
        texts = {CALLED[row["network"]]: _with_ends(row) for _, row in group.iterrows()}
        rows.append({"sparsity": sparsity, "seeds": int(group["seeds"].max())} | texts)
    caption = (
        f"Test accuracy, measured once at the end: mean over seeds, with its 95% interval in brackets. {MEANING} The "
        "CSV has validation accuracies, losses, and connections beside them."
    )
    order = ["sparsity", "seeds", *(CALLED[name] for name in _names(measured))]
    shown = without_level(found, pd.DataFrame(rows)[order])
    return Table("networks-table", "Test accuracies", caption, shown, {"seeds": "d"}, means)


def _with_ends(row: pd.Series) -> str:
    ends = "" if pd.isna(row["from"]) else f" [{row['from']:.1%}, {row['to']:.1%}]"
    return signed(f"{row['mean']:.2%}{ends}")


def _figure(found: Safs, measured: pd.DataFrame) -> Figure:
    means = _means(found, measured).rename(columns={"from": "low", "to": "high"})
    seeds = measured.rename(columns={"test": "accuracy"})[["sparsity", "network", "accuracy", "seed"]]
    ours = means.rename(columns={"mean": "accuracy"})[["sparsity", "network", "accuracy", "low", "high", "seeds"]]
    rows = pd.concat([seeds.assign(kind="seed"), ours.assign(kind="mean")], ignore_index=True)
    rows["network"] = rows["network"].map(CALLED)
    ends = {name: rows[end].clip(0, 1) for name, end in (("band_low", "low"), ("band_high", "high"))}
    order = [CALLED[name] for name in _names(measured)]
    last = means[means["sparsity"] == means["sparsity"].iloc[-1]]
    told = ", ".join(f"{CALLED[row['network']]} {row['mean']:.1%}" for _, row in last.iterrows())
    head = " at ".join(filter(None, ("Means", level(found, last["sparsity"].iloc[0]))))
    caption = "Dots joined by a line are one pipeline, so that differences are those within a seed. " + (
        "Grey ticks are means, with 95% intervals over seeds." if means["low"].notna().any()
        else "There is one seed, so no interval is shown."
    )  # fmt: skip
    draw = partial(safs_figures.networks, order=order, seeds=found.seeds)
    summary = f"{head}: {told}."
    return figure("networks", "Test accuracies by seed", caption, summary, by_level(found, rows.assign(**ends)), draw,
                  fit=Fit(least=290, most=2, ratio=0.62))  # fmt: skip


def _gains(found: Safs) -> Table | Missing:
    title, rows = "Gains", []
    for sparsity in found.sparsities:
        for one in (gain(found, sparsity, *pair) for pair in PAIRS):
            if one is not None:
                names = {"network": CALLED[one.network], "against": CALLED[one.against]}
                ends = dict(zip(("gain", "from", "to"), one.points, strict=True))
                chance = "unknown" if one.points.low is None else "yes" if one.doubtful else "no"
                rows.append({"sparsity": sparsity} | names | ends | {"may be chance": chance, "seeds": one.seeds})
    if not rows:
        return Missing("gains", title, "No seed has two networks to compare.")
    caption = (
        "The test accuracy of a network less that of another, in points, paired by seed, with Student's t interval "
        "(BCa bootstrap from 20 seeds on) at 95%. One that contains 0 may be chance; there are several comparisons, "
        "and no correction for their number."
    )
    frame = pd.DataFrame(rows).astype({"from": float, "to": float})
    return Table("gains", title, caption, without_level(found, frame), GAIN_FORMATS)
