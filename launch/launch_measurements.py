"""What `benchmark.py` measures of whole launches of train.py."""

import contextlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measurements import Bench, Measurement, alternate

from sparse_jax.data.catalog import describe
from sparse_jax.errors import UserError


def _trained(*flags: str, cache: str) -> subprocess.CompletedProcess:
    """A study trained by a process of its own, with the compiled programs that the folder `cache` has."""
    command = [sys.executable, str(Path(__file__).with_name("train.py")), *flags]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def start_up(bench: Bench) -> list[Measurement]:
    """Seconds from the start of launch/train.py to its first training step, with a cold and a warm cache."""
    sets = ["digits"]
    with contextlib.suppress(UserError):
        sets.append(describe("mnist", bench.data_dir).name)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name, cache in itertools.product(sets, ("cold", "warm")):
            flags = f"--dataset={name}", "--method=set", f"--data_dir={bench.data_dir}", "--epochs=1"
            ended = _trained(*flags, f"--workdir={folder}/{name}-{cache}", cache=f"{folder}/{name}")
            seconds = re.search(r"first step ([\d.]+) s", ended.stderr)[1]
            detail = f"imports, data, initialisation, compilation; {name}, 300-100, SET"
            target = "≤ 6 s" if cache == "warm" else "–"
            lines.append(Measurement(f"start to first step, {cache}", f"{seconds} s", "–", None, target, detail))
    return lines


def one_launch(bench: Bench) -> list[Measurement]:
    """A study of sixteen runs in one launch, against a launch for each; compiled programs are in the cache."""
    runs, rounds, epochs = (2, 1, 1) if bench.smoke else (16, 3, 20)
    common = "--method=set", "--train_size=600", f"--epochs={epochs}"
    with tempfile.TemporaryDirectory() as folder:
        numbers = itertools.count()

        def launched(seeds: range) -> None:
            workdir = f"--workdir={folder}/{next(numbers)}"
            span = f"--first_seed={seeds.start}", f"--num_seeds={len(seeds)}"
            _trained(*common, *span, workdir, cache=f"{folder}/cache")

        def seconds(*launches: range) -> float:
            begin = time.perf_counter()
            for seeds in launches:
                launched(seeds)
            return time.perf_counter() - begin

        together, apart = [range(runs)], [range(seed, seed + 1) for seed in range(runs)]
        seconds(*together, apart[0])
        a, b, ratio = alternate(lambda: seconds(*together), lambda: seconds(*apart), rounds)
    return [
        Measurement(
            "one launch", f"{a:.1f} s", f"{b:.1f} s", ratio, "–",
            f"{runs} SET runs of {epochs} epochs, digits, LeNet-300-100; other: a launch for each",
        )
    ]


LAUNCH_MEASUREMENTS = (start_up, one_launch)
