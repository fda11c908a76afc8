"""Runs that begin with constructed masks: RadiX-Nets and Cayley expanders."""

import json

import numpy as np
import pytest

from sparse_jax.study.mask_file import load_masks
from sparse_jax.topology.paths import count_paths
from tests.program import rows, run

NETWORK = ("--dataset=digits", "--train_size=300", "--batch_size=50", "--method=static", "--epochs=0")
MLP = (*NETWORK, "--hidden_sizes=36,24", "--dense_layers=output", "--initial_topology=radix")


def masks_of(workdir):
    return [load_masks(workdir / "runs" / row["run_id"] / "masks.npz") for row in rows(workdir)]


@pytest.mark.parametrize("execution", [pytest.param("masked", marks=pytest.mark.slow), "sparse"])
def test_a_net_of_given_radices_joins_all_pairs_alike(tmp_path, execution):
    """[[3, 4]] has N' = 12, and 64-36-24 are cut from 72-36-24: paths are B_1 = 3 for every pair that is left."""
    done = run(*MLP, "--radix=3:4", f"--execution={execution}", "--num_seeds=2", "--workdir=w", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cut: the last 8 of 72 neurons before dense_0" in done.stderr
    for masks in masks_of(tmp_path / "w"):
        first, second = masks["dense_0/kernel"], masks["dense_1/kernel"]
        assert (first.sum(1) == 3 * 3).all()  # r_1 B_1
        assert (second.sum(1) == 4 * 2).all()  # r_2 B_2
        assert (second.sum(0) == 4 * 3).all()  # r_2 B_1
        paths = count_paths([first, second])
        assert (paths.least, paths.most) == (3, 3)
    assert all(row["sparsity_target"] == "" and row["radix"] == "3:4" for row in rows(tmp_path / "w"))


@pytest.mark.parametrize(("family", "density"), [("radix", 1 / 4), ("cayley", None)])
def test_the_nearest_to_a_sparsity_says_what_it_is(tmp_path, family, density):
    """Of layers of 64, 32 and 16 the nearest to density 1/4 is [[4, 4]], which fits; an expander is only near."""
    command = (*MLP[:-1], f"--initial_topology={family}", "--hidden_sizes=32,16", "--sparsity=0.75", "--workdir=w")
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nearest to density 0.25: " in done.stderr
    (masks,), (row,) = masks_of(tmp_path / "w"), rows(tmp_path / "w")
    assert float(row["sparsity_target"]) == 0.75
    found = float(row["sparsity"])
    assert density is None or found == 1 - density
    kept = sum(mask.sum() for mask in masks.values()) / sum(mask.size for mask in masks.values())
    assert found == pytest.approx(1 - kept)
    assert f"density {kept:.4g}" in done.stderr


@pytest.mark.slow
def test_a_convolution_has_whole_taps_and_a_flattened_layer_the_same_graph_everywhere(tmp_path):
    command = (*NETWORK, "--model=lenet5_alford", "--dense_layers=conv_0|output", "--initial_topology=radix")
    done = run(*command, "--radix=2:5", "--workdir=w", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (masks,) = masks_of(tmp_path / "w")
    taps = masks["conv_1/kernel"].reshape(25, 20, 50)
    assert (taps == taps[:1]).all()
    positions = masks["dense_0/kernel"].reshape(-1, 50, 384)
    assert (positions == positions[:1]).all()
    assert (taps[0].sum(1) == 2 * 5).all()  # r_1 B_1


def test_constructed_masks_are_there_before_anything_is_computed(tmp_path):
    done = run(*MLP, "--radix=3:4,6:6", "--dry_run", "--workdir=w", cwd=tmp_path)
    assert done.returncode == 0
    assert "2 runs in 2 cohorts" in done.stdout
    assert f"{64 * 9 + 36 * 8 + 240:,}" in done.stdout
    assert not (tmp_path / "w").exists()


REFUSED = {
    "too few radices": (("--radix=3:4:2",), "3 of them for 2 layers with a mask (dense_0, dense_1)"),
    "products": (("--radix=2:3/3:3/6",), "must have the same product"),
    "no integers": (("--radix=3;4",), "write 10:10"),
    "one": (("--radix=1:4",), "1 is no radix, the least is 2"),
    "parted": (("--dense_layers=dense_1",), "--dense_layers=dense_1 parts them"),
    "not in series": (("--model=lstm", "--hidden_sizes=12", "--dense_layers="), "those of --model=lstm are not"),
    "two levels": (("--radix=3:4", "--sparsity=0.5"), "--sparsity has no effect"),
    "epsilon": (("--epsilon=3",), "--epsilon has no effect"),
    "unused": (("--initial_topology=random", "--radix=3:4"), "--radix has no effect"),
    "structure": (("--structure=fan_in",), "--initial_topology=radix does not keep --structure=fan_in"),
    "pruned": (("--method=gmp",), "--method=gmp prunes to a sparsity"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, case):
    settings, message = REFUSED[case]
    done = run(*MLP, *settings, "--workdir=w", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_a_study_with_constructed_masks_goes_on(tmp_path):
    command = (*MLP, "--radix=3:4", "--workdir=w")
    assert run(*command, cwd=tmp_path).returncode == 0
    before = rows(tmp_path / "w")
    assert run(*command, "--num_seeds=2", cwd=tmp_path).returncode == 0
    assert rows(tmp_path / "w")[:1] == before
    assert json.loads((tmp_path / "w" / "config.json").read_text())["sources"] == {}
    first, second = masks_of(tmp_path / "w")
    assert all(np.array_equal(first[name], second[name]) for name in first)
