"""Mask files: what is written is read again, and nothing else is taken for masks."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.errors import UserError
from sparse_jax.study.mask_file import Pairs, as_pairs, digest, load_masks, save_masks


@pytest.fixture
def masks():
    rng = np.random.default_rng(0)
    shapes = {"dense_0/kernel": (5, 3), "conv_1/kernel": (3, 3, 2, 4), "output": (1, 8)}
    return {name: rng.random(shape) < 0.5 for name, shape in shapes.items()}


def refused(path):
    """The message of the refusal, which is one line and names the file."""
    with pytest.raises(UserError) as error:
        load_masks(path)
    assert re.fullmatch(rf".*{re.escape(str(path))}.+; .+", str(error.value))
    return str(error.value)


def test_round_trip(tmp_path, masks):
    save_masks(tmp_path / "a.npz", masks)
    found = load_masks(tmp_path / "a.npz")
    np.testing.assert_equal(found, masks)
    assert {mask.dtype for mask in found.values()} == {np.dtype(bool)}
    assert list(tmp_path.iterdir()) == [tmp_path / "a.npz"]


def test_same_masks_same_bytes(tmp_path, masks):
    save_masks(tmp_path / "a.npz", masks)
    save_masks(tmp_path / "b.npz", {name: jnp.asarray(masks[name]) for name in reversed(masks)})
    strided = {name: np.asfortranarray(mask) for name, mask in masks.items()}
    save_masks(tmp_path / "c.npz", strided)
    assert len({(tmp_path / name).read_bytes() for name in ("a.npz", "b.npz", "c.npz")}) == 1


def test_the_digest_is_that_of_the_masks_however_they_are_stored(tmp_path, masks):
    save_masks(tmp_path / "a.npz", masks)
    np.savez_compressed(tmp_path / "b.npz", **{name: np.asfortranarray(masks[name]) for name in reversed(masks)})
    assert digest(load_masks(tmp_path / "a.npz")) == digest(load_masks(tmp_path / "b.npz")) == digest(masks)


def test_the_digest_tells_other_masks_apart():
    mask = np.arange(12).reshape(3, 4) % 5 == 0
    flipped = mask ^ (np.arange(12).reshape(3, 4) == 7)
    others = [{"a": mask}, {"b": mask}, {"a": mask.reshape(4, 3)}, {"a": flipped}, {"a": mask, "b": mask}, {}]
    others.append({"a": np.append(mask, [[False] * 4], 0)})  # as many bytes
    assert len({digest(other) for other in others}) == len(others)


def test_eight_entries_a_byte(tmp_path):
    save_masks(tmp_path / "a.npz", {"layer": np.ones((800, 1000), bool)})
    assert (tmp_path / "a.npz").stat().st_size < 101_000


def test_plain_arrays_are_read(tmp_path, masks):
    np.savez(tmp_path / "a.npz", **masks)
    np.savez_compressed(tmp_path / "b.npz", **masks)
    np.testing.assert_equal(load_masks(tmp_path / "a.npz"), masks)
    np.testing.assert_equal(load_masks(str(tmp_path / "b.npz")), masks)


@pytest.mark.parametrize("mask", [np.ones((2, 2)), np.ones(3, bool), np.ones((0, 3), bool)])
def test_what_is_no_mask_is_not_written(tmp_path, mask):
    with pytest.raises(ValueError, match=r"layer (is float64, not bool|has the shape)"):
        save_masks(tmp_path / "a.npz", {"layer": mask})
    assert not list(tmp_path.iterdir())


PLAIN = {
    "float64, not bool": {"weights": np.ones((2, 2))},
    "has the shape (3,)": {"a": np.ones(3, bool)},
    "has the shape (0, 3)": {"a": np.ones((0, 3), bool)},
    "object": {"a": np.array([[None]])},
    "no array": {},
}


@pytest.mark.parametrize("reason", PLAIN)
def test_other_arrays_are_refused(tmp_path, reason):
    np.savez(tmp_path / "a.npz", **PLAIN[reason])
    message = refused(tmp_path / "a.npz")
    assert reason in message or (reason == "object" and "no mask file" in message)


class Intruder:
    """Runs code when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([[Intruder(tmp_path / "touched")]]))
    refused(tmp_path / "a.npz")
    assert not (tmp_path / "touched").exists()


PACKED = {
    "no shape": {"shape:a": None},
    "no bits": {"bits:a": None},
    "too few bits": {"bits:a": np.zeros(1, np.uint8)},
    "too many bits": {"bits:a": np.zeros(3, np.uint8)},
    "other bits": {"bits:a": np.zeros(2)},
    "other shape": {"shape:a": np.array([4, 5])},
    "negative shape": {"shape:a": np.array([-3, -5])},
    "stranger": {"b": np.ones((1, 1), bool)},
}


@pytest.mark.parametrize("change", PACKED.values(), ids=PACKED)
def test_bits_that_do_not_fit_their_shape(tmp_path, change):
    arrays = {"bits:a": np.zeros(2, np.uint8), "shape:a": np.array([3, 5])} | change
    np.savez(tmp_path / "a.npz", **{name: array for name, array in arrays.items() if array is not None})
    refused(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [([0, 5], [0, 0]), ([0, -1], [0, 0]), ([0, 1], [0, 3]), ([1, 0], [0, 0]), ([0, 0], [2, 2]), ([0], [0, 1])],
)
def test_pairs_that_are_no_connections_are_refused(tmp_path, inputs, outputs):
    """Of 5 × 3 positions: outside, not sorted, twice there, not as many of both."""
    sides = {"inputs": inputs, "outputs": outputs}
    save_masks(tmp_path / "a.npz", {"layer": Pairs(*(np.array(side, np.int32) for side in ([0, 4], [1, 2])), (5, 3))})
    assert load_masks(tmp_path / "a.npz")["layer"].sum() == 2
    arrays = dict(np.load(tmp_path / "a.npz"))
    arrays |= {f"{side}:layer": np.array(values, np.int32) for side, values in sides.items()}
    np.savez(tmp_path / "a.npz", **arrays)
    assert "damaged" in refused(tmp_path / "a.npz")


def test_the_digest_of_pairs_is_that_of_their_mask(masks):
    flat = {name: mask for name, mask in masks.items() if mask.ndim == 2}
    assert digest({name: as_pairs(mask) for name, mask in flat.items()}) == digest(flat)


def test_files_that_are_none(tmp_path):
    assert "No such file" in refused(tmp_path / "gone.npz")
    assert "masks.npz cannot be read: No such file" in refused(tmp_path)  # a folder is that of a run
    for content in (b"", b"text\n", b"PK\x03\x04", b"\x93NUMPY", b"\x80\x04."):
        (tmp_path / "a.npz").write_bytes(content)
        assert "no mask file" in refused(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.ones((2, 2), bool))
    refused(tmp_path / "a.npy")


def test_every_flipped_bit_and_every_cut_is_noticed_or_harmless(tmp_path, masks):
    path = tmp_path / "a.npz"
    save_masks(path, {"layer": masks["dense_0/kernel"]})
    whole = path.read_bytes()
    damaged = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    noticed = 0
    for content in [*damaged, *(whole[:i] for i in range(0, len(whole), 7))]:
        path.write_bytes(content)
        try:
            found = load_masks(path)
        except UserError:
            noticed += 1
        else:
            np.testing.assert_equal(found, {"layer": masks["dense_0/kernel"]})
    assert noticed > len(whole) / 2
