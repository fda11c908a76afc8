"""The report: what it reads, what it says where something is missing, and that its numbers are those of results.csv."""

import csv
import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sparse_jax.errors import UserError
from sparse_jax.report import (
    build,
    comparisons,
    contours,
    exhibits,
    frames,
    logs,
    page,
    records,
    seeds,
    stability,
    tables,
    topologies,
)
from sparse_jax.report.sections import sections
from sparse_jax.study.mask_file import load_masks
from tests.report_store import HIDDEN, edit_result, fail, write_study

ROOT = Path(__file__).parents[1]
SMALL = {"methods": ("set",), "activations": ("relu",), "sparsities": (0.5, 0.9), "seeds": 2, "epochs": 2}
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Elements of a page: rows of tables by the id of what holds them, scripts, and every address."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.values, self.addresses, self.tags, self.scripts = {}, [], [], [], {}
        self.table, self.script, self.text = None, None, ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.addresses += [attributes[name] for name in ("src", "href", "action") if name in attributes]
        if tag == "table":
            self.table = self.rows.setdefault(attributes.get("id"), [])
        elif tag == "tr" and self.table is not None:
            self.table.append([])
        elif tag in ("td", "th") and self.table is not None:
            self.table[-1].append([attributes.get("data-column", ""), None])
        elif tag == "data":
            self.table[-1][-1][1] = attributes["value"]
        elif tag == "script":
            self.script = attributes.get("id", "")

    def handle_endtag(self, tag):
        self.script = None if tag == "script" else self.script
        self.table = None if tag == "table" else self.table

    def handle_data(self, data):
        if self.script is not None:
            self.scripts[self.script] = self.scripts.get(self.script, "") + data
        elif self.table and self.table[-1]:
            self.table[-1][-1][0] = data.strip() or self.table[-1][-1][0]
        else:
            self.text += data


def rows_of(root):
    with (root / "results.csv").open(newline="") as file:
        return {row["run_id"]: row for row in csv.DictReader(file)}


def read_back(*roots):
    return records.read(records.open_sources([str(root) for root in roots]))


def findings_of(*roots):
    found = read_back(*roots)
    return exhibits.find(found, frames.layout_of(found))


def built(root, **options):
    build.report([str(root)], "", options.get("follow"))
    return Page(root / "report" / "index.html")


def said(root):
    """What the page says in words, without the cost of figures as files."""
    found = findings_of(root)
    path = root / "page.html"
    path.write_text(page.render(found, sections(found), None))
    return Page(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store") / "study"
    write_study(root, activations=("relu", "tanh", "sigmoid"), sparsities=(0.5, 0.8, 0.9, 0.95, 0.99))
    return root


@pytest.fixture(scope="module")
def whole(store):
    return built(store)


@pytest.fixture
def small(tmp_path):
    root = tmp_path / "small"
    return root, write_study(root, **SMALL)


# --- numbers ---------------------------------------------------------------------------------------


def test_the_table_of_runs_equals_results_csv(store, whole):
    head, *body = whole.rows["runs-table"]
    names, expected = [name.replace(" ", "_") for name, _ in head], rows_of(store)
    assert {row[0][0] for row in body} == expected.keys()
    measured = [name for name in names if name in ("sparsity", "connections", "seconds", "training_flops", "seed")]
    measured += [name for name in names if name.endswith("_accuracy")]
    assert len(measured) == 8
    for row in body:
        cells = dict(zip(names, row, strict=True))
        for name in measured:
            assert float(cells[name][1]) == float(expected[row[0][0]][name]), (row[0][0], name)
        assert cells["test_accuracy"][0] == f"{float(cells['test_accuracy'][1]):.2%}"
        assert cells["status"][0] == expected[row[0][0]]["status"]


def test_every_point_is_the_mean_over_its_seeds_with_students_interval(store):
    found = findings_of(store).points
    assert len(found) == 2 * 3 * 5
    expected = rows_of(store)
    for _, point in found.iterrows():
        same = [
            float(row["test_accuracy"]) for row in expected.values()
            if (row["method"], row["activation"], row["sparsity_target"])
            == (point["method"], point["activation"], point["sparsity_target"])
        ]  # fmt: skip
        half = 4.302652729696142 * np.std(same, ddof=1) / np.sqrt(3)  # t of 97.5 % with two degrees of freedom
        assert len(same) == point["seeds"] == 3
        np.testing.assert_allclose(
            [point["accuracy"], point["low"], point["high"]],
            [np.mean(same), np.mean(same) - half, np.mean(same) + half],
            rtol=1e-9,
        )


def test_the_data_of_the_figures_on_the_page_are_those_beside_it(store, whole):
    payload = json.loads(whole.scripts["data-accuracy-density"])
    columns = dict(zip(payload["table"]["names"], payload["table"]["columns"], strict=True))
    beside = pd.read_csv(store / "report" / "figures" / "accuracy-density.csv")
    np.testing.assert_allclose(columns["accuracy"], beside["accuracy"], rtol=1e-5)
    assert set(beside["kind"]) == {"mean", "law"}
    kinds = columns["kind"]
    assert [kinds["of"][at] for at in kinds["at"]] == list(beside["kind"])


def test_learning_curves_are_means_by_epoch(tmp_path):
    names = write_study(tmp_path / "s", **SMALL)
    found = findings_of(tmp_path / "s")
    curves = frames.learning(found.records, found.layout, found.logs)
    same = [name for name in names if "-s0.9-" in name]
    last = [json.loads((tmp_path / f"s/metrics/{name}.jsonl").read_text().splitlines()[1]) for name in same]
    row = curves[(curves["sparsity_target"] == "0.9") & (curves["epoch"] == 2)].iloc[0]
    assert row["val_accuracy"] == pytest.approx(np.mean([one["val_accuracy"] for one in last]))
    assert row["gap"] == pytest.approx(0.01)
    assert row["seeds"] == 2


def test_maps_have_the_logged_counts_and_then_the_final_masks(small):
    root, names = small
    found = findings_of(root)
    maps = topologies.read_topologies(found.records, found.layout, found.logs).maps
    one = next(one for one in maps if one.settings["sparsity_target"] == "0.9")
    assert (one.height, one.width, one.image, one.epochs) == (8, 8, True, [1, 2, None])
    same = [name for name in names if "-s0.9-" in name]
    final = np.mean([load_masks(root / "runs" / name)["dense_0/kernel"].sum(1) for name in same], axis=0)
    np.testing.assert_allclose(one.frames[-1], final)
    first = [json.loads((root / f"metrics/{name}.jsonl").read_text().splitlines()[0]) for name in same]
    np.testing.assert_allclose(one.frames[0], np.mean([row["input_connections"] for row in first], axis=0))
    assert final.max() <= HIDDEN


def test_degrees_are_shares_of_neurons_with_at_least_so_many():
    degree, share = topologies.survival(np.array([0, 2, 2, 5]))
    assert list(degree) == [0, 2, 5]
    assert list(share) == [1, 0.75, 0.25]  # 4, 3 and 1 of four neurons


@pytest.mark.parametrize(
    ("shape", "inputs", "expected"),
    [([8, 8, 1], 64, (8, 8, 1)), ([4, 4, 3], 48, (4, 4, 3)), ([8, 8, 1], 65, None), ([64], 64, None), (None, 64, None)],
)
def test_inputs_are_images_where_the_run_says_so(shape, inputs, expected):
    assert topologies.image_shape(pd.Series({"input_shape": shape}), inputs) == expected


def test_without_the_number_of_test_examples_there_are_no_categories(small):
    root, names = small
    assert "The number of test examples is not known." not in said(root).text
    for name in names:
        edit_result(root, name, test_examples=None)
    assert "The number of test examples is not known." in said(root).text


@pytest.mark.parametrize(("lost", "dense", "remark"), [
    (0, 0.9, None), (1, 0.9, "1 of 3 dense runs, collapsed or diverged, are left out"), (3, 0.2, None),
])  # fmt: skip
def test_sparse_networks_are_measured_against_dense_ones_that_trained(tmp_path, lost, dense, remark):
    root, majority = tmp_path / "s", 0.1
    names = write_study(root, **SMALL | {"methods": ("dense", "set"), "seeds": 3})
    for at, name in enumerate(name for name in names if "-dense-" in name):
        changes = {"test_accuracy": 0.2, "status": "collapsed"} if at < lost else {"test_accuracy": 0.9}
        edit_result(root, name, **changes)
    found = findings_of(root)
    curve = [law for law in found.laws if law.settings["method"] == "set"]
    (row,) = contours.contour_rows(found.records, found.layout, curve).to_dict("records")
    ((_, categories, said_of_it),) = comparisons.categories(found.records, found.layout, curve)
    assert row["accuracy"] == pytest.approx((majority + dense) / 2)
    assert categories.reference.value == pytest.approx(dense)
    assert said_of_it == remark
    assert (remark or "") in row["remark"]
    assert ("dense runs" in row["remark"]) == bool(remark)


# --- several stores --------------------------------------------------------------------------------


def test_stores_are_merged_run_by_run(tmp_path):
    names = write_study(tmp_path / "a", **SMALL)
    write_study(tmp_path / "b", **SMALL)
    edit_result(tmp_path / "b", names[0], digest="other", test_accuracy=0.123)
    fail(tmp_path / "a", names[1], "no room")
    found = read_back(tmp_path / "a", tmp_path / "b")
    assert list(found.runs["run_id"]) == names
    assert [Path(root).name for root in found.runs["store"]] == ["a", "b", "a", "a"]
    assert found.runs["test_accuracy"][0] != 0.123
    assert len(found.notes) == 1
    assert f"1 run has different results in two workdirs; the first is shown: {names[0]}." in found.notes[0]


def test_runs_of_different_versions_are_told_of(tmp_path):
    write_study(tmp_path / "a", **SMALL)
    session = {"versions": {"python": "3.11.7", "jax": "0.10.3"}, "commit": "f00"}
    write_study(tmp_path / "b", **SMALL, sessions=[session])
    (note,) = read_back(tmp_path / "a", tmp_path / "b").notes
    assert "jax 0.10.1, 0.10.3" in note
    assert "commit abc1234, f00" in note
    assert "python" not in note


def test_what_differs_between_stores_was_varied(tmp_path):
    write_study(tmp_path / "a", **SMALL)
    write_study(tmp_path / "b", **{**SMALL, "activations": ("tanh",)})
    assert set(read_back(tmp_path / "a", tmp_path / "b").varied) == {"activation", "sparsity_target"}


def test_a_level_that_does_not_apply_stays_with_every_choice(tmp_path):
    write_study(tmp_path / "s", **{**SMALL, "methods": ("dense", "set")})
    found = findings_of(tmp_path / "s")
    assert found.records.orders["sparsity_target"] == ("–", "0.5", "0.9")
    chosen = frames.applies(found.points, {"sparsity_target": "0.9"})
    assert set(zip(chosen["method"], chosen["sparsity_target"], strict=True)) == {("dense", "–"), ("set", "0.9")}


# --- what is missing, and what went wrong ------------------------------------------------------------


def test_completeness_counts_every_ending(small):
    root, names = small
    fail(root, names[0], "out of memory")
    edit_result(root, names[1], status="collapsed")
    (root / "runs" / names[2] / "result.json").write_text('{"status": "ok", "test')
    found = said(root)
    assert "2 of 4 runs; 1 failed, 1 collapsed, 1 still unfinished." in found.text
    assert "1 of the result files" in found.text
    assert f"1 run failed. {names[0]}: out of memory." in found.text
    assert not read_back(root).complete


def test_no_mean_over_collapsed_runs_goes_unmarked(small):
    root, names = small
    edit_result(root, names[-1], status="collapsed")
    found = findings_of(root)
    odd = found.points[found.points["odd"]]
    assert list(odd["sparsity_target"]) == ["0.9"]
    assert list(odd["outcome"]) == ["2 seeds (1 collapsed)"]
    shown = {part.id: part for section in sections(found) for part in section.parts}
    assert "Open marks mean that collapsed" in shown["accuracy-density"].caption
    assert "Dashes mean that collapsed" in shown["gap"].caption
    assert shown["accuracy-density"].data["odd"].sum() == 1


MISSING = {  # what a study lacks -> how it is made, what the page says
    "results": ({}, "No run has finished yet."),
    "seeds": ({"seeds": 1}, "There is one seed, so no interval is shown."),
    "levels": ({}, "Two levels only: no law is fitted."),
    "majority": ({"majority": False}, "how large the largest class of the test part is"),
    "stability": ({"stability": False}, "The runs do not tell of dead classes, loss spikes, silent neurons."),
    "masks": ({"masks": False}, "No finished run has a mask file. 4 finished runs have no readable mask file."),
    "inputs": ({"inputs": False}, "the metrics have no input_connections"),
    "metrics": ({}, "No metrics with training and validation accuracies were logged."),
    "values": ({}, "No setting but the level was varied, so nothing is compared."),
    "sessions": ({"sessions": []}, "No session is recorded in config.json"),
}


@pytest.mark.parametrize("lacking", MISSING)
def test_what_is_missing_is_said_in_a_sentence(tmp_path, lacking):
    options, sentence = MISSING[lacking]
    root = tmp_path / "s"
    write_study(root, **SMALL | options)
    if lacking in ("results", "metrics"):
        shutil.rmtree(root / ("runs" if lacking == "results" else "metrics"))
    assert sentence in said(root).text


def test_means_stand_beside_those_of_runs_that_are_ok(small):
    root, names = small
    edit_result(root, names[0], status="collapsed", test_accuracy=0.1)
    fail(root, names[-1], "no room")
    rows = seeds.seed_rows(*findings_of(root)[:2])
    first, last = rows.iloc[0], rows.iloc[-1]
    accuracies = [json.loads((root / "runs" / name / "result.json").read_text())["test_accuracy"] for name in names[:2]]
    assert (first["runs"], first["collapsed"], first["collapse rate"]) == (2, 1, "50% [1%, 99%]")
    assert first["mean"] == pytest.approx(np.mean(accuracies))
    assert first["mean of ok runs"] == accuracies[1]
    assert (last["runs"], last["failed"]) == (2, 1)
    assert pd.isna(last["from"])  # of one run
    built(root)
    assert "50% [1%, 99%]" in (root / "report" / "tables" / "seeds.csv").read_text()


def test_rates_are_those_of_the_runs_that_tell(tmp_path):
    """Of five seeds at 0.9 one collapsed, one diverged, and one comes from an earlier version."""
    root, names = tmp_path / "s", write_study(tmp_path / "s", **SMALL | {"seeds": 5})
    sparse = [name for name in names if "-s0.9-" in name]
    collapsed = {"status": "collapsed", "dead_classes": [1, 2, 3], "silent_share": 0.5}
    diverged = {"status": "diverged", "dead_classes": None, "silent_neurons": None, "silent_share": None}
    older = {"dead_classes": None, "silent_neurons": None, "silent_share": None, "loss_spikes": None}
    spiked = {"dead_classes": [3], "loss_spikes": 2}
    for name, changes in zip(sparse, (collapsed, diverged, older, spiked), strict=False):
        edit_result(root, name, **changes)
    records_, layout = findings_of(root)[:2]
    rows = stability.rate_rows(records_, layout)
    found = {one.measure: one for one in rows[rows["sparsity_target"] == "0.9"].itertuples()}
    # Clopper and Pearson: 1 of 5 by hand, (1 − p)⁵ = 0.975; 2 of 3 the other way round of 1 of 3, p³ = 0.975
    assert (found["collapsed"].share, found["diverged"].share) == (0.2, 0.2)
    assert found["collapsed"].low == pytest.approx(1 - 0.975**0.2)
    assert found["dead classes"].share == pytest.approx(2 / 3)
    assert found["dead classes"].high == pytest.approx(0.975 ** (1 / 3))
    low = found["dead classes"].low
    assert 3 * low**2 - 2 * low**3 == pytest.approx(0.025)  # two or three of three
    assert found["loss spikes"].share == 0.25
    assert found["silent neurons"].share == pytest.approx((0.5 + 0.25 + 0.25) / 3)
    assert set(rows[rows["sparsity_target"] == "0.5"]["share"]) == {0, 0.25}
    dying = stability.class_rows(records_, layout)
    assert list(dying["class"]) == [3, 1, 2]
    assert list(dying["dead in"]) == [2, 1, 1]
    assert list(dying["of these ok"]) == [1, 0, 0]
    assert set(dying["runs"]) == {3}
    assert set(dying["sparsity_target"]) == {"0.9"}
    built(root)
    numbers = pd.read_csv(root / "report" / "tables" / "stability-table.csv")
    assert list(numbers["collapsed"]) == ["0% [0%, 52%]", "20% [1%, 72%]"]
    assert list(pd.read_csv(root / "report" / "tables" / "dead-classes.csv")["class"]) == [3, 1, 2]
    assert "1:2:3" in (root / "report" / "tables" / "runs.csv").read_text()
    assert "2 of 8 runs never predict some class (25%, 95% interval 3% to 65%); class 3 is dead most often, in 2." in (
        said(root).text
    )


def test_classes_of_different_data_sets_are_told_apart(tmp_path):
    root, names = tmp_path / "s", write_study(tmp_path / "s", **SMALL)
    config = json.loads((root / "config.json").read_text())
    for name, dataset in zip(names, ("digits", "digits", "mnist", "mnist"), strict=True):
        config["runs"][name]["dataset"] = dataset
        edit_result(root, name, dataset=dataset, dead_classes=[7])
    config["commands"] = []
    (root / "config.json").write_text(json.dumps(config))
    found = stability.class_rows(*findings_of(root)[:2])
    assert list(found["dataset"]) == ["digits", "mnist"]
    assert list(found["dead in"]) == [2, 2]
    assert "is dead most often" not in said(root).text


def test_without_dead_classes_the_page_says_so(small):
    root, _ = small
    assert "Every run predicts every class." in said(root).text
    assert "runs never predict some class" not in said(root).text


def test_values_that_share_no_seed_are_not_compared(tmp_path):
    """static with the seeds 0 and 1, set with 2 and 3."""
    root, names = tmp_path, write_study(tmp_path, **SMALL | {"methods": ("static", "set")})
    assert "points of accuracy" in said(root).text
    config = json.loads((root / "config.json").read_text())
    for name in (name for name in names if "-set-" in name):
        seed = config["runs"][name]["seed"] + 2
        config["runs"][name]["seed"] = seed
        edit_result(root, name, seed=seed)
    (root / "config.json").write_text(json.dumps(config))
    assert "points of accuracy" not in said(root).text


def test_a_study_of_no_runs_has_a_page(tmp_path):
    (tmp_path / "config.json").write_text('{"runs": {}}')
    assert "No run was planned." in built(tmp_path).text


def test_texts_of_the_store_do_no_harm(small):
    root, names = small
    fail(root, names[0], EVIL)
    edit_result(root, names[1], activation=EVIL, model=EVIL)
    config = json.loads((root / "config.json").read_text())
    config["commands"][0]["command"] = EVIL
    config["sessions"] = [{"versions": {"jax": EVIL}, "device": EVIL}]
    config["runs"][names[2]]["activation"] = [EVIL]
    (root / "config.json").write_text(json.dumps(config))
    found = built(root)
    assert found.text.count(EVIL) >= 4
    assert "img" not in found.tags
    data = [name for name in found.scripts if name.startswith("data-")]
    assert len(data) > 3
    assert all(json.loads(found.scripts[name]) for name in data)
    assert found.tags.count("script") == len(data) + 3  # themes, Vega, and the page's own


def test_json_in_a_script_ends_no_script():
    text = page.in_script({"a": f"<!--{EVIL}&\u2028"})
    assert not {"<", ">", "&", "\u2028"} & set(text)
    assert json.loads(text) == {"a": f"<!--{EVIL}&\u2028"}


# --- files -------------------------------------------------------------------------------------------


def test_every_figure_and_table_lies_beside_the_page(store, whole):
    folder = store / "report"
    linked = {address for address in whole.addresses if not address.startswith(("#", "data:"))}
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert linked == written - {"index.html"}
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert {"accuracy-density", "heat-method", "heat-activation", "learning-curves", "gap", "degrees", "inputs", "cost",
            "gain-method", "ranks-activation", "contour", "stability"} <= names  # fmt: skip
    for name in names:
        assert (folder / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF-")
        assert (folder / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len((folder / f"figures/{name}.csv").read_text().splitlines()) > 1
    kept = {path.stem for path in (folder / "tables").iterdir()}
    assert {"laws", "inversions", "categories", "contour-table", "runs", "stability-table"} <= kept


def test_the_page_asks_nothing_of_the_network(whole):
    assert [address for address in whole.addresses if "//" in address] == []
    assert sum("vegaEmbed=" in script for script in whole.scripts.values()) == 1
    assert not {"iframe", "img", "object", "embed"} & set(whole.tags)


def test_tables_are_latex_with_booktabs():
    frame = pd.DataFrame({"a_b": ["x & y_1%"], "p": [-0.5]})
    text = tables.latex(tables.Table("t", "", "", frame, {"p": ".1f"}))
    assert text.splitlines()[1:] == [
        "\\begin{tabular}{lr}", "\\toprule", r"a\_b & p \\", "\\midrule", r"x \& y\_1\% & $-$0.5 \\", "\\bottomrule",
        "\\end{tabular}",
    ]  # fmt: skip


def test_columns_travel_whole():
    frame = pd.DataFrame({"a": ["x", "y", "x", "x", "x"], "b": [1.23456789, np.nan, np.inf, 4, 5], "c": [True] * 5})
    names, length, columns = page.columnar(frame).values()
    assert (names, length) == (["a", "b", "c"], 5)
    assert columns == [{"of": ["x", "y"], "at": [0, 1, 0, 0, 0]}, [1.23457, None, None, 4.0, 5.0], [True] * 5]


def test_curves_keep_their_ends_when_thinned():
    epochs = logs.thinned(list(range(500)), 60)
    assert (len(epochs), epochs[0], epochs[-1]) == (60, 0, 499)
    assert logs.spread(5, 1) == [4]
    assert logs.spread(0, 3) == []


def test_the_command_that_repeats_a_study_is_shown(tmp_path):
    write_study(tmp_path / "a", **SMALL)
    assert "python launch/train.py --flagfile=configs/small.flags" in said(tmp_path / "a").text
    write_study(tmp_path / "b", **SMALL, commands=[])
    assert "No command is recorded in config.json." in said(tmp_path / "b").text


# --- following a study ---------------------------------------------------------------------------------


def test_a_study_is_followed_until_it_is_complete(small, monkeypatch):
    root, names = small
    path = root / "runs" / names[0] / "result.json"
    result, pages = path.read_text(), []
    path.unlink()

    def sleep(seconds):
        assert seconds == 7
        pages.append((root / "report" / "index.html").read_text())
        path.write_text(result)

    monkeypatch.setattr(build.time, "sleep", sleep)
    assert build.report([str(root)], "", 7.0) == 0
    assert len(pages) == 1
    assert 'data-follow="7"' in pages[0]
    assert "3 of 4 runs; 1 still unfinished." in pages[0]
    end = (root / "report" / "index.html").read_text()
    assert "data-follow" not in end.split("<main")[0]
    assert "4 of 4 runs." in end


def test_ctrl_c_ends_following_with_a_page_that_rests(small, monkeypatch, capsys):
    root, names = small
    (root / "runs" / names[0] / "result.json").unlink()

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(build.time, "sleep", interrupt)
    assert build.report([str(root)], "", 7.0) == 0
    assert "data-follow" not in (root / "report" / "index.html").read_text().split("<main")[0]
    assert capsys.readouterr().err == "stopped following\n"


# --- the program -------------------------------------------------------------------------------------


def program(*arguments, cwd, forbidden):
    (forbidden / "jax").mkdir(exist_ok=True)
    (forbidden / "jax" / "__init__.py").write_text("raise SystemExit('jax is not needed here')")
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONPATH": f"{forbidden}{os.pathsep}{ROOT}"}
    command = [sys.executable, str(ROOT / "launch" / "report.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


REFUSED = {
    "": ["which study?", "--workdir"],
    "--workdr=study": ["workdr"],
    "study --follow=often": ["--follow", "'often'"],
    "study --follow=0": ["--follow", "outside"],
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_wrong_command_line_is_one_line_on_stderr(tmp_path, line):
    found = program(*line.split(), cwd=tmp_path, forbidden=tmp_path)
    assert found.returncode == 2
    assert found.stderr.startswith("report.py: ")
    assert found.stderr.count("\n") == 1
    assert [word for word in REFUSED[line] if word not in found.stderr] == []


def test_help_teaches(tmp_path):
    found = program("--help", cwd=tmp_path, forbidden=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert [word for word in ("--follow", "--out", "Examples:", "booktabs") if word not in found.stdout] == []


def test_the_program_builds_without_jax_where_it_is_told_to(small, tmp_path):
    root, _ = small
    found = program(root, f"--out={tmp_path / 'out'}", cwd=tmp_path, forbidden=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == f"report: {tmp_path / 'out' / 'index.html'}\n"
    assert (tmp_path / "out" / "index.html").is_file()
    assert not (root / "report").exists()


def test_wrong_workdirs_and_places_are_refused_before_anything_is_written(small, tmp_path):
    root, _ = small
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text("{}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    before = sorted(tmp_path.rglob("*"))
    cases = {
        ("gone", ""): "does not exist",
        ("file", ""): "is no folder",
        ("empty", ""): "no config.json",
        ("foreign", ""): "not that of a study",
        ("broken", ""): "not a JSON object",
        ("small", "file/out"): "cannot be written",
    }
    for (name, out), words in cases.items():
        with pytest.raises(UserError, match=words):
            build.report([str(tmp_path / name)], out and str(tmp_path / out), None)
    assert sorted(tmp_path.rglob("*")) == before
    assert root.is_dir()
