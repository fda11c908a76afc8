"""A restored state is bit for bit one that was saved, or there is none."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_jax.training.checkpoint import Checkpoints, digest
from sparse_jax.training.cohort import make_mesh, on_host, place

FLOATS = np.array([0.0, -0.0, np.nan, np.inf, 1e-45, 0.1], np.float32)


def make_state(seed):
    key = jax.random.key(seed)
    params = {
        "scale": jnp.bfloat16(seed / 10),
        "dense_0": {"kernel": jax.random.normal(key, (20, 20)), "bias": jnp.asarray(FLOATS)},
    }
    opt_state = optax.adam(1e-3).init(params)
    masks = {"dense_0/kernel": params["dense_0"]["kernel"] > 0}
    return {"key": key, "masks": masks, "opt_state": opt_state, "params": params, "step": jnp.int32(seed)}


def abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def reopen(folder, like):
    with Checkpoints(folder, keep=2) as checkpoints:
        return checkpoints.restore(like)


def assert_is_step(restored, step):
    assert restored[0] == step
    assert digest(restored[1]) == digest(make_state(step))
    assert restored[2] == {"accuracy": 0.5, "step": step}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the steps 3 and 4, states 3 and 4; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in (2, 3, 4):
            checkpoints.save(step, make_state(step), {"accuracy": 0.5, "step": step})
    assert {"3", "4"} == {path.name for path in folder.iterdir() if path.is_dir()}
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def test_digest_sees_path_dtype_shape_and_bytes():
    trees = [
        {"a": jnp.zeros(2)},
        {"b": jnp.zeros(2)},
        {"a": {"b": jnp.zeros(2)}},
        {"a/b": jnp.zeros(2)},
        {"a": jnp.zeros(2, jnp.int32)},
        {"a": jnp.zeros((2, 1))},
        {"a": -jnp.zeros(2)},
        {"a": jax.random.key(0)},
        {"a": jax.random.key(1)},
    ]
    assert len({digest(tree) for tree in trees}) == len(trees)
    assert digest({"a": jnp.arange(6).reshape(2, 3).T}) == digest({"a": np.arange(6, dtype="i4").reshape(2, 3).T})


@pytest.mark.parametrize("as_like", [lambda tree: tree, abstract])
def test_round_trip_is_bitwise(saved, as_like):
    state = make_state(4)
    restored = reopen(saved, as_like(state))
    assert_is_step(restored, 4)
    assert jax.tree.structure(restored[1]) == jax.tree.structure(state)
    np.testing.assert_array_equal(
        np.asarray(restored[1]["params"]["dense_0"]["bias"]).view(np.uint32), FLOATS.view(np.uint32)
    )
    assert restored[1]["key"].dtype == state["key"].dtype


def test_meta_is_what_json_makes_of_it(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(0, {"w": jnp.zeros(1)}, {10: (1, 2), 9: None, "rate": 0.1})
        assert checkpoints.restore({"w": jnp.zeros(1)})[2] == {"10": [1, 2], "9": None, "rate": 0.1}


def test_empty_folder_has_nothing_to_restore(tmp_path):
    assert reopen(tmp_path / "new" / "folder", make_state(0)) is None


def test_state_may_be_donated_after_save(tmp_path):
    double = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 2, state), donate_argnums=0)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        state = {"w": jnp.arange(100_000.0)}
        checkpoints.save(1, state, {})
        double(double(state))
        np.testing.assert_array_equal(checkpoints.restore(abstract(state))[1]["w"], np.arange(100_000.0))


def step_files(folder):
    return [path.relative_to(folder) for path in sorted(folder.glob("4/**/*")) if path.is_file()]


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


DAMAGES = [pytest.param(flip_bit, marks=pytest.mark.slow), halve, os.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_to_any_file_is_harmless_or_passed_over(saved, tmp_path, caplog, damage):
    passed_over = set()
    for number, name in enumerate(step_files(saved)):
        folder = shutil.copytree(saved, tmp_path / str(number))
        if (folder / name).stat().st_size == 0 and damage is not os.unlink:
            continue
        damage(folder / name)
        caplog.clear()
        restored = reopen(folder, make_state(0))
        assert_is_step(restored, restored[0])
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        if restored[0] == 3:
            passed_over.add(name)
            assert len(warnings) == 1
            assert str(folder / "4") in warnings[0]
        else:
            assert not warnings
    data_files = [name for name in step_files(saved) if name.parent.name == "d"]
    kernel = max(data_files, key=lambda name: (saved / name).stat().st_size)
    assert kernel in passed_over
    assert step_files(saved)[0].parent / "meta" / "metadata" in passed_over


def half_delete(folder):
    shutil.rmtree(folder / "4" / "state")


def empty_newest(folder):
    shutil.rmtree(folder / "4")
    (folder / "9").mkdir()


def copy_to_later_step(folder):
    shutil.move(folder / "4", folder / "7")


def rewrite_meta(folder, change):
    path = folder / "4" / "meta" / "metadata"
    record = json.loads(path.read_text())
    record["meta"] = change(record["meta"])
    path.write_text(json.dumps(record))


def edit_meta(folder):
    rewrite_meta(folder, lambda meta: {**meta, "accuracy": 0.75})


def test_order_of_meta_is_not_content(folder):
    rewrite_meta(folder, lambda meta: dict(reversed(meta.items())))
    assert_is_step(reopen(folder, make_state(0)), 4)


@pytest.mark.parametrize("damage", [half_delete, empty_newest, copy_to_later_step, edit_meta])
def test_damaged_step_is_passed_over(folder, damage):
    damage(folder)
    assert_is_step(reopen(folder, make_state(0)), 3)


def test_interrupted_write_is_removed(folder):
    (folder / "5.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    assert_is_step(reopen(folder, make_state(0)), 4)
    assert not list(folder.glob("5*"))


def test_foreign_files_are_ignored(folder):
    for name in ("notes", "x_9"):
        (folder / name).mkdir()
    for name in ("11", "4/notes.txt"):
        (folder / name).write_text("")
    assert_is_step(reopen(folder, make_state(0)), 4)


def changed(path, change):
    state = abstract(make_state(0))
    node = state
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = change(node[path[-1]])
    return state


KERNEL = ("params", "dense_0", "kernel")
MISFITS = {
    "shape": changed(KERNEL, lambda leaf: jax.ShapeDtypeStruct((20, 2, 10), leaf.dtype)),
    "one more run": changed(KERNEL, lambda leaf: jax.ShapeDtypeStruct((21, 20), leaf.dtype)),
    "one run fewer": changed(KERNEL, lambda leaf: jax.ShapeDtypeStruct((19, 20), leaf.dtype)),
    "dtype": changed(KERNEL, lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16)),
    "mask as float": changed(("masks", "dense_0/kernel"), lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32)),
    "other generator": changed(("key",), lambda _: jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))),
    "raw key": changed(("key",), lambda _: jax.ShapeDtypeStruct((2,), jnp.uint32)),
    "leaf more": {**abstract(make_state(0)), "loss": jax.ShapeDtypeStruct((), jnp.float32)},
    "leaf fewer": {name: leaf for name, leaf in abstract(make_state(0)).items() if name != "step"},
}


@pytest.mark.parametrize("like", MISFITS.values(), ids=MISFITS)
def test_misfit_is_refused_and_left_as_it_is(saved, caplog, like):
    assert reopen(saved, like) is None
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert_is_step(reopen(saved, make_state(0)), 4)


def test_damaged_steps_do_not_block_later_saves(folder):
    half_delete(folder)
    for step in (9, 10):
        (folder / str(step)).mkdir()
    with Checkpoints(folder, keep=2) as checkpoints:
        assert_is_step(checkpoints.restore(make_state(0)), 3)
        for step in (4, 5):
            checkpoints.save(step, make_state(step), {"accuracy": 0.5, "step": step})
    assert_is_step(reopen(folder, make_state(0)), 5)
    shutil.rmtree(folder / "5")
    assert_is_step(reopen(folder, make_state(0)), 4)
    assert len(list(folder.glob("unusable-4-*/meta"))) == 1


def test_step_must_be_newer(folder):
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in (3, 4):
            with pytest.raises(ValueError, match="not newer than step 4"):
                checkpoints.save(step, make_state(0), {})
    assert_is_step(reopen(folder, make_state(0)), 4)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("surface", ["wait", "close", "save"])
def test_failed_write_surfaces_and_older_steps_survive(folder, surface):
    """A limit on the file size fails the background write as a full disk does."""
    checkpoints = Checkpoints(folder, keep=2)
    noise = {"w": jax.random.normal(jax.random.key(0), (50_000,))}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        checkpoints.save(5, noise, {})
        arguments = (6, noise, {}) if surface == "save" else ()
        with pytest.raises(OSError, match=str(folder)):
            getattr(checkpoints, surface)(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if surface != "close":
        assert_is_step(checkpoints.restore(make_state(0)), 4)
        checkpoints.save(5, make_state(5), {"accuracy": 0.5, "step": 5})
        checkpoints.close()
        assert_is_step(reopen(folder, make_state(0)), 5)
        assert not (folder / "3").exists()
    assert (folder / "4").exists()


def run_python(code, *arguments, **environment):
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )


RESTORE = """
import logging
import sys
from test_checkpoint import make_state, reopen

hook = sys.unraisablehook
assert reopen(sys.argv[1], make_state(0))[0] == 3
assert sys.unraisablehook is hook
assert not logging.getLogger("asyncio").disabled
"""


def test_damage_is_one_line_on_the_console(folder):
    halve(folder / "4" / "state" / "manifest.ocdbt")
    child = run_python(RESTORE, folder)
    assert child.returncode == 0, child.stderr
    assert len(child.stderr.splitlines()) == 1
    assert f"checkpoint {folder / '4'} is passed over" in child.stderr


ANOTHER_PROCESS = """
import sys
import absl.logging
import jax
import numpy
from jax.sharding import NamedSharding, PartitionSpec
from sparse_jax.training.checkpoint import Checkpoints, digest

absl.logging.set_verbosity(absl.logging.INFO)
mesh = jax.make_mesh((2,), ("runs",))
sharding = NamedSharding(mesh, PartitionSpec("runs"))
state = {"key": jax.random.split(jax.random.key(0), 4), "w": jax.numpy.arange(12.0).reshape(4, 3)}
like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)
plain = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
with Checkpoints(sys.argv[1], keep=2) as checkpoints:
    checkpoints.save(1, state, {})
    _, sharded, _ = checkpoints.restore(like)
    assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(sharded)), sharded
    checkpoints.save(2, sharded, {})
    step, alone, _ = checkpoints.restore(plain)
    assert step == 2
    assert len(alone["key"].devices()) == 1 and isinstance(alone["w"], numpy.ndarray), alone
    assert digest(state) == digest(sharded) == digest(alone)
print(digest(state))
"""


def test_sharding_console_and_digest_in_another_process(tmp_path):
    """Placement follows `like`, the console stays clean, and the digest is the same over there."""
    child = run_python(ANOTHER_PROCESS, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    state = {"key": jax.random.split(jax.random.key(0), 4), "w": jnp.arange(12.0).reshape(4, 3)}
    assert (child.stderr, child.stdout) == ("", digest(state) + "\n")
    like = jax.eval_shape(lambda: state)
    assert reopen(tmp_path, like)[0] == 2


def test_sharding_without_devices_is_the_callers_error(saved):
    sharding = jax.sharding.NamedSharding(jax.sharding.AbstractMesh((1,), ("runs",)), jax.P("runs"))
    with Checkpoints(saved, keep=2) as checkpoints, pytest.raises(ValueError, match="no devices"):
        checkpoints.restore({"w": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding)})


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("lanes", [slice(4), slice(3), np.array([3, 0])])
def test_lanes_are_taken_out_on_the_host_and_stay_while_training_goes_on(lanes, devices):
    state = {"key": jax.random.split(jax.random.key(0), 4), "w": np.arange(8.0, dtype=np.float32).reshape(4, 2)}
    there = place(state, 4, make_mesh(jax.devices()[:devices]))
    taken = on_host(there, lanes)
    jax.block_until_ready(jax.jit(lambda w: 2 * w + 1, donate_argnums=0)(there["w"]))
    assert isinstance(taken["w"], np.ndarray)
    np.testing.assert_array_equal(taken["w"], state["w"][lanes])
    np.testing.assert_array_equal(jax.random.key_data(taken["key"]), jax.random.key_data(state["key"])[lanes])
    assert len(taken["key"].devices()) == 1
