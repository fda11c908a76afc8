"""launch/ablate.py as users run it: on studies with all kinds of networks, again, on more, and on what is no good."""

import csv
import json
import shutil

import numpy as np
import pytest

from sparse_jax.data.catalog import make_reader
from sparse_jax.study.evaluate import read_own
from sparse_jax.study.finished import find_all
from sparse_jax.study.subjects import cohorts_of
from tests.program import rows, run

NETWORK = ("--dataset=digits", "--train_size=300", "--hidden_sizes=24,12", "--batch_size=16", "--cpu_devices=2",
           "--epochs=2", "--learning_rate=0.1")  # fmt: skip
STUDY = (*NETWORK, "--method=dense,set", "--activation=relu,srelu", "--sparsity=0.8", "--workdir=study")
FEW = ("--order=smallest,random", "--edit=unchanged,shared_weight", "--fractions=0,0.5,1")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a study of four networks, masked and sparse, one seed; not to be changed."""
    root = tmp_path_factory.mktemp("ablate")
    for more in (("--execution=masked",), ("--execution=sparse", "--method=set", "--workdir=sparse")):
        done = run(*STUDY, *more, cwd=root)
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def world(made, tmp_path):
    """A copy of it."""
    shutil.copytree(made, tmp_path / "world")
    return tmp_path / "world"


def ablate(*arguments, cwd):
    return run(*arguments, cwd=cwd, program="ablate.py")


def table(workdir):
    with (workdir / "ablation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def one_line(done):
    assert done.returncode == 2
    assert done.stderr.startswith("ablate.py: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_the_whole_network_scores_what_its_result_says_and_nothing_is_done_twice(world):
    done = ablate("study", "sparse", *FEW, cwd=world)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in ("study", "sparse"):
        accuracies = {row["run_id"]: row["test_accuracy"] for row in rows(world / name)}
        found = table(world / name)
        assert {row["run_id"] for row in found} == set(accuracies)
        whole = [row for row in found if row["to"] == "0.0" or row["name"] == "unchanged"]
        assert len(whole) == 3 * len(accuracies)
        assert all(row["accuracy"] == accuracies[row["run_id"]] for row in whole)
        for run_id in accuracies:
            masks = np.load(world / name / "runs" / run_id / "masks.npz") if "-set-" in run_id else None
            everything = [row for row in found if row["run_id"] == run_id and row["to"] == "1.0"]
            assert masks is None or all(row["removed"] == row["connections"] for row in everything)
    files = {path: path.read_bytes() for path in world.glob("*/runs/*/ablations.json")}
    assert len(files) == 6
    before = (world / "study" / "ablation.csv").read_bytes()
    again = ablate("study", "sparse", *FEW, cwd=world)
    assert again.stdout == done.stdout
    assert {path: path.read_bytes() for path in files} == files
    assert (world / "study" / "ablation.csv").read_bytes() == before


def test_masked_and_sparse_networks_are_cut_alike(world):
    """The same numbers from a network that was executed sparsely, and from a masked one that has its weights."""
    found = rows(world / "sparse")[0]
    lent = f"sparse/runs/{found['run_id']}"
    given = (f"--initial_topology=from_run:{lent}", f"--initial_weights=trained:{lent}", "--epochs=0")
    network = (*NETWORK[:-2], "--method=static", f"--activation={found['activation']}", "--workdir=copy")
    assert run(*network, *given, cwd=world).returncode == 0
    assert ablate("copy", lent, *FEW, cwd=world).returncode == 0
    pick = ("name", "from", "to", "weight", "removed", "accuracy")
    both = [[tuple(row[name] for name in pick) for row in table(world / name) if row["name"] != "random"
             and (name == "copy" or row["run_id"] == found["run_id"])] for name in ("copy", "sparse")]  # fmt: skip
    assert both[0] == both[1]


def test_more_orders_and_more_seeds_leave_what_is_there(world):
    assert ablate("study", *FEW, cwd=world).returncode == 0
    before = table(world / "study")
    assert run(*STUDY, "--num_seeds=2", cwd=world).returncode == 0
    done = ablate("study", "--order=smallest,largest", *FEW[1:], cwd=world)
    assert done.returncode == 0, done.stderr
    after = table(world / "study")
    assert [row for row in after if row in before] == before
    new = {(row["run_id"], row["name"]) for row in after} - {(row["run_id"], row["name"]) for row in before}
    assert {name for run_id, name in new if "seed0" in run_id} == {"largest"}
    assert {name for run_id, name in new if "seed1" in run_id} == {"smallest", "largest", "unchanged", "shared_weight"}


def test_other_weights_under_a_run_are_examined_anew(world):
    some = sorted((world / "study" / "runs").iterdir())[0]
    assert ablate(str(some), *FEW, cwd=world).returncode == 0
    kept = json.loads((some / "ablations.json").read_text())
    first = next(iter(kept["experiments"].values()))
    first["points"][0]["accuracy"] = -1
    (some / "ablations.json").write_text(json.dumps(kept | {"digest": "of other weights"}))
    assert ablate(str(some), *FEW, cwd=world).returncode == 0
    assert all(float(row["accuracy"]) >= 0 for row in table(world / "study"))
    (some / "ablations.json").write_text('{"digest": "cut sho')
    assert ablate(str(some), *FEW, cwd=world).returncode == 0
    assert len(table(world / "study")) == 3 + 3 + 1 + 6


def test_leaving_one_out_has_correlations_and_only_small_networks(world):
    done = ablate("study", "--order=leave_one_out", "--edit=none", "--layers=output", "--fractions=0,1", cwd=world)
    assert done.returncode == 0, done.stderr
    for path in (world / "study" / "runs").glob("*/ablations.json"):
        (experiment,) = json.loads(path.read_text())["experiments"].values()
        found = experiment["correlations"]
        assert found.keys() == {"all", "output/kernel"}
        assert found["all"] == found["output/kernel"]
        assert all(-1 <= value <= 1 for value in found["all"].values())
        assert found["all"].keys() == {"smallest", "gradient", "activity"}
    wide = (*NETWORK[:2], "--hidden_sizes=300,100", *NETWORK[3:-2], "--epochs=0", "--method=dense", "--workdir=wide")
    assert run(*wide, cwd=world).returncode == 0
    alone = ablate("wide", "--order=leave_one_out", "--edit=none", cwd=world)
    assert "20,000 at most: --layers" in one_line(alone)
    beside = ablate("wide", "--order=leave_one_out,smallest", "--edit=none", "--fractions=0,1", cwd=world)
    assert beside.returncode == 0
    assert "skipped" in beside.stderr
    assert {row["name"] for row in table(world / "wide")} == {"smallest"}


def test_retraining_and_parts(world):
    args = ("study", "--order=smallest", "--edit=none", "--fractions=0,0.9", "--retrain_steps=0,30")
    assert ablate(*args, "--part=validation", "--scope=global", "--which=best", cwd=world).returncode == 0
    found = table(world / "study")
    assert {(row["retrain_steps"], row["retrain_rate"]) for row in found} == {("0", ""), ("30", "0.1")}
    assert {(row["part"], row["scope"], row["which"]) for row in found} == {("validation", "global", "best")}
    cut, again = ([float(row["loss"]) for row in found if row["retrain_steps"] == steps and row["to"] == "0.9"]
                  for steps in ("0", "30"))  # fmt: skip
    assert np.mean(again) < np.mean(cut)


def test_what_cannot_be_examined_is_named_and_skipped(world):
    runs = sorted((world / "study" / "runs").iterdir())
    group = json.loads((runs[0] / "result.json").read_text())["group"]
    shutil.rmtree(world / "study" / "checkpoints" / group)
    done = ablate("study", *FEW, cwd=world)
    assert done.returncode == 0
    name, folder = f"study/runs/{runs[0].name}", world / "study" / "checkpoints"
    gone = f"the checkpoint with the weights of {name} is gone: restore {folder}, or train it again, in another"
    assert done.stderr == f"skipped {name}: {gone} --workdir\n"
    assert {row["run_id"] for row in table(world / "study")} == {run.name for run in runs[1:]}
    shutil.rmtree(world / "sparse" / "checkpoints")
    assert "is gone" in one_line(ablate("sparse", *FEW, cwd=world))
    assert not (world / "sparse" / "ablation.csv").exists()


BAD = {
    "--order=biggest": "unknown order 'biggest'",
    "--edit=shuffled": "unknown edit 'shuffled'",
    "--order=none --edit=none": "name an --order or an --edit",
    "--fractions=0,1.5": "--fractions=1.5 is outside [0, 1]",
    "--fractions=0,x": "--fractions=0,x: numbers, separated by commas",
    "--fractions=0.5,0.5": "--fractions names a value twice",
    "--scope=network": "unknown scope 'network'",
    "--retrain_steps=-1": "--retrain_steps=-1 is less than 0",
    "--retrain_steps=1.5": "--retrain_steps=1.5: whole numbers, separated by commas",
    "--layers=conv": "--layers='conv' matches no layer. Layers: dense_0, dense_1, output",
    "--layers=(": "--layers='(' is not a regular expression",
    "nowhere": "nowhere is not there: name the folder of a finished run",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_is_one_line_and_writes_nothing(made, arguments):
    before = sorted(made.rglob("*"))
    assert BAD[arguments] in one_line(ablate("study", *arguments.split(), cwd=made))
    assert sorted(made.rglob("*")) == before


def test_no_run_and_no_finished_run(made, tmp_path):
    assert "which runs? Name a workdir" in one_line(ablate(cwd=made))
    shutil.copytree(made / "study", tmp_path / "begun")
    for path in tmp_path.glob("begun/runs/*/result.json"):
        path.unlink()
    assert "begun has no finished run yet" in one_line(ablate("begun", cwd=tmp_path))


def test_scores_look_at_a_sample_of_the_training_part_and_other_parts_stay(made):
    read = make_reader("~")
    (cohort, _), skipped = cohorts_of(find_all(str(made / "study")), read)
    assert skipped == []
    own, train = read_own(cohort.runs[0], read), cohort.sizes[0]
    assert (cohort.data.x[:train] != own.parts.x[:train]).any()
    pairs = [sorted(zip(x[:train].reshape(train, -1).tolist(), y[:train].tolist(), strict=True))
             for x, y in (cohort.data[:2], own.parts[:2])]  # fmt: skip
    assert pairs[0] == pairs[1]
    assert (cohort.data.x[train:] == own.parts.x[train:]).all()
    assert (cohort.data.y[train:] == own.parts.y[train:]).all()
