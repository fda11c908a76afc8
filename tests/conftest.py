"""The tests run on CPU, with four devices and strict ranks, and compile every program once between them."""

import atexit
import gc
import os
import shutil
import tempfile
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Compiling is what takes the time here. Hosts, faults and scripts are tested as a user compiles them.
os.environ["XLA_FLAGS"] = " ".join(
    (os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
).strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # set for the workers and subprocesses of this session
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="sparse_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


MAPS = Path("/proc/self/maps")
MOST_MAPS = 30_000
SECONDS = 2  # of tests, in which no more than some thousand maps are made
spent = 0.0

# The files that take longest, and begin first: the last one runs on one core.
LONGEST = (
    "laws", "resume", "evaluate", "models", "ablate", "wann", "study", "transplant", "report", "safs", "workers",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Long files first."""
    place = {f"tests/test_{name}.py": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


def pytest_collection_finish():
    """What was imported and collected stays: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _programs_are_dropped():
    """Compiled programs hold memory maps, of which Linux gives a process 65,530: without this they run out."""
    global spent
    begin = time.monotonic()
    yield
    spent += time.monotonic() - begin
    if spent > SECONDS and MAPS.exists():
        spent = 0.0
        if MAPS.read_bytes().count(b"\n") > MOST_MAPS:
            jax.clear_caches()


@pytest.fixture(scope="module")
def browser():
    """A browser for the pages of a module."""
    from tests.browsing import launched  # it needs playwright, which most tests do without

    with launched() as found:
        yield found
