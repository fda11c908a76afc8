"""The end of a search: the best network on the test part, as files and as a table."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich import box
from rich.table import Table

from sparse_jax.config import WANN_FUNCTIONS
from sparse_jax.search.files import RESULT
from sparse_jax.search.genome import Genome
from sparse_jax.search.shared_weight import logits, scores, vote
from sparse_jax.search.wann import Examples, State
from sparse_jax.search.wann_export import FLAGS, MASKS, export, flagfile
from sparse_jax.search.wann_files import write_result
from sparse_jax.search.wann_plan import Plan
from sparse_jax.study.files import write_atomic
from sparse_jax.study.mask_file import save_masks
from sparse_jax.study.summary import make_console

DIGITS = 6  # of accuracies and losses, after the point


def conclude(plan: Plan, workdir: Path, state: State, seconds: float, examples: Examples, test: tuple) -> None:
    """Write result.json, the network and its flags, and print what was found.

    Args:
      plan: of the search.
      workdir: where to.
      state: at the end, on the host.
      seconds: that the search took.
      examples: of training and validation.
      test: x float32[inputs, examples], y int32[examples] of the test part.
    """
    network = state.champion
    validation = _measured(plan, network, examples.x_validation, examples.y_validation)
    result = {
        "search": "wann",
        "seed": plan.asked.search.seed,
        "settings": plan.values,
        "generations": int(state.generation),
        "seconds": round(float(seconds), 2),
        "found_in_generation": int(state.found) + 1,
        "connections": int(np.sum(network.enabled)),
        "hidden_nodes": int(np.sum(network.used)),
        "functions": _functions(plan, network),
        "best_weight": _best_weight(validation),
        "validation": validation,
        "test": _measured(plan, network, *test),
    }
    result["test_accuracy"] = result["test"]["accuracy"][result["best_weight"]]
    exported = export(plan.places, network)
    if exported is not None:
        save_masks(workdir / MASKS, exported.masks)
        write_atomic(workdir / FLAGS, flagfile(plan, exported))
    write_result(workdir, result)
    _print(plan, result, exported is not None)


def _measured(plan: Plan, network: Genome, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Accuracies and losses of a network on a part, at every weight, their means, and the vote of all weights."""
    weights = plan.asked.search.weights

    @jax.jit
    def measure(network, x, y):
        z = logits(plan.places, network, x, np.asarray(weights, np.float32))
        return scores(z, y), (vote(z) == y).mean()

    found, voted = jax.device_get(measure(network, x, y))
    names = [str(weight).removesuffix(".0") for weight in weights]

    def by_weight(values: np.ndarray) -> dict[str, float]:
        return {name: round(float(value), DIGITS) for name, value in zip(names, values, strict=True)}

    return {
        **{field: by_weight(values) for field, values in found._asdict().items()},
        "mean_accuracy": round(float(np.mean(found.accuracy)), DIGITS),
        "mean_loss": round(float(np.mean(found.loss)), DIGITS),
        "vote_accuracy": round(float(voted), DIGITS),
        "examples": len(y),
    }


def _best_weight(validation: Mapping[str, Any]) -> str:
    """The weight of the highest accuracy, of equal ones that of the lowest loss."""
    return max(validation["accuracy"], key=lambda w: (validation["accuracy"][w], -validation["loss"][w]))


def _functions(plan: Plan, network: Genome) -> dict[str, int]:
    """How many nodes have which function."""
    counts = np.bincount(plan.places.slot_functions[network.used], minlength=len(WANN_FUNCTIONS))
    return {name: int(count) for name, count in zip(WANN_FUNCTIONS, counts, strict=True) if count}


def _print(plan: Plan, result: Mapping[str, Any], exported: bool) -> None:
    console = make_console()
    caption = "accuracy in %; the best weight is that of the validation part"
    table = Table(box=box.SIMPLE_HEAD, caption=caption, pad_edge=False, caption_justify="left")
    for name in ("weight", "validation", "test", "test loss"):
        table.add_column(name, justify="left" if name == "weight" else "right")
    parts = result["validation"], result["test"]

    def add(name: str, validation: float, test: float, loss: str) -> None:
        table.add_row(name, f"{100 * validation:.2f}", f"{100 * test:.2f}", loss)

    for weight in parts[0]["accuracy"]:
        name = f"{weight}  best" if weight == result["best_weight"] else weight
        add(name, *(part["accuracy"][weight] for part in parts), f"{parts[1]['loss'][weight]:.4f}")
    add("mean", *(part["mean_accuracy"] for part in parts), f"{parts[1]['mean_loss']:.4f}")
    add("vote of all", *(part["vote_accuracy"] for part in parts), "")
    console.print(table)
    functions = ", ".join(f"{count} {name}" for name, count in result["functions"].items())
    console.print(
        f"{result['connections']:,} connections, {result['hidden_nodes']:,} hidden nodes"
        f"{f' ({functions})' if functions else ''}, of generation {result['found_in_generation']:,} of "
        f"{result['generations']:,}; {result['seconds']:.0f} s",
        soft_wrap=True,
    )
    console.print(f"results: {plan.workdir / RESULT}", soft_wrap=True)
    if exported:
        flags = shlex.quote(str(plan.workdir / FLAGS))
        console.print(f"with weights of its own: python launch/train.py --flagfile={flags}", soft_wrap=True)
    else:
        console.print(f"it has no hidden node, so that there is no {FLAGS}: search longer", soft_wrap=True)
