"""The methods against their second implementation (`oracle_methods`): single updates, steps, and runs of a tiny net."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparse_jax.recipes import RECIPES
from sparse_jax.topology.criteria import DROP, GROW, Signals
from sparse_jax.topology.evolution import evolve, start_topology
from sparse_jax.topology.masks import apply_masks, select
from sparse_jax.topology.methods import METHODS, Settings
from sparse_jax.topology.schedules import Course
from tests import oracle, oracle_methods
from tests.oracle_methods import FULL, batch_of, check_grown, kernels_of, masks_of, numpy, slopes_of, total
from tests.test_laws import advance, cohort_of, compiled, different_runs, equal
from tests.tiny import INTERVAL, SIZES, make_config, make_data, make_hyper

RATE, SHARE = 0.1, 0.3  # of tests.tiny: the learning rate and the drop fraction
ROWS = jnp.int32(0), jnp.int32(SIZES[0])


# --- runs ------------------------------------------------------------------------------------------


def updates_of(config, hyper, count, interval=INTERVAL):
    """[(state before, state after) of each update] of a run that begins with `interval` steps."""
    fns, data = compiled(config), make_data()
    state, pairs = fns.init(hyper, data), []
    for _ in range(count):
        before = fns.steps(state, hyper, data, jnp.int32(interval - fns.update_steps * bool(pairs)))
        state = fns.update(before, hyper, data)
        pairs.append((before, state))
    return pairs


@functools.cache
def run(method, count, sparsity=0.6, interval=INTERVAL, **changes):
    """The updates of a run of a method as `tests.tiny` has it, and the hyper-parameters."""
    settings = {name: changes.pop(name) for name in tuple(changes) if name in ("drop_schedule", "stop_fraction")}
    config = make_config(method, interval=interval, **settings)
    hyper = make_hyper(config, sparsity=sparsity, **changes)
    return updates_of(config, hyper, count, interval), hyper


# --- a single update -------------------------------------------------------------------------------

SHAPES = {"a/kernel": (9, 8), "b/kernel": (8, 5)}
UPDATE = Course(jnp.float32(0), jnp.float32(0), jnp.int32(1))


@functools.cache
def single(method):
    """A compiled update of a method: (rates, key, accuracy, best, masks, weights, gradients) -> masks, survivors."""
    used = {n: value for n, value in RECIPES[method].items() if n in Settings._fields}
    used = {n: value for n, value in used.items() if n not in ("structure", "drop_fraction", "drop_schedule")}

    def update(rates, key, accuracy, best, masks, weights, gradients):
        rule = METHODS[method](Settings("b/kernel", rates, **used))
        topology = start_topology(rule, masks, weights)._replace(accuracy=best)
        counts = topology.counts
        least = {name: jnp.int32(4) for name in counts} if rule.count == "accuracy" else counts
        new, info = evolve(rule, key, UPDATE, accuracy, counts, least, topology, weights, gradients)
        return new.masks, info.survivors

    return jax.jit(update)


def layers(seed, density=0.4):
    """Masks, weights and gradients of two layers."""
    rng = np.random.default_rng(seed)
    masks = {name: rng.random(shape) < density for name, shape in SHAPES.items()}
    weights = {name: np.where(masks[name], rng.normal(size=shape), 0).astype("f4") for name, shape in SHAPES.items()}
    return masks, weights, {name: rng.normal(size=shape).astype("f4") for name, shape in SHAPES.items()}


def update(method, seed, accuracy=0.0, best=-1.0, arrays=None, **rates):
    rates = {name: jnp.float32(value) for name, value in ({"drop_fraction": SHARE} | rates).items()}
    masks, weights, gradients = arrays or layers(seed)
    now = jnp.float32(accuracy), jnp.float32(best)
    return numpy(single(method)(rates, jax.random.key(seed), *now, masks, weights, gradients))


# --- SNFS ------------------------------------------------------------------------------------------


def test_snfs_equals_the_oracle_at_every_step_and_update():
    config = make_config("snfs")
    fns, hyper, data = compiled(config), make_hyper(config, smoothing=0.8), make_data()
    state = fns.init(hyper, data)
    n, counts = total(masks_of(state)), []
    momentum = {name: np.zeros(mask.shape) for name, mask in state.topology.masks.items()}
    for _ in range(5):
        for _ in range(INTERVAL):
            slopes = slopes_of(state)
            momentum = {name: 0.8 * m + (1 - 0.8) * slopes[name] for name, m in momentum.items()}
            state = fns.steps(state, hyper, data, jnp.int32(1))
            for name, m in momentum.items():
                np.testing.assert_allclose(state.topology.momentum[name], m, rtol=1e-3, atol=1e-6)
        expected = oracle_methods.snfs(masks_of(state), kernels_of(state), numpy(state.topology.momentum), SHARE)
        state = fns.update(state, hyper, data)
        equal(masks_of(state), expected)
        counts.append([int(mask.sum()) for mask in masks_of(state).values()])
        assert sum(counts[-1]) == n
        equal(numpy(state.topology.counts), jax.tree.map(np.int32, dict(zip(momentum, counts[-1], strict=True))))
    assert counts[0] != counts[-1]


# --- DSR -------------------------------------------------------------------------------------------


def test_dsr_equals_the_oracle_and_its_threshold_follows_the_rule():
    factors, layer_counts = [], []
    for first in (1e-3, 0.14, 1.0):
        pairs, _ = run("dsr", 5, first_threshold=first)
        threshold = np.float32(first)
        for before, after in pairs:
            assert before.topology.threshold == threshold
            survivors, counts, next_one = oracle_methods.dsr(
                masks_of(before), kernels_of(before), threshold, np.float32(SHARE)
            )
            factors.append(float(next_one / threshold))
            threshold = np.float32(next_one)
            assert after.topology.threshold == threshold
            for name, mask in masks_of(after).items():
                assert mask.sum() == counts[name]
                assert not (survivors[name] & ~mask).any()
                kept = kernels_of(before)[name] * survivors[name]
                np.testing.assert_array_equal(kernels_of(after)[name], kept)  # what grew is 0
            layer_counts.append(tuple(counts.values()))
            assert sum(counts.values()) == total(masks_of(before))
    assert set(factors) == {0.5, 1.0, 2.0}
    assert len(set(layer_counts)) > 3


# --- DeepR -----------------------------------------------------------------------------------------

DEEPR = {"interval": 1, "optimizer": "sgd"}


def test_deepr_steps_and_rewires_as_the_oracle():
    config = make_config("deepr", **DEEPR)
    fns, data = compiled(config), make_data()
    hyper = make_hyper(config, noise=0.0, l1=0.05)
    state, moved = fns.init(hyper, data), 0
    for name, dense in kernels_of(compiled(make_config("dense")).init(hyper, data)).items():
        np.testing.assert_array_equal(state.topology.positive[name], dense >= 0)
    positive, n = numpy(state.topology.positive), {name: mask.sum() for name, mask in masks_of(state).items()}
    for _ in range(12):
        before, slopes, masks = kernels_of(state), slopes_of(state), masks_of(state)
        state = fns.steps(state, hyper, data, jnp.int32(1))
        stepped = kernels_of(state)
        for name, weight in stepped.items():
            slope = slopes[name] + 1e-3 * before[name]  # the decay of tests.tiny
            step = before[name], slope, positive[name], masks[name], RATE, 0.05
            np.testing.assert_allclose(weight, oracle_methods.deepr_step(*step), rtol=1e-5, atol=1e-6)
        state = fns.update(state, hyper, data)
        for name, weight in kernels_of(state).items():
            flipped = masks[name] & np.where(positive[name], stepped[name] < 0, stepped[name] > 0)
            kept, mask = masks[name] & ~flipped, masks_of(state)[name]
            np.testing.assert_array_equal(weight, np.where(kept, stepped[name], 0))
            assert not (kept & ~mask).any()
            assert mask.sum() == n[name]
            assert not np.where(positive[name], weight < 0, weight > 0).any()
            moved += int(flipped.sum())
        equal(numpy(state.topology.positive), positive)
    assert int(state.running.moved) == moved > 50


def test_deepr_keeps_a_weight_of_exactly_zero():
    """It changed no sign: a new connection of a dead input stays until it moves."""
    masks, weights, gradients = layers(0)
    weights["a/kernel"][::2] = 0
    new, survivors = update("deepr", 0, arrays=(masks, weights, gradients))
    equal(survivors, masks)
    equal(new, masks)


def test_the_noise_of_deepr_has_the_variance_of_its_temperature():
    config = make_config("deepr", **DEEPR)
    fns, data = compiled(config), make_data()
    calm, warm = (make_hyper(config, noise=noise, l1=0.0, sparsity=0.1) for noise in (0.0, 0.02))
    state, draws = fns.init(calm, data), {name: [] for name in FULL}
    for _ in range(15):
        without, with_noise = (kernels_of(fns.steps(state, hyper, data, jnp.int32(1))) for hyper in (calm, warm))
        for name, mask in masks_of(state).items():
            noise = (np.float64(with_noise[name]) - without[name]) / np.sqrt(2 * RATE * 0.02)
            assert (noise[~mask] == 0).all()
            draws[name].append(noise[mask])
        state = fns.steps(state, calm, data, jnp.int32(1))
    for name, by_step in draws.items():
        values = np.concatenate(by_step)
        assert 1e-4 < stats.chi2.sf((values**2).sum(), values.size) < 1 - 1e-4, name
        assert stats.kstest(values, "norm").pvalue > 1e-4, name
    assert np.abs(np.corrcoef(draws["dense_0/kernel"]) - np.eye(15)).max() < 0.4  # 151 draws a step


# --- Top-KAST --------------------------------------------------------------------------------------


def test_top_kast_equals_a_numpy_training_loop():
    config = make_config("top_kast", interval=1, optimizer="sgd", hidden_sizes=(9,))
    fns, data = compiled(config), make_data()
    hyper = make_hyper(config, backward_factor=1.7, exploration_decay=0.02, sparsity=0.7)
    dense = make_config("dense", optimizer="sgd", hidden_sizes=(9,))
    first = compiled(dense).init(make_hyper(dense), data)
    counts, biases = {name: int(count) for name, count in hyper.counts.items()}, batch_of(first)[0]
    ours = oracle_methods.TopKast(kernels_of(first), biases, counts, 1.7, 0.02, 1e-3)
    state, changed = fns.init(hyper, data), 0
    for _ in range(10):
        values = numpy({n: w + state.topology.latent[n] for n, w in select(state.params, counts).items()})
        for name, mask in masks_of(state).items():
            np.testing.assert_array_equal(mask, ours.forward[name])
            np.testing.assert_array_equal(state.topology.backward[name], ours.backward[name])
            assert ours.backward[name].sum() == min(round(1.7 * counts[name]), mask.size)
            np.testing.assert_array_equal(kernels_of(state)[name], np.where(mask, values[name], 0))
            np.testing.assert_allclose(values[name], ours.kernels[name], rtol=1e-4, atol=1e-6)
        forward, backward = ours.forward, ours.backward
        before, loss = float(state.running.loss), ours.step(*batch_of(state)[1:], RATE)
        state = fns.steps(state, hyper, data, jnp.int32(1))
        assert float(state.running.loss) - before == pytest.approx(loss, rel=1e-4)
        state = fns.update(state, hyper, data)
        for name, old in values.items():
            new = np.asarray(state.params[name.split("/")[0]]["kernel"] + state.topology.latent[name])
            np.testing.assert_array_equal(new[~backward[name]], old[~backward[name]])
            unused = backward[name] & ~forward[name]
            assert (new[unused] != old[unused]).all()
            changed += int((forward[name] & ~ours.forward[name]).sum())
    assert int(state.running.moved) == changed > 0


# --- MEST ------------------------------------------------------------------------------------------


def test_mest_soft_keeps_more_until_the_last_update():
    """From final to final + ⌊ζ(p) final⌋ and an interval later down again, by |w| + λ |∂L/∂w|; ζ(p) = ζ (1 − i/13)."""
    pairs, hyper = run("mest_soft", 13, drop_schedule="linear", gradient_weight=0.7)
    for i, (before, after) in enumerate(pairs, start=1):
        for name, mask in masks_of(after).items():
            final = int(hyper.counts[name])
            extra = oracle_methods.float_floor(np.float32(SHARE * (1 - i / 13)), final)
            assert mask.sum() == min(final + extra, mask.size)
            assert i < 13 or mask.sum() == final
            old, slope = kernels_of(before)[name], slopes_of(before)[name]
            drop = int(masks_of(before)[name].sum()) - final
            survivors = oracle_methods.mest_survivors(masks_of(before)[name], old, slope, 0.7, drop)
            np.testing.assert_array_equal(kernels_of(after)[name], np.where(survivors, old, 0))
            assert not (survivors & ~mask).any()


@pytest.mark.parametrize("factor", [0.0, 1.0, 3.0])
def test_mest_drops_what_brute_force_drops(factor):
    for seed in range(5):
        masks, weights, gradients = layers(seed)
        new, survivors = update("mest", seed, gradient_weight=factor)
        for name, mask in masks.items():
            drop = oracle_methods.moves(SHARE, mask)
            expected = oracle_methods.mest_survivors(mask, weights[name], gradients[name], factor, drop)
            np.testing.assert_array_equal(survivors[name], expected)
            assert new[name].sum() == mask.sum()


def test_mest_sees_the_gradient_of_its_step():
    for before, after in run("mest", 3)[0]:
        for name, old in kernels_of(before).items():
            mask = masks_of(before)[name]
            drop = oracle_methods.moves(SHARE, mask)
            kept = oracle_methods.mest_survivors(mask, old, slopes_of(before)[name], 1.0, drop)
            np.testing.assert_array_equal(kernels_of(after)[name], np.where(kept, old, 0))


# --- CHTs ------------------------------------------------------------------------------------------


def signals(mask, weight=None, temperature=0.2):
    weight = mask.astype("f4") if weight is None else weight
    return Signals(weight, mask, mask, None, None, None, {"temperature": jnp.float32(temperature)})


@pytest.mark.parametrize("density", [0.05, 0.3, 0.9])
def test_path3_counts_the_paths_of_length_three(density):
    for seed in range(3):
        mask = np.random.default_rng(seed).random((9, 7)) < density
        np.testing.assert_allclose(
            GROW["path3"].score(jax.random.key(0), signals(mask)), oracle_methods.path3(mask), rtol=1e-5, atol=1e-7
        )


SCORES = np.array([[0.1, 0.8, 0.3], [0.5, 0.2, 0.6]], np.float32)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_scores_are_drawn_without_replacement_in_proportion_to_their_power(temperature):
    """The first is i with p_i ∝ s_i^(1/T), the second is j with p_j / (1 − p_i)."""
    given = signals(SCORES > 0, -SCORES, temperature)
    draw = jax.jit(jax.vmap(lambda key: DROP["sampled_magnitude"].score(key, given)))
    keys = 20_000
    order = np.argsort(-np.asarray(draw(jax.random.split(jax.random.key(5), keys))).reshape(keys, -1), axis=1)
    p = np.float64(SCORES.ravel()) ** (1 / temperature)
    p /= p.sum()
    assert stats.chisquare(np.bincount(order[:, 0], minlength=6), keys * p).pvalue > 1e-4
    pairs = list(itertools.permutations(range(6), 2))
    expected = np.array([p[i] * p[j] / (1 - p[i]) for i, j in pairs]) * keys
    found = np.array([((order[:, 0] == i) & (order[:, 1] == j)).sum() for i, j in pairs])
    assert stats.chisquare(found, expected).pvalue > 1e-4


def test_at_temperature_zero_the_ranking_is_exact():
    for seed in range(5):
        masks, weights, _ = layers(seed)
        new, survivors = update("chts", seed, temperature=0.0)
        for name, mask in masks.items():
            expected = oracle.drop(mask, weights[name], SHARE, per_sign=False)
            np.testing.assert_array_equal(survivors[name], expected)
            assert new[name].sum() == mask.sum()
            ranked = np.asarray(GROW["sampled_path3"].score(jax.random.key(seed), signals(mask, temperature=0.0)))
            paths = oracle_methods.path3(mask)
            rank = np.argsort(paths, axis=None)
            assert (np.diff(paths.ravel()[np.argsort(ranked, axis=None)]) >= -1e-6).all()
            assert (np.diff(ranked.ravel()[rank]) >= -1e-5).all()


@pytest.mark.parametrize("temperature", [0.0, 0.2])
def test_chts_grows_where_paths_lead(temperature):
    """Between two blocks without a link to each other there is no path of length three, and nothing grows."""
    for seed in range(5):
        blocks = {name: np.zeros(shape, bool) for name, shape in SHAPES.items()}
        for block in blocks.values():
            block[:5, :3] = block[5:, 3:] = True
        _, weights, gradients = layers(seed, density=1.0)
        masks = {
            name: block & (np.random.default_rng(seed).random(block.shape) < 0.7) for name, block in blocks.items()
        }
        weights = {name: weights[name] * mask for name, mask in masks.items()}
        new, survivors = update("chts", seed, arrays=(masks, weights, gradients), temperature=temperature)
        for name, mask in new.items():
            assert not (mask & ~blocks[name]).any()
            assert mask.sum() == masks[name].sum() > survivors[name].sum()


def test_chts_counts_the_paths_that_are_left():
    """At T = 0 what grows are the largest path counts of the survivors, outside them; a link counts none of itself."""
    for seed in range(5):
        new, survivors = update("chts", seed, temperature=0.0)
        for name, mask in new.items():
            kept = np.asarray(survivors[name])
            grown, paths = np.asarray(mask) & ~kept, oracle_methods.path3(kept)
            assert grown.any()
            assert paths[grown].min() >= paths[~np.asarray(mask)].max() - 1e-5


# --- RigL, AccSET, ITOP ----------------------------------------------------------------------------


def test_rigl_drops_the_cosines_share_grows_by_the_gradient_and_leaves_the_output():
    """Of 40 steps the stop is at 30: at step t floor(ζ/2 (1 + cos πt/30) n) of n connections move."""
    pairs, _ = run("rigl", 4, interval=6, drop_schedule="cosine", stop_fraction=0.75)
    evaluate, data, counts = compiled(make_config("rigl")).evaluate, make_data(), []
    for before, after in pairs:
        share = SHARE / 2 * (1 + np.cos(np.pi * int(before.step) / 30))
        survivors = {}
        for name, old in kernels_of(before).items():
            mask, new = masks_of(before)[name], masks_of(after)[name]
            moved = oracle_methods.moves(share, mask)
            survivors[name] = oracle.top_k(np.abs(old), int(mask.sum()) - moved, mask)
            check_grown(new, survivors[name], np.abs(slopes_of(before)[name]))
            assert new.sum() == mask.sum()
            np.testing.assert_array_equal(kernels_of(after)[name], np.where(survivors[name], old, 0))
            counts.append(moved)
        kept_only = apply_masks(before.params, survivors)
        equal(evaluate(kept_only, {}, data, *ROWS), evaluate(after.params, {}, data, *ROWS))
    assert [int(before.step) for before, _ in pairs] == [6, 12, 18, 24]
    assert counts[0] > counts[3] > counts[-3] > 0


def test_accset_is_set_while_accuracy_does_not_rise():
    for accuracy, best in ((0.9, -1.0), (0.5, 0.5), (0.3, 0.5), (0.0, 0.0)):
        equal(update("accset", 1, accuracy, best, shrink_rate=1.0), update("set", 1))
    (new, survivors), (_, of_set) = update("accset", 1, 0.6, 0.5, shrink_rate=1.0), update("set", 1)
    equal(survivors, of_set)
    n = {name: mask.sum() for name, mask in layers(1)[0].items()}
    floor = {name: int(mask.sum()) for name, mask in survivors.items()}
    assert {k: m.sum() for k, m in new.items()} == {k: max(floor[k], n[k] - round(0.1 * n[k])) for k in n}
    assert total(new) < sum(n.values())


def test_the_count_of_accset_never_grows_and_that_of_its_level_shrinks():
    for method, least in (("accset", 0), ("accset_level", 1)):
        pairs, hyper = run(method, 6, shrink_rate=0.2)
        counts = [{name: int(mask.sum()) for name, mask in masks_of(after).items()} for _, after in pairs]
        for old, new in itertools.pairwise([hyper.start, *counts]):
            assert all(hyper.counts[name] <= new[name] <= old[name] for name in new)
            assert sum(old.values()) - sum(new.values()) >= least


def test_itop_grows_what_was_never_active_first():
    exhausted, explored = 0, None
    for before, after in run("itop_unexplored", 9)[0]:
        explored = masks_of(before) if explored is None else explored
        for name, mask in masks_of(after).items():
            survivors = oracle.drop(masks_of(before)[name], kernels_of(before)[name], SHARE, per_sign=False)
            grown, fresh = mask & ~survivors, int((~explored[name]).sum())
            assert (grown & ~explored[name]).sum() == min(fresh, grown.sum())
            exhausted += fresh < grown.sum()
            explored[name] = explored[name] | mask
        equal(numpy(after.topology.explored), explored)
    assert exhausted > 0


# --- devices ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snfs", "dsr", "chts", "srigl", "set", "rigl"])
def test_four_devices_give_the_masks_of_one(method):
    config = make_config(method)
    hypers = different_runs(config)
    one, four = (advance(*cohort_of(config, "map", devices, hypers))[0] for devices in (1, 4))
    equal(one.topology.masks, four.topology.masks)
    equal(one.params, four.params)
