"""How long a study will take, before it begins."""

import jax
import numpy as np
import pytest

from sparse_jax.study import estimate as module
from sparse_jax.study.estimate import estimate, in_words
from sparse_jax.study.memory import bytes_per_run
from sparse_jax.study.store import open_store
from sparse_jax.training import hardware
from sparse_jax.training.hardware import Hardware
from tests.program import SMALL, run
from tests.test_grid import study_of


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A CPU of a billion operations a second."""
    monkeypatch.setattr(module, "_speed", lambda: 1e9)
    monkeypatch.setattr(module, "computes_on_cpu", lambda: True)


def test_the_time_is_that_of_the_operations_of_the_steps_and_the_cohorts(store):
    """64-100-10 on batches of 50: 7,400 weights, three products of two operations, and what a step takes besides."""
    study = study_of(method=["dense"], hidden_sizes=[(100,)], batch_size=[50], epochs=[3], num_seeds=2)
    steps = study.runs[0].problem.steps
    expected = 2 * steps * (3 * 2 * 7400 * 50 / 1e9 + module.STEP_SECONDS) + module.COHORT_SECONDS
    seconds, words = estimate(study, store)
    assert seconds == pytest.approx(expected)
    assert words == "by the operations and the speed of products on this machine"


def test_finished_runs_correct_it_and_count_no_more(store):
    study = study_of(method=["dense"], num_seeds=4)
    all_of_it, _ = estimate(study, store)
    for one in study.runs[:3]:
        model = module._seconds(one, 1e9)
        store.write_result(one.id, {"seconds": 2 * model})
    seconds, words = estimate(study, store)
    assert seconds == pytest.approx(2 * ((all_of_it - module.COHORT_SECONDS) / 4 + module.COHORT_SECONDS))
    assert words == "by 3 finished runs"


def test_an_accelerator_is_known_by_its_runs_only(store, monkeypatch):
    monkeypatch.setattr(module, "computes_on_cpu", lambda: False)
    study = study_of(num_seeds=2)
    assert estimate(study, store) is None
    store.write_result(study.runs[0].id, {"seconds": 3.0})
    assert estimate(study, store)[1] == "by 1 finished runs"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.1, "1 s"), (89, "89 s"), (91, "2 min"), (5000, "83 min"), (5500, "2 h"), (170_000, "47 h"), (2e5, "3 days")],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words


def test_the_plan_says_how_long(tmp_path):
    command = (*SMALL, "--sparsity=0.5", "--epochs=1", "--workdir=w")
    assert "\nabout " in run(*command, "--dry_run", cwd=tmp_path).stdout
    assert not (tmp_path / "w").exists()
    assert run(*command, cwd=tmp_path).returncode == 0
    assert run(*command, "--dry_run", cwd=tmp_path).stdout.endswith("nothing is left to train\n")
    assert "which has 1 of the runs\nabout " in run(*command, "--num_seeds=2", "--dry_run", cwd=tmp_path).stdout


def test_as_many_runs_train_together_as_memory_holds(monkeypatch):
    """Of 100 MB runs may take half."""
    monkeypatch.setattr(hardware, "_host_memory", lambda: 100 * 2**20)
    devices = tuple(jax.devices()[:1])
    runs_of = Hardware(devices, "map", 32).group_size
    assert [runs_of(size * 2**20) for size in (1, 2, 10, 49, 51, 1000)] == [32, 25, 5, 1, 1, 1]
    assert Hardware(devices, "vmap", 32).group_size(10**9) == 32  # lanes are part of a result
    (one,) = study_of(method=["dense"], hidden_sizes=[(100,)], optimizer=["sgd"], validation_fraction=[0.0]).runs
    assert bytes_per_run(one) == 4 * np.array([64 * 100, 100 * 10]).sum() * 2  # weights and gradients
