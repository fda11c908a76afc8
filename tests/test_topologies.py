"""What inspect finds of the runs of a study: finished, stopped halfway, dense, and none at all."""

import csv
import json
import re
import shutil
import signal
import time

import numpy as np
import pytest

from sparse_jax.errors import UserError
from sparse_jax.study.inspect import inspect
from sparse_jax.study.mask_file import load_masks
from sparse_jax.study.store import open_store
from sparse_jax.study.topologies import find
from sparse_jax.training.checkpoint import Checkpoints
from tests.program import SMALL, run, start

TINY = (*SMALL, "--train_size=300", "--hidden_sizes=12,12", "--sparsity=0.93")
MEASURED = ("dead_neurons", "effective_connections", "effective_sparsity", "collapsed_layers")


def rows(workdir):
    with (workdir / "results.csv").open(newline="") as file:
        return {row["run_id"]: row for row in csv.DictReader(file)}


def metrics(workdir, name):
    return [json.loads(line) for line in (workdir / "metrics" / f"{name}.jsonl").read_text().splitlines()]


def inspected(folder, capsys, *paths):
    """(report, printed) of inspect."""
    assert inspect([str(path) for path in paths], str(folder / "report.json")) == 0
    return json.loads((folder / "report.json").read_text()), capsys.readouterr().out


def measures(network):
    """What inspect says of a network, under the names of a row."""
    chain = network["chain"]
    return {
        "dead_neurons": chain["dead"],
        "effective_connections": chain["effective_connections"],
        "effective_sparsity": chain["effective_sparsity"],
        "collapsed_layers": len(network["empty_layers"]),
    }


def trained(folder, *settings):
    ended = run(*TINY, *settings, "--num_seeds=2", "--epochs=2", "--interval=5", "--workdir=w", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder / "w"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("study"), "--method=set,dense")


@pytest.fixture(scope="module")
def partly_dense(tmp_path_factory):
    """The layers around the dense one form a chain, too, if it is left out."""
    return trained(tmp_path_factory.mktemp("partly_dense"), "--method=set", "--dense_layers=dense_1")


@pytest.mark.parametrize("workdir", ["study", pytest.param("partly_dense", marks=pytest.mark.slow)])
def test_rows_and_metrics_have_what_inspect_computes_from_the_masks(request, workdir, tmp_path, capsys):
    workdir = request.getfixturevalue(workdir)
    networks = inspected(tmp_path, capsys, workdir)[0]["networks"]
    seen = []
    for name, row in rows(workdir).items():
        first, last = metrics(workdir, name)
        if row["method"] == "dense":
            assert name not in networks
            expected = {"dead_neurons": 0, "effective_connections": int(row["connections"])}
            expected |= {"effective_sparsity": 0, "collapsed_layers": 0}
        else:
            expected = measures(networks[name])
            assert networks[name]["connections"] == int(row["connections"])
            assert networks[name]["sparsity"] == float(row["kernel_sparsity"])
            assert expected["effective_connections"] < int(row["connections"])
            seen.append((expected["dead_neurons"], expected["effective_connections"]))
            assert first["explored"] < last["explored"], "the masks do not change: the test says nothing"
        assert {column: last[column] for column in MEASURED} == expected
        assert {column: float(row[column]) for column in MEASURED} == expected
        assert float(row["explored"]) == last["explored"]
    assert len(seen) == len(set(seen)) == 2


def test_a_dense_layer_counts_with_every_connection(partly_dense):
    for name, row in rows(partly_dense).items():
        found = find(str(partly_dense / "runs" / name))
        assert found.masks.keys() == {"dense_0/kernel", "output/kernel"}
        assert list(found.network) == ["dense_0/kernel", "dense_1/kernel", "output/kernel"]
        assert found.network["dense_1/kernel"].all()
        fed, heard = found.masks["dense_0/kernel"].any(0), found.masks["output/kernel"].any(1)
        assert int(row["dead_neurons"]) == (~fed).sum() + (~heard).sum()
        effective = found.masks["dense_0/kernel"].sum() + fed.sum() * heard.sum() + found.masks["output/kernel"].sum()
        assert int(row["effective_connections"]) == effective
        alone = find(str(partly_dense / "runs" / name / "masks.npz"))
        assert alone.network.keys() == alone.masks.keys() == found.masks.keys()


def test_dense_runs_are_named_and_refused(study, tmp_path, capsys):
    dense = [name for name, row in rows(study).items() if row["method"] == "dense"]
    _, printed = inspected(tmp_path, capsys, study)
    assert f"not shown: {', '.join(dense)}: no masks: a dense network has none\n" in printed
    assert " step " not in printed
    for path in (study / "runs" / dense[0], next(study.glob("checkpoints/*dense-*"))):
        with pytest.raises(UserError, match=f"{re.escape(str(path))}.* no masks: a dense network has none; name a"):
            find(str(path))


def test_two_runs_are_compared_by_layer(study, tmp_path, capsys):
    names = [name for name, row in rows(study).items() if row["method"] == "set"]
    folders = [study / "runs" / name for name in names]
    report, printed = inspected(tmp_path, capsys, *folders)
    first, second = (load_masks(folder / "masks.npz") for folder in folders)
    assert [layer.split()[0] for layer in printed.split("what they have in common")[1].splitlines()[4:8]] == [
        "dense_0", "dense_1", "output", "all",
    ]  # fmt: skip
    for name, layer in report["comparison"]["layers"].items():
        both, either = (first[name] & second[name]).sum(), (first[name] | second[name]).sum()
        assert layer["jaccard"] == both / either
        assert layer["overlap"] == both / min(first[name].sum(), second[name].sum())


def test_layers_that_are_not_in_series_are_no_chain_whatever_their_shapes(tmp_path, capsys):
    """With 8 units on rows of 8 all kernels of the GRU are 8 × 8: they would fit one after the other."""
    settings = ("--model=gru", "--hidden_sizes=8", "--train_size=300", "--sparsity=0.8", "--workdir=w")
    ended = run(*SMALL, *settings, "--epochs=1", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (folder,) = (tmp_path / "w" / "runs").iterdir()
    kernels = [f"gru_0/{part}_{gate}/kernel" for part in ("input", "recurrent") for gate in "rzn"] + ["output/kernel"]
    for path in (folder, next((tmp_path / "w" / "checkpoints").iterdir())):
        report, _ = inspected(tmp_path, capsys, path)
        found = [*report.get("topologies", []), *report.get("networks", {}).values()]
        networks = [one.get("network", one) for one in found]
        assert [network["chain"] for network in networks] == [None]
        assert networks[0]["no_chain"] == "the layers of gru are not in series"
    report, _ = inspected(tmp_path, capsys, folder)
    assert list(report["topologies"][0]["layers"]) == kernels
    (row,) = rows(tmp_path / "w").values()
    assert row["dead_neurons"] == ""


@pytest.mark.parametrize("workdir", ["study", "partly_dense"])
def test_the_checkpoint_of_a_finished_group_has_the_masks_of_the_files(request, workdir):
    workdir = request.getfixturevalue(workdir)
    (group,) = workdir.glob("checkpoints/*-set-*")
    topologies = find(str(group)).topologies
    assert len(topologies) == 2
    for name, found in topologies.items():
        from_file = find(str(workdir / "runs" / name))
        np.testing.assert_equal(found.masks, from_file.masks)
        assert list(found.network) == list(from_file.network) == ["dense_0/kernel", "dense_1/kernel", "output/kernel"]
        assert (found.kernels, found.step, from_file.step) == (from_file.kernels, 2 * 16, None)


def test_runs_with_a_dense_layer_are_described_with_it_and_compared_without(partly_dense, tmp_path, capsys):
    table = rows(partly_dense)
    report, _ = inspected(tmp_path, capsys, *(partly_dense / "runs" / name for name in table))
    for topology, row in zip(report["topologies"], table.values(), strict=True):
        assert list(topology["layers"]) == ["dense_0/kernel", "dense_1/kernel", "output/kernel"]
        assert measures(topology["network"]) == {column: float(row[column]) for column in MEASURED}
    assert report["comparison"]["layers"].keys() == {"dense_0/kernel", "output/kernel"}


def test_a_long_path_stays_in_one_line(study, tmp_path, capsys):
    folder = shutil.copytree(next(study.glob("runs/*-set-*")), tmp_path / (200 * "x"))
    assert str(folder) in inspected(tmp_path, capsys, folder)[1].splitlines()


# --- unfinished ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Two sparse runs, then two dense ones, stopped while the sparse ones train: their masks stay as they began."""
    folder = tmp_path_factory.mktemp("stopped")
    process = start(*TINY, "--method=static,dense", "--num_seeds=2", "--epochs=9999", "--workdir=w", cwd=folder)
    while not list(folder.glob("w/checkpoints/*/[1-9]*/_CHECKPOINT_METADATA")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert not list(folder.glob("w/runs/*"))
    return folder / "w"


def names_of(workdir):
    return list(json.loads((workdir / "config.json").read_text())["runs"])


def test_unfinished_runs_are_read_from_the_newest_checkpoint(stopped, tmp_path, capsys):
    report, printed = inspected(tmp_path, capsys, stopped)
    sparse, dense = names_of(stopped)[:2], names_of(stopped)[2:]
    assert list(report["networks"]) == sparse
    (step,) = {network["step"] for network in report["networks"].values()}
    (group,) = stopped.glob("checkpoints/*")
    assert step == max(int(folder.name) for folder in group.iterdir() if folder.name.isdigit()) > 1
    for name in sparse:
        last = metrics(stopped, name)[-1]
        assert measures(report["networks"][name]) == {column: last[column] for column in MEASURED}
        assert re.search(rf"{name} +{step:,} ", printed)
    assert report["networks"][sparse[0]]["chain"] != report["networks"][sparse[1]]["chain"]
    assert f"not shown: {', '.join(dense)}: no checkpoint yet\n" in printed


def test_an_unfinished_run_by_its_name(stopped, tmp_path, capsys):
    path = stopped / "runs" / names_of(stopped)[1]
    report, printed = inspected(tmp_path, capsys, path)
    (topology,) = report["topologies"]
    assert printed.startswith(f"{path}, unfinished, at step {topology['step']:,}\n")
    expected = inspected(tmp_path, capsys, stopped)[0]["networks"][path.name]
    assert topology["network"] | {"step": topology["step"]} == expected


def test_an_unfinished_run_is_compared_with_a_finished_one(stopped, study, tmp_path, capsys):
    finished = next(name for name, row in rows(study).items() if row["method"] == "set")
    paths = (stopped / "runs" / names_of(stopped)[0], study / "runs" / finished)
    report, _ = inspected(tmp_path, capsys, *paths)
    assert [bool(topology["step"]) for topology in report["topologies"]] == [True, False]
    assert 0 < report["comparison"]["network"]["jaccard"] < 1


def test_dense_and_sparse_runs_without_results(study, tmp_path, capsys):
    """As after a kill at the very end: all runs have checkpoints, and no files."""
    workdir = shutil.copytree(study, tmp_path / "w")
    for folder in (workdir / "runs").iterdir():
        shutil.rmtree(folder)
    dense = [name for name in names_of(workdir) if "-dense-" in name]
    report, printed = inspected(tmp_path, capsys, workdir)
    assert list(report["networks"]) == [name for name in names_of(workdir) if name not in dense]
    assert f"not shown: {', '.join(dense)}: no masks: a dense network has none\n" in printed
    assert "no checkpoint yet" not in printed
    with pytest.raises(UserError, match=f"{dense[0]} has no masks: a dense network has none; name a sparse run"):
        find(str(workdir / "runs" / dense[0]))


def test_looking_changes_nothing(stopped):
    def state():
        return {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}

    before = state()
    find(str(stopped))
    assert state() == before


REFUSED = {
    "runs/gone": "none of the 2 runs in .*config.json",
    "runs/waiting": "neither a result nor a usable checkpoint: .*--checkpoint_seconds",
    "": "no finished run with a masks.npz and no checkpoint of another: .*--checkpoint_seconds",
    "checkpoints/group": "holds no usable checkpoint: .*--checkpoint_seconds",
    "checkpoints": "no masks.npz and no runs: name",
    "runs/file": "no mask file",
    "gone": "No such file",
}


@pytest.mark.parametrize("path", REFUSED)
def test_refused_where_there_is_nothing(tmp_path, path):
    store = open_store(tmp_path)
    store.write_config({"runs": {"waiting": {}, "dense": {}}})
    store.write_result("dense", {"status": "ok"})
    (tmp_path / "checkpoints" / "group").mkdir()
    (tmp_path / "runs" / "file").write_text("masks")
    with pytest.raises(UserError, match=REFUSED[path]) as error:
        find(str(tmp_path / path))
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_an_earlier_version_is_passed_over(tmp_path, caplog):
    store = open_store(tmp_path)
    with Checkpoints(store.checkpoints("group"), 1) as checkpoints:
        checkpoints.save(7, {"step": np.zeros(1)}, {"seconds": 1.0})
    with pytest.raises(UserError, match="holds no usable checkpoint"):
        find(str(tmp_path / "checkpoints" / "group"))
    assert "7 is passed over: an earlier version wrote it" in caplog.text


def test_a_study_of_dense_runs_has_nothing_to_wait_for(tmp_path):
    store = open_store(tmp_path)
    store.write_config({"runs": {"dense": {}}})
    store.write_result("dense", {"status": "ok"})
    with pytest.raises(UserError, match="no masks: a dense network has none; name a sparse run"):
        find(str(tmp_path))


def test_many_runs_that_are_not_shown_are_counted(tmp_path, capsys):
    store = open_store(tmp_path)
    store.write_config({"runs": {f"run{number}": {} for number in range(9)}})
    store.write_masks("run0", {"output/kernel": np.ones((2, 2), bool)})
    store.write_result("run0", {"status": "ok"})
    _, printed = inspected(tmp_path, capsys, tmp_path)
    assert "not shown: run1, run2, run3 and 5 others: no checkpoint yet\n" in printed
