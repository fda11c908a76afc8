"""The search for activation functions: its stages on small networks, what it keeps, and how it goes on."""

import csv
import json
import math
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from sparse_jax.config import METHODS
from sparse_jax.data.catalog import make_reader
from sparse_jax.data.normalization import make_apply
from sparse_jax.data.splits import split
from sparse_jax.errors import UserError
from sparse_jax.recipes import NATURES
from sparse_jax.search import safs_run, side_by_side
from sparse_jax.search.files import save_arrays
from sparse_jax.search.records import Records
from sparse_jax.search.safs_work import learning_data
from sparse_jax.study.files import read_lines
from sparse_jax.training.hardware import Hardware
from tests import program
from tests.asking import Asking
from tests.safs_plans import SEARCH, devices, outcome, plan_of, search


@pytest.fixture(autouse=True, scope="module")
def _two_devices():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safs_run, "set_up", devices(2))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, _two_devices):
    """A search that was not interrupted: its workdir, the reads of the test part, and the traces of `steps`."""
    folder, reads, traces = tmp_path_factory.mktemp("safs") / "w", [], []
    with pytest.MonkeyPatch.context() as patch:
        read, make = safs_run.test_data, side_by_side.make_train

        def make_counted(config, problem, choices):
            fns = make(config, problem, choices)

            def steps(*args):
                traces.append(config.epochs)
                return fns.steps(*args)

            return fns._replace(steps=steps)

        patch.setattr(safs_run, "test_data", lambda *args: reads.append(1) or read(*args))
        patch.setattr(side_by_side, "make_train", make_counted)
        assert search(plan_of(folder)) == 0
    return folder, reads, traces


def test_the_test_part_is_read_once_at_the_end(finished):
    assert finished[1] == [1]


def test_a_search_compiles_once_for_every_shape(finished):
    """A program for candidates and trials, and one for the networks of the beginning and the end."""
    assert sorted(finished[2]) == [2, 3]


def test_networks_that_are_trained_see_no_row_of_the_test_part(tmp_path, monkeypatch):
    seen = []
    make = side_by_side.SideBySide.__init__

    def noted(self, config, problem, choices, hardware, lanes, data):
        seen.append(data)
        make(self, config, problem, choices, hardware, lanes, data)

    monkeypatch.setattr(side_by_side.SideBySide, "__init__", noted)
    monkeypatch.setattr(safs_run, "conclude", lambda *args: None)
    plan = plan_of(tmp_path, seeds=1, steps=0, trials=0)
    assert search(plan) == 0
    assert plan.problem.test == 100
    assert {data.y.shape[0] for data in seen} == {200}


def test_the_records_tell_the_whole_course(finished):
    folder, lines = finished[0], read_lines(finished[0] / "candidates.jsonl")
    result = json.loads((folder / "result.json").read_text())
    for one in result["pipelines"]:
        own = [line for line in lines if line["pipeline"] == one["pipeline"]]
        first = [line for line in own if line["stage"] == "stage1"]
        assert [line["step"] for line in first] == list(range(4))
        best = max(first, key=lambda line: line["accuracy"])  # the first of equals
        assert best["operators"] == one["operators"]
        known = {}
        for line in first:
            key = tuple(line["operators"])
            assert line["known"] == (key in known)
            assert line["accuracy"] == known.setdefault(key, line["accuracy"])
            assert (line["seconds"] > 0) == (line["flops"] > 0) == (not line["known"])
        for stage, operators in (("stage2", ["relu", "relu"]), ("both", one["operators"])):
            trials = [line for line in own if line["stage"] == stage]
            assert [line["trial"] for line in trials] == [0, 1, 2]
            assert all(line["operators"] == operators and line["epochs"] == 2 for line in trials)
            assert (trials[0]["optimizer"], trials[0]["learning_rate"]) == ("momentum", pytest.approx(0.1))
            best = max(trials, key=lambda line: line["accuracy"])
            assert one["hyperparameters"][stage] == {name: best[name] for name in one["hyperparameters"][stage]}
    with (folder / "candidates.csv").open(newline="") as file:
        assert [row["accuracy"] for row in csv.DictReader(file)] == [str(line["accuracy"]) for line in lines]


FUNCTIONS = {
    "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "symlog": lambda x: np.sign(x) * np.log1p(np.abs(x)),
}  # fmt: skip
UNSCALED = [{"alpha": [1.0], "beta": [1.0]}] * 2


def answers(file, plan, normalized, names, scales):
    """The logits of a network that was kept, in NumPy."""
    x = normalized
    for i, kernel in enumerate(plan.problem.kernels):
        layer = kernel.removesuffix("/kernel")
        x = x @ file[f"['params']['{layer}']['kernel']"] + file[f"['params']['{layer}']['bias']"]
        if i < len(names):
            alpha, beta = (np.float32(scales[i][name]) for name in ("alpha", "beta"))
            x = alpha * FUNCTIONS[names[i]](beta * x)
    return x


def test_accuracies_are_those_of_the_networks_that_are_kept(finished):
    """Of every column, on the validation and the test part; the curves are those of `both`."""
    plan = plan_of(finished[0])
    parts, normalize = data_parts(plan), make_apply(plan.config.normalization)
    data = learning_data(plan, parts)
    ends = np.cumsum([parts.train, parts.validation])
    rows = {"validation_accuracy": slice(*ends), "test_accuracy": slice(ends[1], None)}
    result = json.loads((finished[0] / "result.json").read_text())
    for one in result["pipelines"]:
        for column, network in one["networks"].items():
            file = np.load(finished[0] / "networks" / f"{column}-{one['pipeline']}.npz")
            names = one["operators"] if column in ("stage1", "both") else one["default"]
            for name, part in rows.items():
                x = np.asarray(normalize(data.normalization, parts.x[part])).reshape(len(parts.y[part]), -1)
                predicted = answers(file, plan, x, names, one["scales"].get(column, UNSCALED)).argmax(1)
                assert network[name] == pytest.approx((predicted == parts.y[part]).mean(), abs=1e-6), (column, name)
    pipelines = {one["pipeline"]: one for one in result["pipelines"]}
    for curve in result["curves"]:
        scale = pipelines[curve["pipeline"]]["scales"].get(curve["column"], UNSCALED)[curve["layer"]]
        expected = scale["alpha"][0] * FUNCTIONS[curve["operator"]](scale["beta"][0] * np.array(curve["x"]))
        np.testing.assert_allclose(curve["y"], expected, rtol=1e-4, atol=1e-5)


def test_every_seed_has_its_own_course_and_networks(finished):
    lines = read_lines(finished[0] / "candidates.jsonl")

    def course(seed, stage, name):
        return [line[name] for line in lines if (line["seed"], line["stage"]) == (seed, stage)]

    assert course(0, "stage1", "operators") != course(1, "stage1", "operators")
    assert course(0, "stage2", "learning_rate")[1:] != course(1, "stage2", "learning_rate")[1:]
    one, other = (np.load(finished[0] / "networks" / f"dense-s0.8-seed{seed}.npz") for seed in (0, 1))
    kernels = [name for name in one if name.endswith("['kernel']")]
    assert max(np.corrcoef(one[name].ravel(), other[name].ravel())[0, 1] for name in kernels) < 0.6


def test_trials_lie_in_their_ranges(finished):
    ranges = {"momentum": SEARCH.tuned_momenta, "weight_decay": SEARCH.tuned_weight_decays}
    asked = [line for line in read_lines(finished[0] / "candidates.jsonl") if line.get("trial")]
    assert asked
    assert all(low <= line[name] <= high for line in asked for name, (low, high) in ranges.items())


def test_the_operations_of_what_was_trained(finished):
    """Three products of two operations for each connection, example and epoch; a fifth of the connections is left."""
    connections = round(0.2 * 64 * 12) + round(0.2 * 12 * 8) + round(0.2 * 8 * 10)
    for line in read_lines(finished[0] / "candidates.jsonl"):
        assert line.get("known") or line["flops"] == 3 * 2 * connections * 180 * line["epochs"]


def test_a_search_that_has_ended_trains_nothing_again(finished, tmp_path, monkeypatch):
    shutil.copytree(finished[0], tmp_path / "w")
    (tmp_path / "w" / "result.json").unlink()
    monkeypatch.setattr(side_by_side.SideBySide, "train", lambda *args, **kwargs: pytest.fail("it trains"))
    assert search(plan_of(tmp_path / "w")) == 0


def test_the_table_is_that_of_the_networks(finished):
    result = json.loads((finished[0] / "result.json").read_text())
    columns = ["dense", "default", "stage1", "stage2", "both"]
    assert [row["column"] for row in result["table"]] == columns
    networks = [one["networks"] for one in result["pipelines"]]
    accuracies = {column: np.array([own[column]["test_accuracy"] for own in networks]) for column in columns}
    for row in result["table"]:
        assert row["mean"] == pytest.approx(accuracies[row["column"]].mean())
    for row in result["gains"]:
        gains = accuracies[row["column"]] - accuracies["default"]
        half = 12.706204736174698 * gains.std(ddof=1) / math.sqrt(2)  # t with one degree of freedom
        assert (row["low"], row["high"]) == (pytest.approx(gains.mean() - half), pytest.approx(gains.mean() + half))
    for one in result["pipelines"]:
        assert one["networks"]["dense"]["connections"] == 64 * 12 + 12 * 8 + 8 * 10
        sparse = round(0.2 * 64 * 12) + round(0.2 * 12 * 8) + round(0.2 * 8 * 10)
        assert {one["networks"][column]["connections"] for column in columns[1:]} == {sparse}
        assert set(one["scales"]) == {"stage2", "both"}
        assert all(layer["alpha"] != [1.0] for layers in one["scales"].values() for layer in layers)


def test_networks_are_kept_with_masks_of_the_largest_weights(finished):
    plan = plan_of(finished[0])
    for pipeline in plan.pipelines:
        dense, sparse = (np.load(finished[0] / "networks" / f"{name}-{pipeline.id}.npz") for name in ("dense", "both"))
        for layer, shape in plan.problem.kernels.items():
            weights = np.abs(dense[f"['params']['{layer.removesuffix('/kernel')}']['kernel']"])
            mask = np.unpackbits(sparse[f"['masks']['{layer}']"], count=math.prod(shape)).astype(bool).reshape(shape)
            assert mask.sum() == round(0.2 * mask.size)
            assert weights[mask].min() >= weights[~mask].max()
            kernel = sparse[f"['params']['{layer.removesuffix('/kernel')}']['kernel']"]
            assert not kernel[~mask].any()
            assert kernel[mask].any()


@pytest.mark.parametrize("after", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 3, 6, 7, 9, 12))])
def test_an_interrupted_search_ends_as_an_uninterrupted_one(after, finished, tmp_path, capsys):
    expected = outcome(finished[0])
    assert search(plan_of(tmp_path), Asking(after)) == 75
    assert "stopped and saved: the same command continues" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()
    assert search(plan_of(tmp_path)) == 0
    assert outcome(tmp_path) == expected
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.slow
def test_a_kill_between_a_line_and_what_follows_it_changes_nothing(finished, tmp_path, monkeypatch):
    """Once after each of the first writings of lines, before anything is told or accepted."""
    expected, add = outcome(finished[0]), Records.add

    class Killed(BaseException):
        pass

    def add_and_die(self, lines):
        add(self, lines := list(lines))
        if lines:
            raise Killed

    for _ in range(6):  # four steps of the first stage, then trials
        plan = plan_of(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(Records, "add", add_and_die)
            with pytest.raises(Killed):
                search(plan)
        with (tmp_path / "candidates.jsonl").open("a") as file:
            file.write('{"stage": "stage1", "pipe')  # cut short
    assert search(plan_of(tmp_path)) == 0
    assert outcome(tmp_path) == expected


def test_an_interrupted_training_goes_on_from_its_checkpoint(finished, tmp_path, monkeypatch):
    """Of the networks at the beginning, in the middle: the steps before are not made again."""
    made = []
    advanced = side_by_side.SideBySide._advanced

    def counted(self, course, *args):
        after = advanced(self, course, *args)
        made.append((course.step, after.step))
        return after

    monkeypatch.setattr(side_by_side.SideBySide, "_advanced", counted)
    assert search(plan_of(tmp_path), Asking(0)) == 75
    first, reached = made[0]
    assert len(made) == 1
    assert first == 0 < reached < 27
    assert search(plan_of(tmp_path)) == 0
    assert made[1][0] == reached
    assert outcome(tmp_path) == outcome(finished[0])


@pytest.mark.slow
def test_a_search_goes_on_with_other_devices(finished, tmp_path, monkeypatch):
    """In the middle of the dense networks, and in that of a later stage."""
    assert search(plan_of(tmp_path), Asking(1)) == 75
    monkeypatch.setattr(safs_run, "set_up", devices(1))
    assert search(plan_of(tmp_path), Asking(9)) == 75
    monkeypatch.setattr(safs_run, "set_up", devices(2))
    assert search(plan_of(tmp_path)) == 0
    assert outcome(tmp_path) == outcome(finished[0])


@pytest.mark.slow
def test_the_checkpoint_of_another_training_is_passed_over(tmp_path):
    short = {"steps": 0, "trials": 0}
    assert search(plan_of(tmp_path / "w", **short), Asking(1)) == 75
    for name in ("w", "alone"):
        assert search(plan_of(tmp_path / name, host={"first_seed": 5}, **short)) == 0
    assert outcome(tmp_path / "w") == outcome(tmp_path / "alone")


def test_a_line_of_another_storage_is_not_taken_for_a_trial(finished, tmp_path):
    """Of trial 1 the line says something else: it is tried again, and what the line says of accuracy counts nothing."""
    workdir = tmp_path / "w"
    shutil.copytree(finished[0], workdir)
    for path in (workdir / "result.json", workdir / "tuning.journal", *workdir.glob("networks/*both*.npz")):
        path.unlink()
    lines = read_lines(workdir / "candidates.jsonl")
    changed = [line for line in lines if line.get("trial") == 1]
    assert len(changed) == 4
    for line in changed:
        line |= {"learning_rate": 2 * line["learning_rate"], "accuracy": 0.999}
    (workdir / "candidates.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert search(plan_of(workdir)) == 0
    result, expected = (json.loads((root / "result.json").read_text()) for root in (workdir, finished[0]))
    for one, other in zip(result["pipelines"], expected["pipelines"], strict=True):
        assert one["hyperparameters"] == other["hyperparameters"]
    assert len(read_lines(workdir / "candidates.jsonl")) == len(lines) + 4


@pytest.mark.slow
def test_more_seeds_and_another_sparsity_join_the_table(finished, tmp_path):
    expected = outcome(finished[0])[0]
    assert search(plan_of(tmp_path, seeds=1)) == 0
    assert search(plan_of(tmp_path)) == 0
    found = outcome(tmp_path)[0]
    assert found["pipelines"] == expected["pipelines"]
    assert found["table"] == expected["table"]
    assert search(plan_of(tmp_path, seeds=1, networks={"sparsity": 0.5})) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert [one["pipeline"] for one in result["pipelines"]] == ["s0.5-seed0", "s0.8-seed0", "s0.8-seed1"]
    assert [(row["sparsity"], row["seeds"]) for row in result["table"][::5]] == [(0.5, 1), (0.8, 2)]
    assert {curve["pipeline"] for curve in result["curves"]} == {"s0.5-seed0", "s0.8-seed0", "s0.8-seed1"}
    networks = [one["networks"] for one in result["pipelines"]]
    assert result["seconds"]["start"] == pytest.approx(sum(own["dense"]["seconds"] for own in networks), abs=0.02)


@pytest.mark.parametrize("method", [
    pytest.param(name, marks=() if name == "rigl" else pytest.mark.slow)
    for name in METHODS if name not in ("dense", "static")
])  # fmt: skip
def test_a_search_starts_from_the_network_of_any_method(method, tmp_path):
    """Methods whose number of connections is constant go on with them; of others, what they end with stays."""
    changes = {"interval": "3"} if method not in ("lottery_ticket", "lr_rewinding") else {"levels": "auto"}
    changes |= {"method": method, "sparsity": 0.6}
    if method in ("deepr", "top_kast"):
        changes["interval"] = "1"
    plan = plan_of(tmp_path, seeds=1, steps=0, trials=0, candidate_epochs=1, networks=changes)
    goes_on = NATURES[method].count in ("constant", "accuracy")
    assert plan.pipelines[0].candidate.config.method == (method if goes_on else "static")
    assert search(plan) == 0
    (one,) = json.loads((tmp_path / "result.json").read_text())["pipelines"]
    start = np.load(tmp_path / "networks" / f"start-{plan.pipelines[0].id}.npz")
    end = np.load(tmp_path / "networks" / f"stage1-{plan.pipelines[0].id}.npz")
    masks = [name for name in end if name.startswith("['masks']")]
    counts = [sum(np.unpackbits(file[name]).sum() for name in masks) for file in (start, end)]
    assert one["connections"] == counts[0]
    assert counts[1] <= counts[0] if NATURES[method].count == "accuracy" else counts[1] == counts[0]
    same = all((start[name] == end[name]).all() for name in masks)
    assert same != goes_on or method in ("mest_soft",)


OTHERS = {
    "lstm": {"hidden_sizes": (8, 6)}, "vgg16": {"width": 1 / 16}, "resnet18": {"width": 1 / 16},
    "efficientnet_b0": {"width": 1 / 8, "sparsity": 0.5},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model", OTHERS)
def test_a_search_is_for_any_model(model, tmp_path):
    changes = {"learning_rate": 0.01, "epochs": 1} | OTHERS[model] | {"model": model}
    defaults = {"hidden_sizes": "auto"} | changes
    plan = plan_of(tmp_path, seeds=1, steps=0, trials=1, candidate_epochs=1, networks=defaults, given=changes)
    assert search(plan) == 0
    (one,) = json.loads((tmp_path / "result.json").read_text())["pipelines"]
    assert len(one["operators"]) == len(one["scales"]["both"]) == plan.layers
    trained = [layer["alpha"] != [1.0] for layer in one["scales"]["both"]]
    assert all(trained) if model == "lstm" else any(trained)  # what comes after a dead layer learns, what is before not


@pytest.mark.slow
def test_lanes_of_a_vmap_find_what_mapped_networks_find(finished, tmp_path, monkeypatch):
    """The first candidates, but for the examples that the last bits of a sum decide about."""
    monkeypatch.setattr(safs_run, "set_up", devices(2, "vmap", 4))
    assert search(plan_of(tmp_path, steps=0, trials=0)) == 0
    expected, found = (read_lines(folder / "candidates.jsonl") for folder in (finished[0], tmp_path))
    assert len(found) == 2
    for one, other in zip(found, expected, strict=False):
        assert (one["pipeline"], one["operators"]) == (other["pipeline"], other["operators"])
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=0.11)  # of 20 examples
        assert one["loss"] == pytest.approx(other["loss"], rel=0.02)


@pytest.mark.slow
def test_a_radix_net_keeps_its_topology(tmp_path):
    changes = {"initial_topology": "radix", "hidden_sizes": (32, 16)}
    plan = plan_of(tmp_path, seeds=1, steps=0, trials=0, candidate_epochs=1, networks=changes)
    assert not plan.prunes
    assert search(plan) == 0
    files = [np.load(tmp_path / "networks" / f"{name}-{plan.pipelines[0].id}.npz") for name in ("start", "stage1")]
    for layer, mask in ((name, files[0][name]) for name in files[0] if name.startswith("['masks']")):
        np.testing.assert_array_equal(files[1][layer], mask)


def test_other_settings_another_search_and_damage_are_refused(finished, tmp_path):
    for changes, message in (
        ({"steps": 4}, "was begun with --steps=3, not 4"),
        ({"networks": {"batch_size": 10}}, "was begun with --batch_size=20, not 10"),
        ({"host": {"resume": False}}, "without --noresume it is continued"),
    ):
        with pytest.raises(UserError, match=message):
            search(plan_of(finished[0], **changes))
    plan = plan_of(tmp_path, seeds=1)
    (tmp_path / "networks").mkdir()
    damaged = tmp_path / "networks" / f"dense-{plan.pipelines[0].id}.npz"
    save_arrays(damaged, {"other": np.zeros(3)})
    with pytest.raises(UserError, match=r"dense-s0\.8-seed0\.npz is damaged: delete it"):
        search(plan)


def test_diverged_candidates_are_worth_nothing_and_are_never_chosen(tmp_path):
    plan = plan_of(tmp_path, seeds=1, steps=5, trials=0, operators=("symexp", "relu"), networks={"learning_rate": 30.0})
    assert search(plan) == 0
    lines = read_lines(tmp_path / "candidates.jsonl")
    assert any(line["diverged"] for line in lines)
    assert all(line["accuracy"] == 0 for line in lines if line["diverged"])
    result = json.loads((tmp_path / "result.json").read_text())
    best = max(lines, key=lambda line: line["accuracy"])
    assert result["pipelines"][0]["operators"] == best["operators"]


def test_a_start_that_diverged_is_told(tmp_path):
    plan = plan_of(tmp_path, seeds=1, networks={"learning_rate": 1e20})
    with pytest.raises(UserError, match=r"that s0\.8-seed0 starts from has diverged: choose a smaller --learning_rate"):
        search(plan)


@pytest.mark.slow
def test_hyperband_ends_trials_early_also_where_it_is_interrupted(tmp_path):
    changes = {"seeds": 1, "steps": 0, "trials": 12, "abreast": 6, "pruner": "hyperband", "candidate_epochs": 9}
    assert search(plan_of(tmp_path / "w", **changes)) == 0
    looks = [search(plan_of(tmp_path / "often", **changes), Asking(after)) for after in (12, 16)]
    assert looks == [75, 75]
    assert search(plan_of(tmp_path / "often", **changes)) == 0
    assert outcome(tmp_path / "often") == outcome(tmp_path / "w")
    lines = [line for line in read_lines(tmp_path / "w" / "candidates.jsonl") if line["stage"] != "stage1"]
    assert len(lines) == 24
    assert len({round(line["flops"] / line["epochs"]) for line in lines}) == 1
    assert any(line["stopped"] for line in lines)
    assert all((line["epochs"] < 9) == line["stopped"] for line in lines if not line["diverged"])


@pytest.mark.slow
def test_machines_that_share_a_storage_share_its_trials(finished, tmp_path):
    """The second has nothing left to try, and comes to the same networks."""
    url = f"sqlite:///{tmp_path}/trials.db"
    for name in ("one", "other"):
        assert search(plan_of(tmp_path / name, storage=url)) == 0
    lines = [read_lines(tmp_path / name / "candidates.jsonl") for name in ("one", "other")]
    assert [sum("trial" in line for line in own) for own in lines] == [12, 0]
    assert outcome(tmp_path / "one") == outcome(finished[0])
    assert outcome(tmp_path / "other")[0] == outcome(finished[0])[0]


# --- side by side ----------------------------------------------------------------------------------


def test_lanes_are_shared_out_evenly_among_the_devices(finished):
    plan = plan_of(finished[0])
    work = safs_run.Work(
        plan, Hardware(tuple(jax.devices()[:2]), "map", 32), Asking(), finished[0],
        safs_run.learning_data(plan, data_parts(plan)), "", Records(finished[0]), None, {},
    )  # fmt: skip
    program_ = work.side_by_side(plan.pipelines[0].candidate)
    assert program_.width == 8
    assert program_._lanes(3).tolist() == [0, 4, 1]
    assert sorted(program_._lanes(8)) == list(range(8))


def data_parts(plan):
    sizes = {name: getattr(plan.config, name) for name in ("train_size", "test_size", "validation_fraction")}
    return split(make_reader("")("digits"), **sizes)


# --- the program -----------------------------------------------------------------------------------

SMALL = (
    "safs", "--train_size=200", "--hidden_sizes=12,8", "--batch_size=20", "--epochs=3", "--sparsity=0.8",
    "--operators=relu:tanh", "--steps=60", "--candidate_epochs=2", "--trials=0", "--cpu_devices=2", "--workdir=w",
)  # fmt: skip


@pytest.mark.slow
def test_the_program_survives_its_signals(tmp_path):
    for number, status in ((signal.SIGTERM, 75), (signal.SIGKILL, -9)):
        process = program.start(*SMALL, cwd=tmp_path, program="search.py")
        lines, deadline = tmp_path / "w" / "candidates.jsonl", time.monotonic() + 200
        before = lines.stat().st_mtime_ns if lines.exists() else 0
        while not (lines.exists() and lines.stat().st_mtime_ns > before) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=200)
        assert process.returncode == status
    done = program.run(*SMALL, cwd=tmp_path, program="search.py")
    assert done.returncode == 0, done.stderr
    assert "+ operators" in done.stdout
    lines = read_lines(tmp_path / "w" / "candidates.jsonl")
    assert [line["step"] for line in lines] == list(range(61))
    assert len({tuple(line["operators"]) for line in lines if not line["known"]}) == 4


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:secret@127.0.0.1:1/tuning", "postgresql://me:***@127.0.0.1:1/tuning"),
        ("sqlite:////nowhere/at/all.db", "sqlite:////nowhere/at/all.db"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_storage_that_cannot_be_reached_is_one_line(url, message, tmp_path):
    done = program.run("safs", *SMALL[1:], "--trials=2", f"--storage={url}", cwd=tmp_path, program="search.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_help_teaches_and_a_dry_run_writes_nothing(tmp_path):
    done = program.run("safs", "--help", cwd=tmp_path, program="search.py")
    assert done.returncode == 0
    for words in ("late acceptance hill climbing", "--candidate_epochs", "--tuned_rates", "Examples:"):
        assert words in done.stdout
    assert "--population" not in done.stdout
    done = program.run("safs", "--sparsity=0.9,0.99", "--num_seeds=2", "--dry_run", cwd=tmp_path, program="search.py")
    assert done.returncode == 0
    assert "4 pipelines: s0.9-seed0, s0.9-seed1, s0.99-seed0, s0.99-seed1" in done.stdout
    assert not list(tmp_path.iterdir())
