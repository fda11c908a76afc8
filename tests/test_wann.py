"""The search for weight agnostic networks: laws of its genomes, oracles of its scores, its course on disk."""

import dataclasses
import functools
import json
import math
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sparse_jax.activations.by_layer import by_layer
from sparse_jax.activations.fixed import FIXED
from sparse_jax.activations.scaling import UNSCALED
from sparse_jax.config import (
    FITNESSES,
    WANN_FUNCTIONS,
    WANN_MUTATIONS,
    RunConfig,
    StudyConfig,
    WannConfig,
    settings,
)
from sparse_jax.data.catalog import load
from sparse_jax.data.normalization import fit, make_apply
from sparse_jax.data.splits import split
from sparse_jax.errors import UserError
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.search import wann_run
from sparse_jax.search.genome import Genome, connections, initial
from sparse_jax.search.mutation import MUTATIONS, mutate, pick
from sparse_jax.search.places import Places
from sparse_jax.search.shared_weight import WORST, logits, scores, vote
from sparse_jax.search.wann import (
    FITNESS,
    Examples,
    elite,
    make_generation,
    objectives,
    parents,
    score,
    shardings,
    start,
)
from sparse_jax.search.wann_export import export
from sparse_jax.search.wann_plan import Asked, make_plan
from sparse_jax.study.mask_file import load_masks
from sparse_jax.training.cohort import make_mesh, replicate
from sparse_jax.training.hardware import Hardware
from sparse_jax.values import read, show, within
from tests.asking import Asking
from tests.program import ROOT
from tests.test_models import build, kernels_of, resolved, variables_of

PLACES = Places(inputs=5, outputs=3, layers=3, nodes=2)
WEIGHTS = np.array([-2, -1, -0.5, 0.5, 1, 2], np.float32)
PROBABILITIES = jnp.array([0.3, 0.4, 0.1, 0.2])
SMALL = WannConfig(
    population=8, generations=6, seed=3, layers=2, nodes=1, init_share=0.5, tournament=3, batch=16, elite=0.25
)
WHOLE = dataclasses.replace(SMALL, batch=0, parsimony=0.0)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def host(tree):
    return jax.tree.map(np.asarray, tree)


# --- names and settings ----------------------------------------------------------------------------


def test_the_names_in_the_settings_are_those_of_the_families():
    assert tuple(MUTATIONS) == WANN_MUTATIONS
    assert tuple(FITNESS) == FITNESSES
    assert len(WANN_FUNCTIONS) == 10
    assert set(WANN_FUNCTIONS) < set(FIXED)
    assert set(WANN_MUTATIONS) < set(settings(WannConfig))


@pytest.mark.parametrize("name", settings(WannConfig))
def test_a_setting_says_what_it_is_and_takes_its_own_default(name):
    field = settings(WannConfig)[name]
    assert re.fullmatch(r"[A-Z].+\.", field.metadata["help"])
    assert re.fullmatch(r"\d \w+", field.metadata["section"])
    assert read(field, show(field.default)) == field.default
    for value in np.atleast_1d(field.default if field.metadata["kind"] != "name" else 0):
        assert field.metadata["kind"] == "name" or within(float(value), field.metadata["bounds"])


@pytest.mark.parametrize(
    ("text", "fault"), [("1:x", "not a number"), ("1:1", "twice"), ("2000", "outside"), ("", "not a number")]
)
def test_weights_that_are_no_numbers_are_refused(text, fault):
    with pytest.raises(ValueError, match=fault):
        read(settings(WannConfig)["weights"], text)


# --- genomes and mutations -------------------------------------------------------------------------


def test_places_by_hand():
    places = Places(inputs=2, outputs=3, layers=2, nodes=1)
    assert (places.width, places.hidden, places.entries) == (10, 20, 22 * 23)
    assert places.slot_layers.tolist() == 10 * [1] + 10 * [2]
    assert places.slot_functions.tolist() == [*range(10), *range(10)]
    # inputs to all; the first layer to the second and the outputs; the second to the outputs
    assert places.possible == places.forward.sum() == 2 * (20 + 3) + 10 * (10 + 3) + 10 * 3
    assert not places.forward[2:, :20].diagonal().any()
    assert Places(1, 1, 1, 3).slot_functions.tolist() == [f for f in range(10) for _ in range(3)]


@functools.cache
def mutation(name):
    """One mutation alone, where it can be applied; compiled."""
    probabilities = PROBABILITIES if name is None else jnp.array([float(other == name) for other in MUTATIONS])
    return jax.jit(lambda key, genome: mutate(key, PLACES, probabilities, genome))


def grown(seed, steps, share=0.4):
    """A genome after some mutations."""
    key = jax.random.key(seed)
    genome = initial(jax.random.fold_in(key, 0), PLACES, jnp.float32(share))
    for step in range(steps):
        genome = mutation(None)(jax.random.fold_in(key, step + 1), genome)
    return genome


def assert_lawful(genome):
    """The invariants of a genome."""
    used, present, enabled = host(genome)
    assert (enabled <= present).all()
    assert (present <= PLACES.forward).all()
    for matrix in (present[:, : PLACES.hidden], present[PLACES.inputs :].T):
        assert not matrix[:, ~used].any()
    assert enabled[:, : PLACES.hidden].any(axis=0)[used].all()
    assert enabled[PLACES.inputs :].any(axis=1)[used].all()


@hypothesis_settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.4, 1.0]))
def test_every_mutation_keeps_the_invariants(seed, share):
    key = jax.random.key(seed)
    genome = initial(key, PLACES, jnp.float32(share))
    for step in range(60):
        assert_lawful(genome)
        genome = mutation(None)(jax.random.fold_in(key, step), genome)
    assert int(genome.used.sum()) > 5


def counts(genome):
    return [int(jnp.sum(leaf)) for leaf in genome]


DIFFERENCES = {"add_connection": [0, 1, 1], "add_node": [1, 2, 1], "enable": [0, 0, 1], "change_activation": [0, 0, 0]}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_does_what_its_name_says(name, seed):
    before = grown(seed, 30)
    after = mutation(name)(jax.random.key(seed), before)
    assert_lawful(after)
    assert [b - a for a, b in zip(counts(before), counts(after), strict=True)] == DIFFERENCES[name]
    before, after = host(before), host(after)
    if name == "add_node":
        ((source, target),) = np.argwhere(before.enabled & ~after.enabled)
        (slot,) = np.flatnonzero(after.used & ~before.used)
        assert after.present[source, target]
        new = {(source, slot), (PLACES.inputs + slot, target)}
        assert {tuple(pair) for pair in np.argwhere(after.enabled & ~before.enabled)} == new
        assert PLACES.source_layers[source] < PLACES.slot_layers[slot] < PLACES.target_layers[target]
    elif name == "change_activation":
        (old,), (new,) = np.flatnonzero(before.used & ~after.used), np.flatnonzero(after.used & ~before.used)
        assert PLACES.slot_layers[old] == PLACES.slot_layers[new]
        assert PLACES.slot_functions[old] != PLACES.slot_functions[new]
        for a, b in zip(before[1:], after[1:], strict=True):
            np.testing.assert_array_equal(a[:, old], b[:, new])
            np.testing.assert_array_equal(a[PLACES.inputs + old], b[PLACES.inputs + new])
            rest = np.delete(np.delete(np.stack([a, b]), [old, new], 2), PLACES.inputs + np.array([old, new]), 1)
            np.testing.assert_array_equal(*rest)
    else:
        assert (before.enabled <= after.enabled).all()
        np.testing.assert_array_equal(before.used, after.used)


def test_what_cannot_be_applied_is_not_chosen():
    bare = initial(jax.random.key(0), PLACES, jnp.float32(1))
    for name in ("add_connection", "enable", "change_activation"):  # all is there, enabled, and without nodes
        equal(mutation(name)(jax.random.key(1), bare), bare)
    for seed in range(20):  # so that it has to be a node, whatever the odds
        assert int(mutation(None)(jax.random.key(seed), bare).used.sum()) == 1
    full = bare._replace(used=jnp.ones(PLACES.hidden, bool))
    for name in ("add_node", "change_activation"):
        equal(mutation(name)(jax.random.key(1), full), full)


@pytest.mark.parametrize("free", [0.0, 0.02, 0.1, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_candidates_are_those_of_their_definition(seed, free):
    rng = np.random.default_rng(seed)
    used = rng.random(PLACES.hidden) >= free
    exists = np.concatenate([np.ones(PLACES.inputs, bool), used]), np.concatenate([used, np.ones(PLACES.outputs, bool)])
    possible = PLACES.forward & exists[0][:, None] & exists[1]
    present = possible & (rng.random(possible.shape) < 0.3)
    genome = Genome(used, present, present & (rng.random(present.shape) < 0.5))
    free_layers = PLACES.slot_layers[~used]
    between = np.array([
        [((free_layers > source) & (free_layers < target)).any() for target in PLACES.target_layers]
        for source in PLACES.source_layers
    ])  # fmt: skip
    kinds = np.stack([PLACES.slot_layers, PLACES.slot_functions], 1)
    others = np.array([((kinds[~used, 0] == layer) & (kinds[~used, 1] != f)).any() for layer, f in kinds])
    expected = {
        "add_connection": possible & ~present, "add_node": genome.enabled & between,
        "enable": present & ~genome.enabled, "change_activation": (used & others)[None],
    }  # fmt: skip
    for name, (candidates, _) in MUTATIONS.items():
        np.testing.assert_array_equal(candidates(PLACES, genome), expected[name])


def test_a_node_changes_to_every_other_function_and_never_to_its_own():
    genome = mutation("add_node")(jax.random.key(0), initial(jax.random.key(0), PLACES, jnp.float32(1)))
    changed = jax.vmap(lambda key: mutation("change_activation")(key, genome).used)(
        jax.random.split(jax.random.key(1), 300)
    )
    functions = PLACES.slot_functions[np.argmax(changed, axis=1)]
    assert set(functions) == set(range(10)) - {int(PLACES.slot_functions[np.argmax(genome.used)])}


def test_entries_and_mutations_are_drawn_as_often_as_they_should():
    some = jnp.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1]], bool)
    keys = jax.random.split(jax.random.key(0), 5000)
    found = np.zeros(some.shape, int)
    np.add.at(found, tuple(map(np.asarray, jax.jit(jax.vmap(pick, (0, None)))(keys, some))), 1)
    assert (found[~np.asarray(some)] == 0).all()
    assert (abs(found[np.asarray(some)] - 1000) < 5 * math.sqrt(800)).all()  # 5 deviations of B(5000, 1/5)
    before = grown(1, 30)
    after = jax.jit(jax.vmap(lambda key: mutate(key, PLACES, PROBABILITIES, before)))(keys)
    differences = np.stack([np.asarray(leaf).reshape(5000, -1).sum(1) for leaf in after], 1) - counts(before)
    for name, probability in zip(MUTATIONS, PROBABILITIES, strict=True):
        times = (differences == DIFFERENCES[name]).all(1).sum()
        assert abs(times / 5000 - float(probability)) < 5 * math.sqrt(0.25 / 5000)


def test_the_first_networks_have_their_share_and_no_nodes():
    genomes = jax.vmap(lambda key: initial(key, PLACES, jnp.float32(0.3)))(jax.random.split(jax.random.key(0), 400))
    assert not genomes.used.any()
    np.testing.assert_array_equal(genomes.present.sum((1, 2)), 15)
    assert abs(genomes.enabled.sum() / (400 * 15) - 0.3) < 5 * math.sqrt(0.21 / 6000)


# --- scores ----------------------------------------------------------------------------------------

FUNCTIONS = {
    "linear": lambda z: z, "step": lambda z: float(z > 0), "sin_pi": lambda z: math.sin(math.pi * z),
    "gaussian": lambda z: math.exp(-z * z / 2), "tanh": math.tanh, "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "negation": lambda z: -z, "abs": abs, "relu": lambda z: max(z, 0.0), "cos_pi": lambda z: math.cos(math.pi * z),
}  # fmt: skip


def by_node(genome, example, weight):
    """The outputs of a network, every node by itself from those that lead to it."""
    sources = {i: float(value) for i, value in enumerate(example)}

    def summed(target):
        return weight * sum(value(source) for source in np.flatnonzero(genome.enabled[:, target]))

    def value(source):
        if source not in sources:
            slot = source - PLACES.inputs
            name = WANN_FUNCTIONS[PLACES.slot_functions[slot]]
            sources[source] = FUNCTIONS[name](summed(slot))
        return sources[source]

    return [summed(PLACES.hidden + output) for output in range(PLACES.outputs)]


def examples_for(places, count, seed=0):
    x = jax.random.normal(jax.random.key(seed), (places.inputs, count))
    return np.asarray(x), np.arange(count, dtype=np.int32) % places.outputs


@pytest.mark.parametrize("seed", range(6))
def test_outputs_and_scores_are_those_of_the_network_node_by_node(seed):
    genome = host(grown(seed, 12 * seed))
    x, y = examples_for(PLACES, 7)
    expected = np.array([[by_node(genome, example, weight) for example in x.T] for weight in WEIGHTS])
    found = jax.jit(lambda genome: logits(PLACES, genome, x, WEIGHTS))(genome)
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), expected, rtol=2e-4, atol=2e-4)
    accuracy, loss = scores(found, y)
    shifted = np.exp(expected - expected.max(-1, keepdims=True))
    chosen = (shifted / shifted.sum(-1, keepdims=True))[:, np.arange(7), y]
    np.testing.assert_allclose(loss, -np.log(chosen).mean(1), rtol=1e-3)
    np.testing.assert_allclose(accuracy, (np.asarray(found).argmax(0) == y).mean(1))


def test_the_vote_is_that_of_most_weights_and_of_equal_numbers_the_lower_class():
    named = np.array([[2, 0, 1], [2, 1, 1], [0, 1, 0], [1, 0, 2]])  # [weight, example]
    assert vote(jnp.moveaxis(jax.nn.one_hot(named, 3), -1, 0)).tolist() == [2, 0, 1]


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e30])
def test_a_loss_that_is_not_finite_counts_as_the_worst(value):
    z = np.zeros((2, 1, 3), np.float32)
    z[1] = value
    assert scores(z, np.zeros(3, np.int32)).loss.tolist() == [WORST]


# --- generations -----------------------------------------------------------------------------------


def test_what_a_generation_is_ranked_by():
    fitness, sizes = jnp.array([[1.0, 3.0], [5.0, 0.0]]), jnp.array([4, 0], jnp.int32)
    always, never = (dataclasses.replace(SMALL, parsimony=share) for share in (1.0, 0.0))
    key = jax.random.key(0)
    assert objectives(always, key, fitness, sizes).tolist() == [[2, 0.25], [2.5, 1]]
    assert objectives(never, key, fitness, sizes).tolist() == [[2, 3], [2.5, 5]]
    keys = jax.random.split(key, 2000)
    chosen = jax.vmap(lambda key: objectives(dataclasses.replace(SMALL, parsimony=0.8), key, fitness, sizes))(keys)
    assert abs(float((chosen[:, 0, 1] == 0.25).mean()) - 0.8) < 5 * math.sqrt(0.16 / 2000)


def test_the_elite_stays_and_the_worst_have_no_offspring():
    config = WannConfig(population=20, elite=0.2, cull=0.25, tournament=3)
    order = jnp.asarray(np.random.default_rng(0).permutation(20), jnp.int32)
    drawn = np.asarray(jax.vmap(lambda key: parents(config, key, order))(jax.random.split(jax.random.key(0), 3000)))
    np.testing.assert_array_equal(drawn[:, :4], np.tile(order[:4], (3000, 1)))
    times = np.bincount(np.argsort(order)[drawn[:, 4:]].ravel(), minlength=20) / (3000 * 16)
    # the best of 3 of 15 with replacement: P(rank ≥ r) = ((15 − r) / 15)³
    expected = -np.diff((np.maximum(15 - np.arange(21), 0) / 15) ** 3)
    np.testing.assert_allclose(times, expected, atol=5 * math.sqrt(0.25 / (3000 * 16)))
    assert (times[15:] == 0).all()


@functools.cache
def small_examples():
    places = Places(4, 3, SMALL.layers, SMALL.nodes)
    rng = np.random.default_rng(0)
    y = np.arange(60, dtype=np.int32) % 3
    x = (rng.normal(size=(4, 3))[:, y] + 0.3 * rng.normal(size=(4, 60))).astype(np.float32)
    return places, Examples(x[:, :40], y[:40], x[:, 40:], y[40:])


@functools.cache
def program_for(config, devices=1, layout="map"):
    """A generation, compiled, the mesh, the key and the examples."""
    places, examples = small_examples()
    mesh = make_mesh(jax.devices()[:devices])
    key, examples = replicate((jax.random.key(config.seed), examples), mesh)
    return make_generation(config, places, layout, mesh), mesh, key, examples


@functools.cache
def course(config, devices=1, layout="map", generations=5):
    """The states and reports of a search."""
    made, mesh, key, examples = program_for(config, devices, layout)
    first = jax.jit(lambda key: start(config, small_examples()[0], key))(jax.random.key(config.seed))
    state = jax.device_put(first, shardings(mesh))
    states, reports = [host(state)], []
    for _ in range(generations):
        state, report = made(key, state, examples)
        states.append(host(state))
        reports.append(host(report))
    assert made._cache_size() == 1
    return states, reports


@pytest.mark.slow
def test_the_course_does_not_depend_on_the_devices():
    equal(course(SMALL, 4), course(SMALL))


def step(config, number):
    """The first networks one generation later, as if so many generations had been before."""
    made, mesh, key, examples = program_for(config)
    state = jax.device_put(course(config)[0][0]._replace(generation=jnp.int32(number)), shardings(mesh))
    return host(made(key, state, examples))


def test_every_generation_draws_anew():
    assert step(SMALL, 0)[1].mean != step(SMALL, 1)[1].mean  # by another batch
    first, later = step(WHOLE, 0), step(WHOLE, 1)
    assert first[1].mean == later[1].mean
    assert (first[0].genomes.enabled != later[0].genomes.enabled).any()


@pytest.mark.slow
def test_in_lanes_it_is_the_same_but_for_rounding():
    mapped, lanes = (course(SMALL, 4, layout)[1][0] for layout in ("map", "vmap"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), mapped, lanes)


def test_the_seed_decides():
    places, _ = small_examples()
    first, second = (start(dataclasses.replace(SMALL), places, jax.random.key(seed)) for seed in (3, 4))
    equal(course(SMALL)[0][0], host(first))
    assert (first.genomes.enabled != second.genomes.enabled).any()
    other = course(dataclasses.replace(SMALL, seed=4))[0][-1]
    assert (course(SMALL)[0][-1].genomes.enabled != other.genomes.enabled).any()


def test_reports_champions_and_elites_follow_from_the_scores():
    config, (places, examples) = WHOLE, small_examples()
    states, reports = course(config)

    def fitness(genome, x, y):
        return np.asarray(FITNESS[config.fitness](score(config, places, genome, x, y)))

    champion = -np.inf
    for number, report in enumerate(reports):
        networks = [jax.tree.map(lambda leaf, i=i: leaf[i], states[number].genomes) for i in range(config.population)]
        all_fitness = np.array([fitness(network, examples.x, examples.y) for network in networks])
        best = all_fitness.mean(1).argmax()
        expected = all_fitness[best].mean(), all_fitness.mean()
        np.testing.assert_allclose((report.best, report.mean), expected, rtol=1e-5)
        assert (report.connections, report.hidden) == (networks[best].enabled.sum(), networks[best].used.sum())
        seen = fitness(networks[best], examples.x_validation, examples.y_validation).mean()
        after = states[number + 1]
        if seen > champion + 1e-6:
            champion = seen
            assert after.found == number
            equal(after.champion, networks[best])
        np.testing.assert_allclose([after.fitness, report.validation], champion, rtol=1e-5)
        # the best by mean and best is of the first front, at its end, so that it lives on
        kept = [jax.tree.map(lambda leaf, i=i: leaf[i], after.genomes) for i in range(elite(config))]
        assert any(all((a == b).all() for a, b in zip(networks[best], other, strict=True)) for other in kept)


def test_a_generation_has_a_batch_of_its_own_or_all_examples():
    whole, batches = (course(config)[1] for config in (WHOLE, SMALL))
    assert whole[0].mean != batches[0].mean
    config = dataclasses.replace(SMALL, batch=40, parsimony=0.0)  # as many as there are
    equal(course(config, generations=1)[1][0], whole[0])


def test_the_search_learns():
    config = WannConfig(population=32, layers=2, nodes=1, init_share=0.5, tournament=4)
    reports = course(config, 2, generations=40)[1]
    assert reports[0].best_accuracy < 0.6
    assert reports[-1].best_accuracy > 0.8


# --- the network that is exported ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_exported_network_has_the_same_outputs_with_a_shared_weight(seed):
    genome = host(grown(seed, 15 + 20 * seed))
    exported = export(PLACES, genome)
    config = resolved("skip_mlp", hidden_sizes=exported.hidden_sizes, activation=exported.activation)
    shapes = OUTLINES["skip_mlp"].kernels(config, (PLACES.inputs,), PLACES.outputs)
    assert {name: mask.shape for name, mask in exported.masks.items()} == shapes
    assert sum(mask.sum() for mask in exported.masks.values()) == int(connections(genome))
    assert sum(exported.hidden_sizes) == genome.used.sum()
    model = build(config, PLACES.outputs, by_layer(exported.activation, None, UNSCALED))
    assert kernels_of(variables_of(model, (PLACES.inputs,))["params"]) == shapes
    x, _ = examples_for(PLACES, 9, seed)
    for weight, expected in zip(WEIGHTS, np.moveaxis(logits(PLACES, genome, x, WEIGHTS), 1, 0), strict=True):
        params = {
            name.removesuffix("/kernel"): {"kernel": weight * mask, "bias": np.zeros(mask.shape[1])}
            for name, mask in exported.masks.items()
        }
        found = model.apply({"params": params}, jnp.asarray(x.T), train=False)
        np.testing.assert_allclose(found.T, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_a_network_without_hidden_nodes_is_none_that_trains():
    assert export(PLACES, host(initial(jax.random.key(0), PLACES, jnp.float32(1)))) is None


# --- on disk ---------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _two_devices(monkeypatch):
    monkeypatch.setattr(wann_run, "set_up", lambda study: Hardware(tuple(jax.devices()[:2]), "map", 32))


def plan_of(workdir, host=None, data=None, **changes):
    study = StudyConfig(workdir=str(workdir), checkpoint_seconds=0.0, **(host or {}))
    config = RunConfig(**{"train_size": 200} | (data or {}))
    return make_plan(Asked(dataclasses.replace(SMALL, **changes), config, study))


def outcome(workdir):
    """What has to be equal however often a search was interrupted."""
    lines = [line.rsplit(",", 1)[0] for line in (workdir / "course.csv").read_text().splitlines()]
    result = json.loads((workdir / "result.json").read_text())
    del result["seconds"]
    return lines, result, {name: mask.tolist() for name, mask in load_masks(workdir / "masks.npz").items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wann")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wann_run, "set_up", lambda study: Hardware(tuple(jax.devices()[:2]), "map", 32))
        assert wann_run.search(plan_of(folder), Asking()) == 0
    return folder


@pytest.fixture(scope="module")
def uninterrupted(finished):
    return outcome(finished)


def test_the_result_is_that_of_the_exported_network(finished):
    result, masks = json.loads((finished / "result.json").read_text()), load_masks(finished / "masks.npz")
    asked = dict(re.findall(r"^--(\w+)=(.*)$", (finished / "train.flags").read_text(), re.MULTILINE))
    of_network = {"model", "hidden_sizes", "activation", "method", "initial_topology"}
    assert asked.keys() == {"dataset", "train_size"} | of_network
    names, sizes = tuple(asked["activation"].split(":")), tuple(map(int, asked["hidden_sizes"].split(",")))
    assert result["hidden_nodes"] == sum(sizes) == sum(result["functions"].values())
    assert result["connections"] == sum(mask.sum() for mask in masks.values())
    model = build(resolved("skip_mlp", hidden_sizes=sizes, activation=names), 10, by_layer(names, None, UNSCALED))
    parts = split(load("digits", ""), train_size=200, test_size=0, validation_fraction=0.1)
    x = np.asarray(make_apply("global_zscore")(fit("global_zscore", parts.x[: parts.train]), parts.x))
    cuts = np.cumsum([parts.train, parts.validation])
    split_up = zip(np.split(x, cuts)[1:], np.split(parts.y, cuts)[1:], strict=True)
    for of_part, (inputs, y) in zip((result["validation"], result["test"]), split_up, strict=True):
        accuracies = of_part["accuracy"].values()
        assert of_part["mean_accuracy"] == pytest.approx(np.mean([*accuracies]), abs=1e-5)
        assert of_part["examples"] == len(y)
        for weight, accuracy in zip(SMALL.weights, accuracies, strict=True):
            params = {
                name.removesuffix("/kernel"): {"kernel": weight * mask, "bias": np.zeros(mask.shape[1])}
                for name, mask in masks.items()
            }
            outputs = np.asarray(model.apply({"params": params}, inputs, train=False))
            assert accuracy == pytest.approx((outputs.argmax(1) == y).mean(), abs=1.5 / len(y))
    best = result["best_weight"]
    assert result["validation"]["accuracy"][best] == max(result["validation"]["accuracy"].values())
    assert result["test_accuracy"] == result["test"]["accuracy"][best]


@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupted_search_ends_as_an_uninterrupted_one(after, uninterrupted, tmp_path, capsys):
    assert wann_run.search(plan_of(tmp_path), Asking(after)) == 75
    assert "stopped and saved: the same command continues" in capsys.readouterr().err
    assert len((tmp_path / "course.csv").read_text().splitlines()) == 1 + after + 1
    assert not (tmp_path / "result.json").exists()
    assert wann_run.search(plan_of(tmp_path), Asking()) == 0
    assert outcome(tmp_path) == uninterrupted
    before = outcome(tmp_path)
    assert wann_run.search(plan_of(tmp_path), Asking()) == 0  # nothing is left to do
    assert outcome(tmp_path) == before


def test_more_generations_go_on_and_fewer_are_refused(uninterrupted, tmp_path):
    assert wann_run.search(plan_of(tmp_path, generations=2), Asking()) == 0
    assert wann_run.search(plan_of(tmp_path), Asking()) == 0
    assert outcome(tmp_path) == uninterrupted
    with pytest.raises(UserError, match="has 6 generations already: --generations=5 is fewer"):
        wann_run.search(plan_of(tmp_path, generations=5), Asking())


def test_other_settings_another_study_and_damage_are_refused(tmp_path):
    assert wann_run.search(plan_of(tmp_path, generations=1), Asking()) == 0
    for changes, message in (
        ({"tournament": 4}, "was begun with --tournament=3, not 4"),
        ({"data": {"normalization": "unit"}}, "was begun with --normalization=global_zscore, not unit"),
        ({"host": {"resume": False}}, "without --noresume it is continued"),
    ):
        with pytest.raises(UserError, match=message):
            wann_run.search(plan_of(tmp_path, **changes), Asking())
    state = tmp_path / "state.npz"
    whole = state.read_bytes()
    for content in (whole[:-40], whole[:900] + bytes([whole[900] ^ 1]) + whole[901:], b""):
        state.write_bytes(content)
        with pytest.raises(UserError, match=r"state\.npz is damaged: delete it"):
            wann_run.search(plan_of(tmp_path), Asking())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is the workdir of a study"):
        wann_run.search(plan_of(tmp_path), Asking())


def test_another_process_or_other_data_are_refused(tmp_path):
    plan = plan_of(tmp_path / "w")
    with wann_run.opened(plan.place, {"data": "a"}), pytest.raises(UserError, match="is in use by process"):
        wann_run.search(plan, Asking())
    with pytest.raises(UserError, match="is not the one this search was begun on"):
        wann_run.search(plan, Asking())
    with wann_run.opened(plan.place, {"data": "a"}) as workdir:
        assert workdir == tmp_path / "w"


# --- the program -----------------------------------------------------------------------------------


def program(cwd, *arguments, file="search.py", **options):
    command = [sys.executable, str(ROOT / "launch" / file), *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def ended(process):
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


ASKED = (
    "wann", "--train_size=300", "--population=10", "--layers=2", "--nodes=1", "--cpu_devices=2",
    "--checkpoint_seconds=0", "--workdir=w", "--generations=250",
)  # fmt: skip


@pytest.mark.slow
def test_the_program_survives_its_signals_and_its_network_is_a_plan_of_train(tmp_path):
    for number, status in ((signal.SIGTERM, 75), (signal.SIGKILL, -9)):
        process = program(tmp_path, *ASKED)
        course, deadline = tmp_path / "w" / "course.csv", time.monotonic() + 100
        before = course.stat().st_mtime_ns if course.exists() else 0
        while not (course.exists() and course.stat().st_mtime_ns > before) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        assert ended(process)[0] == status
    status, out, err = ended(program(tmp_path, *ASKED))
    assert status == 0, err
    assert "vote of all" in out
    assert "launch/train.py --flagfile=w/train.flags" in out
    changes = {"population": 10, "layers": 2, "nodes": 1, "generations": 250}
    study = StudyConfig(workdir=str(tmp_path / "straight"))
    straight = make_plan(Asked(WannConfig(**changes), RunConfig(train_size=300), study))
    assert wann_run.search(straight, Asking()) == 0
    assert outcome(tmp_path / "w") == outcome(tmp_path / "straight")
    result = outcome(tmp_path / "w")[1]
    assert result["test"]["accuracy"][result["best_weight"]] == result["test_accuracy"]
    status, out, err = ended(program(tmp_path, "--flagfile=w/train.flags", "--dry_run", file="train.py"))
    assert status == 0, err
    assert f"{result['connections']:,}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "which search? Known: safs, wann"),
        ("wan", "unknown search 'wan'. Did you mean 'wann'? Known: safs, wann"),
        ("--seed=1", "which search? Known: safs, wann"),
        ("wann more", "unexpected argument 'more'"),
        ("wann --weights=0:1", "--weights: with a shared weight of 0"),
        ("wann --dataset=digits,mnist", "--dataset: takes one value, not a list"),
        ("wann --validation_fraction=0", "nothing to choose the best network by"),
        ("wann --nodes=1000 --layers=64", "use fewer --nodes"),
        ("wann --add_connection=0 --add_node=0 --enable=0 --change_activation=0", "no mutation: one of"),
        ("wann --population=1", "--population: 1 is outside"),
        ("wann --fitness=loose", "Did you mean 'loss'?"),
        ("wann --hidden_sizes=3", "Unknown command line flag 'hidden_sizes'"),
        ("wann --dataset=mnist --data_dir=nowhere", "no version of mnist in"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path):
    (tmp_path / "jax.py").write_text("import os; os._exit(99)")
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    status, out, err = ended(program(tmp_path, *arguments.split(), env=environment))
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["jax.py"]


def test_help_teaches_and_a_dry_run_writes_nothing(tmp_path):
    status, out, _ = ended(program(tmp_path, "wann", "--help"))
    assert status == 0
    assert "python launch/search.py wann --flagfile=configs/wann_digits.flags" in out
    assert "[grid]" not in out
    told = " ".join(out.split())
    assert all(f"--{name}: {field.metadata['help']}" in told for name, field in settings(WannConfig).items())
    status, out, _ = ended(program(tmp_path, "wann", "--dry_run", "--workdir=w"))
    assert status == 0
    assert "would write to w" in out
    assert list(tmp_path.iterdir()) == []
