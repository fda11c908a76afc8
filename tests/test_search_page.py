"""The page of a search in a browser: quiet, sorted, in the dark and on a phone."""

import itertools

import pytest

from sparse_jax.report import build
from tests.browsing import least_contrast, opening
from tests.search_store import write_safs, write_wann
from tests.test_report_page import cells_of, data_of

NAMES = ("safs", "wann", "begun")


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searches")
    write_safs(folder / "safs", sparsities=(0.95, 0.99), seeds=3, layers=6)
    write_wann(folder / "wann")
    write_safs(folder / "begun", seeds=3, steps=4, trials=4, ended=False)
    for name in NAMES:
        build.report([str(folder / name)], "", None)
    return folder


@pytest.fixture
def open_page(browser, roots):
    """Open the page of a search."""
    with opening(browser) as open_:
        yield lambda name, **options: open_(roots / name, **options)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_quiet_and_every_figure_is_drawn(open_page, roots, name):
    page = open_page(name)
    assert page.said == []
    assert page.asked == [(roots / name / "report" / "index.html").as_uri()]
    figures = page.locator("figure").count()
    assert figures == {"safs": 8, "wann": 2, "begun": 5}[name]
    assert page.locator("figure .chart svg, figure .chart canvas").count() == figures
    assert page.evaluate("Object.values(report.figures).every(f => f.view)")
    ids = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))
    assert page.locator("#filters, #runs").count() == 0
    links = page.eval_on_selector_all("nav a", "all => all.map(one => one.getAttribute('href'))")
    assert all(page.locator(link).count() == 1 for link in links)


def test_the_figures_have_the_numbers_of_the_files(open_page, roots):
    page = open_page("safs")
    lines = (roots / "safs" / "candidates.jsonl").read_text().splitlines()
    stages = {"course-stage1": '"stage1"', "course-stage2": '"stage2"', "course-both": '"both"'}
    for id, stage in stages.items():
        assert len(data_of(page, id)) == sum(f'"stage": {stage}' in line for line in lines)
    rows = data_of(page, "networks")
    assert {row["network"] for row in rows} == {"dense", "default", "stage 1", "stage 2", "both"}
    page.locator("#figure-networks summary").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#figure-networks .numbers table")
    assert page.locator("#figure-networks .numbers tbody tr").count() == len(rows)


def test_its_tables_sort_by_keyboard(open_page):
    page = open_page("safs")
    page.get_by_role("button", name="gain↕").focus()
    for key, reverse in (("Enter", False), ("Space", True)):
        page.keyboard.press(key)
        values = [value for _, value in cells_of(page, "table-gains", "gain")]
        assert values == sorted(values, reverse=reverse)
    assert len(values) == 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_texts_stand_out(open_page, name, scheme):
    page = open_page(name, color_scheme=scheme)
    assert least_contrast(page, "svg .role-axis text, svg .role-legend text") >= 4.5


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", NAMES)
def test_no_page_is_wider_than_its_window(open_page, name, width):
    page = open_page(name, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = "all => Math.max(0, ...all.map(one => one.getBoundingClientRect().right))"
    assert page.eval_on_selector_all(".scroll, .chart, svg", boxes) <= width


def test_headings_are_in_order_and_figures_say_what_they_show(open_page):
    page = open_page("safs")
    levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    labels = page.eval_on_selector_all("figure > .chart", "all => all.map(one => one.getAttribute('aria-label'))")
    assert all(len(label) > 30 for label in labels)
