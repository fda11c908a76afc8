"""As many runs at once as there is memory for: sized beforehand, and halved where that was too many."""

from types import SimpleNamespace

import jax
import pytest

from sparse_jax.config import JAX_FOR_GPU, StudyConfig
from sparse_jax.errors import UserError
from sparse_jax.study.memory import bytes_per_batch, out_of_memory
from sparse_jax.study.train_group import Trainer
from sparse_jax.training import hardware
from sparse_jax.training.hardware import Hardware
from tests import test_study
from tests.program import rows
from tests.test_grid import study_of
from tests.test_study import InProcess, resumed

DEVICES = tuple(jax.devices()[:1])
TINY = {"train_size": [200], "hidden_sizes": [(9,)], "batch_size": [20], "epochs": [2], "num_seeds": 4}
FULL = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes."


def digests(done):
    return {run_id: result["digest"] for run_id, result in done.store.read_results().items()}


def in_process(folder, monkeypatch, layout, lanes):
    monkeypatch.setattr(test_study, "HARDWARE", Hardware(DEVICES, layout, lanes))
    return InProcess(folder, monkeypatch, **TINY)


def too_much_for(monkeypatch, fits):
    """Training runs out of memory after two pieces of work, unless the group fits."""
    chunk, counts = Trainer._chunk, {}

    def limited(self, *args):
        counts[self.group.id] = counts.get(self.group.id, 0) + 1
        self.checkpoint_seconds = 0
        if counts[self.group.id] > 2 and not fits(self.group):
            raise RuntimeError(FULL)
        return chunk(self, *args)

    monkeypatch.setattr(Trainer, "_chunk", limited)


def test_lanes_are_halved_until_they_fit_into_memory(monkeypatch):
    """Of 100 MB lanes may take half."""
    monkeypatch.setattr(hardware, "_host_memory", lambda: 100 * 2**20)
    lanes = [Hardware(DEVICES, "vmap", 32).fitting(size * 2**20).lane_width for size in (1, 2, 10, 49, 1000)]
    assert lanes == [32, 16, 4, 1, 1]
    assert Hardware(DEVICES, "map", 32).fitting(2**40).lane_width == 32  # where they are one after the other


def test_the_memory_of_a_batch():
    (one,) = study_of(method=["dense"], hidden_sizes=[(100,)], batch_size=[50]).runs
    assert bytes_per_batch(one) == 4 * 4 * 50 * (100 + 10)
    (one,) = study_of(method=["dense"], model=["vgg11"], width=[1 / 16], batch_size=[50]).runs
    assert bytes_per_batch(one) > 4 * 4 * 50 * 64 * 4  # the first layer's 4 channels at 64 positions, and others


@pytest.mark.parametrize(("layout", "lanes"), [pytest.param("vmap", 4, marks=pytest.mark.slow), ("map", 32)])
def test_a_cohort_that_is_too_much_begins_anew_with_half_of_it(layout, lanes, tmp_path, monkeypatch, capsys):
    expected = in_process(tmp_path / "expected", monkeypatch, layout, 2)
    with monkeypatch.context() as patch:
        too_much_for(patch, lambda group: len(group.fleet._hyper.seed) <= 2)
        done = in_process(tmp_path, patch, layout, lanes)
    assert "out of memory; begins anew with 2 runs at once" in capsys.readouterr().err
    assert digests(done) == digests(expected)
    assert {row["lanes"] for row in rows(done.store.root)} == {"2" if layout == "vmap" else "1"}
    assert all(len(done.store.read_metrics(run_id)) == 2 for run_id in digests(done))
    assert done.store.read_failures() == {}


def test_a_later_session_has_the_lanes_of_the_first(tmp_path, monkeypatch):
    """Also one on a device with more memory: the bits of a result depend on them."""
    monkeypatch.setattr(hardware, "_host_memory", lambda: 100_000)
    first = in_process(tmp_path, monkeypatch, "vmap", 8)
    lanes = {int(row["lanes"]) for row in rows(first.store.root)}
    assert lanes < {1, 2, 4}
    for path in (first.store.root / "runs").glob("*/result.json"):
        path.unlink()
    monkeypatch.setattr(hardware, "_host_memory", lambda: 2**40)
    resumed(first, first.study)
    assert {int(row["lanes"]) for row in rows(first.store.root)} == lanes


def test_one_run_that_is_too_much_is_a_failure(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        too_much_for(patch, lambda group: False)
        done = in_process(tmp_path, patch, "vmap", 4)
    failures = done.store.read_failures().values()
    assert len(failures) == 4
    assert all(failure["message"].endswith(FULL) for failure in failures)


def test_what_says_that_memory_ran_out():
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError(FULL))
    assert not out_of_memory(RuntimeError("INTERNAL: anything else"))


@pytest.mark.parametrize("version", ["0.10.1", "0.11.0", JAX_FOR_GPU, "0.12.0.1"])
def test_a_gpu_on_which_jax_computes_wrongly_is_refused(version, monkeypatch):
    monkeypatch.setattr(jax, "__version__", version)
    monkeypatch.setattr(jax, "__version_info__", tuple(map(int, version.split(".")))[:3])
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(platform="gpu")])
    if version.startswith(("0.10", "0.11.0")):
        with pytest.raises(UserError, match=rf"jax {version} computes wrongly .*jax\[cuda12\]>={JAX_FOR_GPU}"):
            hardware.found(StudyConfig(), several=False)
    else:
        assert hardware.found(StudyConfig(), several=False).layout == "vmap"
