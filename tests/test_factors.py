"""The section on factors: what it says of studies of every kind, and what stands in its files."""

import json
import re

import pandas as pd
import pytest

from sparse_jax.report import build, crossings, exhibits, frames, headline, records
from sparse_jax.report.factors import factor_parts
from sparse_jax.report.figures import label
from tests.report_store import EXAMPLES, edit_result, fail, write_study
from tests.test_report import Page

WIDE = {"methods": ("static", "set"), "activations": ("relu", "tanh", "sigmoid"), "sparsities": (0.5, 0.9, 0.99)}


def findings_of(root):
    found = records.read(records.open_sources([str(root)]))
    return exhibits.find(found, frames.layout_of(found))


def written(root, **options):
    names = write_study(root, **{**WIDE, "inputs": False, "masks": False, "epochs": 1, **options})
    return names, findings_of(root)


def parts_of(findings):
    return {part.id: part for part in factor_parts(findings)}


def captions(findings):
    parts = factor_parts(findings)
    return " ".join(part.reason if isinstance(part, exhibits.Missing) else part.caption for part in parts)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("factors") / "study"
    names, findings = written(root, seeds=4)
    return root, names, findings


def test_planted_effects_are_told(whole):
    """Of `report_store`: sigmoid is far worse, SET 2 points better, and sparsity costs most."""
    _, _, findings = whole
    parts = parts_of(findings)
    assert list(parts) == ["effect-sizes", "variance", "interaction", "rules"]
    assert list(parts["effect-sizes"].data["term"][:2]) == ["sparsity", "activation"]
    table = parts["variance"].frame.set_index("term")
    assert list(table.index) == [
        "method", "activation", "sparsity", "method × activation", "method × sparsity", "activation × sparsity",
        "seed (block)", "residual",
    ]  # fmt: skip
    assert table["η²"].sum() == pytest.approx(1)
    assert table["df"].sum() == 2 * 3 * 3 * 4 - 1
    rules = list(parts["rules"].frame["rule"])
    assert any(rule.startswith("Method set instead of static adds ") for rule in rules)
    assert any(re.search(r"activation (relu|tanh) instead of sigmoid adds 1\d\.", rule) for rule in rules)


def test_the_csv_of_the_rules_names_the_runs_behind_each(whole):
    root, names, findings = whole
    build.report([str(root)], "", None)
    kept = pd.read_csv(root / "report" / "tables" / "rules.csv")
    shown = Page(root / "report" / "index.html")
    assert "better runs" not in (root / "report" / "index.html").read_text()
    rule = kept[kept["rule"].str.startswith("Method set instead")].iloc[0]
    better, other = rule["better runs"].split(), rule["other runs"].split()
    assert set(better) == {name for name in names if "-set-" in name}
    assert [name.replace("-set-", "-static-") for name in better] == other
    results = {name: json.loads((root / "runs" / name / "result.json").read_text()) for name in names}
    sums = [sum(results[name]["test_accuracy"] for name in side) for side in (better, other)]
    assert rule["effect"] == pytest.approx(100 * (sums[0] - sums[1]) / len(better))
    assert rule["pairs"] == len(better) == 3 * 3 * 4
    assert {"figures/effect-sizes.pdf", "figures/interaction.csv", "tables/variance.tex"} <= {
        path.relative_to(root / "report").as_posix() for path in (root / "report").rglob("*.*")
    }
    assert findings.crossed.rules[0].sentence in " ".join(shown.text.split())


def test_rules_are_among_the_findings_and_those_that_turn_round_come_first(whole):
    _, _, findings = whole
    rules = findings.crossed.rules
    told = " ".join(headline.sentences(findings))
    assert rules[0].sentence in told
    assert rules[1].sentence in told
    assert len(rules) > 2
    assert rules[2].sentence not in told
    assert f"two of {len(rules)} rules" in told
    turned = [*rules[:-1], rules[-1]._replace(reverses=True, sentence="It turns.")]
    told = " ".join(headline.sentences(findings._replace(crossed=findings.crossed._replace(rules=turned))))
    assert "It turns. " + rules[0].sentence in told
    none = findings._replace(crossed=findings.crossed._replace(rules=[]))
    assert "instead of" not in " ".join(headline.sentences(none))


def test_terms_that_matter_on_ranks_only_are_told(whole):
    _, _, findings = whole
    study = findings.crossed
    for p_value, words in ((0.2, "method no longer significant"), (0.001, "the same terms are significant")):
        ranked = tuple(one._replace(adjusted_p=p_value if one.factors == ("method",) else own.adjusted_p)
                       for one, own in zip(study.variance.on_ranks, study.variance.terms, strict=True))  # fmt: skip
        changed = study._replace(variance=study.variance._replace(on_ranks=ranked))
        assert f"On ranks in place of values {words}" in captions(findings._replace(crossed=changed))


def test_the_interaction_has_the_means_of_its_cells(whole):
    root, names, findings = whole
    figure = parts_of(findings)["interaction"]
    first, second = figure.data.columns[:2]
    assert {first, second} <= set(findings.layout.told)  # so that filters find them
    assert label(first) in figure.title
    rows = {name: json.loads((root / "runs" / name / "result.json").read_text()) for name in names}
    for cell in figure.data.to_dict("records"):
        same = [one["test_accuracy"] for one in rows.values() if {str(one[first]), str(one[second])} ==
                {cell[first], cell[second]}]  # fmt: skip
        assert cell["mean"] == pytest.approx(sum(same) / len(same))
        assert (cell["seeds"], cell["runs"]) == (4, len(same))


# --- studies that lack something -------------------------------------------------------------------


def test_one_setting_is_not_crossed(tmp_path):
    _, findings = written(tmp_path / "s", methods=("set",), activations=("relu",))
    assert "Only sparsity varies" in captions(findings)
    assert {type(part) for part in factor_parts(findings)} == {exhibits.Missing}


def test_one_seed_supports_no_rule(tmp_path):
    _, findings = written(tmp_path / "s", seeds=1)
    parts = parts_of(findings)
    assert parts["rules"].reason == "A rule needs at least 3 seeds, and there is one."
    assert "what settings do in threes stands for chance" in parts["variance"].caption
    _, findings = written(tmp_path / "t", seeds=2)
    assert "and there are 2." in parts_of(findings)["rules"].reason


def test_dense_runs_are_left_out_and_counted(tmp_path):
    _, findings = written(tmp_path / "s", methods=("dense", "static", "set"))
    assert findings.crossed.crossed.orders["method"] == ("static", "set")
    dense = (findings.records.runs["method"] == "dense").sum()
    assert f"{dense} runs are left out, to which a setting does not apply." in captions(findings)
    _, findings = written(tmp_path / "t", methods=("dense", "static"), activations=("relu",))
    assert "Only sparsity varies among the runs that have a value of every setting" in captions(findings)


def test_runs_without_an_accuracy_are_counted_and_cells_may_be_uneven(tmp_path):
    names, _ = written(tmp_path / "s")
    edit_result(tmp_path / "s", names[0], status="diverged", test_accuracy=None)
    fail(tmp_path / "s", names[5], "no room")
    (tmp_path / "s" / "runs" / names[9] / "result.json").unlink()
    edit_result(tmp_path / "s", names[10], status="halfway")
    edit_result(tmp_path / "s", names[-1], status="collapsed", test_accuracy=round(0.1 * EXAMPLES) / EXAMPLES)
    findings = findings_of(tmp_path / "s")
    parts = parts_of(findings)
    assert "4 runs are without a test accuracy." in parts["variance"].caption
    assert "seeds are replicates" in parts["variance"].caption
    assert "seed (block)" not in set(parts["variance"].frame["term"])
    assert parts["rules"].frame["collapsed"].max() == 1
    assert parts["interaction"].data["odd"].sum() == 1
    assert "Open marks" in parts["interaction"].caption
    assert parts["interaction"].data["runs"].nunique() == 1  # blocks that lack a run are in no mean


def test_cells_that_are_empty_are_told_of(tmp_path):
    names, _ = written(tmp_path / "s")
    for name in names:
        if "-set-sigmoid-" in name:
            (tmp_path / "s" / "runs" / name / "result.json").unlink()
    text = captions(findings_of(tmp_path / "s"))
    assert "Estimated in part, because cells are empty: method × activation." in text


def test_nothing_is_said_before_a_run_has_finished_or_where_all_are_equal(tmp_path):
    names, _ = written(tmp_path / "s")
    for name in names:
        edit_result(tmp_path / "s", name, test_accuracy=0.1, status="collapsed")
    assert "All runs have the same test accuracy" in captions(findings_of(tmp_path / "s"))
    for name in names:
        (tmp_path / "s" / "runs" / name / "result.json").unlink()
    assert "No finished run has a value of every setting" in captions(findings_of(tmp_path / "s"))


def test_data_sets_are_a_setting_like_others(tmp_path):
    names, _ = written(tmp_path / "s", methods=("set",))
    config = json.loads((tmp_path / "s" / "config.json").read_text())
    for name in names:
        dataset = "synthetic" if "-tanh-" in name else "digits"
        config["runs"][name]["dataset"] = dataset
        edit_result(tmp_path / "s", name, dataset=dataset)
    for command in config["commands"]:
        command["settings"]["dataset"] = ["digits", "synthetic"]
    (tmp_path / "s" / "config.json").write_text(json.dumps(config))
    findings = findings_of(tmp_path / "s")
    assert "dataset" in findings.crossed.crossed.factors
    assert "Not to be told from other terms" in parts_of(findings)["variance"].caption


def test_another_measure_is_one_more_call(whole):
    _, _, findings = whole
    measure = crossings.Measure("val_accuracy", crossings.TEST_ACCURACY.response._replace(name="validation accuracy"))
    study = crossings.study_of(findings.records, findings.layout, measure)
    assert "points of validation accuracy" in study.rules[0].sentence
    assert study.rules[0].effect == findings.crossed.rules[0].effect  # they are equal in these stores
