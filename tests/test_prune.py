"""launch/topology.py prune: against NumPy, on runs that launch/train.py trained, and what it refuses."""

import re

import numpy as np
import pytest

from sparse_jax.study.finished import find
from sparse_jax.study.mask_file import load_masks
from sparse_jax.study.trained import FINAL, load
from sparse_jax.study.transplant import dense_kernels
from tests.program import run

SETTINGS = ("--dataset=digits", "--train_size=300", "--hidden_sizes=24,12", "--epochs=1", "--cpu_devices=2")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a dense run and a sparse one, executed sparsely; not to be changed."""
    root = tmp_path_factory.mktemp("prune")
    for name, more in (("dense", ()), ("static", ("--execution=sparse", "--sparsity=0.5"))):
        done = run(*SETTINGS, f"--method={name}", *more, f"--workdir={name}", cwd=root)
        assert done.returncode == 0, done.stderr
    return root


def path_of(world, name):
    (path,) = (world / name / "runs").iterdir()
    return str(path)


def prune(world, *arguments):
    return run("prune", *arguments, cwd=world, program="topology.py")


def pruned(world, name, out, *arguments):
    """What is kept, and the trained kernels."""
    done = prune(world, path_of(world, name), out, *arguments)
    assert done.returncode == 0, done.stderr
    masks = load_masks(world / out)
    trained = load(find(path_of(world, name)), FINAL)
    kernels = {layer: np.asarray(kernel) for layer, kernel in dense_kernels(trained).items()}
    connections = sum(mask.sum() for mask in masks.values())
    assert f"{connections:,} of {sum(mask.size for mask in masks.values()):,} connections" in done.stdout
    return masks, kernels


def test_a_threshold_keeps_what_is_above_it(world):
    masks, kernels = pruned(world, "dense", "above.npz", "--threshold=0.1")
    assert masks.keys() == kernels.keys()
    for layer, mask in masks.items():
        np.testing.assert_array_equal(mask, np.abs(kernels[layer]) > np.float32(0.1))
        assert 0 < mask.sum() < mask.size


def test_a_threshold_in_deviations_is_by_layer(world):
    masks, kernels = pruned(world, "dense", "std.npz", "--threshold=1.5std")
    for layer, mask in masks.items():
        np.testing.assert_array_equal(mask, np.abs(kernels[layer]) > 1.5 * np.std(kernels[layer]))


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_sparsity_keeps_the_largest(world, scope):
    masks, kernels = pruned(world, "dense", f"{scope}/", "--sparsity=0.75", f"--scope={scope}", "--dense_layers=output")
    assert list(masks) == ["dense_0/kernel", "dense_1/kernel"]
    for names in [[name] for name in masks] if scope == "layer" else [list(masks)]:
        sizes = np.concatenate([np.abs(kernels[name]).ravel() for name in names])
        kept = np.concatenate([masks[name].ravel() for name in names])
        assert kept.sum() == 0.25 * sizes.size
        assert sizes[kept].min() > sizes[~kept].max()


@pytest.mark.slow
def test_a_sparse_run_loses_more_of_its_connections(world):
    masks, kernels = pruned(world, "static", "sparser.npz", "--sparsity=0.9")
    for layer, mask in masks.items():
        assert (kernels[layer][mask] != 0).all()
        assert mask.sum() < (kernels[layer] != 0).sum()


@pytest.mark.slow
def test_what_was_pruned_is_trained(world):
    assert prune(world, path_of(world, "dense"), "first.npz", "--threshold=0.1").returncode == 0
    settings = (*SETTINGS, "--method=static", "--initial_topology=file:first.npz", "--workdir=again")
    assert run(*settings, cwd=world).returncode == 0
    first, last = load_masks(world / "first.npz"), load_masks(path_of(world, "again") + "/masks.npz")
    assert all((first[layer] == mask).all() for layer, mask in last.items())


REFUSED = {
    "how much": ((), "One of --threshold=0.05, --threshold=1.5std and --sparsity=0.9"),
    "both": (("--threshold=1", "--sparsity=0.5"), "One of"),
    "no number": (("--threshold=much",), "--threshold=much is neither"),
    "negative": (("--threshold=-1",), "--threshold=-1 is neither"),
    "everything": (("--threshold=9",), "nothing would be left of dense_0, dense_1, output"),
    "outside": (("--sparsity=1",), r"--sparsity=1 is outside \[0, 1\)"),
    "scope": (("--sparsity=0.5", "--scope=all"), "--scope=all: one of layer, global"),
    "scope of a threshold": (("--threshold=0.1", "--scope=global"), "--scope has no effect with --threshold"),
    "no layer": (("--threshold=0.1", "--dense_layers=conv"), "matches no layer"),
    "another flag": (("--threshold=0.1", "--radix=10:10"), "--radix has no effect with prune"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_one_line(world, case):
    arguments, message = REFUSED[case]
    done = prune(world, path_of(world, "dense"), "refused.npz", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert not (world / "refused.npz").exists()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("a.npz",), "prune takes two paths"),
        (("nowhere", "a.npz"), "nowhere is not there"),
        (("dense", "a.npz"), "is a workdir"),
    ],
)
def test_wrong_paths_are_refused(world, paths, message):
    done = prune(world, *paths, "--threshold=0.1")
    assert done.returncode == 2
    assert message in done.stderr


def test_a_name_that_says_no_format_is_refused(world):
    done = prune(world, path_of(world, "dense"), "masks", "--threshold=0.1")
    assert done.returncode == 2
    assert "masks: end it in .npz for a mask file, or in /" in done.stderr


def test_more_connections_than_the_run_has_are_refused(world):
    done = prune(world, path_of(world, "static"), "refused.npz", "--sparsity=0.1")
    assert done.returncode == 2
    assert "has fewer connections in" in done.stderr
