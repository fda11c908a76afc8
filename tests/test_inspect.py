"""launch/topology.py inspect: what it prints, writes and refuses. It never needs jax."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from sparse_jax.analysis.topology import compare, describe
from sparse_jax.study.inspect import large
from sparse_jax.study.mask_file import save_masks
from sparse_jax.study.store import open_store
from tests.program import ROOT

TOUCHED_JAX = 99
WIDE = 100

# inputs a b, hidden c d e, outputs f g; links ac ad bd be cf; the only path is acf
SMALL = {
    "output/kernel": np.array([[1, 0], [0, 0], [0, 0]], bool),
    "dense_0/kernel": np.array([[1, 1, 0], [0, 1, 1]], bool),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with mask files and a workdir, and a jax that must not be touched."""
    root = tmp_path_factory.mktemp("inspect")
    (root / "jax").mkdir()
    (root / "jax" / "__init__.py").write_text(f"import os; os._exit({TOUCHED_JAX})")
    rng = np.random.default_rng(0)
    shapes = {"dense_0/kernel": (64, 40), "dense_1/kernel": (40, 20), "output/kernel": (20, 10)}
    random = {name: rng.random(shape) < 0.2 for name, shape in shapes.items()}
    deep = {f"dense_{i}/kernel": np.ones((60, 60), bool) for i in range(20)}
    save_masks(root / "small.npz", SMALL)
    save_masks(root / "random.npz", random)
    save_masks(root / "deep.npz", deep)
    save_masks(root / "gap.npz", {name: random[name] for name in ("dense_0/kernel", "output/kernel")})
    np.savez(root / "plain.npz", **{name: ~mask for name, mask in SMALL.items()})
    np.savez(root / "data.npz", x_train=np.ones((3, 2)))
    (root / "cut.npz").write_bytes((root / "small.npz").read_bytes()[:300])
    (root / "text.npz").write_text("masks")
    store = open_store(root / "work")
    for run in ("set-seed0", "set-seed1", "unfinished"):
        store.write_masks(run, random)
    for run in ("set-seed0", "set-seed1", "dense-seed0"):
        store.write_result(run, {"status": "ok"})
    store.write_config({"runs": {run: {} for run in ("set-seed0", "set-seed1", "dense-seed0")}})
    (root / "work" / "checkpoints" / "finished").mkdir()
    open_store(root / "new")
    return root


def topology(world, *arguments):
    command = [sys.executable, str(ROOT / "launch" / "topology.py"), *arguments]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(world), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=world, env=environment, capture_output=True, text=True, timeout=60)


def printed(world, *arguments):
    """The lines of the output, stripped; none is wider than a terminal should be."""
    result = topology(world, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert max(map(len, lines)) <= WIDE
    return [re.sub(r" {2,}", "  ", line.strip()) for line in lines]


def test_one_topology(world):
    lines = printed(world, "inspect", "small.npz", "--json=small.json")
    assert lines[0] == "small.npz"
    assert "dense_0  2×3  4  0.3333  0.8333  0  2  0.250" in lines  # on a path: ac; without output: d, e
    assert "output  3×2  1  0.8333  0.8333  1  –  0.000" in lines
    assert "dense_0  1  1.3  2  –  2  2.0  2  –" in lines
    assert "connections  5 of 12, sparsity 0.5833" in lines
    assert "effective  2 on a path, effective sparsity 0.8333" in lines
    assert "inputs  2, 0 without a connection" in lines
    assert "hidden neurons  3, 2 dead, 2 disconnected" in lines
    assert "paths  1" in lines
    assert "paths of a pair  0 to 1, by input and output" in lines
    assert "layer collapse  none" in lines
    report = json.loads((world / "small.json").read_text())
    assert report["comparison"] is None
    (found,) = report["topologies"]
    assert found["path"] == "small.npz"
    assert list(found["layers"]) == ["dense_0/kernel", "output/kernel"]
    assert found["network"]["chain"]["paths"] == {"total": 1, "least": 0, "most": 1}
    assert found["layers"]["dense_0/kernel"]["in_degree"]["distribution"] == [0, 2, 1]


def test_two_topologies(world):
    """plain.npz has every connection that small.npz has not."""
    lines = printed(world, "inspect", "small.npz", "plain.npz", "--json=two.json")
    assert lines.index("small.npz") < lines.index("plain.npz") < lines.index("what they have in common")
    assert "dense_0  0  6  0.0000  0.6667  0.0000" in lines
    assert "all  0  12  0.0000  0.4333  0.0000" in lines  # by chance (4 2 / 6 + 1 5 / 6) / 5
    report = json.loads((world / "two.json").read_text())
    assert [one["path"] for one in report["topologies"]] == ["small.npz", "plain.npz"]
    assert report["comparison"]["network"]["either"] == 12


def test_a_run_and_a_mask_file_that_are_equal(world):
    lines = printed(world, "inspect", "work/runs/set-seed0", "random.npz")
    (line,) = (line for line in lines if line.startswith("all "))
    common, either, overlap, _, jaccard = line.split()[1:]
    assert (common, overlap, jaccard) == (either, "1.0000", "1.0000")


def test_a_workdir_has_a_row_for_each_finished_run_with_masks(world):
    lines = printed(world, "inspect", "work", "--json=work.json")
    assert [line.split()[0] for line in lines if line.startswith("set-seed")] == ["set-seed0", "set-seed1"]
    assert "not shown: dense-seed0: no masks: a dense network has none" in lines
    assert not any("unfinished" in line for line in lines)
    networks = json.loads((world / "work.json").read_text())["networks"]
    assert networks.keys() == {"set-seed0", "set-seed1"}
    assert networks["set-seed0"]["entries"] == 64 * 40 + 40 * 20 + 20 * 10


def test_large_numbers_of_paths_are_readable(world):
    lines = printed(world, "inspect", "deep.npz", "--json=deep.json")
    assert "paths  2.1937e+37 (38 digits)" in lines
    (found,) = json.loads((world / "deep.json").read_text())["topologies"]
    assert found["network"]["chain"]["paths"]["total"] == 60**21  # a choice of 60 at each of 21 layers of neurons


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (10**20 - 1, "99,999,999,999,999,999,999"),
        (10**20, "1.0000e+20 (21 digits)"),
        (2**1000, "1.0715e+301 (302 digits)"),
        (7**400, "1.0945e+338 (339 digits)"),  # beyond float64
    ],
    ids=range(6),
)
def test_large(value, text):
    assert large(value) == text


def test_layers_that_form_no_chain_are_measured_one_by_one(world):
    lines = printed(world, "inspect", "gap.npz", "--json=gap.json")
    assert "paths  not measured: layer 1 has 20 inputs, the layer before it has 40 outputs" in lines
    assert not any(line.startswith(("paths of", "hidden", "effective  ")) for line in lines[3:])
    (found,) = json.loads((world / "gap.json").read_text())["topologies"]
    assert found["network"]["chain"] is None
    assert found["layers"]["dense_0/kernel"]["effective_sparsity"] is None
    assert found["layers"]["dense_0/kernel"]["no_output"] is None
    assert found["layers"]["dense_0/kernel"]["modularity"] > 0


def test_layer_collapse(world):
    names = [*SMALL, "dense_1/kernel"]
    empty = {name: np.zeros((2, 2), bool) for name in sorted(names)}
    network = describe(empty, None).network
    assert network.empty_layers == ["dense_0/kernel", "dense_1/kernel", "output/kernel"]
    save_masks(world / "empty.npz", empty | {"output/kernel": np.ones((2, 2), bool)})
    assert "layer collapse  no connection in dense_0, dense_1" in printed(world, "inspect", "empty.npz")
    crossed = {"dense_0/kernel": np.array([[True, False]]), "output/kernel": np.array([[False], [True]])}
    save_masks(world / "crossed.npz", crossed)
    assert "layer collapse  no input reaches an output" in printed(world, "inspect", "crossed.npz")


def test_measures_of_layers_add_up():
    rng = np.random.default_rng(0)
    masks = {f"dense_{i}": rng.random((9, 9)) < 0.2 for i in range(11)}
    found = describe(masks, None)
    assert list(found.layers) == [f"dense_{i}" for i in range(11)]
    layers = found.layers.values()
    assert sum(layer.connections for layer in layers) == found.network.connections
    effective = sum(round((1 - layer.effective_sparsity) * 81) for layer in layers)
    assert effective == found.network.chain.effective_connections
    for layer in layers:
        assert layer.in_degree.mean == layer.out_degree.mean == pytest.approx(layer.connections / 9)
        assert layer.in_degree.distribution[0] == layer.no_input
    together = compare(masks, dict(reversed(masks.items())))
    assert together.network.common == found.network.connections
    assert sum(layer.common for layer in together.layers.values()) == found.network.connections


REFUSED = {
    "": ["which subcommand", "inspect"],
    "inspct small.npz": ["'inspct'", "'inspect'"],
    "inspect": ["not 0"],
    "inspect small.npz small.npz small.npz": ["not 3"],
    "inspect gone.npz": ["gone.npz", "No such file", "masks.npz of a run"],
    "inspect text.npz": ["text.npz", "no mask file"],
    "inspect cut.npz": ["cut.npz", "damaged"],
    "inspect data.npz": ["data.npz", "x_train is float64"],
    "inspect .": ["no masks.npz", "no runs"],
    "inspect new": ["new", "no finished run"],
    "inspect work/runs/dense-seed0": ["dense-seed0", "finished", "a dense network has none"],
    "inspect work small.npz": ["work", "2 runs", "name two"],
    "inspect small.npz random.npz": ["different networks", "2×3 and 64×40"],
    "inspect small.npz --json=gone/a.json": ["--json=gone/a.json", "No such file"],
    "inspect small.npz --jsn=a": ["jsn"],
    f"inspect {300 * 'x'}": ["File name too long"],
}


@pytest.mark.parametrize("line", REFUSED)
def test_refused_in_one_line(world, line):
    result = topology(world, *line.split())
    assert result.returncode == 2, result.stderr
    assert re.fullmatch(r"topology\.py: .+\n", result.stderr)
    assert all(part in result.stderr for part in REFUSED[line]), result.stderr


def test_help_teaches(world):
    result = topology(world, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert all(part in result.stdout for part in ("inspect PATH", "effective sparsity", "--json", "Examples"))
    assert "[grid]" not in result.stdout
