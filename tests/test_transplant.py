"""Runs that begin with masks or weights of other runs: pruned, transplanted, shuffled, refused."""

import json
import re
import shutil

import numpy as np
import pytest

from sparse_jax.errors import UserError
from sparse_jax.study import sources
from sparse_jax.study.finished import find
from sparse_jax.study.mask_file import load_masks
from sparse_jax.study.trained import FINAL, load
from sparse_jax.topology.masks import select
from tests.program import rows, run

NETWORK = ("--dataset=digits", "--train_size=300", "--hidden_sizes=24,12", "--batch_size=16", "--cpu_devices=2")
SEEDS, LEVELS = ("0", "1"), ("0.8", "0.9")
LENT = "from_run:lent/runs/*-gmp-*-s{sparsity}-seed{seed}-*"
DENSE = "lent/runs/*-dense-*-seed{seed}-*"
BEGIN = (*NETWORK, "--method=static", "--num_seeds=2", "--epochs=0")  # the first networks are the results
MAGNITUDE = ("--initial_topology=magnitude", f"--initial_weights=trained:{DENSE}")
STUDIES = {
    "lent": (*NETWORK, "--method=dense,gmp", "--interval=5", "--num_seeds=2", "--sparsity=0.8,0.9", "--epochs=2"),
    "fresh": (*BEGIN, f"--initial_topology={LENT}", "--sparsity=0.8,0.9", "--shuffle_masks=true,false"),
    "ticket": (*BEGIN, f"--initial_topology={LENT}", "--sparsity=0.8,0.9", f"--initial_weights=original:{DENSE},seed"),
    "pruned": (*BEGIN, *MAGNITUDE, "--allocation=uniform", "--sparsity=0,0.9"),
    "globally": (*BEGIN, *MAGNITUDE, "--allocation=global", "--sparsity=0.9"),
    "both": (
        *BEGIN[:-1], "--epochs=2", "--initial_topology=from_run:pruned/runs/*-s0.9-seed{seed}-*", MAGNITUDE[1],
        "--execution=masked,sparse",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the workdirs of STUDIES; not to be changed."""
    root = tmp_path_factory.mktemp("transplant")
    for name, settings in STUDIES.items():
        done = run(*settings, f"--workdir={name}", cwd=root)
        assert done.returncode == 0, done.stderr
    return root


def the_run(workdir, **settings):
    """The path of the one run with these cells in results.csv."""
    found = [row for row in rows(workdir) if all(row[name] == value for name, value in settings.items())]
    assert len(found) == 1, [row["run_id"] for row in found]
    return workdir / "runs" / found[0]["run_id"]


def kernels_of(path):
    network = load(find(str(path)), FINAL)
    return {name: np.asarray(kernel) for name, kernel in select(network.params, network.kernels).items()}


def result_of(path):
    return json.loads((path / "result.json").read_text())


def masks_of(path):
    return load_masks(path / "masks.npz")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("level", LEVELS)
def test_masks_are_those_of_the_run_that_the_pattern_names(world, level, seed):
    lent = masks_of(the_run(world / "lent", method="gmp", sparsity_target=level, seed=seed))
    for study, cell in (("fresh", {"shuffle_masks": "False"}), ("ticket", {"initial_weights": "seed"})):
        ours = masks_of(the_run(world / study, sparsity_target=level, seed=seed, **cell))
        assert all((ours[name] == lent[name]).all() for name in lent)
        assert ours.keys() == lent.keys()


def test_shuffled_masks_keep_only_how_many_connections_a_layer_has(world):
    shuffled = {}
    for seed in SEEDS:
        lent = masks_of(the_run(world / "lent", method="gmp", sparsity_target="0.8", seed=seed))
        ours = masks_of(the_run(world / "fresh", sparsity_target="0.8", seed=seed, shuffle_masks="True"))
        assert {name: mask.sum() for name, mask in ours.items()} == {name: mask.sum() for name, mask in lent.items()}
        assert any((ours[name] != lent[name]).any() for name in lent)
        shuffled[seed] = ours["dense_0/kernel"]
    assert (shuffled["0"] != shuffled["1"]).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_original_weights_are_those_that_the_run_began_with(world, seed):
    """Those of the dense run of a seed are those of every run of that seed; fresh ones are not."""
    kernels = {
        weights: kernels_of(the_run(world / "ticket", sparsity_target="0.8", seed=seed, initial_weights=weights))
        for weights in (f"original:{DENSE}", "seed")
    }
    at = {"sparsity_target": "0.8", "seed": seed, "shuffle_masks": "False"}
    fresh, masks = kernels_of(the_run(world / "fresh", **at)), masks_of(the_run(world / "fresh", **at))
    for name, original in kernels[f"original:{DENSE}"].items():
        np.testing.assert_array_equal(original, kernels["seed"][name])
        assert original.any()
        assert not original[~masks[name]].any()
        assert not fresh[name][~masks[name]].any()
        assert (fresh[name] != original)[masks[name]].all()


@pytest.mark.slow
def test_original_weights_of_another_seed(world, tmp_path):
    """A lottery ticket trains with its own seed from the weights of another."""
    source = the_run(world / "lent", method="dense", seed="0")
    settings = (*NETWORK, "--method=static", "--sparsity=0", "--epochs=0", "--first_seed=1", "--workdir=w")
    assert run(*settings, f"--initial_weights=original:{source},seed", cwd=tmp_path).returncode == 0
    at_zero = (*NETWORK, "--method=static", "--sparsity=0", "--epochs=0", "--workdir=z")
    assert run(*at_zero, cwd=tmp_path).returncode == 0
    ours = kernels_of(the_run(tmp_path / "w", initial_weights=f"original:{source}"))
    theirs, own = kernels_of(the_run(tmp_path / "z")), kernels_of(the_run(tmp_path / "w", initial_weights="seed"))
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])
        assert (ours[name] != own[name]).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_pruning_once_keeps_the_largest_trained_weights(world, seed):
    """Against NumPy: by layer 1 − s of each, globally of all together; with s = 0 the trained network itself."""
    source = the_run(world / "lent", method="dense", seed=seed)
    trained = kernels_of(source)
    for study, parts in (("pruned", [[name] for name in trained]), ("globally", [list(trained)])):
        path = the_run(world / study, sparsity_target="0.9", seed=seed)
        masks, kernels = masks_of(path), kernels_of(path)
        for names in parts:
            sizes = np.concatenate([np.abs(trained[name]).ravel() for name in names])
            kept = np.concatenate([masks[name].ravel() for name in names])
            assert abs(kept.sum() - 0.1 * sizes.size) <= 1
            assert sizes[kept].min() > sizes[~kept].max()
        for name, mask in masks.items():
            np.testing.assert_array_equal(kernels[name], np.where(mask, trained[name], 0))
    whole = the_run(world / "pruned", sparsity_target="0.0", seed=seed)
    results = [result_of(path) for path in (source, whole)]
    for part in ("train_accuracy", "val_accuracy", "test_accuracy", "test_loss"):
        assert results[0][part] == results[1][part]
    assert results[1]["training_flops"] == 0
    assert "best_val_accuracy" not in results[1]


def test_trained_weights_go_on_in_both_executions(world):
    for seed in SEEDS:
        paths = [the_run(world / "both", execution=execution, seed=seed) for execution in ("masked", "sparse")]
        results = [result_of(path) for path in paths]
        assert results[0]["test_loss"] == pytest.approx(results[1]["test_loss"], rel=1e-4)
        lender = the_run(world / "pruned", sparsity_target="0.9", seed=seed)
        lent = masks_of(lender)
        for path in paths:
            assert all((mask == lent[name]).all() for name, mask in masks_of(path).items())
        assert results[0]["train_loss"] < result_of(lender)["train_loss"]


@pytest.mark.slow
def test_a_sparsely_executed_run_lends_its_weights_as_well(world):
    """Its trained weights, transplanted without training, score the same."""
    source = the_run(world / "both", execution="sparse", seed="0")
    settings = (*NETWORK, "--method=static", "--epochs=0", f"--initial_topology=from_run:{source}")
    settings += (f"--initial_weights=trained:{source}", "--execution=masked,sparse", "--workdir=again")
    done = run(*settings, cwd=world)
    assert done.returncode == 0, done.stderr
    result = result_of(source)
    for execution in ("masked", "sparse"):
        ours = result_of(the_run(world / "again", execution=execution))
        assert ours["test_accuracy"] == result["test_accuracy"]
        assert ours["test_loss"] == pytest.approx(result["test_loss"], rel=1e-5)


def test_all_levels_and_seeds_of_a_pattern_are_one_cohort(world):
    done = run(*STUDIES["fresh"], "--dry_run", "--workdir=plan", cwd=world)
    assert "8 runs in 2 cohorts" in done.stdout
    assert not (world / "plan").exists()


REFUSED = {
    "nothing matches": ((f"--initial_topology={LENT}", "--sparsity=0.5"), "nothing matches .*-s0.5-seed0"),
    "no folder": (("--initial_topology=from_run:lent/metrics/*-gmp-*-s0.8-seed0-*",), "nothing matches"),
    "several match": (("--initial_topology=from_run:lent/runs/*-gmp-*",), "4 paths match .* narrower"),
    "unknown setting": (("--initial_topology=from_run:lent/runs/*{sparsty}*",), "'sparsty'.*Did you mean 'sparsity'"),
    "unused setting": (("--initial_topology=from_run:lent/runs/*{epsilon}*",), "run has no epsilon; give --epsilon"),
    "a level that names nothing": (
        ("--initial_topology=from_run:lent/runs/*-gmp-*-s0.8-seed0-*", "--sparsity=0.8"), "--sparsity has no effect",
    ),
    "no masks": (("--initial_topology=from_run:lent/runs/*-dense-*-seed0-*",), "it is dense: prune it first"),
    "other shapes": (
        ("--initial_topology=from_run:lent/runs/*-gmp-*-s0.8-seed0-*", "--hidden_sizes=16,12"), "64×24 there, .* 64×16",
    ),
    "no run": (("--initial_topology=from_run:nowhere",), "nowhere is not there: name the folder of a finished run"),
    "schedule": (("--initial_topology=from_run:x", "--method=gmp"), "--method=gmp prunes to a sparsity"),
    "other initialiser": (
        (f"--initial_weights=original:{DENSE}", "--initializer=he_normal"), "has --initializer=glorot_uniform",
    ),
    "other activation": ((f"--initial_weights=trained:{DENSE}", "--activation=tanh"), "has --activation=relu"),
    "scaled": ((f"--initial_weights=trained:{DENSE}", "--init_fan=active"), "--init_fan=active scales them"),
    "nothing to shuffle": (("--shuffle_masks",), "--shuffle_masks has no effect: .*from_run:RUN, file:PATH"),
    "drawn, sparse": (
        (f"--initial_weights=trained:{DENSE}", "--execution=sparse"), "at connections that are drawn",
    ),
    "no form": (("--initial_weights=lent",), "seed, fresh, auto, or original:RUN or trained:RUN"),
    "no epochs to prune in": (("--method=gmp",), "train for longer"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_lent_is_refused_in_one_line(world, case):
    settings, message = REFUSED[case]
    done = run(*NETWORK, "--method=static", "--epochs=0", *settings, "--workdir=refused", cwd=world)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert not (world / "refused").exists()


def test_a_run_that_did_not_begin_with_its_own_weights_lends_no_original_ones(world):
    source = the_run(world / "fresh", sparsity_target="0.8", seed="0", shuffle_masks="False")
    done = run(*NETWORK, "--method=static", f"--initial_weights=original:{source}", "--workdir=refused", cwd=world)
    assert done.returncode == 2
    assert "did not begin with the weights of its seed alone" in done.stderr


def test_weights_that_are_gone_are_refused(world, tmp_path):
    shutil.copytree(world / "lent", tmp_path / "lent")
    shutil.rmtree(tmp_path / "lent" / "checkpoints")
    settings = (*BEGIN, "--initial_topology=magnitude", "--sparsity=0.9", f"--initial_weights=trained:{DENSE}")
    done = run(*settings, "--workdir=w", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(r"the checkpoint with the weights of .* is gone", done.stderr)
    assert not (tmp_path / "w").exists()


def test_a_pattern_is_taken_literally_where_it_is_none(tmp_path):
    def located(path):
        return sources.locate(f"file:{path}", "file:", None, {}).path

    assert located("a path") == "a path"
    with pytest.raises(UserError, match="nothing matches"):
        located(tmp_path / "*")
    (tmp_path / "[x]").mkdir()
    assert located(tmp_path / "[[]x]") == located(tmp_path / "[x]") == str(tmp_path / "[x]")
    with pytest.raises(UserError, match="is no pattern"):
        located(tmp_path / "a**b*" / "x")


def test_a_pattern_that_became_ambiguous_leads_where_it_led(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    name = f"file:{tmp_path}/*"
    assert sources.locate(name, "file:", None, {name: {"path": "there"}}) == sources.Found(name, "there")


@pytest.mark.slow
def test_a_pattern_that_names_other_weights_from_elsewhere_is_refused(world, tmp_path):
    """The same command in two folders, whose runs of the same names differ: the workdir knows what it began with."""
    for name, seed in (("a", "0"), ("b", "5")):
        (tmp_path / name).mkdir()
        settings = (*NETWORK, "--method=dense", "--epochs=1", f"--first_seed={seed}", "--workdir=s")
        assert run(*settings, cwd=tmp_path / name).returncode == 0
    begin = (*NETWORK, "--method=static", "--initial_topology=magnitude", "--sparsity=0.9", "--epochs=0")
    begin += ("--initial_weights=trained:s/runs/*", "--workdir=../w")
    assert run(*begin, cwd=tmp_path / "a").returncode == 0
    before = rows(tmp_path / "w")
    refused = run(*begin, "--num_seeds=2", cwd=tmp_path / "b")
    assert refused.returncode == 2
    assert "is not what the study in workdir" in refused.stderr
    assert rows(tmp_path / "w") == before


def test_an_interrupted_run_of_no_epochs_ends_as_it_would_have(world, tmp_path):
    shutil.copytree(world / "pruned", tmp_path / "pruned")
    shutil.copytree(world / "lent", tmp_path / "lent")
    before = rows(tmp_path / "pruned")
    for row in before[:2]:
        (tmp_path / "pruned" / "runs" / row["run_id"] / "result.json").unlink()
    done = run(*STUDIES["pruned"], "--workdir=pruned", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "pruned") == before


@pytest.mark.slow
def test_a_dense_run_beside_transplants_begins_as_any_dense_run(world):
    settings = (*NETWORK, "--method=dense,static", f"--initial_topology={LENT}", "--sparsity=0.8", "--workdir=dense")
    done = run(*settings, "--epochs=0", cwd=world)
    assert done.returncode == 0, done.stderr
    assert the_run(world / "dense", method="dense", initial_weights="seed")
    assert the_run(world / "dense", method="static", initial_weights="fresh")


def test_a_level_may_be_named_by_the_weights_alone(world):
    settings = (*NETWORK, "--method=static", "--initial_topology=from_run:lent/runs/*-gmp-*-s0.9-seed0-*")
    weights = "--initial_weights=trained:lent/runs/*-gmp-*-s{sparsity}-seed0-*"
    done = run(*settings, weights, "--sparsity=0.8,0.9", "--epochs=0", "--workdir=by_weights", cwd=world)
    assert done.returncode == 0, done.stderr
    assert [row["sparsity_target"] for row in rows(world / "by_weights")] == ["0.8", "0.9"]


def test_the_weights_of_a_sparse_run_are_not_ranked_beyond_its_connections(world):
    lender = the_run(world / "lent", method="gmp", sparsity_target="0.9", seed="0")
    settings = (*NETWORK, "--method=static", "--initial_topology=magnitude", f"--initial_weights=trained:{lender}")
    done = run(*settings, "--sparsity=0.2", "--workdir=refused", cwd=world)
    assert done.returncode == 2
    assert "has fewer connections in" in done.stderr


@pytest.mark.slow
def test_longer_runs_do_not_continue_those_of_no_epochs(world, tmp_path):
    settings = (*NETWORK, "--method=dense", "--lr_schedule=constant", "--workdir=w")
    assert run(*settings, "--epochs=0", "--num_seeds=1", cwd=tmp_path).returncode == 0
    done = run(*settings, "--epochs=1", "--num_seeds=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "begins anew" not in done.stdout + done.stderr
