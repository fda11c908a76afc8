"""Structures from the first masks to the last, and masks from one study to the next."""

import itertools

import numpy as np
import pytest

from sparse_jax.errors import UserError
from sparse_jax.study.group import hyper_params
from sparse_jax.study.mask_file import load_masks, save_masks
from sparse_jax.topology.patterns import keeps, parse_pattern
from tests.program import rows
from tests.test_grid import study_of
from tests.test_study import InProcess

SIZES = {"dense_0/kernel": 64 * 16, "dense_1/kernel": 16 * 12}
OUTPUT = 12 * 10  # dense
# structure -> connections by layer at a sparsity of 0.7 in each: 307 and 57, less what the structure cannot have
COUNTS = {
    "fan_in": {"dense_0/kernel": 16 * 19, "dense_1/kernel": 12 * 4},
    "2:4": {name: size // 2 for name, size in SIZES.items()},
    "4x4": {"dense_0/kernel": 16 * 19, "dense_1/kernel": 16 * 3},
}


class Finished:
    """A run that has ended: its row, its result, its masks and how many connections it moved."""

    def __init__(self, store, row):
        self.row, self.file = row, store.root / "runs" / row["run_id"] / "masks.npz"
        self.result, self.masks = store.read_results()[row["run_id"]], load_masks(self.file)
        self.moved = sum(line["moved"] for line in store.read_metrics(row["run_id"]))

    def check(self, structure):
        """What the results say of the masks is so, and they keep the structure; the connections by layer."""
        found = {name: int(mask.sum()) for name, mask in self.masks.items()}
        assert self.result["connections_by_layer"] == found
        assert int(self.row["connections"]) == sum(found.values()) + OUTPUT
        assert all(keeps(parse_pattern(structure), mask) for mask in self.masks.values())
        return found


def finished(folder, **axes):
    """The runs of a study, trained in this process."""
    tiny = {"train_size": [200], "batch_size": [20], "epochs": [4], "hidden_sizes": [(16, 12)]}
    with pytest.MonkeyPatch.context() as monkeypatch:
        done = InProcess(folder, monkeypatch, **tiny, dense_layers=["output"], **axes)
    return [Finished(done.store, row) for row in rows(done.store.root)]


LEVEL = {"layer_sparsity": ["dense_0=0.7:dense_1=0.7"], "interval": ["8"]}
GRIDS = (  # methods, structures, other settings
    (("gmp",), ("2:4",), {"interval": ["8"]}),
    (("set_magnitude",), ("4x4",), LEVEL),
    (("rigl", "srigl"), ("fan_in",), LEVEL | {"ablation": [0.9]}),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder, and the runs of a method of each kind with a structure; one of them ablates neurons."""
    folder, runs = tmp_path_factory.mktemp("structures"), []
    for number, (methods, structures, others) in enumerate(GRIDS):
        runs += finished(folder / str(number), method=methods, structure=structures, **others)
    return folder, {(done.row["method"], done.row["structure"]): done for done in runs}


CASES = [case for methods, structures, _ in GRIDS for case in itertools.product(methods, structures)]


@pytest.mark.parametrize(("method", "structure"), CASES)
def test_a_structure_is_kept_to_the_end(world, method, structure):
    done = world[1][method, structure]
    found = done.check(structure)
    without = sum(int((~mask.any(0)).sum()) for mask in done.masks.values())
    if method == "srigl":
        assert without > 0
        assert all(found[name] <= COUNTS[structure][name] for name in found)
    else:
        assert found == COUNTS[structure]
        assert not without or structure == "4x4"
    assert done.moved > 0


def test_the_masks_of_a_run_are_the_first_and_the_last_of_a_static_one(world):
    folder, runs = world
    sources = [runs["set_magnitude", "4x4"], runs["srigl", "fan_in"]]
    files = [f"file:{sources[0].file}", f"file:{sources[1].file.parent}"]  # or the folder of the run
    static = finished(folder / "again", initial_topology=files, method=["static"])
    assert [after.row["initial_topology"] for after in static] == files
    for before, after in zip(sources, static, strict=True):
        np.testing.assert_equal(after.masks, before.masks)
        assert after.check(before.row["structure"]) == before.result["connections_by_layer"]
        assert float(after.row["explored"]) == sum(mask.sum() for mask in after.masks.values()) / sum(SIZES.values())


def test_masks_that_change_while_a_study_trains_are_noticed(tmp_path):
    shapes = {"dense_0/kernel": (64, 9), "output/kernel": (9, 10)}
    masks = {name: np.arange(np.prod(shape)).reshape(shape) % 3 == 0 for name, shape in shapes.items()}
    save_masks(tmp_path / "m.npz", masks)
    (planned,) = study_of(method=["rigl"], initial_topology=[f"file:{tmp_path}/m.npz"], hidden_sizes=[(9,)]).runs
    np.testing.assert_equal(hyper_params(planned).masks, masks)
    save_masks(tmp_path / "m.npz", {name: ~mask for name, mask in masks.items()})
    with pytest.raises(UserError, match=r"m\.npz has changed since this study was begun: restore it"):
        hyper_params(planned)
