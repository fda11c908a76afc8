"""The report's section on which weights matter, from workdirs whose ablations were never made."""

import json

import numpy as np
import pandas as pd
import pytest

from sparse_jax.config import AblationConfig
from sparse_jax.report.ablation_parts import ablation_parts, ablation_sentence
from sparse_jax.report.ablations import less, over_seeds, plain_areas, read_ablations
from sparse_jax.report.exhibits import Figure, Missing, find
from sparse_jax.report.frames import layout_of
from sparse_jax.report.records import open_sources, read
from sparse_jax.report.tables import Table
from sparse_jax.study.ablations import add_experiments
from sparse_jax.study.store import open_store
from tests.report_store import write_study

PLAIN = {"scope": "layer", "retrain_steps": 0, "part": "test", "which": "final", "layers": "", "examples": None,
         "retrain_rate": None, "fractions": list(AblationConfig().fractions)}  # fmt: skip
KEEPS = {"smallest": 0.9, "random": 0.5, "largest": 0.2}  # of the accuracy, with half of the connections gone


def settings(kind, name, **changes):
    return {"kind": kind, "name": name} | PLAIN | changes


def experiments(activation, seed):
    """As of a network with 90 % accuracy; tanh keeps a tenth more than relu, and a seed a hundredth more."""
    more = (0.1 if activation == "tanh" else 0.0) + 0.01 * seed
    for name, kept in KEEPS.items():
        accuracies = (0.9, 0.9 * kept + more, 0.1)
        points = [{"from": 0.0, "to": q, "removed": 1, "accuracy": a, "loss": 1.0}
                  for q, a in zip((0.0, 0.5, 1.0), accuracies, strict=True)]  # fmt: skip
        yield {"settings": settings("order", name), "connections": 9, "points": points}
    retrained = [{"from": 0.0, "to": q, "removed": 1, "accuracy": 0.9, "loss": 1.0} for q in (0.0, 1.0)]
    again = settings("order", "smallest", retrain_steps=9, retrain_rate=0.1)
    yield {"settings": again, "connections": 9, "points": retrained}
    tenths = [{"from": 0.0, "to": 0.0, "accuracy": 0.9}]
    tenths += [{"from": i / 10, "to": (i + 1) / 10, "accuracy": 0.9 - i / 100} for i in range(10)]
    yield {"settings": settings("order", "decile"), "connections": 9, "points": tenths}
    for name, accuracy in {"unchanged": 0.9, "signs_shuffled": 0.3}.items():
        yield {"settings": settings("edit", name), "connections": 9, "points": [{"accuracy": accuracy, "loss": 1.0}]}
    shared = [{"weight": w, "accuracy": a, "loss": 1.0} for w, a in ((-1.0, 0.2), (1.0, 0.4))]
    yield {"settings": settings("shared_weight", "shared_weight"), "connections": 9, "points": shared,
           "vote_accuracy": 0.5}  # fmt: skip
    correlations = {"all": {"smallest": 0.5 + more, "gradient": None}}
    yield {"settings": settings("order", "leave_one_out", examples=1000), "connections": 9, "points": retrained,
           "correlations": correlations}  # fmt: skip


def findings_of(root):
    records = read(open_sources([str(root)]))
    return find(records, layout_of(records)), records


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path / "w", methods=("set",), sparsities=(0.9, 0.99), seeds=3)
    store = open_store(tmp_path / "w")
    for run_id, result in store.read_results().items():
        activation, seed = run_id.split("-")[3], int(run_id.rpartition("seed")[2])
        add_experiments(store, run_id, result, experiments(activation, seed))
    return tmp_path / "w"


def test_every_part_is_there_and_says_what_was_measured(study):
    findings, _ = findings_of(study)
    parts = {part.id: part for part in ablation_parts(findings, {})}
    assert [type(part) for part in parts.values()] == [Figure, Table, Figure, Table, Table, Table, Table]
    areas = parts["ablation-areas"].frame
    plain = areas[areas["variant"] == ""] if "" in set(areas["variant"]) else areas
    row = plain[(plain["order"] == "smallest") & (plain["activation"] == "relu") & (plain["sparsity"] == "0.9")].iloc[0]
    # (.9 + 2 (.81 + .01) + .1) / 4, the seed's hundredths being 0, 1 and 2
    assert row["area"] == pytest.approx((0.9 + 2 * 0.82 + 0.1) / 4)
    assert row["less random"] == pytest.approx((0.81 - 0.45) / 2)
    assert row["seeds"] == 3
    curve = parts["ablation-curves"].data
    half = curve[(curve["removed"] == 0.5) & (curve["order"] == "largest")]
    assert set(half["mean"].round(6)) == {0.19, 0.29}
    lost = parts["ablation-deciles"].data
    assert lost["mean"].round(6).unique().tolist() == [i / 100 for i in range(10)]
    edits = parts["ablation-edits"].frame
    assert edits[edits["edit"] == "signs_shuffled"]["less unchanged"].round(6).unique().tolist() == [-0.6]
    shared = parts["shared-weights"].frame
    assert shared[["-1", "1", "mean", "best", "vote"]].iloc[0].tolist() == pytest.approx([0.2, 0.4, 0.3, 0.4, 0.5])
    rho = parts["importance"].frame
    assert set(rho["score"]) == {"smallest"}
    assert set(rho["where"]) == {"all layers"}
    assert parts["ablation-deciles"].summary.startswith("On average 0.0% without the smallest tenth and 9.0% without")
    assert parts["ablation-curves"].data["band_high"].max() <= 1
    assert "variant" not in parts["ablation-edits"].frame
    assert set(areas["variant"]) == {"", "+9 steps"}
    assert sorted(rho["ρ"].round(6).unique()) == [0.51, 0.61]


def test_a_planted_difference_of_robustness_is_a_rule_and_the_headline_has_the_order(study):
    findings, _ = findings_of(study)
    rules = next(part for part in ablation_parts(findings, {}) if part.id == "ablation-rules")
    assert rules.frame["rule"].str.startswith("Activation tanh instead of relu adds 5.0 points of accuracy kept").any()
    (sentence,) = ablation_sentence(findings.ablations)
    # (.9 + 2 (.81 + .01) + .1) / 4 = .66 of relu, .05 more of tanh; (.9 + 2 (.45 + .01) + .1) / 4 = .48, and .345
    assert "68.5% with the smallest first, 50.5% at random and 37.0% with the largest first" in sentence
    assert "in 12 networks" in sentence


def test_without_an_ablation_one_sentence_says_how_to_make_it(tmp_path):
    write_study(tmp_path / "w", seeds=1)
    (part,) = ablation_parts(findings_of(tmp_path / "w")[0], {})
    assert isinstance(part, Missing)
    assert "python launch/ablate.py" in part.reason


def test_ablations_of_other_weights_and_damaged_files_do_not_count(study):
    paths = sorted(study.glob("runs/*/ablations.json"))
    paths[0].write_text("{")
    paths[1].write_text(json.dumps(json.loads(paths[1].read_text()) | {"digest": "another"}))
    findings, records = findings_of(study)
    assert set(findings.ablations.curves["run"]) == set(records.finished.index[2:])


def test_differences_are_taken_within_a_run():
    frame = pd.DataFrame({"run": [0, 0, 1], "variant": "", "order": ["random", "smallest", "smallest"],
                          "area": [0.2, 0.5, 0.7]})  # fmt: skip
    found = less(frame, "area", "order", "random")["less"].tolist()
    assert found[:2] == pytest.approx([0.0, 0.3])
    assert np.isnan(found[2])


def test_only_areas_made_in_the_usual_way_are_compared(study):
    findings, records = findings_of(study)
    found = read_ablations(records)
    assert plain_areas(found, "smallest").max() < 0.9
    rows = over_seeds(found.areas, "area", ("order", "variant"), records, findings.layout)
    assert rows["mean"].max() == pytest.approx(0.9)
