"""Workdirs of searches, for activation functions (SAFS) and for weight agnostic networks, that never ran."""

import csv
import json
from pathlib import Path

import numpy as np

from sparse_jax.analysis.statistics import mean_interval

OPERATORS = {  # what each adds to a validation accuracy, in whatever layer
    "relu6": -0.02, "hardswish": 0.01, "swish": 0.05, "gelu": 0.03, "elu": 0.04, "tanh": 0.02, "softplus": -0.03,
    "logsigmoid": -0.05, "symlog": 0.03, "symexp": -0.12, "srs": 0.035, "acon": 0.02,
}  # fmt: skip
SHAPES = {
    "relu": lambda x: np.maximum(x, 0), "relu6": lambda x: np.clip(x, 0, 6), "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)), "symlog": lambda x: np.sign(x) * np.log1p(np.abs(x)),
    "symexp": lambda x: np.sign(x) * np.expm1(np.abs(x)), "softplus": lambda x: np.log1p(np.exp(x)),
}  # fmt: skip
COLUMNS = ("dense", "default", "stage1", "stage2", "both")
PAIRS = (("stage1", "default"), ("stage2", "default"), ("both", "default"))
LEVEL = {"dense": 0.985, "default": 0.47, "stage1": 0.6, "stage2": 0.61, "both": 0.66}  # at a sparsity of 0.99
SETTINGS = {"model": "lenet5_safs", "dataset": "mnist", "steps": "20", "trials": "20", "activation_scale": "layer"}
LAYERS = 4


def shape(name: str, x: np.ndarray) -> np.ndarray:
    """An operator; those that are not listed are drawn as x sigmoid(x)."""
    return SHAPES[name](x) if name in SHAPES else x / (1 + np.exp(-x))


def write_safs(root: Path, *, sparsities=(0.99,), seeds=5, steps=20, trials=20, ended=True, neurons=1,
               columns=COLUMNS, layers=LAYERS) -> dict:  # fmt: skip
    """A search with its candidates, and if it has ended with its result, which is returned."""
    root.mkdir(parents=True)
    versions = {"python": "3.11.7", "jax": "0.10.1"}
    begun = {"search": "safs", "settings": SETTINGS, "versions": versions, "commit": "abc1234", "device": "2 × cpu",
             "data": "d1ce"}  # fmt: skip
    (root / "search.json").write_text(json.dumps(begun))
    rng, lines, pipelines, curves = np.random.default_rng(0), [], [], []
    for sparsity in sparsities:
        for seed in range(seeds):
            operators = _stage1(rng, lines, sparsity, seed, steps, layers)
            stages = [name for name in ("stage2", "both") if name in columns]
            tuned = {name: _stage2(rng, lines, sparsity, seed, name, operators, trials) for name in stages}
            pipelines.append(_pipeline(rng, sparsity, seed, operators, tuned, neurons, columns))
            curves += _curves(pipelines[-1], layers)
    (root / "candidates.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = {
        "search": "safs", "settings": SETTINGS, "dataset": "mnist", "model": "lenet5_safs",
        "layers": [f"activation_{i}" for i in range(layers)],
        "seconds": {"start": 61.5, "stage1": 240.25, "stage2": 130.5, "final": 88.0},
        "pipelines": pipelines, "curves": curves, "table": _table(pipelines, columns), "gains": _gains(pipelines),
    }  # fmt: skip
    if ended:
        write_result(root, result)
    return result


def write_result(root: Path, result: dict) -> None:
    """Write result.json, NaN and all."""
    (root / "result.json").write_text(json.dumps(result))


def edit_candidates(root: Path, change) -> None:
    """Replace every candidate by what a function makes of it; None leaves it out."""
    path = root / "candidates.jsonl"
    lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line is not None))


def _stage1(rng, lines, sparsity, seed, steps, layers) -> list[str]:
    """Late acceptance in spirit: a layer is drawn anew, two are swapped; the best of all."""
    names = list(OPERATORS)
    current = [str(name) for name in rng.choice(names, layers)]
    seen, best, top = {}, current, 0.0
    for step in range(steps + 1):
        proposed = list(current)
        if step:
            proposed[rng.integers(layers)] = str(rng.choice(names))
            i, j = rng.choice(layers, 2, replace=False) if layers > 1 else (0, 0)
            proposed[i], proposed[j] = proposed[j], proposed[i]
        known = tuple(proposed) in seen
        worth = 0.45 + sum(OPERATORS[name] for name in proposed) + 0.01 * seed - (0.99 - (sparsity or 0.99))
        accuracy = seen[tuple(proposed)] if known else float(np.clip(rng.normal(worth, 0.015), 0.1, 1))
        diverged = not known and "symexp" in proposed and rng.random() < 0.3
        seen[tuple(proposed)] = accuracy = 0.1 if diverged else accuracy
        lines.append({
            "stage": "stage1", "sparsity": sparsity, "seed": seed, "step": step, "candidate": 0, "operators": proposed,
            "accuracy": round(accuracy, 4), "loss": None if diverged else 1.3, "diverged": diverged, "epochs": 5,
            "seconds": 0 if known else 2.25, "flops": 0 if known else 1.2e9, "known": known,
        })  # fmt: skip
        if accuracy >= top - 0.02:
            current = proposed
        if accuracy > top:
            best, top = proposed, accuracy
    return best


def _stage2(rng, lines, sparsity, seed, stage, operators, trials) -> dict:
    """Trials around a best learning rate of 0.003; poor ones are stopped after an epoch."""
    best, top = {}, 0.0
    for trial in range(trials):
        rate = float(10 ** rng.uniform(-4, -1))
        tuned = {
            "optimizer": str(rng.choice(["adam", "momentum", "rmsprop"])), "learning_rate": rate,
            "momentum": float(rng.uniform(0.8, 0.99)), "weight_decay": float(10 ** rng.uniform(-5, -3)),
            "lr_schedule": str(rng.choice(["constant", "cosine"])),
        }  # fmt: skip
        accuracy = LEVEL[stage] - 0.09 * (np.log10(rate) + 2.5) ** 2 + rng.normal(0, 0.015)
        stopped = bool(accuracy < LEVEL[stage] - 0.12)
        accuracy = float(np.clip(accuracy * (0.6 if stopped else 1), 0.1, 1))
        lines.append({
            "stage": stage, "sparsity": sparsity, "seed": seed, "trial": trial, "operators": operators, **tuned,
            "accuracy": round(accuracy, 4), "loss": 1.2, "diverged": False, "epochs": 1 if stopped else 5,
            "stopped": stopped, "seconds": 0.5 if stopped else 2.5, "flops": 2e8 if stopped else 1.2e9,
        })  # fmt: skip
        if accuracy > top and not stopped:
            best, top = tuned, accuracy
    return best


def _pipeline(rng, sparsity, seed, operators, tuned, neurons, columns) -> dict:
    networks = {}
    for name in columns:
        loss = 0 if name == "dense" or sparsity is None else 2 * (0.99 - sparsity)
        accuracy = round(float(np.clip(LEVEL[name] + loss + 0.01 * seed + rng.normal(0, 0.01), 0, 0.99)), 4)
        networks[name] = {
            "validation_accuracy": min(1.0, accuracy + 0.01), "test_accuracy": accuracy, "test_loss": 1.1,
            "diverged": False, "connections": 61470 if name == "dense" else 613,
        }  # fmt: skip
    scales = {
        name: [{"alpha": rng.normal(1.1, 0.2, neurons).tolist(), "beta": rng.normal(0.9, 0.1, neurons).tolist()}
               for _ in operators] for name in ("stage2", "both") if name in columns
    }  # fmt: skip
    return {"sparsity": sparsity, "seed": seed, "connections": 613, "operators": operators, "hyperparameters": tuned,
            "networks": networks, "scales": scales}  # fmt: skip


def _curves(pipeline, layers) -> list[dict]:
    x, curves = np.linspace(-3, 3, 61), []
    of = {name: pipeline["operators"] if name == "both" else ["relu"] * layers for name in pipeline["scales"]}
    if pipeline["seed"] == 0:
        curves += [{"sparsity": pipeline["sparsity"], "seed": 0, "column": "default", "layer": layer,
                    "operator": "relu", "x": x.tolist(), "y": shape("relu", x).tolist()} for layer in range(layers)]
    for name, operators in of.items():
        for layer, operator in enumerate(operators):
            found = pipeline["scales"][name][layer]
            y = np.mean(found["alpha"]) * shape(operator, np.mean(found["beta"]) * x)
            curves.append({"sparsity": pipeline["sparsity"], "seed": pipeline["seed"], "column": name, "layer": layer,
                           "operator": operator, "x": x.tolist(), "y": y.tolist()})  # fmt: skip
    return curves


def _ends(values) -> dict:
    found = mean_interval(values, 0.95)
    return {"mean": found.value, "low": found.low, "high": found.high, "seeds": len(values)}


def _table(pipelines, columns) -> list[dict]:
    sparsities = dict.fromkeys(one["sparsity"] for one in pipelines)
    return [
        {"sparsity": sparsity, "column": name} | _ends([
            one["networks"][name]["test_accuracy"] for one in pipelines if one["sparsity"] == sparsity
        ]) for sparsity in sparsities for name in columns
    ]  # fmt: skip


def _gains(pipelines) -> list[dict]:
    sparsities, gains = dict.fromkeys(one["sparsity"] for one in pipelines), []
    for sparsity in sparsities:
        networks = [one["networks"] for one in pipelines if one["sparsity"] == sparsity]
        for name, against in (pair for pair in PAIRS if set(pair) <= networks[0].keys()):
            differences = [one[name]["test_accuracy"] - one[against]["test_accuracy"] for one in networks]
            gains.append({"sparsity": sparsity, "column": name, "against": against} | _ends(differences))
    return gains


def write_wann(root: Path, *, generations=40, ended=True, **settings) -> dict:
    """A search for weight agnostic networks, of two weights, on 400 test examples; returns its result."""
    root.mkdir(parents=True)
    known = {"population": "40", "seed": "0", "weights": "-1.0:1.0", "fitness": "loss", "dataset": "digits"} | settings
    begun = {"search": "wann", "settings": known, "data": "d1ce", "versions": {"jax": "0.10.1"}, "commit": None,
             "device": "2 × cpu"}  # fmt: skip
    (root / "search.json").write_text(json.dumps(begun))
    with (root / "course.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        numbers = "best", "best_accuracy", "mean", "connections", "hidden", "validation", "seconds"
        writer.writerow(["generation", *numbers])
        for i in range(1, generations + 1):
            writer.writerow([i, -4 + i / 40, 0.1 + i / 200, -5 + i / 40, 60 + i, i // 4, -4.1 + i / 40, i / 2])
    parts = {
        "validation": {"accuracy": {"-1": 0.5, "1": 0.25}, "loss": {"-1": 1.5, "1": 2.5}, "mean_accuracy": 0.375,
                       "mean_loss": 2.0, "vote_accuracy": 0.45, "examples": 100},
        "test": {"accuracy": {"-1": 0.48, "1": 0.5}, "loss": {"-1": 1.6, "1": 2.4}, "mean_accuracy": 0.49,
                 "mean_loss": 2.0, "vote_accuracy": 0.44, "examples": 400},
    }  # fmt: skip
    result = {"search": "wann", "seed": 0, "settings": known, "generations": generations, "seconds": 20.0,
              "found_in_generation": 39, "connections": 100, "hidden_nodes": 10, "functions": {"tanh": 6, "abs": 4},
              "best_weight": "-1", **parts, "test_accuracy": 0.48}  # fmt: skip
    if ended:
        write_result(root, result)
    return result
