"""launch/benchmark.py runs; what it measures is not for tests."""

import json

import pytest

from tests.program import run

NAMES = {"cohort step", "topology update", "ablation", "sparse layer", "candidates"}


@pytest.mark.parametrize("only", ["cohort step", pytest.param("", marks=pytest.mark.slow)])
def test_a_short_round_of_everything(tmp_path, only):
    done = run("--smoke", f"--only={only}", "--json=found.json", cwd=tmp_path, program="benchmark.py")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["measurements"]
    assert all(one["ours"] and (one["ratio"] is None or one["ratio"] > 0) for one in found)
    names = {one["name"] for one in found}
    assert names == {only} if only else names > NAMES


def test_no_measurement_of_that_name(tmp_path):
    done = run("--only=cohort_step", "--json=found.json", cwd=tmp_path, program="benchmark.py")
    assert done.returncode == 2
    assert "unknown measurement 'cohort_step'. Did you mean 'cohort step'?" in done.stderr
    assert not list(tmp_path.iterdir())
