"""The section on factors: the share of every setting in what the runs differ by, and the rules that follow."""

from functools import partial

import numpy as np
import pandas as pd

from sparse_jax.analysis.crossing import SEED
from sparse_jax.analysis.rules import LEAST_SEEDS
from sparse_jax.analysis.variance import Term, Variance, rank_agreement
from sparse_jax.report import factor_figures
from sparse_jax.report.crossings import Study, cell_means
from sparse_jax.report.exhibits import Figure, Findings, Fit, Missing, figure, odd_note
from sparse_jax.report.figures import label
from sparse_jax.report.tables import Table

FORMATS = {
    "df": "d", "sum of squares": ".3g", "F": ",.1f", "p": ".2g", "η²": ".3f", "partial ω²": ".3f", "from": ".3f",
    "to": ".3f",
}  # fmt: skip
RULE_FORMATS = dict.fromkeys(("effect", "from", "to"), "+.2f") | {"p": ".2g"}
RULE_FORMATS |= dict.fromkeys(("seeds", "pairs", "collapsed", "diverged"), "d")
SIGNIFICANT = 0.05
UNEVEN = 3  # ratio of spreads from which tests are said to be rough [ours]


def factor_parts(findings: Findings) -> list[Figure | Table | Missing]:
    """Effect sizes, the analysis of variance, the strongest interaction, and the rules."""
    study = findings.crossed
    titles = "How much each setting matters", "Analysis of variance", "The strongest interaction", "Rules"
    ids = "effect-sizes", "variance", "interaction", "rules"
    if study.variance is None:
        return [Missing(id, title, study.reason) for id, title in zip(ids, titles, strict=True)]
    parts = [_sizes(study, ids[0], titles[0]), _table(study, ids[1], titles[1])]
    return [*parts, _interaction(findings, ids[2], titles[2]), rules_part(study, ids[3], titles[3])]


def term_name(factors: tuple[str, ...]) -> str:
    """`activation × sparsity`."""
    return "seed (block)" if factors == (SEED,) else " × ".join(factors)


def _of_settings(terms: tuple[Term, ...]) -> list[Term]:
    return [one for one in terms if one.factors != (SEED,)]


def _sizes(study: Study, id: str, title: str) -> Figure:
    terms = sorted(_of_settings(study.variance.terms), key=lambda one: -one.partial.value)
    rows = pd.DataFrame([
        {"term": term_name(one.factors), "size": one.partial.value, "low": one.partial.low, "high": one.partial.high,
         "p": one.adjusted_p, "kind": "interaction" if len(one.factors) > 1 else "setting"}
        for one in terms
    ])  # fmt: skip
    rows = rows.astype({"low": float, "high": float})
    caption = (
        f"Partial ω² of {study.measure.response.name}: the share of a term in the variance that it and chance make "
        "together; 95% intervals by the noncentral F distribution."
    )
    top = "; ".join(f"{row.term} {row.size:.2f}" for row in rows.head(3).itertuples(index=False))
    wide = Fit(margin=205)  # the names of its rows are long
    return figure(id, title, caption, f"The largest: {top}.", rows, factor_figures.effect_sizes, fit=wide)


def _table(study: Study, id: str, title: str) -> Table:
    variance = study.variance
    rows = [
        {"term": term_name(one.factors), "df": one.df, "sum of squares": one.sum_squares, "F": one.f,
         "p": one.p_value if one.adjusted_p is None else one.adjusted_p, "η²": one.eta,
         "partial ω²": one.partial.value, "from": one.partial.low, "to": one.partial.high}
        for one in variance.terms
    ]  # fmt: skip
    share = variance.sum_squares / variance.total
    rows.append({"term": "residual", "df": variance.df, "sum of squares": variance.sum_squares, "η²": share})
    frame = pd.DataFrame(rows).astype({name: float for name in FORMATS if name != "df"})
    return Table(id, title, " ".join(_caption(study, variance)), frame, FORMATS)


def _caption(study: Study, variance: Variance) -> list[str]:
    """What was analysed and how, what was left out, and how far it can be trusted."""
    crossed, words = study.crossed, []
    seeds = "the seed is a block" if variance.terms[-1].factors == (SEED,) else "seeds are replicates"
    if variance.seeds_share is None:
        seeds = "no two of them differ in the seed alone, so that what settings do in threes stands for chance"
    words.append(
        f"Sums of squares of type II over {variance.runs} runs in {variance.cells} cells; {seeds}. p values of "
        "settings are Holm's over all terms, η² is the share of all variation."
    )
    if not variance.interactions:
        words.append("Too few runs for interactions: they are in the residual.")
    if crossed.inapplicable:
        words.append(f"{_runs(crossed.inapplicable)} left out, to which a setting does not apply.")
    if crossed.unmeasured:
        words.append(f"{_runs(crossed.unmeasured)} without a {study.measure.response.name}.")
    if variance.aliased:
        words.append(f"Not to be told from other terms: {_names(variance.aliased)}.")
    if variance.partly:
        words.append(f"Estimated in part, because cells are empty: {_names(variance.partly)}.")
    if variance.seeds_share is not None:
        words.append(f"Seeds of equal settings make {variance.seeds_share:.1%} of the variation.")
    return [*words, *_spread(study, variance), _on_ranks(variance)]


def _runs(count: int) -> str:
    return f"{count} {'run is' if count == 1 else 'runs are'}"


def _names(terms: tuple[tuple[str, ...], ...]) -> str:
    return ", ".join(map(term_name, terms))


def _spread(study: Study, variance: Variance) -> list[str]:
    """How unequal the spreads of the cells are, which F tests take as equal."""
    if variance.spread is None:
        return []
    response = study.measure.response
    low, high = (response.scale * end for end in variance.spread)
    ratio = high / low if low > 0 else np.inf
    words = f"Standard deviations of the cells lie between {low:.2g} and {high:.2g} {response.unit}"
    rough = ": tests and intervals, which take them as equal, are rough" if ratio > UNEVEN else ""
    return [f"{words}{rough}."]


def _on_ranks(variance: Variance) -> str:
    """Whether the same terms matter if the response is replaced by its ranks."""
    of_values, of_ranks = (
        [one.factors for one in _of_settings(terms) if one.adjusted_p < SIGNIFICANT]
        for terms in (variance.terms, variance.on_ranks)
    )
    won = [term for term in of_ranks if term not in of_values]
    lost = [term for term in of_values if term not in of_ranks]
    words = [f"{_names(won)} significant, too"] * bool(won) + [f"{_names(lost)} no longer significant"] * bool(lost)
    agreement = rank_agreement(variance)
    correlation = "" if agreement is None else f"; the rank correlation of their sizes is {agreement:.2f}"
    return f"On ranks in place of values {' and '.join(words) or 'the same terms are significant'}{correlation}."


def _interaction(findings: Findings, id: str, title: str) -> Figure | Missing:
    study = findings.crossed
    terms = [one for one in _of_settings(study.variance.terms) if len(one.factors) > 1]
    if not terms:
        return Missing(id, title, "No interaction of two settings can be estimated.")
    term, orders = max(terms, key=lambda one: one.partial.value), study.crossed.orders
    colour, axis = sorted(term.factors, key=lambda name: len(orders[name]))  # few colours, many places
    rows = cell_means(study, (axis, colour))
    where = "all else that every pair was trained with" if rows["even"].all() else "whatever each pair was trained with"
    name = study.measure.response.name
    caption = (
        f"Mean {name} by {axis} and {colour}, over {where}; 95% intervals over seeds.{odd_note(rows, 'Open marks')}"
    )
    best = rows.loc[rows.groupby(axis, sort=False)["mean"].idxmax()]
    tops = "; ".join(f"{one[colour]} at {one[axis]} ({one['mean']:.2%})" for _, one in best.iterrows())
    summary = f"Partial ω² {term.partial.value:.2f}, p = {term.adjusted_p:.2g}. Highest: {tops}."
    settings = {label(one): one for one in findings.layout.told}
    draw = partial(
        factor_figures.interaction, axis=settings[axis], colour=settings[colour],
        orders={settings[one]: orders[one] for one in term.factors}, name=name,
    )  # fmt: skip
    data = rows.rename(columns=settings).drop(columns="even")
    return figure(id, f"{title}: {term_name(term.factors)}", caption, summary, data, draw)


def rules_part(study: Study, id: str, title: str) -> Table | Missing:
    """The rules of a response, or why there are none."""
    response = study.measure.response
    if not study.rules:
        return Missing(id, title, study.no_rules)
    rows = pd.DataFrame([
        {"rule": one.sentence, "effect": response.scale * one.effect.value, "from": response.scale * one.effect.low,
         "to": response.scale * one.effect.high, "p": one.adjusted_p, "seeds": one.seeds, "pairs": one.pairs,
         "collapsed": one.collapsed, "diverged": one.diverged}
        for one in study.rules
    ])  # fmt: skip
    caption = (
        f"Of {study.tested} contrasts, all tested, those that the runs support: Holm's p over all of them under "
        f"{SIGNIFICANT}, a 95% interval that does not hold 0, at least {response.scale * response.least:g} "
        f"{response.unit} and {LEAST_SEEDS} seeds. Runs are paired with all else equal and averaged within their seed; "
        "of a rule with two sides the effect is the difference between them. Rules that others imply are left out; the "
        "largest of many effects look a little larger than they are. The CSV names the runs behind each."
    )
    whole = rows.assign(**{
        "better runs": [" ".join(one.runs_first) for one in study.rules],
        "other runs": [" ".join(one.runs_second) for one in study.rules],
    })  # fmt: skip
    return Table(id, title, caption, rows, RULE_FORMATS, whole)
