"""The tutorials train networks that generalise."""

import runpy
from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).parents[1] / "configs" / "tutorials").glob("*.py"))
LONG = {"own_transformer"}
CASES = [pytest.param(path, marks=[pytest.mark.slow] * (path.stem in LONG)) for path in TUTORIALS]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_tutorial_reaches_its_accuracy(path):
    assert runpy.run_path(str(path))["main"]() > 0.85  # ten classes
