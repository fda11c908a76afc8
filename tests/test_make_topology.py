"""launch/topology.py make and verify, and the MatrixMarket folders that every reader of topologies takes."""

import os
import re
import shlex
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_jax.config import DRAWN, RunConfig
from sparse_jax.errors import UserError
from sparse_jax.sparsify import make_sparsifier
from sparse_jax.study.make_topology import FAMILIES, Request, make
from sparse_jax.study.mask_file import digest, load_masks, load_topology, save_masks
from sparse_jax.study.matrix_market import write_matrices
from sparse_jax.study.topologies import find
from sparse_jax.study.verify import equal, factors, verify
from sparse_jax.topology.paths import Paths
from sparse_jax.topology.radix import graph_challenge, radix_net
from tests import program
from tests.program import ROOT

TOUCHED_JAX = 99
MTX = "%%MatrixMarket matrix coordinate pattern general\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder to make topologies in, and a jax that must not be touched."""
    root = tmp_path_factory.mktemp("make")
    (root / "jax").mkdir()
    (root / "jax" / "__init__.py").write_text(f"import os; os._exit({TOUCHED_JAX})")
    (root / "there.npz").write_text("mine")
    (root / "full").mkdir()
    (root / "full" / "mine").write_text("mine")
    save_masks(root / "gap.npz", {"dense_0/kernel": np.ones((4, 3), bool), "dense_1/kernel": np.ones((2, 2), bool)})
    return root


def topology(world, line):
    command = [sys.executable, str(ROOT / "launch" / "topology.py"), *shlex.split(line)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(world), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=world, env=environment, capture_output=True, text=True, timeout=60)


def printed(world, line, status=0):
    result = topology(world, line)
    assert (result.returncode, result.stderr) == (status, "")
    return [re.sub(r" {2,}", "  ", line.strip()) for line in result.stdout.splitlines()]


def request(**given):
    """What a command line amounts to that gives these flags."""
    defaults = {
        "radix": "", "graph_challenge": 1, "widths": "", "layer_sizes": "", "sparsity": 0.9, "family": "radix",
        "seed": 0, "rewiring": RunConfig.rewiring, "degree_exponent": RunConfig.degree_exponent, "last": "",
    }  # fmt: skip
    return Request(**(defaults | given), given=frozenset(given))


# --- make ------------------------------------------------------------------------------------------


def test_make_and_verify_as_a_user_does(world):
    lines = printed(world, "make radix.npz --radix=10:10 --widths=8:3:1 --layer_sizes=784,300,100")
    assert lines == [
        "cut: the last 16 of 800 neurons before dense_0; no longer constant: in-degree of dense_0 70 to 80",
        "radix.npz: 784-300-100, 26,520 of 265,200 connections, density 0.1",
    ]
    lines = printed(world, "verify radix.npz")
    assert "dense_0  784×300  23,520  0.1000  70 to 80  30" in lines
    assert "dense_1  300×100  3,000  0.1000  30  10" in lines
    assert lines[-2:] == [
        "26,520 of 265,200 connections, density 0.1",
        "equal: 3 paths from every input to every output",
    ]
    nearest = printed(world, "make nearest/ --layer_sizes=784,300,100 --sparsity=0.9")
    assert nearest[0].startswith("nearest to density 0.1: RadiX-Net 10:10 with widths 8:3:1, density 0.1; cut: ")
    assert digest(load_topology(world / "nearest")) == digest(load_topology(world / "radix.npz"))
    assert sorted(path.name for path in (world / "nearest").iterdir()) == ["dense_0.mtx", "dense_1.mtx"]
    compared = printed(world, "inspect nearest radix.npz")
    assert any(re.fullmatch(r"all  26520  26520  1\.0000.+1\.0000", line.replace(",", "")) for line in compared)


def test_a_network_that_is_not_equal_has_status_1(world):
    printed(world, "make cayley.npz --layer_sizes=784,300,100 --sparsity=0.9 --family=cayley")
    lines = printed(world, "verify cayley.npz", status=1)
    assert lines[-1] == "not equal: 0 to 6 paths from an input to an output"


REFUSED = {
    "make": ["not 0"],
    "make a.npz b.npz --radix=2:2": ["not 2"],
    "make a.txt --radix=2:2": ["a.txt", ".npz", "in /"],
    "make a.npz": ["which topology", "--radix"],
    "make a.npz --radix=2:2 --sparsity=0.5": ["which topology"],
    "make a.npz --radix=2:2 --family=cayley": ["--family has no effect with --radix"],
    "make a.npz --radix=2:2 --json=a": ["--json has no effect with make"],
    "make a.npz --radix=2:x": ["'2:x'", "no list of integers"],
    "make a.npz --radix=": ["no list of integers"],
    "make a.npz --radix=2:2 --widths=1:1": ["need 3 widths, not 2"],
    "make a.npz --radix=2:2 --layer_sizes=4,4": ["2 of them for 1 layers", "dense_0"],
    "make a.npz --radix=2:2 --widths=1 --layer_sizes=4,4,5": ["5 neurons does not fit into 4"],
    "make a.npz --radix=2:3/4": ["4 does not divide 6"],
    "make a.npz --graph_challenge=0": ["graph_challenge"],
    "make a.npz --graph_challenge=1 --widths=100": ["too large for a mask", "102,400"],
    "make a.npz --sparsity=0.9": ["--layer_sizes"],
    "make a.npz --sparsity=1 --layer_sizes=9,9": ["--sparsity=1", "[0, 1)"],
    "make a.npz --sparsity=nan --layer_sizes=9,9": ["--sparsity=nan", "[0, 1)"],
    "make a.npz --sparsity=0.9 --layer_sizes=9": ["--layer_sizes=9 is not two numbers"],
    "make a.npz --sparsity=0.9 --layer_sizes=9,0": ["--layer_sizes=9,0 is not"],
    "make a.npz --sparsity=0.9 --layer_sizes=9;9": ["--layer_sizes=9;9 is not"],
    "make a.npz --sparsity=0.9 --layer_sizes=784,300": ["is dense"],
    "make a.npz --sparsity=0.9 --layer_sizes=9,9 --family=radixx": ["'radixx'", "'radix'", "scale_free"],
    "make a.npz --sparsity=0.9 --layer_sizes=9,9 --seed=1": ["--seed has no effect with --family=radix"],
    "make a.npz --sparsity=0.5 --layer_sizes=9,9 --family=random --rewiring=1": ["--rewiring", "--family=random"],
    "make a.npz --sparsity=0.5 --layer_sizes=9,9 --family=scale_free --degree_exponent=2": ["=2 is outside (2, 100]"],
    "make a.npz --sparsity=0.999 --layer_sizes=9,9 --family=random": ["without connections", "the maximum is"],
    "make a.npz --radix=2:2 --last=a/b": ["'a/b'"],
    "make a.npz --radix=2:2 --last=dense_0": ["name of another layer"],
    "make there.npz --radix=2:2": ["there.npz is a file"],
    "make full/ --radix=2:2": ["full/ is not empty"],
    f"make {300 * 'x'}.npz --radix=2:2": ["cannot be written", "File name too long"],
    "verify": ["not 0"],
    "verify radix.npz radix.npz": ["not 2"],
    "verify gone.npz": ["gone.npz", "No such file", "LAYER.mtx"],
    "verify gap.npz": ["layer 1 has 2 inputs", "in series"],
    "verify gap.npz --radix=2": ["--radix has no effect with verify"],
    "inspect gap.npz --seed=1": ["--seed has no effect with inspect"],
}


@pytest.mark.parametrize("line", REFUSED)
def test_refused_in_one_line_and_nothing_written(world, line):
    before = sorted(world.rglob("*"))
    result = topology(world, line.replace(";", r"\;"))
    assert result.returncode == 2, result.stderr
    assert re.fullmatch(r"topology\.py: .+\n", result.stderr)
    assert all(part in result.stderr for part in REFUSED[line]), result.stderr
    assert sorted(world.rglob("*")) == before
    assert (world / "there.npz").read_text() == "mine"


def test_sizes_widths_and_names(tmp_path, capsys):
    make(f"{tmp_path}/a.npz", request(radix="2:3/3:2", widths="2"))
    # 6 · r · 2 · 2 connections a layer: 48, 72, 72, 48
    assert "12-12-12-12-12, 240 of 576 connections, density 0.4167" in capsys.readouterr().out
    masks = load_masks(tmp_path / "a.npz")
    expected = radix_net([(2, 3), (3, 2)], [2] * 5).masks()
    assert list(masks) == [f"dense_{i}/kernel" for i in range(4)]
    np.testing.assert_equal(list(masks.values()), expected)
    make(f"{tmp_path}/b/c/", request(radix="4:4", layer_sizes="30,16,8", last="output"))
    masks = load_masks(tmp_path / "b" / "c")
    assert {name: mask.shape for name, mask in masks.items()} == {"dense_0/kernel": (30, 16), "output/kernel": (16, 8)}
    make(f"{tmp_path}/d.npz", request(graph_challenge=7))
    assert "1024-1024-1024-1024-…-1024, 458,752 of" in capsys.readouterr().out
    np.testing.assert_equal(list(load_masks(tmp_path / "d.npz").values())[:2], graph_challenge(1).masks())
    (tmp_path / "empty").mkdir()
    make(f"{tmp_path}/empty/", request(radix="2:2"))
    assert len(list((tmp_path / "empty").iterdir())) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "b", "d.npz", "empty"}


def test_random_families_have_the_sparsity_in_every_layer(tmp_path):
    assert list(FAMILIES) == ["radix", "cayley", *DRAWN]
    for family in DRAWN:
        for seed in (1, 2):
            asked = request(layer_sizes="40,30,20", sparsity=0.8, family=family, seed=seed)
            make(f"{tmp_path}/{family}{seed}.npz", asked)
        first, other = (load_masks(tmp_path / f"{family}{seed}.npz") for seed in (1, 2))
        assert digest(first) != digest(other)
        assert {name: mask.shape for name, mask in first.items()} == {
            "dense_0/kernel": (40, 30), "dense_1/kernel": (30, 20)
        }  # fmt: skip
        slack = 0.05 if family == "bernoulli" else 0
        assert all(abs(mask.mean() - 0.2) <= slack + 1e-9 for mask in first.values())
    with pytest.raises(UserError, match="leaves dense_1 without connections"):
        make(f"{tmp_path}/x.npz", request(layer_sizes="40,10,40", sparsity=0.95, family="fan_in"))
    assert jax.default_backend() == "cpu"


def test_settings_of_random_families_matter(tmp_path):
    for i, rewiring in enumerate((0.0, 1.0)):
        make(
            f"{tmp_path}/{i}.npz",
            request(layer_sizes="40,30,20", sparsity=0.8, family="small_world", rewiring=rewiring),
        )
    make(f"{tmp_path}/2.npz", request(layer_sizes="40,30,20", sparsity=0.8, family="small_world", seed=4, rewiring=0.0))
    lattice, rewired, other = (digest(load_masks(tmp_path / f"{i}.npz")) for i in range(3))
    assert lattice == other != rewired


def test_a_folder_that_was_made_is_trained_on(tmp_path):
    make(f"{tmp_path}/made/", request(layer_sizes="64,24,12", sparsity=0.75))
    result = program.run(
        "--dataset=digits", "--train_size=300", "--hidden_sizes=24,12", "--method=static", "--dense_layers=output",
        "--initial_topology=file:made", "--epochs=1", "--cpu_devices=1", "--workdir=work", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (run,) = (tmp_path / "work" / "runs").iterdir()
    assert digest(load_masks(run / "masks.npz")) == digest(load_masks(tmp_path / "made"))
    assert verify([str(run)]) == 0  # with the output layer, which is dense


def test_a_loop_of_ones_own_begins_with_a_folder(tmp_path):
    make(f"{tmp_path}/made/", request(radix="4:4"))
    params = {name: {"kernel": jnp.ones((16, 16))} for name in ("dense_0", "dense_1")}
    sparsifier = make_sparsifier(
        params, optax.sgd(0.1), steps=10, method="static", initial_topology=f"file:{tmp_path}/made"
    )
    masks = sparsifier.init(jax.random.key(0), params).topology.masks
    np.testing.assert_equal(dict(jax.device_get(masks)), load_masks(tmp_path / "made"))


# --- verify ----------------------------------------------------------------------------------------


def two_tracks(depth, to_second):
    """An input, then a pair of neurons that are linked crosswise in every layer, 2^depth paths, beside a chain, one.

    The first output reads all three; the second reads those that `to_second` says.
    """
    first = np.ones((1, 3), bool)
    middle = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], bool)
    last = np.array([[1, to_second[0]], [1, to_second[1]], [1, to_second[2]]], bool)
    return {f"dense_{i}/kernel": mask for i, mask in enumerate([first, *[middle] * (depth - 1), last])}


@pytest.mark.parametrize("depth", [5, 31, 63, 64, 65, 128, 400])
def test_what_is_equal_modulo_2_to_the_64_or_in_float64_is_not_equal(tmp_path, capsys, depth):
    for to_second in ((0, 0, 1), (1, 1, 0)):  # 2^depth + 1 against 1, and against 2^depth
        save_masks(tmp_path / "a.npz", two_tracks(depth, to_second))
        assert verify([str(tmp_path / "a.npz")]) == 1
        assert "not equal" in capsys.readouterr().out
    save_masks(tmp_path / "a.npz", two_tracks(depth, (1, 1, 1)))
    assert verify([str(tmp_path / "a.npz")]) == 0
    whole = capsys.readouterr().out.split()
    assert depth < 67 or str(2**depth + 1) in whole  # below, it has thousands separators


def test_no_paths_are_not_equal(tmp_path, capsys):
    assert not equal(Paths(0, 0, 0))
    masks = {"dense_0/kernel": np.array([[True, False]]), "output/kernel": np.array([[False], [True]])}
    save_masks(tmp_path / "a.npz", masks)
    assert verify([str(tmp_path / "a.npz")]) == 1
    assert "not equal: no paths" in capsys.readouterr().out


def test_deep_nets_take_seconds_and_equal_layers_one_row(tmp_path, capsys):
    make(f"{tmp_path}/a.npz", request(graph_challenge=60))
    assert verify([str(tmp_path / "a.npz")]) == 0
    out = capsys.readouterr().out
    assert "dense_0 to dense_119" in out
    assert "equal: 4.0523e+177 (178 digits) = 2^590 paths from every input to every output" in out
    assert str(2**590) in out.split()


def test_convolutions_are_graphs_over_channels(tmp_path, capsys):
    masks = {"conv_0/kernel": np.ones((3, 3, 2, 4), bool), "output/kernel": np.ones((5 * 4, 3), bool)}
    masks["conv_0/kernel"][1:] = False
    save_masks(tmp_path / "a.npz", masks)
    assert verify([str(tmp_path / "a.npz")]) == 0
    out = capsys.readouterr().out
    assert "paths are over channels" in out
    assert "equal: 4 = 2^2 paths" in out


def test_a_network_out_of_series_is_refused(tmp_path, monkeypatch):
    save_masks(tmp_path / "a.npz", {"a/kernel": np.ones((2, 2), bool)})
    found = find(str(tmp_path / "a.npz"))._replace(model="resnet18")
    monkeypatch.setattr("sparse_jax.study.verify.find", lambda path: found)
    with pytest.raises(UserError, match="resnet18 are not in series"):
        verify(["a"])


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, None), (2, None), (9973, None), (4, "2^2"), (360, "2^3 · 3^2 · 5"), (2**590, "2^590"), (10007 * 2, None)],
)
def test_factors(value, text):
    assert factors(value) == text


# --- MatrixMarket ----------------------------------------------------------------------------------


def test_matrices_are_read_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    masks = {"dense_0/kernel": rng.random((7, 5)) < 0.4, "cell/input_i/kernel": rng.random((5, 3)) < 0.4}
    write_matrices(tmp_path / "a", masks)
    assert (tmp_path / "a" / "cell" / "input_i.mtx").is_file()
    lines = (tmp_path / "a" / "dense_0.mtx").read_text().splitlines()
    assert lines[0] == MTX.strip()
    assert lines[2] == f"7 5 {masks['dense_0/kernel'].sum()}"
    np.testing.assert_equal(load_masks(tmp_path / "a"), masks)
    assert digest(load_topology(tmp_path / "a")) == digest(masks)
    assert list(find(str(tmp_path / "a")).masks) == ["cell/input_i/kernel", "dense_0/kernel"]


def test_entries_in_any_order_with_any_values_are_connections(tmp_path):
    text = "%%MatrixMarket matrix coordinate real general\n% of another program\n2 3 3\n2 1 0.5\n1 3 0\n1 1 -1\n"
    (tmp_path / "a.mtx").write_text(text)
    np.testing.assert_equal(load_masks(tmp_path), {"a/kernel": np.array([[1, 0, 1], [1, 0, 0]], bool)})
    pairs = load_topology(tmp_path)["a/kernel"]  # sorted by input, then by output
    assert (pairs.inputs.tolist(), pairs.outputs.tolist()) == ([0, 0, 1], [0, 2, 0])
    assert pairs.inputs.dtype == pairs.outputs.dtype == np.int32


DAMAGED = {
    "": "no MatrixMarket file",
    "text": "no MatrixMarket file",
    f"{MTX}2 2 2\n1 1\n": "damaged",
    f"{MTX}2 2 1\n3 1\n": "damaged",
    f"{MTX}2 2 1\n0 1\n": "damaged",
    f"{MTX}2 2 3\n1 1\n2 1\n1 1\n": "an entry twice",
    f"{MTX}99999999999 2 1\n1 1\n": "which no kernel is",
    "%%MatrixMarket matrix coordinate pattern symmetric\n2 2 1\n2 1\n": "coordinate symmetric matrix",
    "%%MatrixMarket matrix array real general\n1 1\n1\n": "array general matrix",
}


@pytest.mark.parametrize("text", DAMAGED)
def test_matrices_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "good.mtx").write_text(f"{MTX}2 2 1\n1 1\n")
    (tmp_path / "other.mtx").write_text(text)
    with pytest.raises(UserError, match=rf"other\.mtx .*{DAMAGED[text]}"):
        load_topology(tmp_path)


def test_nothing_is_left_of_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises((TypeError, ValueError)):
        write_matrices(tmp_path / "a", {"a/kernel": np.ones((2, 2), bool), "b/kernel": np.array([["no mask"]])})
    assert not list(tmp_path.iterdir())


def test_a_convolution_is_no_matrix(tmp_path):
    masks = {"a/kernel": np.ones((2, 2), bool), "conv_0/kernel": np.ones((3, 3, 1, 2), bool)}
    with pytest.raises(UserError, match="conv_0 are no matrices, which MatrixMarket is for"):
        write_matrices(tmp_path / "a", masks)
    assert not list(tmp_path.iterdir())


def test_the_masks_of_a_run_come_before_matrices_beside_them(tmp_path):
    save_masks(tmp_path / "masks.npz", {"a/kernel": np.ones((1, 1), bool)})
    (tmp_path / "b.mtx").write_text(f"{MTX}2 2 1\n1 1\n")
    assert list(load_topology(tmp_path)) == ["a/kernel"]
