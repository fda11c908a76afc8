"""launch/ablate.py as users run it: on studies with all kinds of networks, again, on more, and on what is no good."""

import csv
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from sparse_jax.config import AblationConfig
from sparse_jax.data.catalog import make_reader
from sparse_jax.study.ablate import check
from sparse_jax.study.ablations import name_of
from sparse_jax.study.evaluate import read_own
from sparse_jax.study.finished import find_all
from sparse_jax.study.subjects import admit, cohorts_of
from sparse_jax.study.trained import load, read_group
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
    files = list(world.glob("*/runs/*/ablations.json"))
    assert len(files) == 6
    files[0].write_text(re.sub(r'"accuracy": [\d.]+', '"accuracy": 0.123', files[0].read_text(), count=1))
    files = {path: path.read_bytes() for path in files}  # what is there is not made again
    done = ablate("study", "sparse", *FEW, cwd=world)
    assert done.returncode == 0
    assert {path: path.read_bytes() for path in files} == files
    assert sum(row["accuracy"] == "0.123" for name in ("study", "sparse") for row in table(world / name)) == 1
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    done = ablate("study", "--order=none", "--edit=unchanged", cwd=world)
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
    "--retrain_steps=-1": "--retrain_steps=-1 is outside [0, 2147483647]",
    "--retrain_steps=99999999999": "--retrain_steps=99999999999 is outside [0, 2147483647]",
    "--retrain_rate=nan": "--retrain_rate=nan is no factor",
    "--scope=layer,layer": "--scope names a value twice",
    "--order=none,smallest": "--order=none,smallest: none stands alone",
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


@pytest.mark.slow
def test_the_best_network_and_other_parts_score_what_the_results_say(world):
    """Where the best network is not the last one: of a long training at a high rate."""
    study = (*NETWORK[:5], "--epochs=8", "--learning_rate=0.4", "--method=set", "--num_seeds=4", "--workdir=wild")
    assert run(*study, cwd=world).returncode == 0
    columns = {("final", "test"): "test_accuracy", ("final", "validation"): "val_accuracy",
               ("final", "train"): "train_accuracy", ("best", "test"): "test_accuracy_at_best_val",
               ("best", "validation"): "best_val_accuracy"}  # fmt: skip
    for which, part in columns:
        flags = ("--order=none", "--edit=unchanged", f"--which={which}", f"--part={part}")
        assert ablate("wild", *flags, cwd=world).returncode == 0
    results = {row["run_id"]: row for row in rows(world / "wild")}
    found = table(world / "wild")
    assert len(found) == 5 * len(results)
    for row in found:
        assert row["accuracy"] == results[row["run_id"]][columns[row["which"], row["part"]]]
    assert any(row["test_accuracy"] != row["test_accuracy_at_best_val"] for row in results.values())


@pytest.mark.slow
def test_a_network_is_admitted_with_its_rates_and_without_weights_off_its_masks(world):
    study = (*NETWORK, "--method=top_kast", "--weight_decay=0.01", "--workdir=kast", "--init_fan=active")
    assert run(*study, cwd=world).returncode == 0
    ((cohort,), _) = cohorts_of(find_all(str(world / "kast")), make_reader("~"))
    subject = admit(cohort, cohort.runs[0], "final", 0.25, read_group)
    assert subject.hyper.learning_rate == np.float32(0.25 * 0.1)
    assert subject.hyper.weight_decay == np.float32(0.01)
    assert subject.active_fan
    for name, mask in subject.hyper.masks.items():
        assert (subject.weights(name)[~mask] == 0).all()
        assert (np.asarray(load(cohort.runs[0], "final").masks[name]) == mask).all()


def test_runs_that_diverged_are_skipped_and_other_data_make_another_cohort(made):
    runs, read = find_all(str(made / "study")), make_reader("~")
    lost = runs[0]._replace(result=runs[0].result | {"status": "diverged"})
    cohorts, skipped = cohorts_of([lost, *runs[1:]], read)
    assert skipped == [(lost.path, "it diverged")]
    assert sum(len(cohort.runs) for cohort in cohorts) == len(runs) - 1
    other = runs[0]._replace(data={"digits": "another"})
    ((name, reason),) = cohorts_of([other], read)[1]
    assert name == other.path
    assert "restore that one" in reason
    assert len(cohorts_of([other, *runs], read)[0]) == len(cohorts_of(runs, read)[0])


def test_what_tells_experiments_apart():
    usual, names = AblationConfig(), []
    for changed in ({}, {"examples": 5}, {"fractions": (0.0, 1.0)}, {"part": "train"}, {"which": "best"},
                    {"layers": "output"}):  # fmt: skip
        config = dataclasses.replace(usual, **changed)
        names.append([name_of(one.settings(config)) for one in check(config)])
    assert len(set(names[0])) == len(names[0]) == 8 + 6 + 1
    differ = [sum(a != b for a, b in zip(names[0], other, strict=True)) for other in names[1:]]
    assert differ == [2, 7, 15, 15, 14]  # gradient and activity; all but the deciles; all; all; all but shared weights
    turned = dataclasses.replace(usual, fractions=tuple(reversed(usual.fractions)))
    assert [name_of(one.settings(turned)) for one in check(turned)] == names[0]


@pytest.mark.slow
def test_the_report_of_experiments_that_overlap(world):
    """The same order with other fractions, the same edit with another rate: two ways, not two seeds."""
    some = next(iter(find_all(str(world / "study")))).path
    for more in (("--order=smallest,random", "--edit=unchanged"), ("--order=smallest", "--fractions=0,0.1"),
                 ("--order=none", "--edit=signs_shuffled", "--retrain_steps=3"),
                 ("--order=none", "--edit=signs_shuffled", "--retrain_steps=3", "--retrain_rate=0.5")):  # fmt: skip
        assert ablate(some, *more, *(() if "--edit" in " ".join(more) else ("--edit=none",)), cwd=world).returncode == 0
    done = run("study", cwd=world, program="report.py")
    assert done.returncode == 0, done.stderr
    with (world / "study" / "report" / "tables" / "ablation-areas.csv").open() as file:
        areas = list(csv.DictReader(file))
    assert {row["seeds"] for row in areas} == {"1"}
    assert len([row for row in areas if row["order"] == "smallest"]) == 2
    one = next(row for row in table(world / "study") if row["name"] == "smallest" and row["area"])
    assert any(float(row["area"]) == pytest.approx(float(one["area"])) for row in areas)


@pytest.mark.slow
def test_asked_for_what_cannot_be_done_is_an_error_though_other_things_are_known(world):
    assert ablate("sparse", *FEW, cwd=world).returncode == 0
    shutil.rmtree(world / "sparse" / "checkpoints")
    assert "nothing is left to examine: the checkpoint" in one_line(ablate("sparse", "--order=largest", cwd=world))
    assert ablate("sparse", *FEW, cwd=world).returncode == 0


@pytest.mark.slow
def test_networks_of_other_shapes_go_along_and_those_whose_data_are_gone_are_named(world):
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.normal(size=(40, 5)).astype(np.float32) for part in ("train", "test")}
    np.savez(world / "own.npz", **arrays, **{f"y_{part}": np.arange(40) % 3 for part in ("train", "test")})
    own = ("--dataset=own.npz", "--hidden_sizes=7", "--batch_size=8", "--epochs=1", "--method=set", "--cpu_devices=2")
    assert run(*own, "--workdir=own", cwd=world).returncode == 0
    flags = ("--order=gradient", "--edit=none", "--fractions=0,1")
    assert ablate("own", "study", *flags, cwd=world).returncode == 0
    assert [len(table(world / name)) for name in ("own", "study")] == [2, 8]
    (world / "own.npz").unlink()
    more = ("--order=activity", *flags[1:])
    done = ablate("own", "study", *more, cwd=world)
    assert done.returncode == 0
    assert done.stderr.startswith("skipped own/runs/")
    assert done.stderr.count("\n") == 1
    assert "own.npz" in done.stderr
    assert [len(table(world / name)) for name in ("own", "study")] == [2, 16]
    assert "own.npz" in one_line(ablate("own", *more, cwd=world))
