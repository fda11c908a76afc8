"""The parts of a search for activation functions, each with what surrounds it made up."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sparse_jax.config import SafsConfig, settings
from sparse_jax.search import safs_result, safs_run, safs_stage1, safs_stage2, side_by_side
from sparse_jax.search.safs_plan import LEVELS, NETWORK, values_of
from sparse_jax.search.side_by_side import SideBySide
from tests.safs_plans import devices, plan_of, search


def test_the_best_candidate_is_found_and_not_the_last(tmp_path, monkeypatch):
    """Annealing so hot that it accepts every move."""
    scores, seen = iter([0.5, 0.9, 0.2, 0.1, 0.3]), []

    def score(self, step, steps, candidates):
        seen.append(candidates[0, 0].tolist())
        return np.array([[next(scores)]])

    monkeypatch.setattr(safs_stage1._Scores, "__init__", lambda self, *args: None)
    monkeypatch.setattr(safs_stage1._Scores, "of", score)
    hot = {"strategy": "annealing", "annealing_from": 1000.0, "annealing_to": 1000.0}
    plan = plan_of(tmp_path, seeds=1, steps=4, **hot)
    (found,) = safs_stage1.find_operators(SimpleNamespace(plan=plan), None, None)
    assert list(found) == seen[1] != seen[-1]


def test_lanes_are_asked_about_when_they_have_come_as_far():
    """Of five lanes, of which four are occupied by the places 0, 1, 2, 3: the third is done, another lags behind."""
    lanes = {"active": np.array([True, True, False, True, False]), "epochs": np.array([3, 3, 2, 3, 0])}
    asked = []
    fake = SimpleNamespace(_accuracy=lambda lanes, lane: lane / 10)
    SideBySide._asked(fake, lanes, np.array([0, 2, 1, 3]), lambda *args: asked.append(args) or [False, True, False])
    assert asked == [(3, [0, 2, 3], [0.0, 0.1, 0.3])]
    assert lanes["active"].tolist() == [True, False, False, True, False]


def test_an_infinite_loss_is_divergence():
    tally = SimpleNamespace(correct=np.array([5, 6, 7]), loss=np.array([1.0, np.inf, 2.0]))
    report = SimpleNamespace(diverged=np.array([False, False, True]), validation=tally)
    cohort = SimpleNamespace(validate=lambda state, data: (state, report))
    lanes = side_by_side._nothing_yet(3, np.arange(3))
    SideBySide._scored(SimpleNamespace(cohort=cohort, data=None), None, lanes)
    assert lanes["diverged"].tolist() == [False, True, True]
    assert lanes["correct"].tolist() == [5, 0, 0]


@pytest.mark.parametrize(("line", "expected"), [
    ({"stopped": False, "diverged": True, "accuracy": 0.0}, ("told", 7, None)),
    ({"stopped": False, "diverged": False, "accuracy": 0.5}, ("told", 7, 0.5)),
    ({"stopped": True, "diverged": False, "accuracy": 0.4}, ("stopped", 7, 0.4)),
])  # fmt: skip
def test_what_the_tuner_hears_of_a_trial(line, expected):
    heard = []
    tuner = SimpleNamespace(
        tell=lambda *args: heard.append(("told", *args)), stopped=lambda *args: heard.append(("stopped", *args))
    )
    safs_stage2._tell(SimpleNamespace(tuner=tuner), 7, line)
    assert heard == [expected]


@pytest.mark.parametrize(("lines", "seconds"), [
    ([], 600), ([{"trial": 0, "seconds": 1.0}], 600), ([{"trial": 0, "seconds": 100.0}, {"seconds": 0.0}], 1000),
])  # fmt: skip
def test_trials_of_others_are_taken_over_when_they_are_late(lines, seconds, monkeypatch):
    """Ten times as late as the trials that this process knows, and ten minutes at least."""
    asked = []
    monkeypatch.setattr(safs_stage2.time, "sleep", lambda seconds: None)
    tuner = SimpleNamespace(waiting=lambda: True, left=lambda: 0, reclaim=lambda late: asked.append(late) or [])
    work = SimpleNamespace(
        records=SimpleNamespace(lines=lines), interrupt=SimpleNamespace(asked=False),
        meter=SimpleNamespace(advance=lambda *args: None),
    )  # fmt: skip
    safs_stage2._waits(work, [SimpleNamespace(tuner=tuner)])
    assert asked == [seconds]


def test_a_search_goes_on_only_with_all_settings_that_it_was_begun_with(tmp_path):
    assert set(values_of(plan_of(tmp_path).asked)) == {*settings(SafsConfig), *NETWORK} - {"storage", *LEVELS}


def test_half_of_an_interval_is_shown():
    row = {"mean": 0.5, "low": 0.4, "high": 0.6}
    assert safs_result._percent(row) == "50.00 ± 10.00"
    assert safs_result._percent(row | {"low": None}, signed=True) == "+50.00"


def test_networks_are_pruned_each_to_its_own_sparsity(tmp_path, monkeypatch):
    monkeypatch.setattr(safs_run, "set_up", devices(2))
    changes = {"sparsity": (0.5, 0.9), "epochs": 1}
    assert search(plan_of(tmp_path, seeds=1, steps=0, trials=0, candidate_epochs=1, networks=changes)) == 0
    pipelines = json.loads((tmp_path / "result.json").read_text())["pipelines"]
    assert [one["connections"] for one in pipelines] == [472, 94]
