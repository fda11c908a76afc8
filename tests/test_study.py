"""A study from the command line to its table."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from sparse_jax.config import StudyConfig
from sparse_jax.data.catalog import make_reader
from sparse_jax.data.normalization import fit
from sparse_jax.sparse.links import make_links
from sparse_jax.study import assemble, execute
from sparse_jax.study.fleet import connections_of_inputs
from sparse_jax.study.group import hyper_params
from sparse_jax.study.interrupt import Interrupt
from sparse_jax.study.ledger import EMPTY
from sparse_jax.study.loader import make_loader
from sparse_jax.study.mask_file import load_masks
from sparse_jax.study.monitor import Monitor
from sparse_jax.study.results import seen_now
from sparse_jax.study.rows import COLUMNS, LEADING, status
from sparse_jax.study.store import open_store
from sparse_jax.training.checkpoint import Checkpoints
from sparse_jax.training.cohort import abstract_state, make_mesh, stack
from sparse_jax.training.hardware import Hardware
from sparse_jax.training.hosts import alone
from tests.program import MEASURED, SMALL, rows, run
from tests.test_grid import study_of

METHODS = ("dense", "static", "set", "set_magnitude", "rigl")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """All methods at two sparsities, two seeds, with one learning rate that diverges."""
    folder = tmp_path_factory.mktemp("study")
    ended = run(
        *SMALL, f"--method={','.join(METHODS)}", "--sparsity=0.4,0.8", "--num_seeds=2", "--first_seed=5",
        "--learning_rate=0.1,1e29", "--workdir=w", cwd=folder,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended, folder / "w"


def test_every_point_is_one_row(study):
    _, workdir = study
    table = rows(workdir)
    assert len(table) == (1 + 4 * 2) * 2 * 2
    assert tuple(table[0]) == tuple(column for column in COLUMNS if column not in MEASURED)
    assert COLUMNS[: len(LEADING)] == LEADING
    assert len({row["run_id"] for row in table}) == len(table)
    assert {row["seed"] for row in table} == {"5", "6"}
    for row in table:
        if row["method"] == "dense":
            assert row["sparsity_target"] == row["epsilon"] == ""
            assert float(row["sparsity"]) == 0
        else:
            size = 64 * 24 + 24 * 12 + 12 * 10
            assert int(row["connections"]) == round((1 - float(row["sparsity_target"])) * size)
            assert float(row["sparsity"]) == pytest.approx(1 - int(row["connections"]) / size)
        assert int(row["parameters"]) == int(row["connections"]) + 24 + 12 + 10


def test_a_diverged_run_is_marked_and_the_others_learn(study):
    _, workdir = study
    for row in rows(workdir):
        if row["learning_rate"] == "0.1":
            assert row["status"] == "ok"
            assert float(row["test_accuracy"]) > 0.3
            assert float(row["best_val_accuracy"]) >= float(row["val_accuracy"])
            assert math.isfinite(float(row["train_loss"]))
        else:
            assert row["status"] == "diverged"
            assert row["train_loss"] == ""
            assert row["dead_classes"] == row["silent_neurons"] == row["silent_share"] == ""


def test_metrics_have_a_line_an_epoch_and_count_what_moved(study):
    _, workdir = study
    for row in rows(workdir):
        text = (workdir / "metrics" / f"{row['run_id']}.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
        assert [line["connections"] for line in lines] == [int(row["connections"])] * 4
        moved = sum(line["moved"] for line in lines)
        assert (moved > 0) == (row["method"].startswith("set")), row["method"]  # rigl's interval is longer


def test_the_connections_of_every_input_are_those_of_the_masks(study):
    """At epochs 1 to 4, of all methods but dense; the last ones, less what the last update moved, are in the masks."""
    _, workdir = study
    for row in rows(workdir):
        lines = open_store(workdir).read_metrics(row["run_id"])
        if row["method"] == "dense":
            assert all("input_connections" not in line for line in lines)
            continue
        assert [len(line["input_connections"]) for line in lines] == [64] * 4
        mask = load_masks(workdir / "runs" / row["run_id"] / "masks.npz")["dense_0/kernel"]
        assert lines[-1]["input_connections"] == mask.sum(1).tolist()  # no update follows the last evaluation
        result = json.loads((workdir / "runs" / row["run_id"] / "result.json").read_text())
        assert (result["input_shape"], result["test_examples"], result["majority"]) == ([8, 8, 1], 359, 37 / 359)


def test_connections_of_inputs_are_those_of_either_execution():
    mask = np.array([[[1, 0], [1, 1], [0, 0]]], bool)
    links = make_links(*np.nonzero(mask[0]), 3, (3, 2))
    links = jax.tree.map(lambda leaf: np.asarray(leaf)[None], links)
    for found in (connections_of_inputs(mask, None), connections_of_inputs(np.ones((1, 3), bool), links)):
        np.testing.assert_array_equal(found, [[1, 2, 0]])


def test_they_are_kept_at_fewer_and_fewer_epochs():
    assert [epoch for epoch in range(1, 41) if seen_now(epoch)] == [
        1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40,
    ]  # fmt: skip


def test_the_config_says_where_the_results_come_from(study):
    _, workdir = study
    config = json.loads((workdir / "config.json").read_text())
    (session,) = config["sessions"]
    assert session["versions"]["jax"]
    assert session["device"].startswith("2 × cpu")
    assert set(config["runs"]) == {row["run_id"] for row in rows(workdir)}
    settings = next(iter(config["runs"].values()))
    assert "auto" not in map(str, settings.values())


def test_the_table_names_failures_and_the_results(study):
    ended, _ = study
    assert "2 diverged" in ended.stdout
    assert ended.stdout.endswith("results: w/results.csv; as a page: python launch/report.py w\n")
    assert "rigl updates every 100 steps, but training has 132 steps" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_a_validation_part_there_is_no_validation(tmp_path):
    ended = run(*SMALL, "--validation_fraction=0", "--epochs=1", "--workdir=w", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (row,) = rows(tmp_path / "w")
    assert row["val_accuracy"] == row["best_val_accuracy"] == row["val_loss"] == ""
    assert float(row["test_accuracy"]) > 0


@pytest.mark.slow
def test_vmap_trains_as_well(tmp_path):
    lanes = "--layout=vmap", "--lane_width=2", "--cpu_devices=1"
    ended = run(*SMALL, *lanes, "--sparsity=0.5", "--num_seeds=3", "--workdir=w", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    table = rows(tmp_path / "w")
    assert [row["lanes"] for row in table] == ["2"] * 3
    assert all(row["status"] == "ok" and float(row["test_accuracy"]) > 0.3 for row in table)


def test_the_number_of_devices_does_not_change_a_result(tmp_path):
    common = (*SMALL, "--num_seeds=3", "--method=rigl", "--interval=10")
    for devices in (1, 3):
        assert run(*common, f"--workdir={devices}", f"--cpu_devices={devices}", cwd=tmp_path).returncode == 0
    assert rows(tmp_path / "1") == rows(tmp_path / "3")


def test_a_collapsed_run_is_one_that_cannot_be_told_from_naming_one_class():
    deviation = math.sqrt(0.1135 * 0.8865 / 10_000)
    assert status(True, 0.1135, 0.1135, 10_000) == "collapsed"
    assert status(True, 0.05, 0.1135, 10_000) == "collapsed"
    assert status(True, 0.1135 + 3.1 * deviation, 0.1135, 10_000) == "ok"
    assert status(False, 0.99, 0.1135, 10_000) == "diverged"


HARDWARE = Hardware(tuple(jax.devices()[:1]), "map", 32)


def unchecked(name, content):
    """Data of any content."""


class InProcess:
    """A study executed in this process, with what it compiled."""

    def __init__(self, folder, monkeypatch, **axes):
        self.made, make = [], assemble.make_cohort
        monkeypatch.setattr(assemble, "make_cohort", lambda *args: self.made.append(make(*args)) or self.made[-1])
        monkeypatch.setattr(Interrupt, "__init__", lambda self: setattr(self, "asked", False))
        self.study, self.store = study_of(**axes), open_store(folder / "w")
        runs = {run.id: dataclasses.asdict(run.config) for run in self.study.runs}
        self.store.write_config(EMPTY | {"runs": runs})
        self.outcome = execute.execute(
            self.study, StudyConfig(), self.store, alone(Interrupt()), HARDWARE, make_reader(".")
        )
        assert self.outcome == (False, {})


def resumed(done, study, interrupt=None, hardware=None, **settings):
    """Train another study, or the same once more, into the store of one."""
    config = done.store.read_config()
    runs = {run.id: dataclasses.asdict(run.config) for run in study.runs}
    done.store.write_config(config | {"runs": config["runs"] | runs})
    hosts = alone(interrupt or Interrupt())
    return execute.execute(study, StudyConfig(**settings), done.store, hosts, hardware or HARDWARE, make_reader("."))


def test_a_grid_compiles_one_program_for_each_method_and_activation(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # they would forget how often they compiled
    done = InProcess(
        tmp_path, monkeypatch,
        method=["set", "static"], activation=[("relu",), ("tanh",)], sparsity=[0.2, 0.4, 0.6, 0.8, 0.9], num_seeds=3,
        train_size=[200], hidden_sizes=[(9,)], batch_size=[20], epochs=[2],
    )  # fmt: skip
    assert len(done.study.runs) == len(done.store.read_results()) == 60
    assert len(done.made) == 4
    programs = [getattr(fns, name) for fns in done.made for name in ("init", "steps", "validate", "evaluate")]
    assert {program._cache_size() for program in programs} == {1}
    assert sorted(fns.update._cache_size() for fns in done.made) == [0, 0, 1, 1]  # static has none


def test_compiled_programs_do_not_outlive_their_cohort(tmp_path, monkeypatch):
    begin, alive = Monitor.begin, []
    live = jax.devices()[0].client.live_executables
    monkeypatch.setattr(Monitor, "begin", lambda *arguments: alive.append(len(live())) or begin(*arguments))
    InProcess(
        tmp_path, monkeypatch, method=["set"], execution=["sparse"], sparsity=[0.5, 0.6, 0.7], train_size=[200],
        hidden_sizes=[(9,)], batch_size=[20], epochs=[1],
    )  # fmt: skip
    _, second, third = alive  # the first has those of other tests beside it
    assert second == third


def test_the_test_accuracy_at_best_validation_is_that_of_the_best_network(tmp_path, monkeypatch):
    done = InProcess(
        tmp_path, monkeypatch, num_seeds=3, train_size=[300], hidden_sizes=[(9,)], batch_size=[20], epochs=[6],
        learning_rate=[0.5], sparsity=[0.8],
    )  # fmt: skip
    (cohort,), (fns,) = done.study.cohorts, done.made
    mesh = make_mesh(jax.devices()[:1])
    data = make_loader(StudyConfig(), HARDWARE, make_reader("."), unchecked)(cohort.runs[0].config, mesh).data
    hyper = stack([hyper_params(run) for run in cohort.runs], 3, mesh)
    with Checkpoints(done.store.checkpoints(f"{cohort.id}-0"), 1) as checkpoints:
        _, state, _ = checkpoints.restore(abstract_state(fns, hyper, data, 3))
    start, stop = np.int32(300), np.int32(300 + cohort.runs[0].problem.test)
    at_best = fns.evaluate(state.best.params, state.best.model_state, data, start, stop).correct / (stop - start)
    results = [done.store.read_results()[run.id] for run in cohort.runs]
    np.testing.assert_allclose([result["test_accuracy_at_best_val"] for result in results], at_best, rtol=1e-6)
    np.testing.assert_allclose([result["best_val_accuracy"] for result in results], state.best.correct / 30, rtol=1e-6)
    assert any(result["test_accuracy_at_best_val"] != result["test_accuracy"] for result in results)


def test_normalisation_is_fitted_on_the_training_part_alone():
    (run,) = study_of(normalization=["zscore"]).runs
    loader = make_loader(StudyConfig(), HARDWARE, make_reader("."), unchecked)
    data = loader(run.config, make_mesh(jax.devices()[:1])).data
    x, train = np.asarray(data.x), run.problem.train
    alone, leaking = (fit("zscore", x[:stop]) for stop in (train, train + run.problem.validation))
    np.testing.assert_array_equal(data.normalization.shift, alone.shift)
    np.testing.assert_array_equal(data.normalization.scale, alone.scale)
    assert (alone.shift != leaking.shift).any()


def test_a_loss_that_breaks_down_at_the_end_is_divergence(tmp_path):
    one_step = ("--dataset=synthetic", "--batch_size=1800", "--epochs=1", "--optimizer=sgd", "--learning_rate=1e29")
    assert run(*one_step, "--workdir=w", cwd=tmp_path).returncode == 0
    assert rows(tmp_path / "w")[0]["status"] == "diverged"


def test_the_largest_class_is_that_of_the_test_part(tmp_path):
    x, y = np.zeros((100, 2)), np.arange(100) % 2
    test_labels = np.array([0] * 19 + [1])
    np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_test=np.zeros((20, 2)), y_test=test_labels)
    command = ("--dataset=set.npz", "--batch_size=10", "--epochs=1", "--sparsity=0.5", "--workdir=w")
    assert run(*command, cwd=tmp_path).returncode == 0
    (row,) = rows(tmp_path / "w")  # blind: right for 95 % of the test part, or for 5 %
    assert row["test_accuracy"] in ("0.95", "0.05")
    assert row["status"] == "collapsed"


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path):
    x, y = np.eye(6), np.arange(6) % 2
    np.savez(tmp_path / "p[red].npz", x_train=x, y_train=y, x_test=x, y_test=y)
    ended = run("--dataset=p[red].npz,digits", "--batch_size=2", "--validation_fraction=0", "--dry_run", cwd=tmp_path)
    assert ended.returncode == 0
    assert "p[red].npz" in ended.stdout


@pytest.mark.slow
def test_results_are_those_of_the_average_where_there_is_one(tmp_path):
    """The last report is of the last step, and so are the results; the digest is of what they are of."""
    ended = run(*SMALL, "--method=set", "--ema=0,0.98", "--workdir=w", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    plain, averaged = sorted(rows(tmp_path / "w"), key=lambda row: float(row["ema"]))
    for row in (plain, averaged):
        last = json.loads((tmp_path / "w" / "metrics" / f"{row['run_id']}.jsonl").read_text().splitlines()[-1])
        assert last["val_loss"] == pytest.approx(float(row["val_loss"]), rel=1e-4)  # another program
        assert last["val_accuracy"] == float(row["val_accuracy"])
    assert len({row["val_loss"] for row in (plain, averaged)}) == 2
    assert len({row["digest"] for row in (plain, averaged)}) == 2
    for name in ("connections", "explored"):  # training is the same
        assert plain[name] == averaged[name]
