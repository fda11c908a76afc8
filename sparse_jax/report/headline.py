"""What a study found, in sentences made from its numbers."""

import itertools
from collections import Counter

import pandas as pd

from sparse_jax.analysis.reading import invert
from sparse_jax.analysis.statistics import rate
from sparse_jax.report.ablation_parts import ablation_sentence
from sparse_jax.report.exhibits import NO_RESULTS, Findings
from sparse_jax.report.figures import label
from sparse_jax.report.frames import CONFIDENCE, EVERY
from sparse_jax.report.records import FINISHED, LISTED, NONE, Records
from sparse_jax.report.tables import signed

KEPT = 0.95  # of the best accuracy, that the headline asks the laws for
LARGEST = 5  # differences that are told
RULES = 2  # that are told; the sentence says two
BETTER = 0.05  # p value under which a difference is told as one
IRREGULAR = {
    "sparsity": "sparsities", "activation": "activation functions", "hidden sizes": "networks",
    "initial topology": "first topologies",
}  # fmt: skip


def title(records: Records) -> str:
    """The models and data sets of a study."""
    models, datasets = (_few(records.runs[name]) for name in ("model", "dataset"))
    return f"Sparse {models} on {datasets}" if models and datasets else "A study of sparse networks"


def _few(values: pd.Series) -> str:
    names = [str(value) for value in values.dropna().unique()]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def varied(records: Records) -> str:
    """What was varied: how many values of each setting, and seeds."""
    counts = [(sum(text != NONE for text in records.orders[name]), label(name)) for name in records.told]
    seeds = records.runs["seed"].nunique()
    words = [f"{count} {_plural(name)}" for count, name in counts if count > 1]
    words += [f"{seeds} seeds"] if seeds > 1 else ["one seed"]
    return f"{' × '.join(words)}; {counted(len(records.runs), 'run')}"


def counted(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {noun if count == 1 else f'{noun}s'}"


def _plural(name: str) -> str:
    return IRREGULAR[name] if name in IRREGULAR else name if name.endswith("s") else f"{name}s"


def completeness(records: Records) -> str:
    """How many runs have a result, and how the others ended."""
    counts = records.runs["status"].value_counts().to_dict()
    done = sum(counts[name] for name in FINISHED if name in counts)
    odd = [(name, counts[name]) for name in ("failed", "collapsed", "diverged", "unfinished") if name in counts]
    words = [f"{count} {'still ' if name == 'unfinished' else ''}{name}" for name, count in odd]
    return f"{done} of {counted(len(records.runs), 'run')}" + (f"; {', '.join(words)}" if words else "") + "."


def failures(records: Records) -> list[str]:
    """What the failed runs said."""
    failed = records.runs[records.runs["status"] == "failed"]
    if failed.empty:
        return []
    listed = [f"{run_id}: {message}" for run_id, message in zip(failed["run_id"], failed["message"], strict=True)]
    more = f"; and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return [f"{counted(len(listed), 'run')} failed. {'; '.join(listed[:LISTED])}{more}."]


def sentences(findings: Findings) -> list[str]:
    """The answer first, then what qualifies it."""
    found = findings.points[findings.points["accuracy"].notna()]
    if found.empty:
        return [NO_RESULTS]
    parts = [("", found)]
    if "dataset" in findings.layout.varied:
        parts = [(f"On {name}, ", part) for name, part in found.groupby("dataset", sort=False)]
    best = [_on(head, _best(findings, part)) for head, part in parts]
    levels = [_on(head, text) for head, part in parts if (text := _by_level(findings, part))]
    told = [_differences(findings), _rules(findings), ablation_sentence(findings.ablations), _collapse(findings)]
    told += [_dead(findings), _laws(findings, found)]
    return [*best, *levels, *itertools.chain.from_iterable(told)]


def _on(head: str, text: str) -> str:
    """A sentence, begun with the data set that it is of."""
    return f"{head}{text[:1].lower()}{text[1:]}" if head else text


def name_of(findings: Findings, point: pd.Series) -> str:
    """A curve or point as prose: its settings but for the level and the data set."""
    names = [name for name in findings.layout.told if name not in (findings.layout.level, "dataset")]
    main = " with ".join(point[name] for name in ("method", "activation") if name in names)
    rest = [f"{label(name)} {point[name]}" for name in names if name not in ("method", "activation")]
    return ", ".join([*([main] if main else []), *rest]) or EVERY


def _span(point: pd.Series) -> str:
    if pd.isna(point["low"]):
        return f"{point['accuracy']:.2%} ({point['outcome']}, no interval)"
    return f"{point['accuracy']:.2%} (95% interval {point['low']:.2%} to {point['high']:.2%}, {point['outcome']})"


def _best(findings: Findings, found: pd.DataFrame) -> str:
    top, level = found.loc[found["accuracy"].idxmax()], findings.layout.level
    where = "" if level is None or top[level] == NONE else f" at {label(level)} {top[level]}"
    name = name_of(findings, top)
    return f"The highest mean test accuracy is {_span(top)}{'' if name == EVERY else f', reached by {name}'}{where}."


def _by_level(findings: Findings, found: pd.DataFrame) -> str:
    """Who is best at which levels; neighbours with the same winner together."""
    level = findings.layout.level
    if level is None or len(found["series"].unique()) * len(found["panel"].unique()) < 2:
        return ""
    able = [value for value in findings.layout.orders[level] if value != NONE and (found[level] == value).any()]
    tops = [found.loc[found[found[level] == value]["accuracy"].idxmax()] for value in able]
    stretches = []
    for winner, group in itertools.groupby(tops, key=lambda top: name_of(findings, top)):
        same = list(group)
        where = same[0][level] if len(same) == 1 else f"{same[0][level]} to {same[-1][level]}"
        accuracies = f"{same[0]['accuracy']:.1%}" + (f" to {same[-1]['accuracy']:.1%}" if len(same) > 1 else "")
        odd = ", with collapsed or diverged runs" if any(one["odd"] for one in same) else ""
        stretches.append(f"{winner} at {where} ({accuracies}{odd})")
    return f"Highest mean by {label(level)}: {'; '.join(stretches)}."


def _differences(findings: Findings) -> list[str]:
    """Of method and activation function, what differs from the reference over everything together."""
    words: list[tuple[float, str]] = []
    for factor in (name for name in ("method", "activation") if name in findings.compared):
        rows = findings.compared[factor].gains
        for _, row in (rows[rows["level"] == "all"] if len(rows) else rows).iterrows():
            if pd.isna(row["low"]):
                continue
            sure = "" if row["p"] < BETTER else ", which may be chance"
            value, low, high = (signed(f"{100 * row[end]:+.2f}") for end in ("difference", "low", "high"))
            text = f"{row['value']} {value} ({low} to {high}{sure}) against {row['reference']}"
            words.append((abs(row["difference"]), text))
    if not words:
        return []
    shown = [text for _, text in sorted(words, reverse=True)[:LARGEST]]
    more = f"; {len(words) - LARGEST} smaller differences stand below" if len(words) > LARGEST else ""
    return [f"Averaged over all else, in points of accuracy: {'; '.join(shown)}{more}."]


def _rules(findings: Findings) -> list[str]:
    """The rules of the largest effects, those that turn round first."""
    rules = findings.crossed.rules
    if not rules:
        return []
    shown = sorted(rules, key=lambda rule: not rule.reverses)[:RULES]
    more = f" These are two of {len(rules)} rules that the study supports; all stand below."
    return [f"{' '.join(rule.sentence for rule in shown)}{more if len(rules) > RULES else ''}"]


def _collapse(findings: Findings) -> list[str]:
    """How often runs were lost, and where most of them."""
    finished = findings.records.finished
    lost = finished[finished["status"] != "ok"]
    if lost.empty:
        return [f"Of {counted(len(finished), 'finished run')} none collapsed or diverged."]
    share = rate(len(lost), len(finished), CONFIDENCE)
    ended = " and ".join(f"{count} {name}" for name, count in lost["status"].value_counts().items())
    ends = f"95% interval {share.low:.0%} to {share.high:.0%}"
    text = f"{ended} of {counted(len(finished), 'finished run')} ({share.value:.0%}, {ends})"
    where = []
    for name in (name for name in ("method", "activation", findings.layout.level) if name in findings.layout.varied):
        by = findings.points.groupby(name, sort=False)[["collapsed", "diverged", "seeds"]].sum()
        shares = (by["collapsed"] + by["diverged"]) / by["seeds"].clip(lower=1)
        where.append(f"{label(name)} {shares.idxmax()} ({shares.max():.0%})")
    return [f"{text}{'; most at ' + ', '.join(where) if where else ''}."]


def _dead(findings: Findings) -> list[str]:
    """How many runs never predict some class, and which one most of them."""
    told = [classes for classes in findings.records.finished["dead_classes"] if isinstance(classes, list)]
    dead = [classes for classes in told if classes]
    if not dead:
        return []
    share = rate(len(dead), len(told), CONFIDENCE)
    (worst, times), *_ = Counter(itertools.chain.from_iterable(dead)).most_common(1)
    ends = f"{share.value:.0%}, 95% interval {share.low:.0%} to {share.high:.0%}"
    often = "" if "dataset" in findings.layout.varied else f"; class {worst} is dead most often, in {times}"
    return [f"{len(dead)} of {counted(len(told), 'run')} never predict some class ({ends}){often}."]


def _laws(findings: Findings, found: pd.DataFrame) -> list[str]:
    """The curve that by its law stays good up to the largest sparsity; told of a single data set only."""
    if "dataset" in findings.layout.varied:
        return []
    target = KEPT * found["accuracy"].max()
    fitted = [law for law in findings.laws if law.choice.fit is not None]
    inverted = [(law, invert(law.choice.fit, target, CONFIDENCE)) for law in fitted]
    reached = [(law, one.sparsity) for law, one in inverted if one.sparsity is not None and not one.extrapolated]
    if not reached:
        return []
    law, sparsity = max(reached, key=lambda pair: pair[1].value)
    ends = "" if sparsity.low is None else f" ({sparsity.low:.3g} to {sparsity.high:.3g})"
    others = f", the furthest of {len(reached)} curves that reach it" if len(reached) > 1 else ""
    name = name_of(findings, pd.Series(law.settings))
    where = f"sparsity {sparsity.value:.3g}{ends}{others}"
    return [f"By its law, {name} keeps {KEPT:.0%} of the best accuracy up to {where}."]
