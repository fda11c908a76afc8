"""What is written of the ablations of runs: WORKDIR/runs/RUN/ablations.json, and WORKDIR/ablation.csv made from them.

An experiment has its settings and its points. They count as long as the run has the weights that they were made on.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from sparse_jax.analysis.curves import area
from sparse_jax.study.files import dump_json, read_object, write_atomic
from sparse_jax.study.grid import digest
from sparse_jax.study.store import Store

FILE, CSV = "ablations.json", "ablation.csv"
COLUMNS = (
    "run_id", "kind", "name", "scope", "retrain_steps", "retrain_rate", "part", "which", "examples", "layers",
    "connections", "from", "to", "weight", "removed", "accuracy", "loss", "vote_accuracy", "area",
)  # fmt: skip

Experiments = dict[str, dict[str, Any]]  # by `name_of` their settings


def name_of(settings: Mapping[str, Any]) -> str:
    """What an experiment is called, by its settings."""
    return f"{settings['name']}-{digest(dict(settings))}"


def read_experiments(store: Store, run_id: str, result: Mapping[str, Any]) -> Experiments:
    """The experiments on the weights that a run has, as its result says."""
    found = read_object(store.root / "runs" / run_id / FILE) or {}
    experiments = found.get("experiments")
    return experiments if isinstance(experiments, dict) and found.get("digest") == result.get("digest") else {}


def add_experiments(store: Store, run_id: str, result: Mapping[str, Any], new: Iterable[dict[str, Any]]) -> None:
    """Keep experiments beside those that there are; one of the same settings is replaced."""
    with store.alone():
        whole = read_experiments(store, run_id, result) | {name_of(one["settings"]): one for one in new}
        content = {"digest": result["digest"], "experiments": whole}
        write_atomic(store.root / "runs" / run_id / FILE, dump_json(content, indent=1))


def area_of(experiment: Mapping[str, Any]) -> float | None:
    """The area under the curve of an order that removes from the first connection on; None of others.

    None, too, where some accuracy is unknown, because training diverged.
    """
    points = [point for point in experiment["points"] if "to" in point]
    if not points or any(point["from"] or point["accuracy"] is None for point in points):
        return None
    return area([point["to"] for point in points], [point["accuracy"] for point in points])


def write_csv(store: Store) -> None:
    """Derive ablation.csv from all experiments: one row a point."""
    with store.alone():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for run_id, result in store.read_results().items():
            for experiment in read_experiments(store, run_id, result).values():
                whole = {"run_id": run_id, **experiment["settings"], **experiment, "area": area_of(experiment)}
                writer.writerows([(whole | point).get(name) for name in COLUMNS] for point in experiment["points"])
        write_atomic(store.root / CSV, text.getvalue())
