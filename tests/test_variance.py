"""Analysis of variance: the sums of squares of others, cells that are empty, and intervals that cover."""

import itertools

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from sparse_jax.analysis.crossing import cross, is_ordered
from sparse_jax.analysis.statistics import holm
from sparse_jax.analysis.variance import analyse, partial_omega, rank_agreement

FACTORS = {"a": ("x", "y", "z"), "b": ("0.5", "0.9"), "c": ("p", "q")}


def grid(value, seeds=3, factors=FACTORS, keep=lambda row: True):
    """A long table; `value(row)` of every run."""
    rows = []
    for values, seed in itertools.product(itertools.product(*factors.values()), range(seeds)):
        row = dict(zip(factors, values, strict=True)) | {"seed": seed}
        if keep(row):
            rows.append(row | {"value": value(row), "run_id": "-".join([*values, str(seed)]), "status": "ok"})
    return pd.DataFrame(rows)


def noise(scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return lambda row: rng.normal(scale=scale)


def analysed(table, factors=FACTORS):
    return analyse(cross(table, factors, "–"), 0.95)


def by_name(variance):
    return {":".join(one.factors): one for one in variance.terms}


# --- which runs ------------------------------------------------------------------------------------


def test_runs_that_stand_in_no_crossing_are_counted():
    table = grid(noise())
    table.loc[0, "b"] = table.loc[1, "b"] = "–"
    table.loc[[1, 2, 3], "value"] = [np.nan, np.nan, np.inf]
    found = cross(table, FACTORS, "–")
    assert (len(found.table), found.inapplicable, found.unmeasured) == (len(table) - 4, 2, 2)
    assert found.factors == ("a", "b", "c")


def test_a_setting_with_one_value_is_no_factor_and_numbers_are_sorted():
    factors = {"a": ("9", "10"), "b": ("one",)}
    found = cross(grid(noise(), factors=factors), {"a": ("10", "9"), "b": ("one",)}, "–")
    assert (found.factors, found.orders) == (("a",), {"a": ("9", "10")})
    assert is_ordered(("0.5", "1e-3"))
    assert not is_ordered(("0.5", "none"))
    assert not is_ordered(())


# --- sums of squares -------------------------------------------------------------------------------


def test_two_by_two_by_hand():
    """Cells 1, 3; 2, 8, two runs each, 0.5 below and above: a is (20 − 8)² / 8, b (22 − 6)² / 8, ab (18 − 10)² / 8."""
    means = {("x", "p"): 1, ("x", "q"): 3, ("y", "p"): 2, ("y", "q"): 8}
    factors = {"a": ("x", "y"), "b": ("p", "q")}
    sign = {("x", "p"): 1, ("y", "q"): 1, ("x", "q"): -1, ("y", "p"): -1}  # no seed is better than the other
    value = lambda row: means[row["a"], row["b"]] + (row["seed"] - 0.5) * sign[row["a"], row["b"]]
    found = by_name(variance := analysed(grid(value, 2, factors), factors))
    expected = {"a": 18, "b": 32, "a:b": 8, "seed": 0}
    assert {name: one.sum_squares for name, one in found.items()} == pytest.approx(expected)
    assert (variance.df, variance.sum_squares, variance.total) == (3, pytest.approx(2), pytest.approx(60))
    assert found["a"].f == pytest.approx(27)  # 18 / (2 / 3)
    assert found["a"].eta == pytest.approx(0.3)
    assert found["a"].partial.value == pytest.approx(26 / 34)  # (27 − 1) / (27 − 1 + 8)
    assert variance.seeds_share == pytest.approx(2 / 60)
    assert variance.spread == pytest.approx((0.5**0.5, 0.5**0.5))


@pytest.mark.parametrize("lost", [0, 5])
def test_equal_to_statsmodels(lost):
    """With equal cells, and the seed as a block, and without some runs, where no cell is empty."""
    effects = {"x": 0, "y": 1, "z": 3, "p": 0, "q": 1, "0.5": 0, "0.9": 2}
    draw = noise()
    table = grid(lambda row: sum(effects[row[name]] for name in FACTORS) * (1 + (row["a"] == "z")) + draw(row))
    table = table.drop(index=[0, 4, 9, 16, 34][:lost])
    block = "" if lost else " + C(seed)"
    expected = anova_lm(ols(f"value ~ (a + b + c)**2{block}", table).fit(), typ=2)
    variance = analysed(table)
    found = by_name(variance) | ({} if lost else {"C(seed)": by_name(variance)["seed"]})
    for name, row in expected.drop(index="Residual").iterrows():
        one = found[name]
        theirs = tuple(row[["df", "sum_sq", "F", "PR(>F)"]])
        assert (one.df, one.sum_squares, one.f, one.p_value) == pytest.approx(theirs)
    assert (variance.df, variance.sum_squares) == pytest.approx(tuple(expected.loc["Residual", ["df", "sum_sq"]]))
    assert ("seed" in by_name(variance)) == (not lost)
    assert variance.aliased == variance.partly == ()


def span(table, terms):
    """Columns of all combinations of values of every term, one for each, whatever their rank."""
    parts = [np.ones((len(table), 1))]
    parts += [pd.get_dummies(table[list(term)].agg("/".join, axis=1)).to_numpy(float) for term in terms]
    return np.concatenate(parts, axis=1)


def rss(table, terms):
    columns, y = span(table, terms), table["value"].to_numpy()
    solution, _, rank, _ = np.linalg.lstsq(columns, y, rcond=1e-9)
    return ((y - columns @ solution) ** 2).sum(), rank


def test_with_empty_cells_terms_are_what_least_squares_say_they_are():
    """z is trained with 0.5 and p only: a × b and a × c lose a degree of freedom each."""
    table = grid(noise(), keep=lambda row: row["a"] != "z" or (row["b"], row["c"]) == ("0.5", "p"))
    variance = analysed(table)
    everything = [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
    for one in variance.terms:
        if one.factors == ("seed",):
            continue
        others = [term for term in everything if not set(one.factors) <= set(term)]
        blocked = table.assign(seed=table["seed"].astype(str))
        models = [*others, ("seed",)], [*others, one.factors, ("seed",)]
        (without, rank), (with_it, larger) = (rss(blocked, model) for model in models)
        assert (one.df, one.sum_squares) == (larger - rank, pytest.approx(without - with_it))
    assert set(variance.partly) == {("a", "b"), ("a", "c")}
    assert [one.factors for one in variance.terms] == [*everything, ("seed",)]


def test_what_cannot_be_told_apart_is_said_to_be_aliased():
    """b goes with a × c: p with x and q with y, the other way round."""
    draw, factors = noise(), {"a": ("x", "y"), "b": ("p", "q"), "c": ("s", "t")}
    even = lambda row: ((row["a"] == "x") + (row["b"] == "p") + (row["c"] == "s")) % 2 == 0
    variance = analysed(grid(lambda row: draw(row) + 9 * (row["b"] == "p"), 4, factors, even), factors)
    assert set(variance.aliased) == {("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")} - {
        one.factors for one in variance.terms
    }
    assert len(variance.aliased) == 6  # each main effect is the interaction of the other two, so that none is told
    assert [one.factors for one in variance.terms] == [("seed",)]


def test_without_replicates_interactions_are_what_chance_is_told_by():
    factors = {"a": ("x", "y", "z"), "b": ("p", "q", "r")}
    variance = analysed(grid(noise(), 1, factors), factors)
    assert not variance.interactions
    assert (variance.df, [one.factors for one in variance.terms]) == (4, [("a",), ("b",)])
    assert variance.seeds_share is variance.spread is None
    assert analysed(grid(noise(), 1, {"a": ("x", "y"), "b": ("p", "q")}), {"a": ("x", "y"), "b": ("p", "q")}) is None


def test_nothing_is_said_where_nothing_varies():
    assert analysed(grid(lambda row: 0.1)) is None
    assert analysed(grid(noise(), factors={"a": ("x",)}), {"a": ("x",)}) is None


def test_without_any_chance_there_is_no_interval():
    found = by_name(analysed(grid(lambda row: float(row["a"] == "x"))))
    assert (found["a"].f, found["a"].p_value, found["a"].partial) == (np.inf, 0, (1, None, None))
    assert (found["b"].f, found["b"].p_value, found["b"].partial.value) == (0, 1, 0)


def test_ranks_do_not_hang_on_the_scale():
    draw = noise()
    table = grid(lambda row: 2 * (row["a"] == "x") + draw(row))
    straight, bent = analysed(table), analysed(table.assign(value=np.exp(3 * table["value"])))
    assert bent.on_ranks == straight.on_ranks
    assert rank_agreement(straight) > rank_agreement(bent)
    assert straight.on_ranks[0].adjusted_p < 0.001


# --- effect sizes ----------------------------------------------------------------------------------


def test_holm_is_holms():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    p_values = np.random.default_rng(0).uniform(size=40) ** 4
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([]) == []


def test_partial_omega_inverts_the_noncentral_f():
    from scipy import stats

    found = partial_omega(5.0, 3, 20, 24, 0.95)
    for end, level in ((found.low, 0.975), (found.high, 0.025)):
        assert stats.ncf.cdf(5.0, 3, 20, 24 * end / (1 - end)) == pytest.approx(level)
    assert found.value == pytest.approx(12 / 36)  # 3 · 4 / (3 · 4 + 24)
    assert partial_omega(0.9, 3, 20, 24, 0.95).value == partial_omega(0.9, 3, 20, 24, 0.95).low == 0
    assert partial_omega(0.01, 3, 20, 24, 0.95) == (0, 0, 0)
    assert partial_omega(1e5, 3, 200, 240, 0.95).low > 0.999


OTHERS = [(2, 1, 0.92), (0, 1, 0.92), (1, 3, 0.85)]


@pytest.mark.parametrize(
    ("effect", "collapse", "least"), [(0.4, 1, 0.92), *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)]
)
def test_intervals_cover_what_was_planted(effect, collapse, least):
    """Of a 3 × 2 × 2 grid with an effect on a; one cell in twelve spreads `collapse` times as much as the others."""
    rng, shift = np.random.default_rng(0), {"x": -effect, "y": 0, "z": effect}
    spread = lambda row: collapse if (row["a"], row["b"], row["c"]) == ("z", "0.9", "q") else 1
    table = grid(lambda row: shift[row["a"]])
    spreads = np.array([spread(row) for row in table.to_dict("records")])
    ratio = (table["value"] ** 2).sum() / (spreads**2).mean()
    truth, hits, count = ratio / (ratio + len(table)), 0, 250
    for _ in range(count):
        drawn = analysed(table.assign(value=table["value"] + spreads * rng.normal(size=len(table))))
        interval = drawn.terms[0].partial
        hits += interval.low <= truth <= interval.high
    assert least <= hits / count <= 1
