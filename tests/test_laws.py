"""What has to hold for every method, every activation function and every optimiser, read from the dicts."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_jax.config import ACTIVATIONS, METHODS, MODELS, OPTIMIZERS
from sparse_jax.data.augmentation import make_augment
from sparse_jax.data.batches import batch_at
from sparse_jax.data.normalization import make_apply
from sparse_jax.models.mlp import MLP
from sparse_jax.recipes import RECIPES
from sparse_jax.sparse.layer import LINKS
from sparse_jax.study.execution import SPARSE, SPARSE_METHODS
from sparse_jax.topology.masks import apply_masks, mask_tree, name_of, select
from sparse_jax.topology.redistribution import SHARES
from sparse_jax.training import optimizers
from sparse_jax.training.cohort import make_cohort, make_mesh, replicate, stack
from sparse_jax.training.parts import AUGMENT, DROPOUT, ORDER, PARAMS, make_rule
from sparse_jax.training.timeline import updates
from sparse_jax.training.train import make_train
from tests import oracle
from tests.linked import view_of
from tests.tiny import INTERVAL, LAYERS, SIZES, make_config, make_data, make_hyper, make_tiny_problem

FAST = {(method, "relu", "mlp", "masked") for method in METHODS}
FAST |= {("set", activation, "mlp", "masked") for activation in ("relu", "srelu", "acon", "step", "all_relu")}
FAST |= {("set", "relu", model, "masked") for model in ("lenet5", "lstm")}
FAST |= {(method, "relu", "mlp", "sparse") for method in ("static", "set", "rigl", "gmp", "srigl")}
FAST |= {("rigl", "relu", "lenet5", "sparse")}
REST = {(method, activation, "mlp", "masked") for method in METHODS for activation in ACTIVATIONS}
REST |= {("set", activation, model, "masked") for activation in ACTIVATIONS for model in MODELS}
REST |= {(method, "relu", model, "masked") for method in METHODS for model in MODELS}
REST |= {(method, "relu", model, "sparse") for method in SPARSE_METHODS for model in MODELS}
EVERY = [*sorted(FAST), *(pytest.param(*case, marks=pytest.mark.slow) for case in sorted(REST - FAST))]
EVOLVING = [
    pytest.param(*case, marks=[] if case[2] == "mlp" else [pytest.mark.slow])
    for case in sorted(FAST)
    if {"interval", "levels"} & RECIPES[case[0]].keys()
]


def equal(a, b):
    """Bitwise equality of two trees; typed keys by their data."""
    jax.tree.map(np.testing.assert_array_equal, *on_host((a, b)))


def on_host(tree):
    """The tree in NumPy, where a lane is taken out without the devices talking to each other."""
    return jax.tree.map(lambda leaf: np.asarray(_plain(leaf)), tree)


def _plain(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def compiled(config, hyper=None):
    """The functions of one run, each compiled for itself; what is executed sparsely has slots by `hyper`."""
    if config.execution != SPARSE:
        return _compiled(config, None, None)
    return _compiled(config, *(tuple((n, int(counts[n])) for n in counts) for counts in (hyper.start, hyper.counts)))


@functools.cache
def _compiled(config, start, final):
    hyper = None if start is None else SimpleNamespace(start=dict(start), counts=dict(final))
    fns = make_train(config, make_tiny_problem(config, hyper))
    return fns._replace(
        **{name: jax.jit(getattr(fns, name)) for name in ("init", "steps", "update", "evaluate", "validate")}
    )


def intervals(config, hyper, count=3):
    """The states of a run after its start, and before and after each of `count` updates."""
    fns, data = compiled(config, hyper), make_data(config.model)
    states = [fns.init(hyper, data)]
    for _ in range(count):
        states.append(fns.steps(states[-1], hyper, data, jnp.int32(INTERVAL)))
        if config.interval:
            states.append(fns.update(states[-1], hyper, data))
    return states


def law_config(method, activation, model="mlp", execution="masked"):
    """A configuration with a moving average of the weights, on which nothing else depends but what is evaluated.

    What is executed sparsely lacks connections: by ERK, the one dense layer of a small VGG or ResNet does not.
    """
    full = execution == SPARSE and model.startswith(("vgg", "resnet"))
    changes = {"allocation": "uniform"} if full else {}
    changes |= {"ablation": 0.0} if (method, execution) == ("srigl", SPARSE) else {}
    return make_config(method, activation, model, ema=0.75, execution=execution, **changes)


def sparsities_of(config):
    """The sparsities that a law is tried at; executed sparsely only one, as each is a program of its own.

    The highest leaves every neuron a connection where the structure is a fan-in.
    """
    few = config.structure == "fan_in" and config.model in ("lstm", "gru", "transformer")
    highest = 0.6 if config.allocation == "uniform" else 0.75 if few else 0.9
    return (0.3, 0.6, highest) if config.execution == "masked" else (highest,)


def zero_outside(state, tx):
    """Assert weights and averages 0 outside the masks, slots 0 outside what is trained; returns how many slots."""
    for params in (state.params, state.evaluated.params):
        for name, weight in select(params, state.topology.masks).items():
            assert (np.asarray(weight)[~np.asarray(state.topology.masks[name])] == 0).all(), name
    slots = []
    optax.tree.map_params(
        tx,
        lambda slot, mask: slots.append(bool((jnp.where(mask, 0, slot) == 0).all())),
        state.opt_state,
        mask_tree(state.params, state.topology.trained),
    )
    assert all(slots)
    return len(slots)


def optimizer_of(config, hyper):
    return optimizers.make_optimizer(config, hyper.learning_rate, hyper.weight_decay)


def rule_of(config, hyper):
    return make_rule(config, "output/kernel", hyper.rates)


def expected_share(config, left, made, ratio):
    """What of start − final is still there after `made` of `made + left` updates, by the schedule's formula."""
    progress = made / (made + left)
    if config.density_schedule == "levels":
        return (ratio**progress - ratio) / (1 - ratio) if left and ratio < 1 else 0
    return {"cubic": (1 - progress) ** 3, "cyclic": left % 2}[config.density_schedule]


def expected_counts(config, rule, hyper, state, before, made):
    """The connections after an update, by the invariant that the rule declares; `made` counts this one.

    `before` is what the state is seen as.
    """
    if rule.count == "constant":
        return hyper.start
    left = updates(config, make_tiny_problem(config, hyper)) - made
    if rule.count == "extra":
        share = np.float32(0.3) if left else 0
        sizes = {n: mask.size for n, mask in before.topology.masks.items()}
        return {n: min(int(c) + int(np.floor(share * np.float32(c))), sizes[n]) for n, c in hyper.counts.items()}
    if rule.count == "schedule":
        counts = {}
        for name, final in hyper.counts.items():
            start = int(hyper.start[name])
            counts[name] = final + (start - final) * expected_share(config, left, made, final / start)
        return counts
    rows = jnp.int32(SIZES[0]), jnp.int32(SIZES[0] + SIZES[1])
    hits = compiled(config, hyper).evaluate(*state.evaluated, make_data(config.model), *rows).correct
    accuracy = hits / SIZES[1]
    gain = rule.gain(accuracy, before.topology.accuracy)
    counts = {}
    for name, mask in before.topology.masks.items():
        n, weight = int(mask.sum()), select(before.params, [name])[name]
        survivors = oracle.drop(np.asarray(mask), np.asarray(weight), 0.3, per_sign=True).sum()
        counts[name] = max(n - int(np.round(np.float32(n) * gain)), int(hyper.counts[name]), survivors)
    return counts


@pytest.mark.parametrize(("method", "activation", "model", "execution"), EVERY)
def test_counts_masks_and_zeros(method, activation, model, execution):
    config = law_config(method, activation, model, execution)
    for sparsity in sparsities_of(config):
        hyper = make_hyper(config, sparsity=sparsity)
        rule, tx = rule_of(config, hyper), optimizer_of(config, hyper)
        states = intervals(config, hyper)
        views = [view_of(tx, state) for state in states]
        counts, explored = hyper.start, states[0].topology.explored
        assert bool(states[0].model_state.keys() & {LINKS}) == (execution == SPARSE)
        for i, (state, view) in enumerate(zip(states, views, strict=True)):
            masks = view.topology.masks
            if i and i % 2 == 0 and config.interval:
                counts = expected_counts(config, rule, hyper, states[i - 1], views[i - 1], i // 2)
                assert rule.count != "accuracy" or state.topology.accuracy >= 0  # the best so far is remembered
                assert rule.grows or not any((masks[n] & ~views[i - 1].topology.masks[n]).any() for n in masks)
            check_counts(rule, {name: np.asarray(mask) for name, mask in masks.items()}, counts)
            explored = {name: explored[name] | masks[name] for name in explored}
            equal(state.topology.explored, explored)
            zero_outside(view, tx)
            assert not state.diverged
        first, last = views[0].topology.masks, views[-1].topology.masks
        assert any((first[name] != last[name]).any() for name in first) == (rule.update != "never")
    assert bool(first) == rule.masked


@pytest.mark.parametrize("model", [pytest.param(m, marks=[] if m == "vgg11" else [pytest.mark.slow]) for m in MODELS])
def test_counts_are_exact_though_xla_computes_the_weights_twice(model):
    """Once to find a threshold and once to compare with it, rounded otherwise, in the program that draws them."""
    config = make_config("static", "relu", model, initial_topology="magnitude")
    for seed, sparsity in enumerate((0.01, 0.3, 0.6)):
        hyper = make_hyper(config, seed=seed, sparsity=sparsity)
        masks = compiled(config).init(hyper, make_data(model)).topology.masks
        assert {name: int(mask.sum()) for name, mask in masks.items()} == hyper.start


def check_counts(rule, masks, counts):
    """Assert the counts by layer, their sum where links move between layers, or as many a neuron for a fan-in."""
    found = {name: int(mask.sum()) for name, mask in masks.items()}
    if rule.scope in SHARES:
        assert sum(found.values()) == sum(counts.values())
    elif rule.pattern.kind == "fan_in":
        for name, mask in masks.items():
            degrees = mask.reshape(-1, mask.shape[-1]).sum(0)
            alive = degrees[degrees > 0]
            assert (alive == int(counts[name]) // alive.size).all()
            assert rule.ablation or alive.size == degrees.size
    else:
        for name, count in found.items():
            assert abs(count - counts[name]) <= 0.501 if rule.count == "schedule" else count == counts[name], name


@pytest.mark.parametrize(("method", "activation", "model", "execution"), EVOLVING)
def test_growth_starts_at_zero_and_survivors_keep_their_values(method, activation, model, execution):
    config = law_config(method, activation, model, execution)
    hyper = make_hyper(config, sparsity=0.9 if execution == SPARSE else 0.6)  # as above: the shapes of links follow it
    _, before, after = (view_of(optimizer_of(config, hyper), state) for state in intervals(config, hyper, 1))
    old, new = (select(state.params, state.topology.masks) for state in (before, after))
    for name in new:
        kept = np.asarray(new[name]) != 0
        if before.topology.latent is not None:  # what was not used before keeps its value, too
            old[name] = old[name] + before.topology.latent[name]
            kept &= np.asarray(before.topology.masks[name])
        elif before.rewind is not None:  # all goes back to what it was
            old[name] = select(before.rewind.params, [name])[name]
        np.testing.assert_array_equal(np.asarray(new[name])[kept], np.asarray(old[name])[kept])
        assert (np.asarray(before.topology.masks[name]) | ~kept).all()
        averages = (np.asarray(select(state.average.params, [name])[name]) for state in (before, after))
        check_average(*averages, np.asarray(new[name]), kept & (before.rewind is None))
    assert after.running.moved > 0 or config.density_schedule
    others = {name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(after.params)} - set(new)
    rewound = before if before.rewind is None else before.rewind
    equal(select(rewound.params, others), select(after.params, others))
    averaged = rewound.params if before.rewind else before.average.params
    equal(select(averaged, others), select(after.average.params, others))


def check_average(before, after, weight, kept):
    """Assert that the average of a layer goes on where connections survive, and else begins at their weight."""
    assert not kept.any() or (before != weight)[kept].any()
    np.testing.assert_array_equal(after, np.where(kept, before, weight))


FEW = ("set", "rigl", "gmp", "deepr", "srigl", "dsr")  # of which each draws or counts in its own way


@pytest.mark.parametrize("method", [
    pytest.param(method, marks=[] if method in FEW else [pytest.mark.slow]) for method in METHODS if method != "dense"
])  # fmt: skip
def test_seeds_are_identities(method):
    config = law_config(method, "relu")
    first, again, other = (intervals(config, make_hyper(config, seed=seed))[-1] for seed in (1, 1, 2))
    equal(first, again)
    assert any((first.topology.masks[name] != other.topology.masks[name]).any() for name in first.topology.masks)


FOREIGN = {
    "lion": lambda config, rate, decay: optax.lion(rate),
    "rmsprop": lambda config, rate, decay: optax.rmsprop(rate, momentum=0.9, centered=True),
    "adagrad": lambda config, rate, decay: optax.adagrad(rate),
    "inject_hyperparams": lambda config, rate, decay: optax.inject_hyperparams(optax.adam)(
        learning_rate=jnp.asarray(rate)
    ),
    "chain": lambda config, rate, decay: optax.chain(
        optax.clip_by_global_norm(1.0), optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.adamw(rate), optax.ema(0.9)
    ),
}


OTHERS = [pytest.param(name, marks=[] if name == "chain" else [pytest.mark.slow]) for name in FOREIGN]


@pytest.mark.parametrize("name", [*OPTIMIZERS, *OTHERS])
def test_weights_and_slots_are_zero_for_any_optimizer(name, monkeypatch):
    if name in FOREIGN:
        monkeypatch.setitem(optimizers.OPTIMIZERS, name, FOREIGN[name])
    config = make_config("set", optimizer=name)
    hyper = make_hyper(config, learning_rate=np.float32(0.01))
    for state in intervals(config, hyper, 2):
        slots = zero_outside(state, optimizer_of(config, hyper))
        assert slots > 0 or name == "sgd"


def test_static_is_set_that_drops_nothing():
    static, frozen = make_config("static"), make_config("set")
    hyper = make_hyper(frozen, drop_fraction=0.0)
    a, b = (intervals(config, hyper)[-1] for config in (static, frozen))
    equal(a, b)


def test_the_methods_differ_only_by_their_updates():
    starts = [intervals(config, make_hyper(config), 1)[1] for config in map(make_config, ("static", "set", "rigl"))]
    for other in starts[1:]:
        equal(starts[0], other)


def dense_loop(config, tx, losses):
    """(weights, their average) after a few steps of a dense network, in plain flax and optax."""
    data, key = make_data(), jax.random.key(0)
    model = MLP((14, 10), 3, lambda i: jax.nn.relu, LAYERS, 0.2)
    normalize, augment = make_apply("global_zscore"), make_augment(config.augmentation)

    def step(carry, i):
        params, opt_state, average = carry
        x, y = batch_at(data, jax.random.fold_in(key, ORDER), i, n=SIZES[0], batch_size=8)
        x = augment(jax.random.fold_in(jax.random.fold_in(key, AUGMENT), i), x, data.levels)
        dropout = jax.random.fold_in(jax.random.fold_in(key, DROPOUT), i)

        def loss_fn(params):
            inputs = normalize(data.normalization, x)
            logits = model.apply({"params": params}, inputs, train=True, rngs={"dropout": dropout})
            return losses(logits, y).mean()

        updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
        params = optax.apply_updates(params, updates)
        share = jnp.minimum(config.ema, (1 + i) / (10 + i))
        return (params, opt_state, optax.incremental_update(params, average, 1 - share)), None

    @jax.jit
    def loop():
        x = normalize(data.normalization, data.x[:1])
        params = model.init(jax.random.fold_in(key, PARAMS), x, train=False)["params"]
        return jax.lax.scan(step, (params, tx.init(params), params), jnp.arange(3 * INTERVAL))[0]

    params, _, average = loop()
    return params, average


def decayed(rate):
    """Momentum with L2 on the kernels."""
    kernels = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    return optax.chain(optax.add_decayed_weights(1e-3, kernels), optax.sgd(rate, momentum=0.9))


def test_dense_equals_an_unmasked_optax_loop():
    config = make_config("dense", dropout=0.2)
    hyper = make_hyper(config)
    params, _ = dense_loop(config, decayed(0.1), optax.softmax_cross_entropy_with_integer_labels)
    last = intervals(config, hyper)[-1]
    equal(params, last.params)
    assert last.average is None


def test_everything_that_training_offers_equals_an_optax_loop():
    """2.5 epochs of 4 steps of warm-up: the rate rises from 0.01 by 0.01."""
    offered = {"label_smoothing": 0.2, "gradient_clip": 0.3, "warmup_epochs": 2.5, "ema": 0.75}
    config = make_config("dense", dropout=0.2, augmentation="rotate_shift", **offered)
    hyper = make_hyper(config)
    tx = optax.chain(optax.clip_by_global_norm(0.3), decayed(lambda step: 0.01 * (step + 1)))

    def smoothed(logits, y):
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(y, 3), 0.2))

    last = intervals(config, hyper)[-1]
    for ours, theirs in zip((last.params, last.average.params), dense_loop(config, tx, smoothed), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_any_division_of_the_steps_gives_the_same_bits(method):
    offered = {"label_smoothing": 0.2, "gradient_clip": 0.3, "warmup_epochs": 1.5, "ema": 0.75}
    config = make_config(method, "srelu", dropout=0.3, augmentation="dubowski", **offered)
    fns, hyper, data = compiled(config), make_hyper(config), make_data()
    whole = fns.steps(fns.init(hyper, data), hyper, data, jnp.int32(9))
    parts = fns.init(hyper, data)
    for count in (1, 3, 0, 5):
        parts = fns.steps(parts, hyper, data, jnp.int32(count))
    equal(whole, parts)


@functools.cache
def cohort_fns(config, layout, devices):
    mesh = make_mesh(jax.devices()[:devices])
    return make_cohort(make_train(config, make_tiny_problem(config)), layout, mesh), mesh


def cohort_of(config, layout, devices, hypers):
    """A started cohort: its functions, hyper-parameters, data and state."""
    fns, mesh = cohort_fns(config, layout, devices)
    hyper, data = stack(hypers, len(hypers), mesh), replicate(make_data(), mesh)
    return fns, hyper, data, fns.init(hyper, data)


def advance(fns, hyper, data, state, count=2):
    for _ in range(count):
        state = fns.steps(state, hyper, data, jnp.int32(INTERVAL))
        state = fns.update(state, hyper, data)
    return fns.validate(state, data)


def different_runs(config):
    levels = (0.3, 0.6, 0.8, 0.9)
    return [make_hyper(config, seed=seed, sparsity=level) for seed, level in enumerate(levels)]


@pytest.mark.parametrize("method", ["set", "rigl"])
@pytest.mark.parametrize("devices", [4, *(pytest.param(few, marks=pytest.mark.slow) for few in (1, 2))])
def test_a_mapped_run_equals_the_run_alone_bit_for_bit(method, devices):
    config = make_config(method)
    hypers = different_runs(config)
    together = on_host(advance(*cohort_of(config, "map", devices, hypers)))
    for lane, hyper in enumerate(hypers):
        alone = on_host(advance(*cohort_of(config, "map", 1, [hyper])))
        equal(jax.tree.map(lambda leaf, lane=lane: leaf[lane], together), jax.tree.map(lambda leaf: leaf[0], alone))


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_a_vmapped_update_equals_the_run_alone(method):
    config = make_config(method)
    fns, hyper, data, state = cohort_of(config, "vmap", 1, different_runs(config))
    state = fns.steps(state, hyper, data, jnp.int32(INTERVAL))
    before = jax.tree.map(lambda leaf: leaf.copy(), state)
    after = fns.update(state, hyper, data)
    for lane, alone in enumerate(different_runs(config)):
        run = jax.tree.map(lambda leaf, lane=lane: leaf[lane], before)
        updated = compiled(config).update(run, alone, make_data())
        equal(updated.topology.masks, jax.tree.map(lambda leaf, lane=lane: leaf[lane], after.topology.masks))
        equal(updated.params, jax.tree.map(lambda leaf, lane=lane: leaf[lane], after.params))


def test_a_vmapped_run_depends_neither_on_its_lane_nor_on_its_neighbours():
    config = make_config("set")
    a, b, c, d = different_runs(config)
    first = advance(*cohort_of(config, "vmap", 1, [a, b, c, d]))
    second = advance(*cohort_of(config, "vmap", 1, [d, d, a, d]))
    equal(jax.tree.map(lambda leaf: leaf[0], first), jax.tree.map(lambda leaf: leaf[2], second))


def test_a_grid_of_sparsities_and_seeds_is_one_program_traced_once():
    config = make_config("set", activation="tanh")  # a cohort of its own
    hypers = [make_hyper(config, seed, level) for seed in range(3) for level in (0.2, 0.4, 0.6, 0.8, 0.9)]
    fns, hyper, data, state = cohort_of(config, "map", 1, hypers)
    for count in (1, 3, 7):
        state = fns.update(fns.steps(state, hyper, data, jnp.int32(count)), hyper, data)
        state, _ = fns.validate(state, data)
    for start, stop in ((0, 32), (32, 40), (40, 52)):
        fns.evaluate(state.params, state.model_state, data, jnp.int32(start), jnp.int32(stop))
    programs = fns.init, fns.steps, fns.update, fns.validate, fns.evaluate
    assert [program._cache_size() for program in programs] == [1] * 5


def test_a_diverged_run_leaves_its_neighbours_alone():
    config = make_config("set")
    calm = different_runs(config)
    wild = [*calm[:3], calm[3]._replace(learning_rate=np.float32(1e30))]
    runs = [advance(*cohort_of(config, layout, 1, hypers)) for layout in ("map", "vmap") for hypers in (calm, wild)]
    for before, after in (runs[:2], runs[2:]):
        equal(*(jax.tree.map(lambda leaf: leaf[:3], run) for run in (before, after)))
        np.testing.assert_array_equal(after[0].diverged, [False, False, False, True])
        assert after[0].topology.masks["dense_0/kernel"][3].sum() == wild[3].counts["dense_0/kernel"]


def test_rigl_takes_the_place_of_a_step_and_set_does_not():
    for method, replaced in (("set", 0), ("rigl", 1)):
        config = make_config(method)
        _, before, after = intervals(config, make_hyper(config), 1)
        assert after.step - before.step == replaced == compiled(config).update_steps


def test_growth_leaves_the_output_of_the_survivors():
    for method in ("set", "rigl"):
        config = make_config(method)
        hyper, data = make_hyper(config), make_data()
        _, before, after = intervals(config, hyper, 1)
        weights = jax.tree.map(np.asarray, select(before.params, before.topology.masks))
        survivors = {
            name: oracle.drop(np.asarray(before.topology.masks[name]), weight, 0.3, per_sign=method == "set")
            for name, weight in weights.items()
        }
        assert any((survivors[name] != after.topology.masks[name]).any() for name in survivors)
        kept_only = apply_masks(before.params, survivors)
        rows = jnp.int32(0), jnp.int32(SIZES[0])
        evaluate = compiled(config).evaluate
        equal(evaluate(kept_only, {}, data, *rows), evaluate(after.params, {}, data, *rows))
