"""The report of a search: its numbers are those of the files, whatever state these are in, and it is one page."""

import json
import math
import re
import shutil
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from sparse_jax.errors import UserError
from sparse_jax.report import build
from sparse_jax.report.exhibits import Figure, Missing
from sparse_jax.report.page import fill, specification
from sparse_jax.report.safs_headline import sentences
from sparse_jax.report.safs_networks import gain, networks_section
from sparse_jax.report.safs_records import read_safs
from sparse_jax.report.search_files import number, read_search
from sparse_jax.report.searches import open_search, search_page
from sparse_jax.report.tables import Table
from tests.report_store import write_study
from tests.search_store import COLUMNS, edit_candidates, write_result, write_safs
from tests.test_report import EVIL, SMALL, Page, program

FEW = MappingProxyType({"seeds": 3, "steps": 4, "trials": 4})
T2 = 4.302652729696142  # Student's t of 97.5 % with two degrees of freedom


def parts_of(root):
    """What the page says beside its sections, and their parts by id."""
    words, shown = search_page(open_search([str(root)], []))
    return words, {part.id: part for section in shown for part in section.parts}


def built(root, **options):
    build.report([str(root)], "", options.get("follow"))
    return Page(root / "report" / "index.html")


def measured(*accuracies):
    """A result of one sparsity: a dict of test accuracies by network for each seed."""
    pipelines = [
        {"sparsity": 0.99, "seed": seed, "operators": ["elu", "tanh"],
         "networks": {name: {"test_accuracy": value, "diverged": False} for name, value in one.items()}}
        for seed, one in enumerate(accuracies)
    ]  # fmt: skip
    return {"search": "safs", "model": "m", "dataset": "d", "layers": ["activation_0", "activation_1"],
            "pipelines": pipelines}  # fmt: skip


def said(root, *accuracies):
    """The headline of a search with these accuracies."""
    write_result(root, measured(*accuracies))
    return sentences(read_safs(read_search(root)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("safs") / "w"
    return root, write_safs(root, sparsities=(0.95, 0.99), seeds=3), built(root)


@pytest.fixture
def small(tmp_path):
    root = tmp_path / "w"
    return root, write_safs(root, **FEW)


# --- networks and gains ------------------------------------------------------------------------------


def test_the_means_and_gains_are_those_of_the_result(whole):
    root, result, _ = whole
    means = pd.read_csv(root / "report" / "tables" / "networks-table.csv").set_index(["sparsity", "network"])
    assert len(result["table"]) == len(means) == 2 * len(COLUMNS)
    for row in result["table"]:
        mine = means.loc[(row["sparsity"], row["column"])]
        expected = [row["mean"], row["low"], row["high"], row["seeds"]]
        np.testing.assert_allclose(mine[["mean", "from", "to", "seeds"]].astype(float), expected, rtol=1e-12)
    gains = pd.read_csv(root / "report" / "tables" / "gains.csv")
    assert len(gains) == 2 * 6
    called = {"stage1": "stage 1", "stage2": "stage 2", "both": "both", "default": "default"}
    for row in result["gains"]:
        names = called[row["column"]], called[row["against"]]
        mine = gains[(gains["sparsity"] == row["sparsity"]) & (gains["network"] == names[0])]
        mine = mine[mine["against"] == names[1]].iloc[0]
        np.testing.assert_allclose([mine["gain"], mine["from"], mine["to"]], [row["mean"], row["low"], row["high"]])


def test_a_gain_is_paired_by_seed_with_students_interval(small):
    """Differences of 10, 14 and 18 points: mean 14, standard deviation 4, half width t 4 / √3."""
    root, _ = small
    write_result(root, measured({"default": 0.40, "both": 0.50}, {"default": 0.42, "both": 0.56},
                                {"default": 0.44, "both": 0.62}))  # fmt: skip
    found = gain(read_safs(read_search(root)), "0.99", "both", "default")
    half = T2 * 0.04 / math.sqrt(3)
    assert (found.before, found.after, found.seeds) == (pytest.approx(0.42), pytest.approx(0.56), 3)
    assert found.points == pytest.approx((0.14, 0.14 - half, 0.14 + half))


def test_seeds_that_lack_a_network_are_not_paired(small):
    root, _ = small
    write_result(root, measured({"default": 0.4, "both": 0.5}, {"default": 0.9}, {"default": None, "both": 0.1}))
    found = gain(read_safs(read_search(root)), "0.99", "both", "default")
    assert (found.before, found.after, found.seeds, found.points.low) == (0.4, 0.5, 1, None)
    assert gain(read_safs(read_search(root)), "0.99", "stage1", "default") is None


def test_the_headline_answers_with_numbers_and_their_interval(small):
    root, _ = small
    three = [{"dense": 0.92, "default": 0.42 + s, "stage1": 0.5 + s, "stage2": 0.5 + s, "both": b}
             for s, b in ((-0.02, 0.50), (0.0, 0.56), (0.02, 0.62))]  # fmt: skip
    first, stages, operators = said(root, *three)
    assert first == (  # 14 ± t 4 / √3 = 14 ± 9.94; of the 50 points that sparsity costs 14 are 28 %
        "Searched activation functions raise the test accuracy of m at sparsity 0.99 from 42.0% to 56.0%: +14.0 points "
        "(95% interval 4.1 to 23.9, 3 seeds, paired). Sparsity costs 50.0 points of the dense networks' 92.0%, and 28% "
        "of these points are won back."
    )
    assert stages == (  # both less stage 2 is 2, 6 and 10: 6 ± 9.94
        "Against the default the operators alone have +8.0 points (8.0 to 8.0) and stage 2 without them has +8.0 "
        "points (8.0 to 8.0). Tuned alike, the operators found have +6.0 points (−3.9 to 15.9, which may be chance) "
        "against the default one."
    )
    assert operators == "Chosen most often in 6 places (3 × 2 layers): elu 3, tanh 3."


def test_the_headline_does_not_claim_what_may_be_chance(small):
    root, _ = small
    (first, *_) = said(root, {"default": 0.50, "both": 0.49}, {"default": 0.50, "both": 0.52},
                       {"default": 0.50, "both": 0.53})  # fmt: skip
    assert "do not surely change the test accuracy" in first
    assert "from 50.0% to 51.3%: +1.3 points (95% interval −3.8 to 6.5, 3 seeds, paired)" in first
    assert first.endswith("The interval contains 0, so this may be chance.")
    both = {0.9: 0.49, 0.91: 0.52, 0.92: 0.53}
    told = said(root, *({"dense": dense, "default": 0.5, "both": value} for dense, value in both.items()))
    assert told[0].endswith("Sparsity costs 41.0 points of the dense networks' 91.0%.")  # of nothing won back
    told = said(root, *({"dense": d, "default": 0.5, "both": 0.6} for d in (0.4, 0.7, 0.5)))
    assert "Sparsity costs" not in told[0]
    said(root, {"default": 0.50, "both": 0.49}, {"default": 0.50, "both": 0.52}, {"default": 0.50, "both": 0.53})
    chance = parts_of(root)[1]["gains"].frame["may be chance"]
    assert chance.tolist() == ["yes"]


def test_the_headline_says_what_is_lower_and_what_one_seed_is_worth(small):
    root, _ = small
    (first, *_) = said(root, {"default": 0.5, "stage1": 0.4}, {"default": 0.5, "stage1": 0.4})
    assert first.startswith("Searched operators lower the test accuracy of m at sparsity 0.99 from 50.0% to 40.0%: −10")
    (first, *_) = said(root, {"default": 0.5, "stage2": 0.6})
    assert first.startswith("Learned α and β and tuned hyper-parameters raise")
    assert "+10.0 points (one seed, so nothing is known of its precision)" in first
    gains = parts_of(root)[1]["gains"].frame
    assert gains["may be chance"].tolist() == ["unknown"]
    assert gains["from"].isna().all()


def test_the_section_is_called_by_how_many_networks_there_are(small):
    root, _ = small
    write_result(root, measured({"dense": 0.9, "default": 0.5, "stage1": 0.6}))
    assert networks_section(read_safs(read_search(root)), "").title == "Three networks"
    table = parts_of(root)[1]["networks-table"].frame
    assert list(table) == ["seeds", "dense", "default", "stage 1"]
    assert table["stage 1"].tolist() == ["60.00%"]


def test_every_seed_is_a_dot_and_the_means_lie_beside_them(whole):
    figure = parts_of(whole[0])[1]["networks"]
    data = figure.data
    assert data["kind"].value_counts().to_dict() == {"seed": 2 * 3 * 5, "mean": 2 * 5}
    mean = data[(data["kind"] == "mean") & (data["network"] == "both") & (data["sparsity"] == "0.99")].iloc[0]
    seeds = data[(data["kind"] == "seed") & (data["network"] == "both") & (data["sparsity"] == "0.99")]
    assert mean["accuracy"] == pytest.approx(seeds["accuracy"].mean())
    assert list(dict.fromkeys(data["panel"])) == ["sparsity 0.95", "sparsity 0.99"]
    assert figure.summary.startswith("Means at sparsity 0.99: dense")
    assert figure.summary.endswith(f"both {mean['accuracy']:.1%}.")


# --- the course --------------------------------------------------------------------------------------


def candidate(step, accuracy, side=0, operators=("elu", "tanh"), **more):
    return {"stage": "stage1", "sparsity": 0.99, "seed": 0, "step": step, "candidate": side, "accuracy": accuracy,
            "operators": list(operators), "known": False, "diverged": False, "seconds": 2.0, "epochs": 5} | more


def trial(number, accuracy, **more):
    return {"stage": "both", "sparsity": 0.99, "seed": 0, "trial": number, "accuracy": accuracy, "stopped": False,
            "diverged": False, "optimizer": "adam", "learning_rate": 0.01, "epochs": 5} | more  # fmt: skip


def write_candidates(root, *rows, end="\n"):
    (root / "candidates.jsonl").write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
                                           + end)  # fmt: skip


def test_the_best_so_far_is_of_candidates_that_were_trained_to_the_end_in_their_order(small):
    root, _ = small
    write_candidates(root, candidate(1, 0.3), candidate(0, 0.2), candidate(2, 0.9, diverged=True),
                     candidate(2, 0.4, side=1), candidate(3, 0.35, known=True), trial(1, 0.8, stopped=True),
                     trial(0, None), trial(2, 0.5), trial(3, 0.45))  # fmt: skip
    found = read_safs(read_search(root)).candidates
    first = found[found["stage"] == "stage1"]
    assert first["number"].tolist() == [1, 2, 3, 4, 5]
    assert first["accuracy"].tolist() == [0.2, 0.3, 0.9, 0.4, 0.35]
    assert first["best"].tolist() == [0.2, 0.3, 0.3, 0.4, 0.4]
    assert first["fate"].tolist() == ["trained", "trained", "diverged", "trained", "taken over"]
    second = found[found["stage"] == "both"]
    assert second["fate"].tolist() == ["trained", "stopped early", "trained", "trained"]
    np.testing.assert_array_equal(second["best"], [np.nan, np.nan, 0.5, 0.5])
    captions = {id: parts_of(root)[1][id] for id in ("course-stage1", "course-both")}
    assert "3 trained, 1 taken over, 1 diverged." in captions["course-stage1"].summary
    assert "1 without an accuracy are not shown" in captions["course-both"].caption
    assert "is 40.0% in the end" in captions["course-stage1"].summary


def test_of_a_candidate_that_is_there_twice_the_last_counts(small):
    root, _ = small
    write_candidates(root, candidate(0, 0.2), candidate(1, 0.3), candidate(1, 0.4))
    assert read_safs(read_search(root)).candidates["accuracy"].tolist() == [0.2, 0.4]


def test_a_torn_last_line_is_passed_over_and_other_damage_is_told(small):
    root, _ = small
    write_candidates(root, candidate(0, 0.2), '{"stage": "sta', end="")
    found = read_safs(read_search(root))
    assert (len(found.candidates), found.notes) == (1, [])
    write_candidates(root, candidate(0, 0.2), "{", {"stage": "stage9"}, candidate(None, 0.3), "[]")
    found = read_safs(read_search(root))
    assert len(found.candidates) == 1
    assert found.notes == ["4 of the lines of candidates.jsonl cannot be read, and are left out."]


def test_every_pipeline_has_a_panel_sparsities_first(whole):
    panels = parts_of(whole[0])[1]["course-stage1"].data["panel"].unique()
    assert panels.tolist() == [f"sparsity {s} · seed {i}" for s in ("0.95", "0.99") for i in range(3)]


# --- operators ---------------------------------------------------------------------------------------


def test_choices_are_counted_over_pipelines(small):
    root, _ = small
    write_result(root, measured(*[{"default": 0.5, "both": 0.6}] * 3))
    parts = parts_of(root)[1]
    data = parts["operator-choices"].data
    assert data[data["pipelines"] > 0][["layer", "operator", "pipelines", "of"]].to_numpy().tolist() == [
        ["0", "elu", 3, 3], ["1", "tanh", 3, 3],
    ]  # fmt: skip
    assert (data["pipelines"] == 0).sum() == len(data) - 2  # what nobody chose has a cell, too
    rows = specification(parts["operator-choices"].draw(data))["layer"][0]["encoding"]["y"]["sort"]
    assert set(rows[:2]) == {"elu", "tanh"}  # those chosen most often first
    assert len(rows) > 4
    assert parts["operators"].frame.to_numpy().tolist() == [[str(seed), "elu", "tanh"] for seed in range(3)]


def test_what_an_operator_is_worth_is_the_mean_of_those_that_have_it(small):
    """Seed 0: .2, .4, .6, mean .4; elu somewhere in .2 and .6. Seed 1: .5 and .7, mean .6; elu in .7."""
    root, _ = small
    write_candidates(
        root, candidate(0, 0.2, operators=("elu", "elu")), candidate(1, 0.4, operators=("tanh", "gelu")),
        candidate(2, 0.6, operators=("elu", "tanh")), candidate(3, 0.99, operators=("elu", "tanh"), known=True),
        candidate(0, 0.5, operators=("gelu", "gelu"), seed=1), candidate(1, 0.7, operators=("gelu", "elu"), seed=1),
    )  # fmt: skip
    write_result(root, measured({"default": 0.5}, {"default": 0.5}))
    parts = parts_of(root)[1]
    cells = parts["operator-effects"].data.set_index(["layer", "operator"])
    assert cells.loc[("0", "elu"), ["accuracy", "candidates", "seeds"]].tolist() == pytest.approx([0.4, 2, 1])
    assert cells.loc[("1", "elu"), ["accuracy", "candidates", "seeds"]].tolist() == pytest.approx([0.45, 2, 2])
    table = parts["operator-means"].frame.set_index("operator")
    row = table.loc["elu"]
    assert (row["candidates"], row["chosen"], row["seeds"]) == (3, 2, 2)
    assert row["mean accuracy"] == pytest.approx(0.5)
    assert row["difference"] == pytest.approx((0.0 + 0.1) / 2)  # .4 − .4 and .7 − .6
    assert row["to"] > row["difference"] > row["from"]
    assert table.index[0] == "tanh"  # the order is by difference; this one is of one seed, without an interval
    assert table.loc["tanh", "difference"] == pytest.approx(0.1)
    assert pd.isna(table.loc["tanh", "from"])


# --- what was learned, tuned and spent ---------------------------------------------------------------


def test_scales_are_those_of_layers_or_means_and_ranges_of_neurons(tmp_path):
    write_safs(tmp_path / "layer", **FEW)
    table = parts_of(tmp_path / "layer")[1]["scales"]
    assert list(table.frame) == ["seed", "network", "layer", "operator", "α", "β"]
    result = write_safs(tmp_path / "neuron", **FEW, neurons=5)
    table = parts_of(tmp_path / "neuron")[1]["scales"].frame
    row = table[(table["seed"] == "1") & (table["network"] == "both") & (table["layer"] == "2")].iloc[0]
    alpha = result["pipelines"][1]["scales"]["both"][2]["alpha"]
    assert row[["α", "α from", "α to"]].tolist() == pytest.approx([np.mean(alpha), min(alpha), max(alpha)])
    assert row["operator"] == result["pipelines"][1]["operators"][2]
    assert set(table[table["network"] == "stage 2"]["operator"]) == {"relu"}  # as its curves say


def test_the_learned_functions_are_the_curves_of_the_last_stage_and_the_default(whole):
    root, result, _ = whole
    data = parts_of(root)[1]["functions"].data
    assert set(data["network"]) == {"both", "default"}
    wanted = next(c for c in result["curves"] if (c["column"], c["layer"], c["seed"], c["sparsity"])
                  == ("both", 3, 2, 0.99))  # fmt: skip
    mine = data[(data["panel"] == "sparsity 0.99 · layer 3") & (data["seed"] == "2") & ~data["default"]]
    np.testing.assert_allclose(mine["y"], wanted["y"])
    np.testing.assert_allclose(mine["x"], wanted["x"])
    assert set(mine["operator"]) == {wanted["operator"]}
    spec = specification(parts_of(root)[1]["functions"].draw(data))
    assert any("strokeDash" in layer["mark"] for layer in spec["spec"]["layer"])


def test_a_curve_of_no_layer_is_left_out(small):
    root, result = small
    for layer in (-1, len(result["layers"]), "0", None, True):
        write_result(root, result | {"curves": [one | {"layer": layer} for one in result["curves"]]})
        assert read_safs(read_search(root)).curves.empty


def test_chosen_hyper_parameters_stand_beside_the_accuracy_of_their_trial(whole):
    root, result, _ = whole
    table = parts_of(root)[1]["tuned"].frame
    row = table[(table["sparsity"] == "0.99") & (table["seed"] == "0") & (table["network"] == "both")].iloc[0]
    pipeline = next(one for one in result["pipelines"] if (one["sparsity"], one["seed"]) == (0.99, 0))
    chosen = pipeline["hyperparameters"]["both"]
    assert [row["optimizer"], row["learning rate"], row["schedule"]] == [
        chosen["optimizer"], chosen["learning_rate"], chosen["lr_schedule"],
    ]  # fmt: skip
    lines = [json.loads(line) for line in (root / "candidates.jsonl").read_text().splitlines()]
    (same,) = [one for one in lines if one.get("learning_rate") == chosen["learning_rate"]]
    assert row["best validation"] == same["accuracy"]


def test_costs_are_sums_over_candidates(small):
    root, _ = small
    write_candidates(root, candidate(0, 0.2, flops=1e9), candidate(1, 0.3, flops=2e9, diverged=True),
                     candidate(2, 0.2, known=True, seconds=0, flops=0, epochs=0), trial(0, 0.5, seconds=1.5, flops=4e9),
                     trial(1, 0.1, stopped=True, seconds=0.5, flops=1e9, epochs=1))  # fmt: skip
    write_result(root, measured({"default": 0.5}) | {"seconds": {"start": 7, "stage1": 5.0, "final": "x"}})
    table = parts_of(root)[1]["cost"].frame.set_index("part")
    assert table.loc["stage 1"].tolist() == [3, 1, 0, 1, 10, 4.0, 3e9]
    assert table.loc["both", ["candidates", "stopped early", "epochs", "seconds", "FLOPs"]].tolist() == [
        2, 1, 6, 2.0, 5e9,
    ]  # fmt: skip
    assert table.loc["together"].tolist() == [5, 1, 1, 1, 16, 13.0, 8e9]
    assert table.index.tolist() == ["networks to start from", "stage 1", "both", "together"]
    (root / "candidates.jsonl").unlink()  # what result.json says of a stage is shown where its candidates are lost
    assert parts_of(root)[1]["cost"].frame.to_numpy().tolist() == [
        ["networks to start from", 7.0], ["stage 1", 5.0], ["together", 12.0],
    ]  # fmt: skip


# --- other states of the files -----------------------------------------------------------------------


def test_an_unfinished_search_shows_what_there_is_and_says_what_is_missing(tmp_path):
    root = tmp_path / "w"
    write_safs(root, **FEW, ended=False)
    words, parts = parts_of(root)
    assert words.completeness == "39 candidates (stage 1 15, stage 2 12, both 12) so far; the search has not ended."
    assert words.title == "Activation functions for sparse lenet5_safs on mnist"
    best = max(json.loads(line)["accuracy"] for line in (root / "candidates.jsonl").read_text().splitlines())
    assert words.headline[0].startswith(f"The best validation accuracy so far is {best:.1%}, in stage 2")
    missing = {id for id, part in parts.items() if isinstance(part, Missing)}
    assert missing == {"networks-table", "networks", "gains", "operator-choices", "operators", "functions", "scales",
                       "tuned"}  # fmt: skip
    assert {parts[id].reason for id in missing} == {"The search has not ended: there is no result.json yet."}
    assert isinstance(parts["cost"], Table)
    assert "chosen" not in parts["operator-means"].frame


def test_a_search_that_has_only_begun_has_a_page(tmp_path):
    write_safs(tmp_path / "w", **FEW, ended=False)
    (tmp_path / "w" / "candidates.jsonl").unlink()
    words, parts = parts_of(tmp_path / "w")
    assert words.headline == ["No candidate has been scored yet."]
    assert words.notes == ["There is no candidates.jsonl, so that nothing is known of the candidates."]
    assert {type(part) for part in parts.values()} == {Missing}
    assert built(tmp_path / "w").tags.count("figure") == 0


def test_without_candidates_the_result_is_shown(small):
    root, _ = small
    (root / "candidates.jsonl").unlink()
    words, parts = parts_of(root)
    assert "points (95% interval" in words.headline[0]
    assert isinstance(parts["course-stage1"], Missing)
    assert isinstance(parts["networks"], Figure)


@pytest.mark.parametrize(("text", "words"), {
    "{": "result.json is damaged", '{"search": "wann"}': "is not that of this search, safs, but says 'wann'",
    "[]": "result.json is damaged", '{"search": "safs"}': "names no network that was trained",
    '{"search": "safs", "pipelines": [7, {"networks": 3}], "curves": {"a": 1}, "layers": "x", "seconds": []}':
        "names no network that was trained",
}.items())  # fmt: skip
def test_a_damaged_or_foreign_result_is_told_and_candidates_are_shown(small, text, words):
    root, _ = small
    (root / "result.json").write_text(text)
    told, parts = parts_of(root)
    assert any(words in note for note in told.notes)
    assert isinstance(parts["course-stage1"], Figure)
    assert isinstance(parts["networks"], Missing)
    assert told.completeness.endswith("ended.")


def test_values_that_are_none_or_no_numbers_are_left_out(small):
    """NaN as Python's json writes it, null, texts and lists in the place of every number of a seed."""
    root, result = small
    for junk in (float("nan"), None, "x", [1], {}, True, 10**400):
        broken = json.loads(json.dumps(result))
        one = broken["pipelines"][0]
        one["networks"]["both"] = {"validation_accuracy": junk, "test_accuracy": junk, "connections": junk}
        one["scales"]["both"][0] = {"alpha": junk, "beta": junk} if junk is not True else junk
        one["hyperparameters"]["both"] = dict.fromkeys(one["hyperparameters"]["both"], junk)
        broken["curves"][0] |= {"y": [junk] * 61}
        broken["curves"][1] |= {"sparsity": junk, "seed": 9}
        broken["seconds"]["stage1"] = junk
        write_result(root, broken)
        words, parts = parts_of(root)
        assert "95% interval" in words.headline[0]
        assert ", 2 seeds, paired" in words.headline[0]
        assert isinstance(parts["scales"], Table)
    fill(words, search_page(read_search(root))[1], [], None, None)


def test_candidates_that_are_odd_do_no_harm(small):
    root, _ = small
    odd = iter([{"operators": None}, {"operators": ["elu"] * 9}, {"accuracy": None}, {"accuracy": float("nan")},
                {"learning_rate": -1, "optimizer": None}, {"seed": None}, {"sparsity": "x"}, {"epochs": []},
                {"trial": None}])  # fmt: skip
    edit_candidates(root, lambda line: line | next(odd, {}))
    words, parts = parts_of(root)
    assert isinstance(parts["course-stage1"], Figure)
    assert words.notes == ["1 of the lines of candidates.jsonl cannot be read, and are left out."]
    fill(words, search_page(read_search(root))[1], [], None, None)


def test_a_number_is_finite_and_no_truth_value():
    assert [number(value) for value in (1, 0.5, -3)] == [1.0, 0.5, -3.0]
    assert all(math.isnan(number(value)) for value in (None, True, "1", [], float("inf"), float("nan"), 10**400))


def test_one_seed_without_a_sparsity_has_a_page(tmp_path):
    root = tmp_path / "w"
    write_safs(root, seeds=1, steps=3, trials=3, sparsities=(None,), layers=1)
    words, parts = parts_of(root)
    assert "sparsity" not in words.headline[0]
    assert words.varied == "one seed, 1 layer"
    assert "sparsity" not in parts["gains"].frame
    assert "There is one seed, so no interval is shown." in parts["networks"].caption
    for part in parts.values():
        if isinstance(part, Figure):
            assert "facet" not in specification(part.draw(part.data)) or part.id == "rates"


def test_where_epsilon_says_how_sparse_networks_are_its_pipelines_are_told_apart(small):
    root, _ = small
    networks = [{"default": 0.5, "both": 0.5 + gained} for gained in (0.1, 0.11)]
    result = measured(*networks, *networks)
    for one, epsilon in zip(result["pipelines"], (5, 5, 20, 20), strict=True):
        one |= {"sparsity": None, "epsilon": epsilon, "seed": one["seed"] % 2}
    write_result(root, result)
    write_candidates(root, *(candidate(0, 0.2, sparsity=None, epsilon=epsilon) for epsilon in (5, 20)))
    words, parts = parts_of(root)
    assert words.again[0]["commands"].endswith("--epsilon=20,5 --num_seeds=2 --first_seed=0")
    assert words.headline[0].startswith("Searched activation functions raise the test accuracy of m at epsilon 20 from")
    assert " at epsilon 5 from 50.0% to 60.5%: " in words.headline[1]
    assert parts["gains"].frame["seeds"].tolist() == [2, 2]
    assert parts["gains"].frame["sparsity"].tolist() == ["epsilon 20", "epsilon 5"]
    assert parts["course-stage1"].data["panel"].tolist() == ["epsilon 20 · seed 0", "epsilon 5 · seed 0"]


def test_levels_are_in_order_whatever_they_are(small):
    root, _ = small
    sparse = [{"sparsity": 0.99}, {"sparsity": 0.9}, {"epsilon": 5}, {"epsilon": 100}, {}]
    write_candidates(root, *(candidate(0, 0.2, **{"sparsity": None} | one) for one in sparse))
    (root / "result.json").unlink()
    assert read_safs(read_search(root)).sparsities == ("–", "epsilon 100", "epsilon 5", "0.9", "0.99")


def test_stages_that_nobody_asked_for_are_told(tmp_path):
    root = tmp_path / "w"
    write_safs(root, **FEW, columns=("dense", "default", "stage1"))
    words, parts = parts_of(root)
    assert words.headline[0].startswith("Searched operators raise")
    assert parts["scales"].reason == "result.json has no scales: stage 2 was not asked for."
    assert parts["tuned"].reason == "result.json has no hyper-parameters: stage 2 was not asked for."
    assert parts["course-both"].reason == "No candidate of both has been scored."


def test_divergence_is_told(small):
    root, result = small
    result["pipelines"][0]["networks"]["stage1"] |= {"diverged": True, "test_accuracy": 0.1}
    write_result(root, result)
    edit_candidates(root, lambda line: line | {"diverged": line["seed"] == 1 and line["stage"] == "both"})
    notes = parts_of(root)[0].notes
    assert notes == ["1 of 15 networks diverged; those with an accuracy are in the means.",
                     "4 of 39 candidates diverged."]  # fmt: skip


def test_many_layers_have_maps_without_words(tmp_path):
    root = tmp_path / "w"
    write_safs(root, **FEW, layers=24)
    for id in ("operator-choices", "operator-effects"):
        figure = parts_of(root)[1][id]
        (rows,) = specification(figure.draw(figure.data))["datasets"].values()
        assert {row["text"] for row in rows} == {""}


# --- the page and its files --------------------------------------------------------------------------


def test_every_figure_and_table_lies_beside_the_page(whole):
    root, _, page = whole
    folder = root / "report"
    linked = {address for address in page.addresses if not address.startswith(("#", "data:"))}
    assert linked == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {
        "index.html"
    }
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert figures == {"networks", "course-stage1", "course-stage2", "course-both", "operator-choices",
                       "operator-effects", "functions", "rates"}  # fmt: skip
    for name in figures:
        assert (folder / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF-")
        assert (folder / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len((folder / f"figures/{name}.csv").read_text().splitlines()) > 1
    tables = {path.name for path in (folder / "tables").iterdir()}
    names = ("networks-table", "gains", "operators", "operator-means", "scales", "tuned", "cost")
    assert tables == {f"{name}.{ending}" for name in names for ending in ("csv", "tex")}
    assert r"$\alpha$" in (folder / "tables" / "scales.tex").read_text()


def test_the_page_is_that_of_a_search_without_filters_and_runs(whole):
    _, _, page = whole
    assert "report of a search" in page.text
    assert not {"form", "select", "input"} & set(page.tags)
    assert "runs-table" not in page.rows
    assert not any(address in ("#runs", "#filters") for address in page.addresses)
    anchors = [address for address in page.addresses if address.startswith("#")]
    assert anchors[1:] == ["#in-short", "#networks", "#course", "#operators", "#learned", "#tuned", "#cost", "#again"]
    assert [address for address in page.addresses if "//" in address] == []


def test_the_command_that_repeats_a_search_has_all_its_flags(whole):
    root, _, page = whole
    command = next(line for line in page.text.splitlines() if "launch/search.py safs" in line)
    assert "--model=lenet5_safs --dataset=mnist --steps=20 --trials=20" in command
    assert "--sparsity=0.95,0.99 --num_seeds=3 --first_seed=0" in page.text
    (again,) = parts_of(root)[0].again
    assert again["sessions"]["names"] == ["commit", "device", "data", "python", "jax"]
    begun = json.loads((root / "search.json").read_text())
    begun["settings"] = {f"flag{i}": "a b" for i in range(30)}
    (root / "search.json").write_text(json.dumps(begun))
    (again,) = parts_of(root)[0].again
    lines = again["commands"].split(" \\\n")
    assert len(lines) > 3
    assert max(map(len, lines)) < 120
    assert " ".join("".join(f"{line} " for line in lines).split()) == "python launch/search.py safs " + " ".join(
        f"'--flag{i}=a b'" for i in range(30)
    ) + " --sparsity=0.95,0.99 --num_seeds=3 --first_seed=0"


def test_texts_of_the_files_do_no_harm(small):
    root, result = small
    result |= {"model": EVIL, "layers": [EVIL, *result["layers"][1:]]}
    result["pipelines"][0]["operators"][0] = EVIL
    result["curves"][-1]["operator"] = EVIL
    write_result(root, result)
    edit_candidates(root, lambda line: line | {"operators": [EVIL, *line["operators"][1:]]})
    page = built(root)
    assert "img" not in page.tags
    data = [name for name in page.scripts if name.startswith("data-")]
    assert all(json.loads(page.scripts[name]) for name in data)
    assert page.tags.count("script") == len(data) + 3
    assert page.text.count(EVIL) > 2


def test_a_search_is_followed_until_its_result_is_there(tmp_path, monkeypatch):
    root, pages = tmp_path / "w", []
    result = write_safs(root, **FEW, ended=False)

    def sleep(seconds):
        assert seconds == 7
        pages.append((root / "report" / "index.html").read_text())
        write_result(root, result)

    monkeypatch.setattr(build.time, "sleep", sleep)
    assert build.report([str(root)], "", 7.0) == 0
    assert len(pages) == 1
    assert 'data-follow="7"' in pages[0]
    assert "This search is still running" in pages[0]
    assert "data-follow" not in (root / "report" / "index.html").read_text().split("<main")[0]


def test_what_cannot_be_one_report_is_refused_in_one_line(small, tmp_path):
    root, _ = small
    write_study(tmp_path / "study", **SMALL)
    shutil.copytree(root, tmp_path / "other")
    texts = {"damaged": "{", "unset": '{"search": "safs"}', "unknown": '{"search": "saf", "settings": {}}'}
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "search.json").write_text(text)
    (tmp_path / "empty").mkdir()
    (tmp_path / "published.csv").write_text("published\n50\n")
    before = sorted(tmp_path.rglob("*"))
    cases = {
        ("w", "study"): "cannot be in one report", ("study", "w"): "cannot be in one report",
        ("w", "other"): "are two: name one of them", ("damaged",): "search.json is damaged: restore it",
        ("unset",): "search.json is damaged", ("unknown",): "Did you mean 'safs'", ("empty",): "no search.json",
    }  # fmt: skip
    for names, words in cases.items():
        with pytest.raises(UserError, match=re.escape(words)) as caught:
            build.report([str(tmp_path / name) for name in names], "", None)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="--published goes with a study"):
        build.report([str(root)], "", None, [str(tmp_path / "published.csv")])
    assert sorted(tmp_path.rglob("*")) == before
    assert open_search([str(root), f"{root}/"], []).root == root  # named twice, it is one


def test_the_program_builds_the_page_of_a_search_without_jax(tmp_path):
    write_safs(tmp_path / "w", seeds=2, steps=2, trials=2)
    found = program(tmp_path / "w", f"--out={tmp_path / 'out'}", cwd=tmp_path, forbidden=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert (tmp_path / "out" / "figures" / "networks.pdf").is_file()
    both = program(tmp_path / "w", tmp_path / "none", cwd=tmp_path, forbidden=tmp_path)
    assert both.returncode == 2
    assert both.stderr.count("\n") == 1
