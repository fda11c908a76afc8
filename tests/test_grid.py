"""From a grid to its runs: each once, resolved, under a stable name, in the cohort of its program."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from sparse_jax.config import AUTO, DYNAMIC, LEARNING_RATES, RunConfig, StudyConfig, settings
from sparse_jax.data.catalog import DatasetInfo
from sparse_jax.errors import UserError
from sparse_jax.flags import Grid
from sparse_jax.recipes import METHOD_SETTINGS, MODEL_RECIPES, NATURES, RECIPES, USED_BY
from sparse_jax.study.grid import dataset_label, make_study
from sparse_jax.study.run import train_study
from sparse_jax.study.store import open_store

REPOSITORY = Path(__file__).parents[1]
DEFAULTS = {name: (field.default,) for name, field in settings(RunConfig).items()}
STATIC = [field.name for field in dataclasses.fields(RunConfig) if field.name not in DYNAMIC]
EVOLVING = [name for name in RECIPES if "interval" in RECIPES[name]]


def make_grid(**given):
    """The default grid with the given settings: lists of values for a run's, one value for a study's."""
    study = {name: given[name] for name in settings(StudyConfig) if name in given}
    axes = {name: tuple(values) for name, values in given.items() if name not in study}
    assert axes.keys() <= DEFAULTS.keys()
    return Grid(DEFAULTS | axes, StudyConfig(**study), frozenset(given))


def study_of(**given):
    return make_study(make_grid(**given), {})


def configs(**given):
    return [run.config for run in study_of(**given).runs]


def static(config):
    return [getattr(config, name) for name in STATIC]


def uses(config, name):
    """Whether a run makes use of a setting, by the table in recipes.py."""
    if name in ("epsilon", "layer_sparsity"):  # instead of a sparsity
        return False
    chosen = {field: getattr(config, field) for field in USED_BY[name]} if name in USED_BY else {}
    return name not in USED_BY or any(value is not None and USED_BY[name][f](value) for f, value in chosen.items())


def some(*values):
    return st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)


GRIDS = st.fixed_dictionaries(
    {
        "method": some("dense", "static", "set", "rigl"),
        "activation": some(("relu",), ("relu", "relu"), ("relu", "tanh"), ("all_relu",)),
        "sparsity": some(0.5, 0.9, 0.95),
        "num_seeds": st.integers(1, 3),
        "first_seed": st.integers(0, 2**32 - 3),
    },
    optional={
        "dataset": some("digits", "synthetic"),
        "hidden_sizes": some((30, 10), (300, 100)),
        "optimizer": some("sgd", "momentum", "adam"),
        "learning_rate": some(AUTO, 0.05, 0.1),
        "weight_decay": some(0.0, 1e-4),
        "lr_schedule": some("constant", "step"),
    },
).map(lambda values: make_grid(**values)._replace(given=frozenset()))
laws = hypothesis_settings(max_examples=25, deadline=None)


# --- laws of every grid ----------------------------------------------------------------------------


@laws
@given(GRIDS)
def test_every_point_is_one_resolved_run(grid):
    study = make_study(grid, {})
    assert study == make_study(grid, {})
    found = {run.config for run in study.runs}
    assert len(found) == len(study.runs)
    for name in ("dataset", "hidden_sizes", "method", "optimizer", "weight_decay", "lr_schedule"):
        asked = {MODEL_RECIPES["mlp"][name] if value == AUTO else value for value in grid.axes[name]}
        assert {getattr(config, name) for config in found} == asked
    seeds = range(grid.study.first_seed, grid.study.first_seed + grid.study.num_seeds)
    for config in found:
        assert {dataclasses.replace(config, seed=seed) for seed in seeds} <= found
        for name in settings(RunConfig):
            assert getattr(config, name) != AUTO
            if name != "epsilon":
                assert (getattr(config, name) is None) == (not uses(config, name)), name


@laws
@given(GRIDS)
def test_cohorts_part_the_runs_by_what_changes_the_program(grid):
    study = make_study(grid, {})
    assert sorted(run.id for cohort in study.cohorts for run in cohort.runs) == sorted(run.id for run in study.runs)
    of_cohort = [static(cohort.runs[0].config) for cohort in study.cohorts]
    assert all(static(run.config) == of_cohort[i] for i, cohort in enumerate(study.cohorts) for run in cohort.runs)
    assert all(setting not in of_cohort[:i] for i, setting in enumerate(of_cohort))
    assert len({cohort.id for cohort in study.cohorts}) == len(study.cohorts)


@laws
@given(GRIDS, st.data())
def test_a_run_has_its_name_in_any_grid(grid, data):
    study = make_study(grid, {})
    assert len({run.id for run in study.runs}) == len(study.runs)
    run = data.draw(st.sampled_from(study.runs))
    alone = {name: (value,) for name, value in vars(run.config).items() if value is not None and name != "seed"}
    alone["interval"] = tuple(map(str, alone.get("interval", ())))
    axes = {name: alone.get(name) or default for name, default in DEFAULTS.items()}
    (again,) = make_study(Grid(axes, StudyConfig(first_seed=run.config.seed), frozenset()), {}).runs
    assert (again.id, again.problem, again.allocation) == (run.id, run.problem, run.allocation)


# --- equal points ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"method": ["dense", "static"], "sparsity": [0.5, 0.9, 0.95], "num_seeds": 2},
        {"method": ["dense", "static"], "epsilon": [1.0, 5.0, 10.0], "num_seeds": 2},
    ],
)
def test_dense_is_trained_once_a_seed(values):
    methods = [config.method for config in configs(**values)]
    assert (methods.count("dense"), methods.count("static")) == (2, 6)


@pytest.mark.parametrize(
    ("runs", "values"),
    [
        (1, {"allocation": ["erk", AUTO]}),
        (1, {"interval": ["10", "1epoch", "epoch", AUTO]}),
        (1, {"drop_fraction": [AUTO, RECIPES["set"]["drop_fraction"]]}),
        (1, {"learning_rate": [AUTO, LEARNING_RATES["momentum"]]}),
        (1, {"activation": [("relu",), ("relu", "relu")]}),
        (2, {"activation": [("relu", "tanh"), ("tanh", "relu")]}),
        (3, {"activation": [("all_relu",), ("relu",)], "all_relu_alpha": [0.6, 0.75]}),
        (3, {"method": ["set", "static"], "drop_fraction": [0.1, 0.2]}),
        (3, {"optimizer": ["adam", "momentum"], "momentum": [0.8, 0.9]}),
        (3, {"lr_schedule": ["cosine", "step"], "lr_decay_factor": [0.1, 0.2]}),
    ],
)
def test_points_that_become_equal_are_one_run(runs, values):
    assert len(configs(**values)) == runs


# --- what auto means -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", EVOLVING)
def test_auto_is_the_method_s_paper(method):
    (run,) = study_of(method=[method]).runs
    recipe, per_epoch = RECIPES[method], run.problem.steps_per_epoch
    steps = {"1epoch": per_epoch, "5epoch": 5 * per_epoch}
    expected = steps[recipe["interval"]] if recipe["interval"] in steps else int(recipe["interval"])
    assert run.config.interval == expected
    for name in recipe.keys() - {"interval"}:
        assert getattr(run.config, name) == recipe[name]


@pytest.mark.parametrize("optimizer", LEARNING_RATES)
def test_auto_learning_rate_is_the_optimizer_s(optimizer):
    assert configs(optimizer=[optimizer])[0].learning_rate == LEARNING_RATES[optimizer]


def test_sparsity_and_epsilon_each_have_their_allocation():
    assert [(c.sparsity, c.epsilon, c.allocation) for c in configs()] == [(0.9, None, "erk")]
    assert [(c.sparsity, c.epsilon, c.allocation) for c in configs(epsilon=[2.0])] == [(None, 2.0, "erdos_renyi")]
    (run,) = study_of(epsilon=[2.0], hidden_sizes=[(30, 20)]).runs
    assert list(run.allocation.counts.values()) == [2 * (64 + 30), 2 * (30 + 20), 2 * (20 + 10)]


@pytest.mark.parametrize(
    ("text", "steps"), [("7", 7), ("0.5epoch", 5), ("2epochs", 20), ("epoch", 10), ("0.01epoch", 1)]
)
def test_an_interval_is_steps_or_epochs(text, steps):
    (run,) = study_of(method=["set"], interval=[text]).runs
    assert (run.problem.steps_per_epoch, run.config.interval) == (10, steps)


# --- a training too short for an update ------------------------------------------------------------


@pytest.mark.parametrize("method", ["gmp", "granet"])
def test_pruning_that_would_never_reach_its_sparsity_is_refused(method):
    with pytest.raises(UserError, match="--interval=7 is the longest"):
        study_of(method=[method], epochs=[1])


def test_pruning_starts_at_its_initial_sparsity_and_ends_at_its_own():
    (run,) = study_of(method=["granet"], sparsity=[0.9], initial_sparsity=[0.25]).runs
    assert (sum(run.start.values()), sum(run.final.values())) == (round(0.75 * 50200), 5020)
    with pytest.raises(UserError, match=r"--initial_sparsity=0\.95 is above"):
        study_of(method=["gmp"], sparsity=[0.9], initial_sparsity=[0.95])


PRUNING = [name for name, nature in NATURES.items() if nature.count == "schedule"]
LEVELS = st.floats(0, 0.97) | st.sampled_from([0.0, 0.5, 0.9])
SHARED_OUT = st.fixed_dictionaries(
    {"allocation": st.sampled_from([["erk"], ["uniform"], ["balanced"], ["uniform_dense_first"], [AUTO]])},
    optional={
        "structure": st.sampled_from([["fan_in"], ["2x2"]]),
        "initial_topology": st.sampled_from([["fan_in"], ["expander"]]),
        "dense_layers": st.sampled_from([["output"], ["dense_1"]]),
    },
)
EITHER = st.one_of(
    LEVELS.map(lambda level: {"sparsity": [level]}),
    st.floats(0.5, 40).map(lambda level: {"epsilon": [level]}),
    st.tuples(LEVELS, LEVELS, LEVELS).map(
        lambda levels: {"layer_sparsity": [":".join(map("{}={}".format, ("dense_0", "dense_1", "output"), levels))]}
    ),
)


@pytest.mark.parametrize("method", PRUNING)
@laws
@given(LEVELS, EITHER, SHARED_OUT)
def test_a_pruning_begins_with_no_less_than_it_ends_with_or_is_refused(method, initial, level, shared_out):
    grid = make_grid(method=[method], initial_sparsity=[initial], hidden_sizes=[(20, 12)], **level, **shared_out)
    try:
        (run,) = make_study(grid._replace(given=frozenset()), {}).runs
    except UserError:
        return
    assert all(0 < run.start[name] <= math.prod(run.problem.kernels[name]) for name in run.problem.masked)
    assert all(count > 0 for count in run.final.values())
    assert NATURES[method].grows or all(run.start[name] >= count for name, count in run.final.items())


def test_a_layer_that_rounding_gives_one_less_at_the_start_does_not_grow():
    """The remainders of one connection more in all can go to other layers."""
    apart, size = 0, 64 * 30 + 30 * 20 + 20 * 10
    for total in range(300, 400):
        levels = [1 - (total + more) / size for more in (0, 1)]
        network = {"allocation": ["uniform"], "hidden_sizes": [(30, 20)]}
        alone = [study_of(method=["static"], sparsity=[level], **network).runs[0].final for level in levels]
        apart += any(alone[0][name] > alone[1][name] for name in alone[0])
        (run,) = study_of(method=["gmp"], sparsity=levels[:1], initial_sparsity=levels[1:], **network).runs
        assert run.final == alone[0]
        assert run.start == {name: max(counts[name] for counts in alone) for name in run.start}
    assert apart > 3


@pytest.mark.parametrize(("first", "axis"), [("fan_in", -1), ("fan_out", -2)])
def test_first_masks_of_equal_degrees_are_counted_as_they_are_drawn(first, axis):
    for method in ("set", "granet"):
        (run,) = study_of(method=[method], initial_topology=[first]).runs
        assert not any(run.start[name] % run.problem.kernels[name][axis] for name in run.start)
        assert (run.allocation.counts == run.start) == (method == "set")
    assert sum(run.final.values()) == 5020  # granet prunes to what was asked for
    (run,) = study_of(method=["gmp"], initial_topology=[first], initial_sparsity=[0.9], sparsity=[0.9]).runs
    assert run.final == run.start  # and gmp cannot grow what was left over


def test_accset_needs_a_validation_part_and_has_a_floor():
    (run,) = study_of(method=["accset"], least_share=[0.25]).runs
    assert run.start == run.allocation.counts
    assert run.final == {name: math.ceil(count / 4) for name, count in run.start.items()}
    with pytest.raises(UserError, match="--validation_fraction=0 leaves none"):
        study_of(method=["accset"], validation_fraction=[0.0])


AUTO_INTERVALS = [name for name in EVOLVING if RECIPES[name].get("interval") not in ("1", None)]


@pytest.mark.parametrize("method", AUTO_INTERVALS)
def test_an_auto_interval_longer_than_the_training_is_noticed(method):
    asked = {"method": [method, "static"], "epochs": [1], "num_seeds": 3, "sparsity": [0.5, 0.9]}
    if NATURES[method].count in ("schedule", "extra"):  # it would not end with the connections asked for
        with pytest.raises(UserError, match=f"leaves no topology update.*at --sparsity=0.5 --method={method}"):
            study_of(**asked)
        return
    study = study_of(**asked)
    assert len(study.runs) == 12
    (notice,) = [notice for notice in study.notices if "trains without any" in notice]
    assert method in notice


def test_a_structure_that_leaves_many_connections_out_is_noticed():
    """10 % of 64 × 30 are 192 connections: 6 for each of 30 neurons, but of 10 × 10 outputs each gets 1 of 1.9."""
    asked = {"sparsity": [0.9], "allocation": ["uniform"], "hidden_sizes": [(30, 19)], "dense_layers": ["output"]}
    assert study_of(method=["srigl"], **asked | {"sparsity": [0.5]}).notices == ()
    study = study_of(method=["srigl"], **asked)
    assert study.runs[0].allocation.counts == {"dense_0/kernel": 180, "dense_1/kernel": 57}
    assert any("237 connections where 249 were asked for" in notice for notice in study.notices)
    assert study.runs[0].allocation.epsilon is None


def test_auto_in_words_is_auto_too():
    assert study_of(epochs=[1], interval=[AUTO]).notices
    assert study_of(epochs=[3], interval=[AUTO, "5"], method=["rigl"]).notices


def test_an_interval_asked_for_is_refused_where_no_update_falls_before_the_stop():
    """10 steps an epoch: the last update of 3 epochs can be at step 29, or at 14 with half of them."""
    assert study_of(epochs=[3], interval=["29"]).notices == ()
    for values in ({"interval": ["30"]}, {"interval": ["15"], "stop_fraction": [0.5]}):
        with pytest.raises(UserError, match=f"--interval={values['interval'][0]}"):
            study_of(epochs=[3], **values)


# --- refusals --------------------------------------------------------------------------------------


def unused():
    """Each value of a setting with an optional setting that it does not use."""
    by_method = [
        ("method", method, name)
        for name in sorted(frozenset().union(*METHOD_SETTINGS.values()))
        for method in RECIPES
        if name not in METHOD_SETTINGS[method]
    ]
    others = {
        "allocation": ("uniform", "erk_power"),
        "initial_topology": ("random", "rewiring"),
        "drop_schedule": ("cosine", "drop_power"),
        "drop_score": ("magnitude", "gradient_weight"),
        "importance_pruning": (0.0, "importance_from"),
        "optimizer": ("adam", "momentum"),
        "lr_schedule": ("cosine", "lr_decay_at"),
        "activation": ("relu", "all_relu_alpha"),
    }
    return by_method + [(field, *pair) for field, pair in others.items()]


@pytest.mark.parametrize(("field", "value", "name"), unused())
def test_a_setting_that_nothing_uses_is_refused_only_if_given(field, value, name):
    chosen = {field: [(value,) if field == "activation" else value]}
    (config,) = configs(**chosen)
    assert getattr(config, name) is None or (name == "interval" and config.levels is not None)
    with pytest.raises(UserError, match=f"--{name} has no effect: --{field}={value}"):
        configs(**chosen, **{name: DEFAULTS[name]})


def test_a_setting_that_something_uses_is_taken():
    assert len(configs(method=["dense", "set"], drop_fraction=[0.1, 0.2])) == 3


@pytest.mark.parametrize(("activation", "hidden"), [(3, 2), (2, 1), (2, 3)])
def test_activations_are_one_or_one_a_layer(activation, hidden):
    with pytest.raises(UserError, match=f"names {activation} layers.* has {hidden}"):
        study_of(activation=[("relu", "tanh", "elu")[:activation]], hidden_sizes=[(9,) * hidden])


def test_a_layer_list_of_equals_is_one_name():
    activations = [config.activation for config in configs(activation=[("tanh", "tanh"), ("tanh", "relu")])]
    assert activations == [("tanh",), ("tanh", "relu")]


def test_seeds_end_with_32_bits():
    assert [config.seed for config in configs(first_seed=2**32 - 2, num_seeds=2)] == [2**32 - 2, 2**32 - 1]
    with pytest.raises(UserError, match="32 bits"):
        configs(first_seed=2**32 - 2, num_seeds=3)


# --- names -----------------------------------------------------------------------------------------


def test_names_can_be_files(tmp_path, monkeypatch):
    """Whatever the data set's path and however deep the network; 255 bytes, some of them for endings."""
    for folder in (tmp_path / "here", tmp_path / "d"):
        folder.mkdir()
    monkeypatch.chdir(tmp_path / "here")
    arrays = {"x_train": np.eye(4), "y_train": np.arange(4) % 2, "x_test": np.eye(4), "y_test": np.arange(4) % 2}
    paths = ["a b.npz", ".npz", "../d/é=.npz", "x" * 200 + ".npz"]
    for path in paths:
        np.savez(path, **arrays)
    deep = ("softsign", "softplus") * 25
    study = study_of(
        dataset=paths, batch_size=[1], activation=[deep], hidden_sizes=[(9,) * 50], sparsity=[1e-5, 0.5], num_seeds=2,
        interval=["1"], epochs=[1], validation_fraction=[0.0],
    )  # fmt: skip
    assert len({run.id for run in study.runs}) == 16
    store = open_store(tmp_path / "work")
    for run in study.runs:
        assert len(run.id) <= 200
        store.write_result(run.id, {})
    for cohort in study.cohorts:
        with store.claim(cohort.id) as holder:
            assert holder is None


@pytest.mark.parametrize(
    ("dataset", "label"),
    [
        ("emnist/balanced", "emnist_balanced"), ("imagenet_resized/16x16", "imagenet_resized_16x16"),
        ("two_spirals", "two_spirals"), ("../d/table.npz", "table"), ("d/my.table.csv", "my_table"),
    ],
)  # fmt: skip
def test_names_begin_with_the_data_set(monkeypatch, dataset, label):
    info = DatasetInfo(dataset, (64,), 10, 1000, 100)
    monkeypatch.setattr("sparse_jax.study.grid.describe", lambda name, data_dir: info)
    study = study_of(dataset=[dataset])
    assert study.runs[0].id.startswith(f"{label}-mlp-set-")
    assert study.cohorts[0].id.startswith(f"{label}-mlp-set-")
    assert "/" not in dataset_label(dataset)  # begins the name of the workdir, too


IDS = """
import json
from test_grid import study_of
study = study_of(method=["dense", "set"], activation=[("relu", "tanh"), ("srelu",)], sparsity=[0.5, 0.9])
print(json.dumps([[run.id for run in study.runs], [cohort.id for cohort in study.cohorts]]))
"""


def test_names_are_the_same_in_every_process():
    def ids(hash_seed):
        path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests")))
        environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": hash_seed}
        return json.loads(subprocess.check_output([sys.executable, "-c", IDS], env=environment, text=True))

    assert ids("1") == ids("2")


# --- the plan --------------------------------------------------------------------------------------


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    grid = make_grid(method=["dense", "rigl"], sparsity=[0.5, 0.9], num_seeds=3, epochs=[3], dry_run=True, workdir="w")
    assert train_study(grid) == 0
    out, err = capsys.readouterr()
    study = make_study(grid, {})
    assert f"{len(study.runs)} runs in {len(study.cohorts)} cohorts" in out
    assert "would write to w" in out
    assert err == f"note: {study.notices[0]}\n"
    # dense: 64·300 + 300·100 + 100·10; sparse: half of them and a tenth, and 20 steps of rigl's interval fit not once
    for words in ("50,200", "5,020 … 25,100", "64×300", "300×100", "100×10", "dense_0", "output", " MB"):
        assert words in out
    assert list(tmp_path.iterdir()) == []


def test_the_plan_shows_every_value_that_a_cohort_has(capsys):
    asked = {"method": ["chts", "mest"], "temperature": [0.0, 1.0], "gradient_weight": [1.0, 2.0], "epochs": [2]}
    assert train_study(make_grid(**asked, learning_rate=[0.1, 0.2], dry_run=True, workdir="w")) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert any("chts – 0, 1 0.1, 0.2 4" in row for row in rows)
    assert any("mest 1, 2 – 0.1, 0.2 4" in row for row in rows)
    assert train_study(make_grid(structure=["2:4"], dense_layers=["output"], dry_run=True, workdir="w")) == 0
    assert "2:4 – 0.5000 dense_0" in " ".join(capsys.readouterr().out.split())


def test_planning_takes_no_time_for_a_long_training(tmp_path):
    train = [sys.executable, REPOSITORY / "launch" / "train.py", "--epochs=200000000", "--dry_run"]
    result = subprocess.run(train, cwd=tmp_path, capture_output=True, timeout=5)
    assert result.returncode == 0
