"""Data that stream from the host: the batches, networks and results of data that lie on the devices."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.config import RunConfig, StudyConfig
from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data, batch_at
from sparse_jax.data.catalog import make_reader
from sparse_jax.data.normalization import fit
from sparse_jax.data.splits import Splits
from sparse_jax.study import fleet
from sparse_jax.study.loader import make_loader
from sparse_jax.training import feed as feeds
from sparse_jax.training.cohort import make_cohort, make_mesh, replicate, stack
from sparse_jax.training.feed import Resident, Streamed
from sparse_jax.training.hardware import Hardware
from sparse_jax.training.hosts import alone
from sparse_jax.training.parts import ORDER
from sparse_jax.training.train import make_train
from tests.program import SMALL, outcome, run
from tests.test_laws import equal
from tests.tiny import INTERVAL, SIZES, make_config, make_data, make_hyper, make_tiny_problem

TRAIN = SIZES[0]
SEEDS = np.array([5, 0, 7], np.uint32)


def splits():
    data = jax.device_get(make_data())
    return Splits(data.x, data.y, *SIZES)


def streamed(mesh, seeds, monkeypatch, steps_a_block, batch_size=8, steps=40):
    """The feed of runs with these seeds, in blocks of so many steps."""
    parts = splits()
    monkeypatch.setattr(feeds, "BLOCK_BYTES", steps_a_block * batch_size * len(seeds) * parts.x[0].nbytes)
    held_out = Data(parts.x[TRAIN:], parts.y[TRAIN:], fit("global_zscore", parts.x[:TRAIN]), levels_of(parts.x[:TRAIN]))
    return Streamed(replicate(held_out, mesh), parts, seeds, batch_size, steps, mesh)


@pytest.mark.parametrize("steps_a_block", [1, 3, 40])
def test_blocks_hold_the_batches_of_their_steps(monkeypatch, steps_a_block):
    mesh = make_mesh(jax.devices()[:1])
    feed, whole = streamed(mesh, SEEDS, monkeypatch, steps_a_block), make_data()
    for step in (0, 1, 2, 3, 7, 30, 39, 5):  # also back, as after a restart
        data = feed.at(step)
        assert feed.steps(step) == steps_a_block - step % steps_a_block
        for lane, seed in enumerate(SEEDS):
            key = jax.random.fold_in(jax.random.key(seed), ORDER)
            block = jax.tree.map(lambda leaf, lane=lane: leaf[lane], data.block)
            ours = batch_at(data._replace(block=block), key, jnp.int32(step), n=TRAIN, batch_size=8)
            equal(ours, batch_at(whole, key, jnp.int32(step), n=TRAIN, batch_size=8))


def test_the_next_block_is_made_ahead_old_ones_go_and_the_end_needs_none(monkeypatch):
    mesh, made = make_mesh(jax.devices()[:1]), []
    feed = streamed(mesh, SEEDS, monkeypatch, 3, steps=8)
    block = feed._block
    monkeypatch.setattr(feed, "_block", lambda first: made.append(first) or block(first))
    for step, ahead in ((0, [0, 3]), (2, [0, 3]), (3, [3, 6]), (7, [6]), (8, [6])):
        feed.at(step)
        assert sorted(feed._ready) == ahead
    for future in feed._ready.values():
        future.result()
    assert made == [0, 3, 6]


def test_shapes_are_known_before_a_block_is_made(monkeypatch):
    mesh = make_mesh(jax.devices()[:1])
    feed = streamed(mesh, SEEDS, monkeypatch, 3)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), feed.like())
    assert not feed._ready
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), feed.at(0))


@pytest.mark.parametrize(
    ("placement", "memory", "streams"),
    [("auto", 1, True), ("auto", 10**9, False), ("host", 10**9, True), ("device", 1, False)],
)
def test_the_loader_streams_what_does_not_fit(monkeypatch, placement, memory, streams):
    monkeypatch.setattr("sparse_jax.training.hardware._host_memory", lambda: memory)
    settings = StudyConfig(data_placement=placement)
    hardware = Hardware(tuple(jax.devices()[:1]), "map", 32)
    load = make_loader(settings, hardware, make_reader("."), lambda name, content: None)
    loaded = load(RunConfig(dataset="digits", initial_topology="random"), make_mesh(jax.devices()[:1]))
    assert loaded.streams == streams
    assert len(loaded.data.x) == len(loaded.host.x) - (loaded.host.train if streams else 0)


def test_the_rows_of_a_part_are_all_and_each_once(monkeypatch):
    mesh, parts = make_mesh(jax.devices()[:1]), splits()
    ends = np.cumsum([0, *SIZES], dtype=np.int32)
    stream = streamed(mesh, SEEDS, monkeypatch, 1, batch_size=3)  # pieces of 9 rows, which do not divide 32
    resident = Resident(jax.device_put(Data(parts.x, parts.y, None, None)), ends)
    for part in range(3):
        for feed in (stream, resident):
            pieces = list(feed.rows(part))
            for name in ("x", "y"):
                found = [np.asarray(getattr(data, name))[start:stop] for data, start, stop in pieces]
                whole = getattr(parts, name)[ends[part] : ends[part + 1]]
                np.testing.assert_array_equal(np.concatenate(found), whole)
    assert len(list(stream.rows(0))) == 4


@pytest.mark.parametrize(
    ("method", "first"), [
        ("set", "snip"), ("static", "correlation"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("rigl", "correlation"), ("accset", "snip"))),
    ],
)  # fmt: skip
def test_a_streamed_run_equals_a_resident_one_bit_for_bit(monkeypatch, method, first):
    monkeypatch.setattr("sparse_jax.training.start.CORRELATED_EXAMPLES", 20)  # of 32, and 8 for validation
    monkeypatch.setattr(feeds, "CORRELATED_EXAMPLES", 20)
    config = make_config(method, dropout=0.2, initial_topology=first)
    mesh = make_mesh(jax.devices()[:2])
    fns = make_cohort(make_train(config, make_tiny_problem(config)), "map", mesh)
    hypers = [make_hyper(config, seed=int(seed), sparsity=0.6) for seed in (5, 0, 7, 2)]
    hyper, whole = stack(hypers, 4, mesh), replicate(make_data(), mesh)
    feed = streamed(mesh, np.asarray(hyper.seed), monkeypatch, 2)

    def trained(begin, data_at, count):
        state, step = fns.init(hyper, begin), 0
        while step < 3 * INTERVAL:
            state = fns.steps(state, hyper, data_at(step), np.int32(count(step)))
            step += count(step)
            if step % INTERVAL == 0 and config.interval:
                state = fns.update(state, hyper, data_at(step))
                step += fns.update_steps
        return fns.validate(state, data_at(step))

    def to_update(step):
        return INTERVAL - step % INTERVAL

    resident = trained(whole, lambda step: whole, to_update)
    stream = trained(feed.begin(), feed.at, lambda step: min(to_update(step), feed.steps(step)))
    equal(resident, stream)


def test_the_wait_for_data_is_no_time_of_steps(monkeypatch):
    now = [0.0]

    def taking(seconds):
        def call(*_):
            now[0] += seconds
            return np.zeros(1)

        return call

    monkeypatch.setattr(fleet.time, "monotonic", lambda: now[0])
    fns = SimpleNamespace(steps=taking(2), update_steps=0)
    feed, hosts = SimpleNamespace(at=taking(30), description=""), alone(SimpleNamespace(asked=False))
    assert fleet.Fleet(fns, None, feed, None, 1, hosts).steps(0, 10) == 2
    assert now == [32]


def test_results_are_the_same_wherever_the_data_lie(tmp_path):
    outcomes = []
    for placement, told in (("device", "of examples on every device"), ("host", "of training examples stream from")):
        where = f"--data_placement={placement}", f"--workdir={placement}"
        ended = run(*SMALL, "--method=set,rigl", *where, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert told in ended.stderr
        outcomes.append(outcome(tmp_path / placement))
    assert outcomes[0] == outcomes[1]


def test_data_may_take_half_of_the_memory(monkeypatch):
    hardware = Hardware(tuple(jax.devices()[:2]), "map", 32)
    monkeypatch.setattr("sparse_jax.training.hardware._host_memory", lambda: 1000)
    assert hardware.holds(250)
    assert not hardware.holds(251)  # two copies
