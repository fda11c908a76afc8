"""A checkpoint read by those who only look: it is what was saved, or nothing, and the folder stays as it is."""

import json
import os
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_jax.training.checkpoint import Checkpoints
from sparse_jax.training.cohort import make_mesh, place
from sparse_jax.training.snapshot import read_newest
from tests.test_checkpoint import copy_to_later_step, edit_meta, empty_newest, flip_bit, half_delete, halve, run_python

META = {"runs": ["b", "a"], "kernels": {"z": [3, 2], "a": [2, 1]}, "accuracy": 0.5}


class State(NamedTuple):
    masks: dict
    opt_state: tuple
    best: None
    nothing: dict
    key: jax.Array


def make_state(seed):
    """Two runs, on a device each."""
    params = {"dense_0": {"kernel": jax.random.normal(jax.random.key(seed), (2, 9, 4), jnp.bfloat16)}}
    masks = {"dense_0/kernel": params["dense_0"]["kernel"] > 0}
    state = State(masks, optax.adam(1e-3).init(params), None, {}, jax.random.split(jax.random.key(seed), 2))
    return jax.tree.map(lambda leaf: leaf if leaf.ndim else jnp.stack([leaf, leaf]), state)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the steps 3 and 4, states 3 and 4; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in (3, 4):
            checkpoints.save(step, place(make_state(step), 2, make_mesh(jax.devices()[:2])), META)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def anything(meta):
    return True


def is_step(snapshot, step):
    assert (snapshot.step, snapshot.meta) == (step, META)
    assert list(snapshot.meta["kernels"]) == ["z", "a"]
    expected = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(make_state(step))}
    assert snapshot.leaves.keys() == expected.keys()
    assert ".masks['dense_0/kernel']" in expected
    for path, leaf in expected.items():
        found = snapshot.leaves[path]
        assert found.dtype == leaf.dtype
        if path == ".key":
            found, leaf = jax.random.key_data(found), jax.random.key_data(leaf)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(leaf))
    return True


def contents(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_the_newest_step_is_read_and_nothing_is_touched(folder, caplog):
    (folder / "5.orbax-checkpoint-tmp" / "state").mkdir(parents=True)  # another process is writing it
    (folder / "unusable-9-1").mkdir()
    (folder / "11").write_text("")
    before = contents(folder)
    assert is_step(read_newest(folder, anything), 4)
    assert contents(folder) == before
    assert caplog.text == ""


@pytest.mark.parametrize("damage", [half_delete, empty_newest, copy_to_later_step, edit_meta])
def test_a_damaged_step_is_passed_over(folder, caplog, damage):
    damage(folder)
    assert is_step(read_newest(folder, anything), 3)
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert "is passed over" in record.getMessage()


DAMAGES = [flip_bit, pytest.param(halve, marks=pytest.mark.slow)]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_to_any_file_is_harmless_or_passed_over(saved, tmp_path, damage):
    found = []
    for number, name in enumerate(sorted(path.relative_to(saved) for path in saved.glob("4/**/*") if path.is_file())):
        folder = shutil.copytree(saved, tmp_path / str(number))
        if (folder / name).stat().st_size:
            damage(folder / name)
            found.append(read_newest(folder, anything))
            assert is_step(found[-1], found[-1].step)
    assert {snapshot.step for snapshot in found} == {3, 4}


def test_no_step_is_usable(folder, tmp_path, caplog):
    for step in ("3", "4"):
        shutil.rmtree(folder / step / "meta")
    assert read_newest(folder, anything) is None
    assert caplog.text.count("is passed over") == 2
    (tmp_path / "empty").mkdir()
    assert read_newest(tmp_path / "empty", anything) is None


def test_what_is_not_wanted_is_not_read(folder, caplog):
    (folder / "4" / "state").rename(folder / "4" / "gone")
    assert read_newest(folder, lambda meta: "c" in meta["runs"]) is None
    assert caplog.text == ""
    assert is_step(read_newest(folder, lambda meta: "a" in meta["runs"]), 3)


READ = """
import json, sys
from pathlib import Path
from sparse_jax.training.snapshot import read_newest

snapshot = read_newest(Path(sys.argv[1]), lambda meta: True)
print(json.dumps([snapshot.step, snapshot.leaves[".masks['dense_0/kernel']"].tolist()]))
"""


def test_fewer_devices_read_it_in_silence(saved):
    """Two devices wrote it; another process has one, and a relative path."""
    child = run_python(READ, os.path.relpath(saved))
    assert child.stderr == ""
    assert json.loads(child.stdout) == [4, make_state(4).masks["dense_0/kernel"].tolist()]
