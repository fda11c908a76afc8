"""What the trainings of a search begin with, and what of the data each part sees."""

import json
import math
import types

import jax
import numpy as np
import pytest

from sparse_jax.data.catalog import make_reader
from sparse_jax.data.normalization import fit
from sparse_jax.data.splits import split
from sparse_jax.search import safs_run, safs_stage2, side_by_side
from sparse_jax.search.safs_plan import program_config
from sparse_jax.search.safs_work import End, Sparse, Tuned, begin, choices_of, learning_data, test_data
from sparse_jax.search.side_by_side import StoppedError
from sparse_jax.study.files import read_lines
from tests.safs_plans import devices, plan_of, search

test_data.__test__ = False  # a function of the package


@pytest.fixture(autouse=True)
def _two_devices(monkeypatch):
    monkeypatch.setattr(safs_run, "set_up", devices(2))


@pytest.fixture
def given(monkeypatch):
    """What every training began with, in order."""
    trainings = []
    train = side_by_side.SideBySide.train

    def noted(self, runs, watch, **options):
        trainings.append(list(runs))
        return train(self, runs, watch, **options)

    monkeypatch.setattr(side_by_side.SideBySide, "train", noted)
    return trainings


def parts_of(plan):
    sizes = {name: getattr(plan.config, name) for name in ("train_size", "test_size", "validation_fraction")}
    return split(make_reader("")("digits"), **sizes)


def masks_of(arrays, plan):
    """The masks in the file of a network."""
    shapes = {layer: shape for layer, shape in plan.problem.kernels.items() if f"['masks']['{layer}']" in arrays}
    bits = {layer: np.unpackbits(arrays[f"['masks']['{layer}']"], count=math.prod(shapes[layer])) for layer in shapes}
    return {layer: bits[layer].astype(bool).reshape(shape) for layer, shape in shapes.items()}


def kernel_of(arrays, layer):
    return arrays[f"['params']['{layer.removesuffix('/kernel')}']['kernel']"]


def test_the_test_part_is_what_nothing_else_is(tmp_path):
    plan = plan_of(tmp_path)
    parts = parts_of(plan)
    data = learning_data(plan, parts)
    tested = test_data(data, parts)
    np.testing.assert_array_equal(np.concatenate([data.x, tested.x]), parts.x)
    np.testing.assert_array_equal(np.concatenate([data.y, tested.y]), parts.y)
    assert (len(data.y), len(tested.y)) == (200, 100)
    expected = fit(plan.config.normalization, parts.x[:180])
    for own in (data, tested):
        jax.tree.map(np.testing.assert_array_equal, own.normalization, expected)


def test_a_training_begins_with_what_its_end_says(tmp_path):
    plan = plan_of(tmp_path, networks={"method": "accset", "initial_topology": "radix", "hidden_sizes": (32, 16)})
    pipeline = plan.pipelines[0]
    masks = {layer: np.arange(math.prod(shape)).reshape(shape) % 2 == 0 for layer, shape in
             plan.problem.masked_shapes.items()}  # fmt: skip
    end = End((2, 0), True, Tuned("adam", 0.25, 0.75, 0.125, "constant"))
    begun = begin(plan, pipeline, pipeline.candidate, Sparse({}, masks), end)
    assert begun.start == {layer: mask.sum() for layer, mask in masks.items()}
    assert begun.counts == pipeline.run.final  # of the RadiX-Net, though a candidate is given its masks
    assert begun.counts != begun.start
    assert (begun.learning_rate, begun.weight_decay, begun.chosen.momentum) == (0.25, 0.125, 0.75)
    assert begun.chosen.operator.tolist() == [2, 0]
    assert begun.chosen.scaled
    assert (begun.chosen.optimizer, begun.chosen.lr_schedule) == (1, 0)  # momentum and constant come first


def test_every_training_is_given_what_the_records_say(given, tmp_path):
    plan = plan_of(tmp_path, seeds=1, steps=2, trials=2, abreast=1, tuned_schedules=("cosine",))
    assert search(plan) == 0
    lines = read_lines(tmp_path / "candidates.jsonl")
    (result,) = json.loads((tmp_path / "result.json").read_text())["pipelines"]
    runs = [run for runs in given for run in runs]
    of_lines = [(line["operators"], "trial" in line, line) for line in lines if not line.get("known")]
    usual = {"optimizer": "momentum", "learning_rate": 0.1, "lr_schedule": "constant"}
    usual |= {"momentum": plan.config.momentum, "weight_decay": plan.config.weight_decay}
    tuned = result["hyperparameters"]
    ends = [
        (result["default"], False, usual), (result["operators"], False, usual),
        (result["default"], True, tuned["stage2"]), (result["operators"], True, tuned["both"]),
    ]  # fmt: skip
    expected = [(result["default"], False, usual), *of_lines, *ends]
    assert len(runs) == len(expected)
    assert [len(run.network) > 0 for run in runs] == [False] + [True] * (len(runs) - 1)
    for run, (operators, scaled, values) in zip(runs, expected, strict=True):
        values = usual | {name: value for name, value in values.items() if name in usual}
        assert [plan.operators[index] for index in run.chosen.operator] == operators
        assert run.chosen.scaled == scaled
        assert run.learning_rate == pytest.approx(values["learning_rate"])
        assert run.weight_decay == pytest.approx(values["weight_decay"])
        assert run.chosen.momentum == pytest.approx(values["momentum"])
        assert ("momentum", "adam")[run.chosen.optimizer] == values["optimizer"]
        assert ("constant", "cosine")[run.chosen.lr_schedule] == values["lr_schedule"]


@pytest.mark.parametrize("changes", [{}, {"init_fan": "active"}, {"allocation": "global"}])
def test_networks_begin_with_the_weights_that_were_pruned(changes, tmp_path):
    """With a learning rate of next to nothing they still have them at the end; no fan-in scales them once more."""
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1}
    plan = plan_of(tmp_path, seeds=1, steps=0, trials=0, candidate_epochs=1, networks=still | changes)
    assert search(plan) == 0
    name = plan.pipelines[0].id
    dense, end = (dict(np.load(tmp_path / "networks" / f"{stage}-{name}.npz")) for stage in ("dense", "stage1"))
    masks = masks_of(end, plan)
    for layer, mask in masks.items():
        np.testing.assert_allclose(kernel_of(end, layer), np.where(mask, kernel_of(dense, layer), 0), rtol=1e-5)
    counts = {layer: int(mask.sum()) for layer, mask in masks.items()}
    total = sum(mask.size for mask in masks.values())
    if "allocation" in changes:  # the largest of all layers together
        sizes = np.concatenate([np.abs(kernel_of(dense, layer)).ravel() for layer in masks])
        kept = np.concatenate([mask.ravel() for mask in masks.values()])
        assert sizes[kept].min() >= sizes[~kept].max()
        assert sum(counts.values()) == pytest.approx(0.2 * total, abs=1)
        assert counts != {layer: round(0.2 * mask.size) for layer, mask in masks.items()}
    else:
        assert counts == {layer: round(0.2 * mask.size) for layer, mask in masks.items()}


def test_a_search_of_everything_with_scales_of_neurons(tmp_path):
    changes = {"strategy": "exhaustive", "operators": ("tanh", "relu"), "scale": "neuron", "trials": 1}
    plan = plan_of(tmp_path, seeds=1, candidate_epochs=1, start_epochs=1, **changes)
    assert plan.epochs == (1, 1, 3)
    assert search(plan) == 0
    lines = [line for line in read_lines(tmp_path / "candidates.jsonl") if line["stage"] == "stage1"]
    assert [line["operators"] for line in lines] == [[a, b] for a in ("tanh", "relu") for b in ("tanh", "relu")]
    (result,) = json.loads((tmp_path / "result.json").read_text())["pipelines"]
    assert result["networks"]["dense"]["epochs"] == 1
    assert [len(layer["alpha"]) for layer in result["scales"]["both"]] == [12, 8]


@pytest.mark.slow
def test_what_a_pipeline_is_does_not_depend_on_others(tmp_path):
    """Levels of rewinding, and so the program, follow from the sparsity."""
    changes = {"method": "lottery_ticket", "interval": "auto"}
    short = {"seeds": 1, "steps": 0, "trials": 0, "given": ("method", "sparsity")}
    assert search(plan_of(tmp_path / "two", networks=changes | {"sparsity": (0.5, 0.9)}, **short)) == 0
    assert search(plan_of(tmp_path / "one", networks=changes | {"sparsity": 0.9}, **short)) == 0
    found, expected = (dict(np.load(tmp_path / name / "networks" / "start-s0.9-seed0.npz")) for name in ("two", "one"))
    for name in expected:
        if name != "score.seconds":
            np.testing.assert_array_equal(found[name], expected[name])


# --- the plan --------------------------------------------------------------------------------------


def test_pipelines_have_names_of_their_own(tmp_path):
    plan = plan_of(tmp_path, networks={"sparsity": (0.9000001, 0.9000002)})
    assert len({pipeline.id for pipeline in plan.pipelines}) == len(plan.pipelines) == 4


@pytest.mark.parametrize(("networks", "prunes"), [
    ({}, True), ({"method": "rigl", "interval": "3"}, False), ({"initial_topology": "radix"}, False),
    ({"method": "rigl", "interval": "3", "initial_topology": "magnitude"}, True),
    ({"method": "gmp", "interval": "3"}, False),
])  # fmt: skip
def test_what_is_pruned_and_what_a_method_trains(networks, prunes, tmp_path):
    assert plan_of(tmp_path, networks=networks).prunes == prunes


def test_candidates_too_short_for_an_update_are_told_of(tmp_path):
    plan = plan_of(tmp_path, networks={"method": "rigl", "epochs": 30}, candidate_epochs=2)
    (notice,) = plan.notices
    assert notice.startswith("--candidate_epochs=2: rigl updates every 100 steps, but training has 18 steps")


def test_settings_of_operators_and_schedules_in_the_search_have_an_effect(tmp_path):
    values = {"all_relu_alpha": 0.3, "lr_decay_factor": 0.5}
    plan = plan_of(
        tmp_path, networks=values, operators=("relu", "all_relu"), tuned_schedules=("constant", "step"), seeds=1
    )
    assert choices_of(plan).operators.all_relu_alpha == 0.3
    assert program_config(plan.pipelines[0].candidate, plan.asked.networks).lr_decay_factor == 0.5


def test_a_worker_waits_for_trials_that_others_have_in_hand(monkeypatch):
    naps, lost = [], types.SimpleNamespace(worker="elsewhere")
    monkeypatch.setattr(safs_stage2.time, "sleep", naps.append)
    tuner = types.SimpleNamespace(waiting=lambda: True, left=lambda: 0, reclaim=lambda seconds: [lost])
    arms = [types.SimpleNamespace(tuner=tuner)]
    told, interrupt = [], types.SimpleNamespace(asked=False)
    work = types.SimpleNamespace(
        records=types.SimpleNamespace(lines=[]), interrupt=interrupt,
        meter=types.SimpleNamespace(advance=lambda line, epochs: told.append(line)),
    )  # fmt: skip
    assert safs_stage2._waits(work, arms)
    assert naps == [safs_stage2.POLL]
    assert "waiting for the trials of other machines" in told[0]
    interrupt.asked = True
    with pytest.raises(StoppedError):
        safs_stage2._waits(work, arms)
    tuner.waiting = lambda: False
    assert not safs_stage2._waits(work, arms)
    tuner.left = lambda: 1
    assert safs_stage2._waits(work, arms)
