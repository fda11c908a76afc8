"""The tutorials train networks that generalise."""

import runpy
from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).parents[1] / "configs" / "tutorials").glob("*.py"))
LONG = {"own_criterion", "own_transformer", "study_to_report", "sparse_and_export"}
CASES = [pytest.param(path, marks=[pytest.mark.slow] * (path.stem in LONG)) for path in TUTORIALS]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_tutorial_reaches_its_accuracy(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where some write results
    assert runpy.run_path(str(path))["main"]() > 0.85  # ten classes
