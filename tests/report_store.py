"""Workdirs of studies that never ran, written from plausible rows: what a report is made from, in a moment."""

import dataclasses
import itertools
import json
import zlib
from pathlib import Path

import numpy as np

from sparse_jax.config import RunConfig
from sparse_jax.study.ledger import EMPTY
from sparse_jax.study.mask_file import save_masks
from sparse_jax.study.rows import COLUMNS
from sparse_jax.study.store import Store

INPUTS, HIDDEN, CLASSES = 64, 12, 10
KERNELS = {"dense_0/kernel": [INPUTS, HIDDEN], "output/kernel": [HIDDEN, CLASSES]}
SIZE = sum(a * b for a, b in KERNELS.values())
EXAMPLES, MAJORITY = 361, 0.1
LIFT = {"static": 0.0, "set": 0.02, "rigl": 0.04, "dense": 0.0, "relu": 0.0, "tanh": 0.01, "sigmoid": -0.15}
SESSION = {"versions": {"python": "3.11.7", "jax": "0.10.1"}, "commit": "abc1234", "device": "2 × cpu", "lanes": 1}


def accuracy(method: str, activation: str, density: float, seed: int) -> float:
    """Whole examples of EXAMPLES, by a law with a little noise."""
    noise = np.random.default_rng(zlib.crc32(f"{method}{activation}{density}{seed}".encode())).normal(0, 0.008)
    steady = MAJORITY + (0.93 + LIFT.get(activation, 0.0) - MAJORITY) / (1 + (0.03 / density) ** 1.6)
    return round(min(1.0, max(0.0, steady + LIFT.get(method, 0.0) + noise)) * EXAMPLES) / EXAMPLES


def write_study(
    root: Path, *, methods=("static", "set"), activations=("relu", "tanh"), sparsities=(0.5, 0.8, 0.9, 0.95, 0.99),
    seeds=3, epochs=4, majority=True, stability=True, inputs=True, masks=True, **extra,
) -> list[str]:  # fmt: skip
    """A finished study, with its results.csv; returns the ids of its runs. `extra` goes into config.json."""
    grid = list(itertools.product(methods, activations, sparsities, range(seeds)))
    configs = {}
    for method, activation, sparsity, seed in grid:
        level = None if method == "dense" else sparsity
        chosen = {"method": method, "activation": (activation,), "sparsity": level, "seed": seed, "epochs": epochs}
        name = f"digits-mlp-{method}-{activation}-s{level}-seed{seed}"
        configs[name] = dataclasses.asdict(RunConfig(dataset="digits", **chosen))
    settings = {name: [value] for name, value in dataclasses.asdict(RunConfig()).items() if name != "seed"}
    settings |= {"method": list(methods), "activation": [[one] for one in activations], "sparsity": list(sparsities)}
    settings |= {"epochs": [epochs], "num_seeds": [seeds]}
    commands = [{"command": "python launch/train.py --flagfile=configs/small.flags", "settings": settings}]
    config = EMPTY | {"commands": commands, "runs": configs, "sessions": [SESSION]} | extra
    for folder in ("runs", "metrics"):
        (root / folder).mkdir(parents=True)
    (root / "config.json").write_text(json.dumps(config))
    for name, one in configs.items():
        _write_run(root, name, one, majority, stability, inputs, masks)
    Store(root).write_csv(COLUMNS, list(configs))
    return list(configs)


def _write_run(
    root: Path, name: str, config: dict, majority: bool, stability: bool, inputs: bool, masks: bool
) -> None:
    density = 1 - (config["sparsity"] or 0)
    activation, rng = config["activation"][0], np.random.default_rng(zlib.crc32(name.encode()))
    test = accuracy(config["method"], activation, density, config["seed"])
    topology = {layer: rng.random(shape) < density for layer, shape in KERNELS.items()}
    connections = sum(int(mask.sum()) for mask in topology.values())
    result = {key: value for key, value in config.items() if key not in ("sparsity", "activation", "hidden_sizes")}
    result |= {
        "activation": activation, "hidden_sizes": str(HIDDEN), "sparsity_target": config["sparsity"], "epsilon": None,
        "sparsity": 1 - connections / SIZE, "connections": connections, "parameters": connections + HIDDEN + CLASSES,
        "train_accuracy": min(1.0, test + 0.01), "val_accuracy": test, "test_accuracy": test, "train_loss": 0.3,
        "val_loss": 0.4, "test_loss": 0.4, "status": "ok" if test > 0.15 else "collapsed", "seconds": 0.1 + density,
        "training_flops": int(1e9 * density), "kernels": KERNELS, "test_examples": EXAMPLES,
        "input_shape": [8, 8, 1], "digest": f"{zlib.crc32(name.encode()):08x}",
    }  # fmt: skip
    result |= {"majority": MAJORITY} if majority else {}
    signs = {"dead_classes": [], "silent_neurons": 3, "silent_share": 3 / HIDDEN, "loss_spikes": 0}
    result |= signs if stability else {}
    (root / "runs" / name).mkdir()
    (root / "runs" / name / "result.json").write_text(json.dumps(result))
    if masks and config["method"] != "dense":
        save_masks(root / "runs" / name / "masks.npz", topology)
    rows = []
    for epoch in range(1, config["epochs"] + 1):
        share = 1 - 0.5**epoch
        row = {"step": 10 * epoch, "epoch": epoch, "val_accuracy": share * test, "train_accuracy": share * test + 0.01}
        row |= {"input_connections": rng.integers(0, HIDDEN, INPUTS).tolist()} if inputs else {}
        rows.append(json.dumps(row))
    (root / "metrics" / f"{name}.jsonl").write_text("\n".join(rows) + "\n")


def edit_result(root: Path, name: str, **changes) -> None:
    """Change what a run's result says."""
    path = root / "runs" / name / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def fail(root: Path, name: str, message: str) -> None:
    """Make a run a failed one."""
    (root / "runs" / name / "result.json").unlink()
    (root / "runs" / name / "failure.json").write_text(json.dumps({"message": message}))
