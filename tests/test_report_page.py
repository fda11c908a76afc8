"""The page of a report in a browser: quiet, filtered, sorted, by keyboard, in the dark and on a phone."""

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sparse_jax.report import build
from tests.browsing import DRAWN, least_contrast, opening
from tests.report_store import edit_result, fail, write_study

PUBLISHED = """label,method,activation,sparsity,published,published_low,published_high,source
dense,dense,relu,,93.5,,,a paper
SET,set,relu,0.9,84.5,83,86,a paper
SET,set,relu,0.99,12,,,a paper
SET,set,tanh,0.9,150e-1,,,<i>another</i>
SET,set,tanh,0.99,35,,,a paper
any,,relu,0.9,80,,,a paper
RigL,rigl,relu,0.9,80,,,a paper
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("page") / "study"
    names = write_study(root, methods=("dense", "static", "set"), sparsities=(0.5, 0.9, 0.95, 0.99))
    edit_result(root, names[-1], status="collapsed")
    fail(root, names[-2], "<b>no room</b>")
    (root.parent / "published.csv").write_text(PUBLISHED)
    build.report([str(root)], "", None, [str(root.parent / "published.csv")])
    return root


@pytest.fixture
def open_page(browser, store):
    """Open the page."""
    with opening(browser) as open_:
        yield lambda **options: open_(store, **options)


def rows_of(store):
    with (store / "results.csv").open(newline="") as file:
        return {row["run_id"]: row for row in csv.DictReader(file)}


def shown_runs(page):
    names = "rows => rows.map(row => row.cells[0].textContent)"
    return page.eval_on_selector_all("#runs-table tbody tr:not([hidden])", names)


def data_of(page, figure):
    """The rows that Vega itself has of a figure, as it draws them."""
    return page.evaluate("id => { const f = report.figures[id]; return f.view.data(f.dataset); }", figure)


def column(page, name):
    """The shown values of a column of the table of runs, in the order of its rows."""
    return page.evaluate(
        """name => {
            const at = document.querySelector(`#runs-table th[data-column="${name}"]`).cellIndex;
            const rows = [...document.querySelectorAll("#runs-table tbody tr:not([hidden])")];
            const value = (cell, data) => data ? Number(data.value) : cell.textContent;
            return rows.map(row => value(row.cells[at], row.cells[at].querySelector("data")));
        }""",
        name,
    )


def choose(page, name, value):
    page.select_option(f"#filter-{name}", value)
    page.wait_for_function(DRAWN)


def test_it_is_quiet_and_asks_for_nothing_but_itself(open_page, store):
    page = open_page()
    assert page.said == []
    assert page.asked == [(store / "report" / "index.html").as_uri()]
    ids = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))
    assert page.evaluate("Object.values(report.figures).every(f => f.maps || f.view)")
    assert page.locator("figure .chart svg").count() > 8


def test_the_numbers_are_those_of_results_csv(open_page, store):
    page, expected = open_page(), rows_of(store)
    runs = shown_runs(page)
    assert set(runs) >= expected.keys()
    found = dict(zip(runs, column(page, "test_accuracy"), strict=True))
    done = {name: float(row["test_accuracy"]) for name, row in expected.items() if found[name] != "–"}
    assert len(done) == len(runs) - 1
    assert {name: found[name] for name in done} == done
    means = [row for row in data_of(page, "accuracy-density") if row["kind"] == "mean" and row["method"] == "set"]
    for point in means:
        same = [
            done[name] for name, row in expected.items()
            if name in done and (row["method"], row["activation"], row["sparsity_target"])
            == ("set", point["activation"], point["sparsity_target"])
        ]  # fmt: skip
        assert point["accuracy"] == pytest.approx(sum(same) / len(same), rel=1e-5)


def test_a_filter_changes_every_figure_and_the_table(open_page):
    page = open_page()
    before = page.locator("#figure-accuracy-density .chart svg").inner_html()
    choose(page, "method", "set")
    charts = ("accuracy-density", "heat-method", "learning-curves", "degrees", "cost", "contour")
    assert {row["method"] for id in charts for row in data_of(page, id)} == {"set"}
    assert page.locator("#figure-accuracy-density .chart svg").inner_html() != before
    assert set(column(page, "method")) == {"set"}
    assert page.locator("#count").inner_text() == f"24 of {page.locator('#runs-table tbody tr').count()} runs"
    choose(page, "activation", "tanh")
    assert {row["activation"] for row in data_of(page, "heat-activation")} == {"tanh"}
    assert all("tanh" in name for name in page.locator("#figure-inputs .atlas span").all_inner_texts())
    assert len(shown_runs(page)) == 12
    page.click("button[type=reset]")
    page.wait_for_function(f"document.querySelectorAll('#runs-table tbody tr[hidden]').length === 0 && {DRAWN}")
    assert {row["method"] for row in data_of(page, "accuracy-density")} == {"dense", "static", "set"}


def test_figures_of_one_level_say_which_and_follow_the_filter(open_page):
    page = open_page()
    shown = page.locator("#figure-learning-curves .shown")
    first = {row["sparsity_target"] for row in data_of(page, "learning-curves")} - {"–"}
    assert len(first) == 1
    assert f"sparsity {first.pop()}" in shown.inner_text()
    choose(page, "sparsity_target", "0.5")
    assert {row["sparsity_target"] for row in data_of(page, "learning-curves")} == {"0.5", "–"}
    assert shown.is_hidden()


def test_the_table_sorts_both_ways_by_keyboard(open_page):
    page = open_page()
    header = page.locator('#runs-table th[data-column="test_accuracy"]')
    header.locator("button").focus()
    for key, state, reverse in (("Enter", "ascending", False), ("Space", "descending", True)):
        page.keyboard.press(key)
        assert header.get_attribute("aria-sort") == state
        values = column(page, "test_accuracy")
        assert values[-1] == "–"  # the failed run has none, and stays behind
        assert values[:-1] == sorted(values[:-1], reverse=reverse)
        assert page.locator("#sorted").inner_text() == f"Sorted by test accuracy, {state}"
    page.locator('#runs-table th[data-column="training_flops"] button').click()  # as numbers, whatever they look like
    flops = column(page, "training_flops")
    assert flops[:-1] == sorted(flops[:-1])
    page.locator('#runs-table th[data-column="method"] button').click()
    assert column(page, "method") == sorted(column(page, "method"))
    assert page.locator("#runs-table th[aria-sort]").count() == 1


def cells_of(page, table, name):
    """The shown texts, and the numbers behind them, of a column of a table."""
    return page.evaluate(
        """([id, name]) => {
            const heads = [...document.querySelectorAll(`#${id} th`)];
            const at = heads.findIndex(one => one.textContent === name);
            const cells = [...document.querySelectorAll(`#${id} tbody tr`)].map(row => row.cells[at]);
            return cells.map(cell => [cell.textContent, Number(cell.querySelector("data")?.value ?? NaN)]);
        }""",
        [table, name],
    )


def test_published_accuracies_stand_beside_those_of_results_csv(open_page, store):
    page, runs = open_page(), rows_of(store)
    obtained = dict(zip(shown_runs(page), column(page, "test_accuracy"), strict=True))
    table = {name: cells_of(page, "table-published", name) for name in ("published", "mean", "from", "to", "within")}
    asked = list(csv.DictReader(PUBLISHED.splitlines()))
    assert [value for _, value in table["published"]] == [0.935, 0.845, 0.12, 0.15, 0.35, 0.8, 0.8]
    for i, row in enumerate(asked[:-2]):
        keys = ("method", row["method"]), ("activation", row["activation"]), ("sparsity_target", row["sparsity"])
        same = [run_id for run_id, run in runs.items() if all(run[name] == value for name, value in keys)]
        values = [obtained[run_id] for run_id in same if obtained[run_id] != "–"]
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        found = [table[name][i][1] for name in ("mean", "from", "to")]
        np.testing.assert_allclose(found, (np.mean(values), low, high))
        assert table["mean"][i][0] == f"{np.mean(values):.2%}"
        assert table["within"][i][0] == ("yes" if low <= float(row["published"]) / 100 <= high else "no")
    remarks = [text for text, _ in cells_of(page, "table-published", "remark")]
    assert remarks[4:] == [
        "of 3 runs 1 collapsed, 1 failed", "no mean: these runs differ in method (static, set)",
        "not run: no run has method rigl",
    ]  # fmt: skip
    assert {text for text, _ in table["mean"][5:]} == {"–"}


def test_the_figure_of_published_accuracies_follows_the_filters(open_page):
    page = open_page()
    rows = data_of(page, "published-density")
    assert [row["kind"] for row in rows] == ["mean", "published"] * 5
    choose(page, "activation", "tanh")
    chosen = data_of(page, "published-density")
    assert [row["accuracy"] for row in chosen if row["kind"] == "published"] == [0.15, 0.35]
    assert page.locator("#figure-published-density svg").count() > 0


def test_every_table_sorts_by_keyboard(open_page):
    page = open_page()
    header = page.locator("#table-published th", has_text="difference")
    header.locator("button").focus()
    for key, reverse in (("Enter", False), ("Space", True)):
        page.keyboard.press(key)
        values = [value for _, value in cells_of(page, "table-published", "difference")]
        assert all(map(math.isnan, values[5:]))  # what has none stays behind
        assert values[:5] == sorted(values[:5], reverse=reverse)
    assert page.locator("#sorted").inner_text() == "Sorted by difference, descending"
    page.locator("#table-published th", has_text="label").locator("button").click()
    assert cells_of(page, "table-published", "label")[0][0] == "any"
    assert page.locator("th[aria-sort]").count() == 1
    assert page.evaluate("[...document.querySelectorAll('.tabled th')].every(one => one.querySelector('button'))")


def test_words_find_runs(open_page):
    page = open_page()
    page.fill("#search", "tanh failed")
    assert len(shown_runs(page)) == 1
    assert page.locator("#runs-table tbody tr:not([hidden])").inner_text().endswith("<b>no room</b>")


def test_everything_is_reached_by_keyboard(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'main'")
    page.locator("#filter-method").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function(f"document.activeElement.value === 'dense' && {DRAWN}")
    assert {row["method"] for row in data_of(page, "accuracy-density")} == {"dense"}
    page.locator("#figure-cost summary").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#figure-cost .numbers table")
    assert page.locator("#figure-cost .numbers tbody tr").count() == len(data_of(page, "cost"))
    outline = "e => { e.focus(); return getComputedStyle(e).outlineStyle; }"
    assert page.locator("#search").evaluate(outline) != "none"


def test_the_course_of_the_inputs_moves_by_slider_and_plays(open_page):
    page = open_page(reduced_motion="reduce")
    slider, button = page.locator("#slider-inputs"), page.locator("#figure-inputs .player button")
    picture = "() => document.querySelector('#figure-inputs canvas').toDataURL()"
    last = page.evaluate(picture)
    assert slider.get_attribute("aria-valuetext") == "the end"
    page.wait_for_timeout(700)
    assert page.evaluate(picture) == last  # nothing moves by itself
    slider.focus()
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "epoch 1"
    assert page.evaluate(picture) != last
    button.focus()
    page.keyboard.press("Enter")
    assert button.inner_text() == "Pause"
    page.wait_for_function("document.querySelector('#slider-inputs').value === '1'")
    page.keyboard.press("Enter")
    assert button.inner_text() == "Play"


def test_headings_and_names_are_in_order(open_page):
    page = open_page()
    levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    for landmark in ("header", "nav", "main", "footer"):
        assert page.locator(f"body > {landmark}").count() == 1
    assert page.eval_on_selector_all("select, input", "all => all.every(one => one.labels.length === 1)")
    labels = page.eval_on_selector_all("figure > .chart", "all => all.map(one => one.getAttribute('aria-label'))")
    assert all(len(label) > 30 and "Vega" not in label for label in labels)
    assert set(page.eval_on_selector_all("figure > .chart", "all => all.map(one => one.role)")) == {"img", "group"}
    assert page.eval_on_selector_all("figure", "all => all.every(one => one.querySelector('details.numbers'))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out(open_page, scheme):
    """WCAG AA: 4.5 to 1 against the ground, texts within charts included."""
    page = open_page(color_scheme=scheme)
    assert least_contrast(page, "#figure-cost svg text, #figure-gap svg text") >= 4.5


def test_the_dark_page_has_dark_charts(open_page):
    colours = {}
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        colours[scheme] = page.evaluate(
            "() => [getComputedStyle(document.body).backgroundColor, "
            "document.querySelector('#figure-cost svg .role-axis-label text').getAttribute('fill')]"
        )
    assert colours["light"][0] == "rgb(255, 255, 255)"
    assert colours["dark"][0] != colours["light"][0]
    assert colours["dark"][1] != colours["light"][1]
    page.emulate_media(color_scheme="light")  # charts follow while the page is open
    page.wait_for_function(
        f"c => document.querySelector('#figure-cost svg .role-axis-label text')?.getAttribute('fill') === c && {DRAWN}",
        arg=colours["light"][1],
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_its_window(open_page, scheme):
    page = open_page(viewport={"width": 375, "height": 800}, color_scheme=scheme)
    boxes = "all => Math.max(...all.map(one => one.getBoundingClientRect().right))"
    before = page.locator("#figure-cost svg").get_attribute("width")
    for width in (375, 768):
        page.set_viewport_size({"width": width, "height": 800})
        if width > 375:  # figures are drawn anew for the window they have
            page.wait_for_function(
                f"b => document.querySelector('#figure-cost svg').getAttribute('width') !== b && {DRAWN}", arg=before
            )
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.eval_on_selector_all(".scroll, .chart, svg", boxes) <= width


def test_the_page_is_under_its_weight(store):
    assert (store / "report" / "index.html").stat().st_size < 2_000_000
    assert Path(store / "report" / "figures" / "cost.png").stat().st_size > 5_000
