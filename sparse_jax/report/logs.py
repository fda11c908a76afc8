"""What the runs logged while they trained, read once: accuracies by epoch, and connections of the inputs."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from sparse_jax.report.records import Records

CURVE = ("epoch", "train_accuracy", "val_accuracy")
EPOCHS = 60  # at most, of a learning curve; more are thinned evenly
FRAMES = 24  # at most, of the course of the inputs


class Log(NamedTuple):
    """The metrics of one run."""

    curve: pd.DataFrame  # columns of CURVE, one row an epoch
    inputs: dict[float, np.ndarray]  # epoch -> float[inputs], connections of every input


def read_logs(records: Records) -> dict[int, Log]:
    """The metrics of every run by its place in the table of runs; empty where a run logged nothing."""
    return {index: _log(records.metrics(run)) for index, run in records.runs.iterrows()}


def _log(rows: list[dict]) -> Log:
    """Rows that lack an accuracy are passed over; of several rows of an epoch the last counts."""
    curve = pd.DataFrame([[row.get(name) for name in CURVE] for row in rows], columns=CURVE)
    curve = curve.apply(pd.to_numeric, errors="coerce").dropna().drop_duplicates("epoch", keep="last")
    inputs = {row["epoch"]: row["input_connections"] for row in rows if _has_inputs(row)}
    return Log(curve, {epoch: np.array(inputs[epoch], np.float32) for epoch in thinned(sorted(inputs), FRAMES)})


def _has_inputs(row: dict) -> bool:
    counts = row.get("input_connections")
    return isinstance(row.get("epoch"), int | float) and isinstance(counts, list) and bool(counts) and all(
        isinstance(count, int | float) for count in counts
    )  # fmt: skip


def thinned(values: list[float], most: int) -> list[float]:
    """At most so many of them, evenly, the first and the last among them."""
    return [values[i] for i in spread(len(values), most)]


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the places 0 ... count − 1, evenly; the last if it is one."""
    if most == 1 and count:
        return [count - 1]
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist() if count else []
