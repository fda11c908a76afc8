"""Published accuracies beside those of a study: which runs repeat them, what is said of them, and what is refused."""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sparse_jax.config import RunConfig, settings
from sparse_jax.errors import UserError
from sparse_jax.report import build, exhibits, page, tables
from sparse_jax.report.published import ACCURACIES, WORDS, read_published
from sparse_jax.report.replications import published_section, replicate
from sparse_jax.study.rows import COLUMNS
from sparse_jax.values import read
from tests.report_store import accuracy, edit_result, fail, write_study
from tests.test_report import SMALL, Page, findings_of, program, read_back

FILES = sorted((Path(__file__).parents[1] / "configs" / "published").glob("*.csv"))


def written(folder, *lines):
    path = folder / "published.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def rows_of(folder, *lines):
    return read_published([written(folder, *lines)])


def replicated(root, *lines):
    """What the study in this folder has of every row."""
    records = read_back(root)
    return [replicate(row, records) for row in rows_of(root, *lines)]


def ids_of(one):
    return list(one.runs["run_id"])


def section_of(root, *lines):
    section = published_section(findings_of(root), rows_of(root, *lines))
    return {part.id: part for part in section.parts}


@pytest.fixture
def study(tmp_path):
    """Methods static and set, sparsities 0.5 and 0.9, three seeds."""
    root = tmp_path / "study"
    return root, write_study(root, **SMALL | {"methods": ("static", "set"), "seeds": 3})


# --- what a file says --------------------------------------------------------------------------------


def test_a_row_is_an_accuracy_in_percent_and_the_settings_of_its_runs(tmp_path):
    first, second = rows_of(
        tmp_path,
        "\ufefflabel, method,hidden_sizes,published,published_low,published_high,source,note",
        'A,set,"300,100",97.03,96.5,98,paper,odd',
        "",
        ",,,,,,,",
        " , static , ,11.35,,,,",
    )
    assert first == ({"method": "set", "hidden_sizes": "300,100"}, 0.9703, 0.965, 0.98, "A", "paper", "odd")
    assert second == ({"method": "static"}, 0.1135, None, None, "", "", "")


def test_files_follow_one_another_and_no_file_is_no_row(tmp_path):
    path = written(tmp_path, "published", "50", "60")
    assert [row.accuracy for row in read_published([path, path])] == [0.5, 0.6, 0.5, 0.6]
    assert read_published([]) == []


REFUSED = {  # lines of the file -> what the one line names
    ("",): "published.csv has no row",
    ("published",): "published.csv has no row",
    ("published,metod", "50,set"): "published.csv: unknown column 'metod'. Did you mean 'method'? Known: published, ",
    ("published,", "50,"): "unknown column ''",
    ("method,published,method", "set,50,set"): "two columns are called method",
    ("method,sparsity", "set,0.9"): "has no column published, an accuracy in percent; it has method, sparsity",
    ("method,published", "set,50,1"): "line 2: 3 cells, and the header has 2",
    ("method,published", "set"): "line 2: 1 cells, and the header has 2",
    ("method,published", "set,50", "", "rigl,many"): "line 4, published: 'many' is not a number",
    ("method,published", "set,"): "line 2, published: '' is not a number",
    ("published", "100.5"): "line 2, published: 100.5 is outside [0, 100]",
    ("published", "-1"): "line 2, published: -1 is outside",
    ("published", "nan"): "line 2, published: nan is outside",
    ("published,published_low", "50,x"): "line 2, published_low: 'x' is not a number",
    ("published,published_high", "50,101"): "line 2, published_high: 101 is outside",
    ("published,published_low", "50,50.1"): "line 2: published, 50, is not from published_low to published_high",
    ("published,published_high", "50,49.9"): "line 2: published, 50, is not from",
    ("published", "0.9703", "1"): "no published accuracy is above 1: write them in percent",
    ("published", '"50'): "cannot be read as text separated by commas",
}


@pytest.mark.parametrize("lines", REFUSED)
def test_what_is_no_table_of_accuracies_is_refused(tmp_path, lines):
    with pytest.raises(UserError, match=re.escape(REFUSED[lines])):
        rows_of(tmp_path, *lines)


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "bytes.csv").write_bytes(b"published\n\xff\xfe\n")
    cases = {"gone.csv": "does not exist", ".": "Is a directory", "bytes.csv": "cannot be read", "a" * 999: "too long"}
    for name, words in cases.items():
        with pytest.raises(UserError, match=words):
            read_published([str(tmp_path / name)])
    with pytest.raises(UserError, match="home directory"):
        read_published(["~nobody-of-that-name/published.csv"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_files_that_are_here_name_settings_and_values_that_runs_can_have(path):
    rows, fields = read_published([str(path)]), settings(RunConfig)
    assert all(row.label and row.source for row in rows)
    selected = [tuple(sorted(row.settings.items())) for row in rows]
    assert len(set(selected)) == len(rows)
    for name, text in (item for row in rows for item in row.settings.items()):
        assert name in fields
        if name != "initial_topology":  # of other runs, by a pattern
            read(fields[name], text)
        assert name not in WORDS + ACCURACIES


def test_there_are_such_files():
    assert len(FILES) >= 3
    assert {"alford_2018", "dubowski_2020", "loni_2023"} <= {path.stem for path in FILES}
    alford = read_published([str(path) for path in FILES if path.stem == "alford_2018"])
    found = {(row.settings["model"], row.settings["method"], *map(row.settings.get, ("initial_topology", "sparsity"))):
             row.accuracy for row in alford}  # fmt: skip
    assert found["lenet_300_100", "dense", None, None] == 0.9703
    assert found["lenet_300_100", "static", "from_run:*one_time*", "0.99"] == 0.5608
    assert found["lenet5_alford", "gmp", "random", "0.5"] == 0.9917
    assert found["lenet5_alford", "static", "from_run:*gmp*", "0.75"] == 0.6992
    assert found["mlp", "static", "radix", "0.9"] == 0.9398


# --- which runs are meant ----------------------------------------------------------------------------


def test_cells_are_values_numbers_patterns_or_empty(study):
    root, names = study
    header = "method,sparsity,epochs,relu_logits,activation,run_id,published"
    cases = {
        "set,0.9,,,,": "*-set-*-s0.9-*",
        "SET,0.90,2,false,relu,": "*-set-*-s0.9-*",
        "s?t,9e-1,2.0,False,r*,": "*-set-*-s0.9-*",
        "*t*,.5,,,,": "*-s0.5-*",
        "[!s]*,,,,,": "nothing",
        "set,,3,,,": "nothing",
        "set,,,true,,": "nothing",
        ",,,,,*seed1": "*seed1",
        ",,,,,": "*",
    }
    for row, pattern in cases.items():
        (one,) = replicated(root, header, f"{row},50")
        assert ids_of(one) == [name for name in names if fnmatchcase(name, pattern)], row


def test_a_first_mask_is_named_by_a_pattern_and_what_does_not_apply_by_its_sign(tmp_path):
    root = tmp_path / "s"
    names = write_study(root, **SMALL | {"methods": ("dense", "static")})
    edit_result(root, names[0], initial_topology=None)
    for name in names[2:]:
        edit_result(root, name, initial_topology=f"from_run:results/digits-gmp-{name[-1]}")
    found = replicated(root, "initial_topology,published", "from_run:*gmp*,50", "from_run:*rigl*,50", "–,50")
    assert [len(one.runs) for one in found] == [len(names) - 2, 0, 1]
    assert ids_of(found[2]) == [names[0]]


def test_sparsity_is_the_one_asked_for_or_obtained_where_none_was(study):
    root, names = study
    config = json.loads((root / "config.json").read_text())
    for i, name in enumerate(names):
        edit_result(root, name, sparsity=0.7704)
        if i % 2:
            config["runs"][name]["sparsity"] = None
            edit_result(root, name, sparsity_target=None)
    (root / "config.json").write_text(json.dumps(config))
    found = replicated(root, "sparsity,published", "0.77,50", "0.771,50", "0.5,50", "0.5004,50")
    assert ids_of(found[0]) == names[1::2]  # four ten-thousandths off; nobody asked for it
    assert ids_of(found[1]) == []
    assert ids_of(found[2]) == [name for name in names[::2] if "-s0.5-" in name]
    assert ids_of(found[3]) == []  # who asks, gets what was asked for
    (strict,) = replicated(root, "sparsity_target,published", "0.77,50")
    assert ids_of(strict) == []


def test_a_row_that_no_run_has_says_which_value_is_to_blame(study):
    root, _ = study
    header = "method,sparsity,published"
    found = replicated(root, header, "rigl,0.5,50", "rigl,0.7,50", "set,0.7,50")
    assert [one.remark for one in found] == [
        "not run: no run has method rigl", "not run: no run has method rigl or sparsity 0.7",
        "not run: no run has sparsity 0.7",
    ]  # fmt: skip
    assert {(one.mean, one.within, len(one.runs)) for one in found} == {(None, None, 0)}
    (both,) = replicated(root, "run_id,method,published", "*-set-*,static,50")
    assert both.remark == "not run: no run has all of these settings"


def test_no_mean_is_taken_over_different_settings(study):
    root, _ = study
    found = replicated(root, "method,sparsity,published", "set,,50", ",0.9,50", ",,50", "set,0.9,50")
    assert [one.remark for one in found] == [
        "no mean: these runs differ in sparsity (0.5, 0.9)", "no mean: these runs differ in method (static, set)",
        "no mean: these runs differ in method (static, set), sparsity (0.5, 0.9)", "",
    ]  # fmt: skip
    assert [one.mean is None for one in found] == [True, True, True, False]
    assert [len(one.runs) for one in found] == [6, 6, 12, 3]


def test_a_remark_names_few_values(tmp_path):
    write_study(tmp_path / "s", **SMALL | {"sparsities": (0.5, 0.6, 0.7, 0.8)})
    (one,) = replicated(tmp_path / "s", "published", "50")
    assert one.remark == "no mean: these runs differ in sparsity (0.5, 0.6, 0.7, …)"


# --- what the runs came to ---------------------------------------------------------------------------


def test_the_interval_is_students_over_the_seeds(study):
    root, _ = study
    values = [accuracy("set", "relu", 1 - 0.9, seed) for seed in range(3)]
    mean, (low, high) = np.mean(values), stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    lines = [f"set,0.9,{100 * value:.6f}" for value in (low + 1e-6, low - 1e-6, high - 1e-6, high + 1e-6)]
    found = replicated(root, "method,sparsity,published", *lines)
    np.testing.assert_allclose(found[0].mean, (mean, low, high), rtol=1e-12)
    assert [one.within for one in found] == [True, False, True, False]


def test_one_seed_has_no_interval_and_so_no_verdict(tmp_path):
    write_study(tmp_path / "s", **SMALL | {"seeds": 1})
    (one,) = replicated(tmp_path / "s", "sparsity,published", "0.9,50")
    assert one.mean == (accuracy("set", "relu", 1 - 0.9, 0), None, None)
    assert one.within is None


def test_lost_runs_are_told_of_and_collapsed_ones_are_in_the_mean(study):
    root, names = study
    same = [name for name in names if "-set-" in name and "-s0.9-" in name]
    edit_result(root, same[0], status="collapsed", test_accuracy=0.1)
    fail(root, same[1], "no room")
    (one,) = replicated(root, "method,sparsity,published", "set,0.9,50")
    last = accuracy("set", "relu", 1 - 0.9, 2)
    assert one.remark == "of 3 runs 1 collapsed, 1 failed"
    assert one.mean.value == pytest.approx((0.1 + last) / 2)
    shown = section_of(root, "method,sparsity,published", "set,0.9,50", "set,0.5,50")
    frame = shown["published"].frame
    assert frame["mean of ok runs"][0] == last
    assert pd.isna(frame["mean of ok runs"][1])  # the same as the mean
    assert shown["published-density"].data["odd"].tolist() == [True, False, False, False]
    assert "Open marks mean that collapsed" in shown["published-density"].caption
    (root / "runs" / same[0] / "result.json").unlink()
    (root / "runs" / same[2] / "result.json").unlink()
    (one,) = replicated(root, "method,sparsity,published", "set,0.9,50")
    assert (one.mean, one.remark) == (None, "of 1 runs 1 failed; 2 unfinished")


# --- the section -------------------------------------------------------------------------------------


def test_every_row_is_in_the_table(study):
    root, _ = study
    table = section_of(
        root, "label,model,method,sparsity,published,published_low,source",
        "A,mlp,set,0.9,80,79,one paper", "B,mlp,rigl,0.9,70,,one paper", "C,mlp,,0.5,60,,another",
    )["published"]  # fmt: skip
    mean = np.mean([accuracy("set", "relu", 1 - 0.9, seed) for seed in range(3)])
    assert list(table.frame["label"]) == ["A", "B", "C"]
    assert list(table.frame["settings"]) == ["method set, sparsity 0.9", "method rigl, sparsity 0.9", "sparsity 0.5"]
    assert list(table.frame["published"]) == [0.8, 0.7, 0.6]
    assert table.frame["mean"][0] == pytest.approx(mean)
    assert table.frame["difference"][0] == pytest.approx(mean - 0.8)
    assert table.frame["mean"].isna().tolist() == table.frame["difference"].isna().tolist() == [False, True, True]
    assert list(table.frame["runs"]) == [3, 0, 6]
    assert list(table.frame["source"]) == ["one paper", "one paper", "another"]
    assert "note" not in table.frame
    assert "1 of 3 published accuracies have results of ours beside them" in table.caption
    assert table.caption.endswith("Every row has model mlp.")
    cells = dict(zip(table.frame, tables.cells(table)[0], strict=True))
    assert (cells["published"], cells["difference"].text) == (("80.00%", "0.8"), tables.signed(f"{mean - 0.8:+.2%}"))
    assert cells["published from"].text == "79.00%"


def test_the_verdict_is_in_the_table(study):
    root, _ = study
    mean = 100 * np.mean([accuracy("set", "relu", 1 - 0.9, seed) for seed in range(3)])
    lines = ["method,sparsity,published", f"set,0.9,{mean}", "set,0.9,1.5", "rigl,0.9,1.5"]
    table = section_of(root, *lines)["published"]
    assert table.frame["within"].fillna("").tolist() == ["yes", "no", ""]
    assert "1 lie within our interval" in table.caption


def test_the_figure_has_both_at_the_density_of_the_runs(study):
    root, names = study
    figure = section_of(
        root, "label,method,sparsity,published,published_low,published_high,source",
        "A,set,0.9,80,79,82,paper", "B,set,0.5,90,,,paper", "C,,0.5,90,,,paper", "D,rigl,0.5,90,,,paper",
    )["published-density"]  # fmt: skip
    assert list(figure.data["kind"]) == ["mean", "published"] * 2
    assert list(figure.data["label"]) == ["A", "A", "B", "B"]
    found = read_back(root).runs.set_index("run_id")["sparsity"]
    density = 1 - found[[name for name in names if "-set-" in name and "-s0.9-" in name]].mean()
    np.testing.assert_allclose(figure.data["density"][:2], density)
    published = figure.data[figure.data["kind"] == "published"]
    assert published[["accuracy", "low", "high"]].iloc[0].tolist() == [0.8, 0.79, 0.82]
    assert set(figure.data["method"]) == {"set"}  # what the filters look at
    assert "B" not in figure.summary
    assert "2 published accuracies beside ours" in figure.summary
    marks = {layer["mark"]["type"] for layer in page.specification(figure.draw(figure.data))["layer"]}
    assert marks == {"area", "line", "rule", "tick", "point"}


def test_without_levels_or_results_the_figure_is_missing_and_says_why(study):
    root, _ = study
    parts = section_of(root, "method,published", "set,80")
    assert parts["published-density"].reason.startswith("No published accuracy has a sparsity or epsilon")
    parts = section_of(root, "method,sparsity,published", "rigl,0.9,80")
    assert parts["published-density"].reason == "No run with a result has the settings of a published accuracy."
    assert isinstance(parts["published-density"], exhibits.Missing)
    (root / "config.json").write_text('{"runs": {}}')
    for path in root.glob("runs/*/result.json"):
        path.unlink()
    assert section_of(root, "method,sparsity,published", "set,0.9,80")["published"].frame["runs"].tolist() == [0]


def test_the_figure_of_accuracies_has_no_ticks(study):
    root, _ = study
    found = findings_of(root)
    chart = page.specification(build.sections(found)[0].parts[0].draw(found.points.assign(kind="mean")))
    assert {layer["mark"]["type"] for layer in chart["layer"]} == {"area", "line", "point"}


# --- files, and the program --------------------------------------------------------------------------


def test_it_is_a_section_with_files_of_its_own_and_read_anew_for_every_build(tmp_path, monkeypatch):
    root = tmp_path / "s"
    names = write_study(root, **SMALL)
    path = root / "runs" / names[0] / "result.json"
    result = path.read_text()
    path.unlink()
    file = written(tmp_path, "sparsity,published", "0.9,80")

    def sleep(seconds):
        assert (root / "report" / "tables" / "published.csv").read_text().count("\n") == 2
        written(tmp_path, "sparsity,published", "0.9,80", "0.5,90")
        path.write_text(result)

    monkeypatch.setattr(build.time, "sleep", sleep)
    build.report([str(root)], "", 7.0, [file])
    folder = root / "report"
    assert list(pd.read_csv(folder / "tables" / "published.csv")["published"]) == [0.8, 0.9]
    assert (folder / "tables" / "published.tex").read_text().count("%") > 6
    assert (folder / "figures" / "published-density.pdf").read_bytes().startswith(b"%PDF-")
    assert (folder / "figures" / "published-density.png").read_bytes().startswith(b"\x89PNG")
    assert len((folder / "figures" / "published-density.csv").read_text().splitlines()) == 5
    found = Page(folder / "index.html")
    assert "Published and obtained" in found.text
    assert {"tables/published.csv", "figures/published-density.pdf", "#published"} <= set(found.addresses)


def test_without_the_flag_there_is_no_such_section(tmp_path):
    root = tmp_path / "s"
    write_study(root, **SMALL | {"sparsities": (0.9,), "masks": False})
    build.report([str(root)], "", None)
    assert "#published" not in Page(root / "report" / "index.html").addresses
    assert not list((root / "report").rglob("published*"))


def test_a_wrong_file_is_one_line_and_nothing_is_written(study, tmp_path):
    root, _ = study
    file = written(tmp_path, "metod,published", "set,50")
    before = sorted(root.rglob("*"))
    found = program(root, f"--published={file}", cwd=tmp_path, forbidden=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith(f"report.py: {file}: unknown column 'metod'. Did you mean 'method'? Known: ")
    assert found.stderr.count("\n") == 1
    assert sorted(root.rglob("*")) == before


def test_the_program_takes_several_files_and_help_teaches_them(tmp_path):
    found = program("--help", cwd=tmp_path, forbidden=tmp_path)
    words = ("--published=FILE.csv", "in percent", "from_run:*gmp*", "configs/published", *ACCURACIES, *WORDS)
    assert [word for word in words if word not in found.stdout] == []
    first = written(tmp_path, "published", "50")
    write_study(tmp_path / "s", **SMALL)
    found = program(tmp_path / "s", f"--published={first}", "--published=b.csv", cwd=tmp_path, forbidden=tmp_path)
    assert found.stderr == "report.py: --published=b.csv does not exist\n"


def test_columns_of_results_and_of_the_file_do_not_meet():
    assert not {*ACCURACIES, *WORDS} & set(COLUMNS)
