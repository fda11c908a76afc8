"""Sparse products in programs of their own: other threads, other devices, another process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sparse_layer import needs_kernel


def run_program(code, *arguments, **environment):
    """Its output; it fails if it takes too long."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    ).stdout


DIGEST = """
import hashlib, os, sys
if sys.argv[1] == "one thread":
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from tests.sparse_layer import Layer
from tests.test_products import y_and_gradients
digest = hashlib.blake2b()
for sizes in [(200, 150, 15000, 100), (500, 400, 140000, 1), (9000, 12, 60000, 130)]:
    layer = Layer(*sizes)
    for result in y_and_gradients(layer.values, layer.links(), layer.x, layer.dy, "kernel"):
        digest.update(bytes(result))
print(digest.hexdigest())
"""


@needs_kernel
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be limited here")
def test_in_another_process_and_on_one_thread(tmp_path):
    """The same bits; and programs come from JAX's cache, with the kernel in them."""

    def run(threads):
        cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        return run_program(DIGEST, threads, **cache), set(tmp_path.glob("jit_y_and_gradients*-cache"))

    first, programs = run("all threads")
    again, more = run("all threads")
    assert len(programs) == 3
    assert more == programs
    assert first == again == run("one thread")[0]


SEVERAL_DEVICES = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
from jax.sharding import Mesh, PartitionSpec
from sparse_jax.sparse.products import multiply
from tests.sparse_layer import Layer
layer = Layer(200, 200, 10000, 64)

def several(x):
    def step(x, _):  # chaos: one wrong number changes all later ones
        links = layer.links("kernel")
        y, pull = jax.vjp(lambda x: multiply(layer.values, links, x, "kernel"), x)
        return jax.numpy.sin(pull(y)[0]), None
    return jax.lax.scan(step, x[0], length=400)[0][None]

mesh, spec = Mesh(jax.devices(), "run"), PartitionSpec("run")
mapped = jax.shard_map(several, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
result = np.asarray(jax.jit(mapped)(np.stack([layer.x] * 4)))
print((result == result[0]).all(), len(np.unique(result)) > 4000)
"""


@needs_kernel
def test_several_devices_at_once():
    """Four devices that share a pool of threads all end, and none goes on before its result is whole."""
    assert run_program(SEVERAL_DEVICES) == "True True\n"
