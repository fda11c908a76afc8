"""Run launch/train.py, or another program, as a user does, in a process of its own."""

import atexit
import csv
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.served import SECONDS, Served

ROOT = Path(__file__).parents[1]
# The environment of programs that compile as a user's do; otherwise they compile as quickly as tests.
AS_A_USER = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
MEASURED = ("seconds", "step_ms", "peak_memory_mb", "session")
SMALL = (
    "--dataset=digits", "--train_size=600", "--hidden_sizes=24,12", "--batch_size=16", "--epochs=4",
    "--learning_rate=0.1", "--cpu_devices=2", "--checkpoint_seconds=0.1",
)  # fmt: skip


def start(
    *arguments: str, cwd: Path, program: str = "train.py", env: Mapping[str, str] = os.environ
) -> subprocess.Popen:
    """The program, running."""
    command = [sys.executable, str(ROOT / "launch" / program), *arguments]
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _of_jax(env: Mapping[str, str]) -> dict[str, str]:
    """What jax reads when it is imported."""
    return {name: value for name, value in env.items() if name.startswith("JAX_")}


_OF_JAX = _of_jax(os.environ)


@functools.cache
def _served() -> Served:
    modules = "sparse_jax.study.execute", "sparse_jax.study.run", "sklearn.datasets"
    served = Served(*modules, env=os.environ | {"PYTHONPATH": str(ROOT)})
    atexit.register(served.__exit__)
    return served


def run(
    *arguments: str, cwd: Path, program: str = "train.py", env: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess:
    """The program, ended."""
    if _of_jax(env) == _OF_JAX:
        return _served().run(ROOT / "launch" / program, *arguments, cwd=cwd, env=dict(env))
    process = start(*arguments, cwd=cwd, program=program, env=env)
    out, err = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def rows(workdir: Path) -> list[dict[str, str]]:
    """results.csv without the columns that differ between two runs of the same study."""
    with (workdir / "results.csv").open(newline="") as file:
        return [{name: cell for name, cell in row.items() if name not in MEASURED} for row in csv.DictReader(file)]


def outcome(workdir: Path) -> tuple[list[dict[str, str]], dict[str, list[dict]]]:
    """What has to be equal however often a study was interrupted: the rows with their digests, and the metrics."""
    files = sorted((workdir / "metrics").glob("*.jsonl"))
    return rows(workdir), {file.name: [json.loads(line) for line in file.read_text().splitlines()] for file in files}
