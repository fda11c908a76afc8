"""The report of a search for weight agnostic networks: its numbers are those of the files, whatever their state."""

import pytest
from scipy import stats

from sparse_jax.report import wann_parts
from sparse_jax.report.exhibits import Figure, Missing
from sparse_jax.report.page import specification
from sparse_jax.report.searches import open_search, search_page
from sparse_jax.report.tables import Table
from sparse_jax.search.wann_run import COLUMNS
from tests.search_store import write_result, write_wann
from tests.test_search_report import built


def parts_of(root):
    words, shown = search_page(open_search([str(root)], []))
    return words, {part.id: part for section in shown for part in section.parts}


@pytest.fixture
def whole(tmp_path):
    return tmp_path / "w", write_wann(tmp_path / "w")


def test_the_headline_has_the_weight_that_validation_chose_and_its_interval(whole):
    words, _ = parts_of(whole[0])
    interval = stats.binomtest(192, 400).proportion_ci(0.95, method="exact")
    assert words.title == "Weight agnostic networks on digits"
    assert words.varied == "40 networks a generation; shared weights −1.0, 1.0; seed 0"
    assert words.completeness == "40 generations; ended."
    assert words.headline == [
        "With the weight −1 for all its connections the network found classifies 48.0% of the test part (95% interval "
        f"{interval.low:.1%} to {interval.high:.1%}, over its examples); the weight is the best on the validation "
        "part, where it gives 50.0%.",
        "Over all 2 weights the mean accuracy is 49.0% and their vote is right in 44.0%.",
        "It has 100 connections and 10 hidden nodes, and is of generation 39 of 40, which took 20 s.",
        "It is one search with one seed: the interval says nothing of others.",
    ]
    assert words.notes == []


def test_tables_have_every_weight_and_every_function(whole):
    _, parts = parts_of(whole[0])
    table = parts["weights-table"].frame.set_index("weight")
    assert table.index.tolist() == ["−1 (chosen)", "1", "mean of all", "vote of all"]
    assert table["validation"].tolist() == [0.5, 0.25, 0.375, 0.45]
    assert table["test"].tolist() == [0.48, 0.5, 0.49, 0.44]
    assert table["test loss"].tolist()[:3] == [1.6, 2.4, 2.0]
    low, high = stats.binomtest(200, 400).proportion_ci(0.95, method="exact")
    assert table.loc["1", ["from", "to"]].tolist() == pytest.approx([low, high])
    assert table["from"].isna().tolist() == [False, False, True, False]
    functions = parts["functions-table"].frame
    assert functions.to_numpy().tolist() == [["tanh", 6, 0.6], ["abs", 4, 0.4]]


def test_the_course_is_that_of_the_file_thinned(tmp_path):
    write_wann(tmp_path / "w", generations=2000)
    parts = parts_of(tmp_path / "w")[1]
    fitness = parts["fitness"].data
    assert fitness["curve"].value_counts().to_dict() == dict.fromkeys(wann_parts.FITNESS.values(), wann_parts.POINTS)
    last = fitness[fitness["generation"] == 2000].set_index("curve")["value"]
    assert last.tolist() == pytest.approx([46.0, 45.0, 45.9])
    sizes = parts["sizes"].data
    assert sizes.groupby("curve")["value"].max().to_dict() == {"connections": 2060, "hidden nodes": 500}


@pytest.mark.parametrize(("fitness", "title"), {"loss": "mean −loss", "accuracy": "mean accuracy"}.items())
def test_the_axis_says_what_is_ranked(tmp_path, fitness, title):
    write_wann(tmp_path / "w", fitness=fitness)
    figure = parts_of(tmp_path / "w")[1]["fitness"]
    spec = specification(figure.draw(figure.data))
    assert spec["encoding"]["y"]["title"] == f"{title} over the weights"


def test_an_unfinished_search_shows_its_course(tmp_path):
    write_wann(tmp_path / "w", ended=False)
    words, parts = parts_of(tmp_path / "w")
    assert words.completeness == "40 generations so far; the search has not ended."
    assert words.headline == [
        "In generation 40 the best network has a mean accuracy of 30.0% over all weights, on training examples. "
        "The search has not ended: there is no result.json yet."
    ]
    assert isinstance(parts["fitness"], Figure)
    assert {parts[id].reason for id in ("weights-table", "functions-table")} == {
        "The search has not ended: there is no result.json yet."
    }


def test_a_search_without_any_file_but_the_first_has_a_page(tmp_path):
    write_wann(tmp_path / "w", ended=False)
    (tmp_path / "w" / "course.csv").unlink()
    words, parts = parts_of(tmp_path / "w")
    assert words.headline == ["The search has not ended: there is no result.json yet."]
    assert words.completeness == "0 generations so far; the search has not ended."
    assert {type(part) for part in parts.values()} == {Missing}


@pytest.mark.parametrize("text", [
    "", "generation\n1\n", "\0", "generation,best,best_accuracy,mean,connections,hidden,validation\nx,y\n",
])  # fmt: skip
def test_a_damaged_course_is_told(whole, text):
    root, _ = whole
    (root / "course.csv").write_text(text)
    parts = parts_of(root)[1]
    assert "no generation that can be read" in parts["fitness"].reason
    assert isinstance(parts["weights-table"], Table)


def test_a_torn_line_of_the_course_is_no_harm(whole):
    root, _ = whole
    text = (root / "course.csv").read_text().splitlines()
    (root / "course.csv").write_text("\n".join([*text[:11], text[11][:4]]))
    assert parts_of(root)[1]["sizes"].data["generation"].max() == 10


@pytest.mark.parametrize("junk", [None, float("nan"), "x", [], {}, True, -1, 10**400])
def test_values_that_are_none_are_left_out(whole, junk):
    """One after the other in the place of every value, and of every value of the test part."""
    root, result = whole
    for name in result:
        write_result(root, result | {name: junk})
        parts_of(root)
    for name in result["test"]:
        write_result(root, result | {"test": result["test"] | {name: junk}})
        assert isinstance(parts_of(root)[1]["functions-table"], Table)
    write_result(root, result | {"functions": {"tanh": junk}, "test_accuracy": junk})
    assert isinstance(parts_of(root)[1]["functions-table"], Missing)


def test_the_page_is_built_with_its_files(whole):
    root, _ = whole
    page = built(root)
    linked = {address for address in page.addresses if not address.startswith(("#", "data:"))}
    names = {"figures": ("fitness", "sizes"), "tables": ("weights-table", "functions-table")}
    endings = {"figures": ("pdf", "png", "csv"), "tables": ("csv", "tex")}
    assert linked == {f"{kind}/{name}.{end}" for kind in names for name in names[kind] for end in endings[kind]}
    assert "python launch/search.py wann --population=40" in page.text
    assert "--generations=40" in page.text


def test_the_columns_are_those_that_the_search_writes():
    assert {*wann_parts.FITNESS, *wann_parts.SIZES, "best_accuracy"} <= set(COLUMNS)
