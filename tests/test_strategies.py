"""The search strategies: late acceptance by hand and against plain NumPy, the laws of all, and what they draw."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jax import lax

from sparse_jax.config import SEARCH_STRATEGIES
from sparse_jax.search.climbs import annealed, cooled, move, redraw, swap
from sparse_jax.search.strategies import STRATEGIES, Population, Settings, Space, Strategy, child

SPACE = Space(layers=3, operators=4)
SETTINGS = Settings(candidates=4, steps=20, history=3, temperature=0.5, cooling=0.01, tournament=2, mutation=0.2)
MANY = 20_000  # draws, of which frequencies are taken
DRAWING = [name for name in STRATEGIES if name != "exhaustive"]


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def numbers(space, candidates):
    """What exhaustive search would number candidates [..., layers]."""
    return np.asarray(candidates) @ (space.operators ** np.arange(space.layers)[::-1])


def course(name, space, settings, measure, key):
    """States, candidates and energies of all rounds of a search, stacked."""
    strategy = STRATEGIES[name](space, settings)

    def one_round(state, step):
        round_key = jax.random.fold_in(key, step)
        candidates = strategy.propose(round_key, state)
        energies = measure(candidates)
        state = strategy.accept(round_key, state, candidates, energies)
        return state, (state, candidates, energies)

    return lax.scan(one_round, strategy.init(key), jnp.arange(strategy.steps))[1]


def looked_up(space, energies, candidates):
    """The energies of candidates [B, layers], of a landscape, float32[operators ** layers]."""
    return energies[candidates @ jnp.asarray(space.operators ** np.arange(space.layers)[::-1], jnp.int32)]


@functools.cache
def program(name, space=SPACE, settings=SETTINGS):
    """(key, landscape) -> the course of a search in NumPy; compiled."""

    @jax.jit
    def searched(key, energies):
        return course(name, space, settings, functools.partial(looked_up, space, energies), key)

    return lambda key, energies: jax.tree.map(np.asarray, searched(key, energies))


def landscape(seed, space=SPACE):
    """Few different energies, hence many equal ones, of which some are not finite."""
    rng = np.random.default_rng(seed)
    energies = rng.choice(np.array([0, 0.25, 0.5, 0.75, 1, np.nan, np.inf], np.float32), space.operators**space.layers)
    return jnp.asarray(energies)


def assert_drawn(counts, probabilities):
    """Frequencies are those of a distribution, by Pearson's χ²; what is expected less than five times is one class."""
    counts, expected = np.asarray(counts), np.asarray(probabilities) * np.sum(counts)
    assert math.isclose(sum(probabilities), 1)
    assert counts[expected == 0].sum() == 0
    rare = expected < 5
    counts, expected = (np.append(values[~rare], values[rare].sum()) for values in (counts, expected))
    counts, expected = counts[expected > 0], expected[expected > 0]
    degrees = expected.size - 1
    assert ((counts - expected) ** 2 / expected).sum() < degrees + 6 * math.sqrt(2 * degrees)


def test_the_names_in_the_settings_are_those_of_the_family():
    assert tuple(STRATEGIES) == SEARCH_STRATEGIES


# --- late acceptance -------------------------------------------------------------------------------

NAN = float("nan")
# E of the candidate, v, moved, and after it E_current, H, and the round of the best; L = 3
BY_HAND = [
    (5.0, None, True, 5.0, [5, 5, 5], 0),  # the start fills the history
    (4.0, 0, True, 4.0, [4, 5, 5], 1),  # 4 < H_0 = 5
    (4.5, 1, True, 4.5, [4, 4.5, 5], 1),  # 4.5 > E_current = 4, but 4.5 < H_1 = 5: late acceptance
    (6.0, 2, False, 4.5, [4, 4.5, 5], 1),  # 6 ≥ H_2 = 5 and 6 > 4.5; Burke and Bykov would write 4.5 into H_2
    (4.5, 0, True, 4.5, [4, 4.5, 5], 1),  # 4.5 ≥ H_0 = 4, but 4.5 ≤ E_current = 4.5: nothing is written
    (4.75, 1, False, 4.5, [4, 4.5, 5], 1),  # 4.75 ≥ H_1 = 4.5 and 4.75 > 4.5, though it is below H_2
    (4.75, 2, True, 4.75, [4, 4.5, 4.75], 1),  # 4.75 < H_2 = 5
    (4.25, 0, True, 4.25, [4, 4.5, 4.75], 1),  # 4.25 ≥ H_0 = 4, but 4.25 ≤ E_current = 4.75
    (4.5, 1, False, 4.25, [4, 4.5, 4.75], 1),  # 4.5 is not below H_1 = 4.5, and 4.5 > 4.25
    (NAN, 2, False, 4.25, [4, 4.5, 4.75], 1),  # counts as +∞
    (3.0, 0, True, 3.0, [3, 4.5, 4.75], 10),  # 3 < H_0 = 4
    (3.0, 1, True, 3.0, [3, 3, 4.75], 10),  # 3 < H_1 = 4.5; of two of energy 3 the first stays the best
]


def test_a_climb_by_hand():
    strategy = STRATEGIES["lahc"](Space(2, 20), SETTINGS._replace(candidates=1))
    key = jax.random.key(0)
    state, current = strategy.init(key), None
    assert (int(state.step), float(state.best.energy)) == (0, np.inf)
    for step, (energy, entry, moved, at, history, best) in enumerate(BY_HAND):
        assert entry is None or entry == (step - 1) % 3
        state = strategy.accept(key, state, jnp.array([[step, 19 - step]]), jnp.array([energy]))
        current = step if moved else current
        assert state.current.tolist() == [[current, 19 - current]]
        assert (state.energies.tolist(), state.history.tolist()) == ([at], [history])
        assert (state.best.candidate.tolist(), float(state.best.energy)) == ([best, 19 - best], BY_HAND[best][0])
        assert int(state.step) == step + 1


def oracle_climb(candidates, energies, length):
    """Where one climb is after every round, with which energy, and its history: the rules as they stand in words."""
    history, current, at, rows = [], None, math.inf, []
    for number, (candidate, measured) in enumerate(zip(candidates, energies, strict=True)):
        energy = math.inf if math.isnan(measured) else float(measured)
        if number == 0:
            history, current, at = [energy] * length, candidate, energy
        else:
            v = (number - 1) % length
            if energy < history[v] or energy <= at:
                current, at = candidate, energy
            if energy < history[v]:
                history[v] = energy
        rows.append((current, at, list(history)))
    return rows


@functools.cache
def climbs(count, length):
    """Candidates and energies of all rounds -> the states of lahc after every one; compiled."""
    strategy = STRATEGIES["lahc"](SPACE, SETTINGS._replace(candidates=count, history=length))

    def accepted(state, measured):
        state = strategy.accept(jax.random.key(0), state, *measured)
        return state, state

    made = jax.jit(lambda candidates, energies: lax.scan(accepted, strategy.init(None), (candidates, energies))[1])
    return lambda candidates, energies: jax.tree.map(np.asarray, made(candidates, energies))


ROUNDS = 17
SEEDS = st.integers(0, 2**31)


def sequences(count, seed):
    """Candidates [rounds, B, layers], all different, and their energies [rounds, B], of a few levels or of many."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(2, 30)
    energies = (rng.integers(0, levels, (ROUNDS, count)) / levels).astype(np.float32)
    energies[rng.random(energies.shape) < rng.choice([0, 0.3])] = rng.choice([np.nan, np.inf])
    return np.arange(ROUNDS * count * 3, dtype=np.int32).reshape(ROUNDS, count, 3), energies


@pytest.mark.parametrize(("count", "length"), [(1, 3), (3, 1), (2, 2), (3, 5), (1, 40)])
@hypothesis_settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_climbs_are_those_of_plain_python(count, length, seed):
    candidates, energies = sequences(count, seed)
    states = climbs(count, length)(candidates, energies)
    for one in range(count):
        of_one = [states.current[:, one].tolist(), states.energies[:, one].tolist(), states.history[:, one].tolist()]
        expected = oracle_climb(candidates[:, one].tolist(), energies[:, one].tolist(), length)
        assert list(zip(*of_one, strict=True)) == expected
    assert_best_of_all(states, candidates, energies)


@hypothesis_settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_with_a_history_of_one_a_climb_never_gets_worse(seed):
    """Accepted is exactly what is not worse than the current energy.

    Proof that H_0 = E_current after every round. After the start both are its energy. If it holds, E < H_0 is
    E < E_current, so that E is accepted if and only if E ≤ E_current. Where E < E_current both become E; where
    E = E_current both stay what they are; where E > E_current nothing changes. So it holds after the move.
    """
    candidates, energies = sequences(1, seed)
    states = climbs(1, 1)(candidates, energies)
    np.testing.assert_array_equal(states.history[:, 0, 0], states.energies[:, 0])
    measured = np.where(np.isnan(energies), np.inf, energies)[1:, 0]
    moved = (states.current[1:, 0] == candidates[1:, 0]).all(axis=1)
    np.testing.assert_array_equal(moved, measured <= states.energies[:-1, 0])


# --- laws of all strategies ------------------------------------------------------------------------


def assert_best_of_all(states, candidates, energies):
    """After every round the best is the first of the lowest energy so far."""
    energies = np.where(np.isnan(energies), np.inf, energies).reshape(len(energies), -1)
    count = energies.shape[1]
    for done in range(1, len(energies) + 1):
        first = np.argmin(energies[:done])
        assert states.best.energy[done - 1] == energies[first // count, first % count]
        np.testing.assert_array_equal(states.best.candidate[done - 1], candidates[first // count, first % count])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_best_never_worsens_and_is_the_best_of_all_that_was_proposed(name, seed):
    strategy = STRATEGIES[name](SPACE, SETTINGS)
    assert isinstance(strategy, Strategy)
    states, candidates, energies = program(name)(jax.random.key(seed), landscape(seed))
    assert candidates.dtype == jnp.int32
    assert candidates.shape == (strategy.steps, SETTINGS.candidates, SPACE.layers)
    assert ((candidates >= 0) & (candidates < SPACE.operators)).all()
    np.testing.assert_array_equal(states.step, np.arange(strategy.steps) + 1)
    assert (states.best.energy[1:] <= states.best.energy[:-1]).all()
    assert_best_of_all(states, candidates, energies)


@pytest.mark.parametrize("name", STRATEGIES)
def test_where_nothing_is_finite_the_best_is_the_first_proposed(name):
    states, candidates, _ = program(name)(jax.random.key(1), jnp.full(64, jnp.nan))
    assert np.isposinf(states.best.energy).all()
    assert (states.best.candidate == candidates[0, :1]).all()


@pytest.mark.parametrize("name", STRATEGIES)
def test_seeds_side_by_side_are_those_one_by_one(name):
    search = functools.partial(course, name, SPACE, SETTINGS, functools.partial(looked_up, SPACE, landscape(0)))
    keys = jax.random.split(jax.random.key(5), 3)
    together = jax.jit(jax.vmap(search))(keys)
    for number, key in enumerate(keys):
        equal(jax.tree.map(lambda leaf, number=number: leaf[number], together), program(name)(key, landscape(0)))


@pytest.mark.parametrize("name", STRATEGIES)
def test_one_program_serves_all_rounds(name):
    """The states are of the same shapes and types from the first on; the same key has the course that it had before."""
    strategy, key = STRATEGIES[name](SPACE, SETTINGS), jax.random.key(2)
    propose, accept = jax.jit(strategy.propose), jax.jit(strategy.accept)
    state, states = strategy.init(key), []
    for step in range(strategy.steps):
        round_key = jax.random.fold_in(key, jnp.int32(step))
        candidates = propose(round_key, state)
        state = accept(round_key, state, candidates, looked_up(SPACE, landscape(0), candidates))
        states.append(state)
    assert (propose._cache_size(), accept._cache_size()) == (1, 1)
    equal(jax.tree.map(lambda *leaves: np.stack(leaves), *states), program(name)(key, landscape(0))[0])


@pytest.mark.parametrize("name", DRAWING)
def test_another_key_is_another_course(name):
    first, second = (program(name)(jax.random.key(seed), landscape(0))[1] for seed in (0, 1))
    assert (first[0] != second[0]).any()
    assert (first[1:] != second[1:]).any()


@pytest.mark.parametrize("name", DRAWING)
def test_a_search_has_its_moves_after_the_start(name):
    assert [STRATEGIES[name](SPACE, SETTINGS._replace(steps=steps)).steps for steps in (0, 1, 20)] == [1, 2, 21]


@pytest.mark.parametrize("name", DRAWING)
def test_the_start_is_drawn_uniformly(name):
    strategy = STRATEGIES[name](SPACE, SETTINGS._replace(candidates=MANY))
    drawn = jax.jit(strategy.propose)(jax.random.key(0), strategy.init(None))
    assert_drawn(np.bincount(numbers(SPACE, drawn), minlength=64), [1 / 64] * 64)


@pytest.mark.parametrize("name", ["lahc", "annealing", "genetic"])
def test_what_learns_from_energies_finds_more_than_what_does_not(name):
    """In 8 layers, the energy being the share of the layers that do not have the operator sought."""
    space, settings = Space(8, 6), SETTINGS._replace(steps=100)
    sought = jnp.array([[3, 1, 4, 1, 5, 0, 2, 5]])
    measure = lambda candidates: jnp.mean(candidates != sought, axis=1)

    @jax.jit
    @jax.vmap
    def found(key):
        best_of = lambda one: course(one, space, settings, measure, key)[0].best.energy[-1]
        return jnp.stack([best_of(name), best_of("random")])

    mean = found(jax.random.split(jax.random.key(0), 30)).mean(axis=0)
    assert mean[0] < 0.6 * mean[1]


# --- moves -----------------------------------------------------------------------------------------


def redrawn(candidate, operators):
    """Every redrawing of a candidate, each as probable as the others."""
    for layer, operator in itertools.product(range(len(candidate)), range(operators)):
        yield (*candidate[:layer], operator, *candidate[layer + 1 :])


def swapped(candidate):
    """Every swap of two different layers, each as probable as the others."""
    for first, second in itertools.combinations(range(len(candidate)), 2):
        after = list(candidate)
        after[first], after[second] = after[second], after[first]
        yield tuple(after)


def distribution(space, outcomes):
    """The probabilities of all candidates of a space, where each of the outcomes is as probable as the others."""
    found = np.bincount(numbers(space, outcomes), minlength=space.operators**space.layers)
    return found / len(outcomes)


@functools.cache
def keys():
    return jax.random.split(jax.random.key(11), MANY)


@pytest.mark.parametrize("candidate", [(0, 1, 2, 3), (3, 3, 0, 1)])
def test_moves_are_drawn_as_they_should(candidate):
    space, start = Space(4, 4), jnp.array(candidate)
    again = list(redrawn(candidate, space.operators))
    expected = {
        "redraw": again,
        "swap": list(swapped(candidate)),
        "move": [after for one in again for after in swapped(one)],
    }
    found = {
        "redraw": jax.vmap(lambda key: redraw(key, space, start))(keys()),
        "swap": jax.vmap(lambda key: swap(key, start))(keys()),
        "move": jax.vmap(lambda key: move(key, space, start))(keys()),
    }
    for name, outcomes in expected.items():
        assert_drawn(np.bincount(numbers(space, found[name]), minlength=256), distribution(space, outcomes))


@pytest.mark.parametrize("name", ["lahc", "annealing"])
def test_after_the_start_every_walk_makes_a_move_of_its_own(name):
    strategy = STRATEGIES[name](SPACE, SETTINGS._replace(candidates=MANY))
    current = np.tile(np.array([[0, 1, 2], [3, 3, 0]], np.int32), (MANY // 2, 1))
    state = strategy.init(None)._replace(step=jnp.int32(1), current=jnp.asarray(current))
    proposed = np.asarray(strategy.propose(jax.random.key(3), state))
    for one in range(2):
        outcomes = [after for again in redrawn(current[one].tolist(), 4) for after in swapped(again)]
        found = np.bincount(numbers(SPACE, proposed[one::2]), minlength=64)
        assert_drawn(found, distribution(SPACE, outcomes))


def test_a_move_is_one_redraw_and_one_swap():
    space = Space(layers=9, operators=30)
    before = np.arange(9)
    after = np.asarray(jax.vmap(lambda key: move(key, space, jnp.asarray(before)))(keys()))
    changed = (after != before).sum(axis=1)
    # 3, or 2 where the redrawn layer is one of the swapped or has its old operator again, or 1 where it has that of
    # the layer that it is swapped with
    assert set(changed) == {1, 2, 3}
    assert max(len(set(before) - set(one)) for one in after.tolist()) == 1  # of the old operators one is missing
    from_swap = np.asarray(jax.vmap(lambda key: swap(key, jnp.asarray(before)))(keys()))
    np.testing.assert_array_equal(np.sort(from_swap, axis=1), np.tile(before, (MANY, 1)))
    assert ((from_swap != before).sum(axis=1) == 2).all()


def test_moves_in_the_smallest_spaces():
    one_layer, one_operator = Space(1, 5), Space(4, 1)
    drawn = jax.vmap(lambda key: move(key, one_layer, jnp.array([2])))(keys())
    assert_drawn(np.bincount(drawn[:, 0], minlength=5), [1 / 5] * 5)
    assert not jax.vmap(lambda key: move(key, one_operator, jnp.zeros(4, jnp.int32)))(keys()[:9]).any()


@pytest.mark.parametrize("space", [Space(1, 5), Space(4, 1)])
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_smallest_spaces_are_searched(name, space):
    settings = SETTINGS._replace(candidates=2, steps=3, history=1, tournament=1)
    assert_best_of_all(*program(name, space, settings)(jax.random.key(0), landscape(1, space)))


# --- annealing -------------------------------------------------------------------------------------


def test_the_temperature_falls_by_the_same_share_at_every_move():
    settings = SETTINGS._replace(steps=3, temperature=0.5, cooling=0.25)
    # 0.5, then twice a factor of √0.25 = 1/2
    np.testing.assert_allclose([cooled(settings, jnp.int32(s)) for s in (1, 2, 3)], [0.5, 0.25, 0.125], rtol=1e-6)
    assert float(cooled(settings._replace(steps=1), jnp.int32(1))) == 0.5
    assert float(cooled(settings._replace(cooling=1.0), jnp.int32(3))) == 0.5


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("worse", [0.0625, 0.25, 0.75])
def test_annealing_accepts_as_often_as_it_should(step, worse):
    settings = SETTINGS._replace(candidates=MANY, steps=3, temperature=0.5, cooling=0.25)
    strategy = STRATEGIES["annealing"](SPACE, settings)
    state = strategy.init(None)._replace(step=jnp.int32(step), energies=jnp.full(MANY, 0.125))
    candidates = jnp.ones((MANY, 3), jnp.int32)
    after = strategy.accept(jax.random.key(7), state, candidates, jnp.full(MANY, 0.125 + worse))
    moved = np.asarray(after.current).any(axis=1)
    probability = math.exp(-worse / (0.5 * 0.5 ** (step - 1)))
    assert abs(moved.mean() - probability) < 5 * math.sqrt(probability * (1 - probability) / MANY)
    np.testing.assert_array_equal(after.energies, np.where(moved, np.float32(0.125 + worse), np.float32(0.125)))


def test_annealing_always_accepts_what_is_not_worse_and_never_what_is_infinite():
    # equal, better, the first however bad it is, infinite, infinite and hardly warm, hopelessly worse
    current = jnp.array([0.5, 0.5, jnp.inf, 0.5, 0.5, 0.5])
    energy = jnp.array([0.5, 0.25, jnp.inf, jnp.inf, jnp.inf, 0.75])
    temperature = jnp.array([1e-3, 1e-3, 1e-3, 1e3, 1e-3, 1e-3])
    accepted = jax.vmap(jax.vmap(annealed, (None, 0, 0, 0)), (0, None, None, None))(
        keys()[:2000], temperature, current, energy
    )
    assert (accepted == np.array([[True, True, True, False, False, False]])).all()


def test_with_almost_no_temperature_annealing_is_a_climb_with_a_history_of_one():
    settings = SETTINGS._replace(temperature=1e-6, history=1)
    (states, *rest), (climb, *of_climb) = (
        program(name, SPACE, settings)(jax.random.key(4), jnp.arange(64) / 64) for name in ("annealing", "lahc")
    )
    equal(rest, of_climb)
    equal((states.current, states.energies), (climb.current, climb.energies))


# --- genetic ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_all_survive_in_the_order_in_which_they_came(seed):
    states, candidates, energies = program("genetic")(jax.random.key(seed), landscape(seed))
    energies = np.where(np.isnan(energies), np.inf, energies)
    for done in range(1, len(energies) + 1):
        survivors = np.argsort(energies[:done].ravel(), kind="stable")[: SETTINGS.candidates]
        np.testing.assert_array_equal(states.energies[done - 1], energies[:done].ravel()[survivors])
        np.testing.assert_array_equal(states.members[done - 1], candidates[:done].reshape(-1, 3)[survivors])
    assert (states.energies[1:] <= states.energies[:-1]).all()  # the best, the second, …: none gets worse


def children(space, settings, members, energies):
    population = Population(jnp.int32(1), None, jnp.asarray(members, jnp.int32), jnp.asarray(energies, jnp.float32))
    return np.asarray(jax.vmap(lambda key: child(key, space, settings, population))(keys()))


def test_a_tournament_is_won_by_the_best_of_those_drawn():
    space, settings = Space(1, 5), SETTINGS._replace(candidates=5, tournament=3, mutation=1e-9)
    found = children(space, settings, [[4], [2], [0], [1], [3]], [4, 2, 0, 1, 3])
    # the best of 3 of 5 with replacement: P(r or worse) = ((5 − r) / 5)³
    assert_drawn(np.bincount(found[:, 0], minlength=5), -np.diff(((5 - np.arange(6)) / 5) ** 3))


def binomial(n, p):
    return np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


def test_a_layer_comes_from_either_parent():
    settings = SETTINGS._replace(candidates=2, tournament=1, mutation=1e-9)
    ones = children(Space(6, 2), settings, [[0] * 6, [1] * 6], [0, 1]).sum(axis=1)
    # both parents the first, or the second, with probability 1/4 each; else every layer with 1/2 from either
    expected = binomial(6, 0.5) / 2 + np.array([1, 0, 0, 0, 0, 0, 1]) / 4
    assert_drawn(np.bincount(ones, minlength=7), expected)


def test_a_layer_is_redrawn_with_its_probability():
    settings = SETTINGS._replace(candidates=2, tournament=1, mutation=0.3)
    found = children(Space(6, 4), settings, np.zeros((2, 6)), [0, 0])
    # of what is drawn from 4 operators, a quarter is what it was
    assert_drawn(np.bincount((found != 0).sum(axis=1), minlength=7), binomial(6, 0.3 * 3 / 4))
    assert_drawn(np.bincount(found[found != 0], minlength=4), [0, 1 / 3, 1 / 3, 1 / 3])


def test_children_of_a_round_differ_and_come_from_the_population():
    settings = SETTINGS._replace(candidates=MANY, tournament=1, mutation=1e-9)
    strategy = STRATEGIES["genetic"](SPACE, settings)
    members = jnp.asarray(np.arange(MANY)[:, None] % 2 * np.array([[1, 2, 3]]), jnp.int32)
    state = strategy.init(None)._replace(step=jnp.int32(1), members=members, energies=jnp.zeros(MANY))
    proposed = np.asarray(strategy.propose(jax.random.key(3), state))
    expected = binomial(3, 0.5) / 2 + np.array([1, 0, 0, 1]) / 4
    assert_drawn(np.bincount((proposed != 0).sum(axis=1), minlength=4), expected)
    assert ((proposed == 0) | (proposed == np.array([[1, 2, 3]]))).all()


# --- exhaustive ------------------------------------------------------------------------------------


def test_exhaustive_search_by_hand():
    strategy = STRATEGIES["exhaustive"](Space(2, 3), SETTINGS)
    assert strategy.steps == 3  # ⌈9 / 4⌉
    proposed = program("exhaustive", Space(2, 3))(jax.random.key(0), landscape(0, Space(2, 3)))[1]
    assert proposed.tolist() == [
        [[0, 0], [0, 1], [0, 2], [1, 0]],
        [[1, 1], [1, 2], [2, 0], [2, 1]],
        [[2, 2], [2, 2], [2, 2], [2, 2]],
    ]


@pytest.mark.parametrize("count", [1, 4, 7, 64, 100])
def test_exhaustive_search_visits_every_candidate_once(count):
    settings = SETTINGS._replace(candidates=count)
    _, candidates, _ = program("exhaustive", SPACE, settings)(jax.random.key(0), landscape(0))
    visited = numbers(SPACE, candidates).ravel()
    np.testing.assert_array_equal(visited, np.minimum(np.arange(visited.size), 63))
    assert visited.size - count < 64 <= visited.size


@pytest.mark.parametrize("space", [Space(1, 2**31 - 1), Space(30, 2)])
def test_the_largest_spaces_are_counted_without_overflow(space):
    strategy = STRATEGIES["exhaustive"](space, SETTINGS._replace(candidates=1000))
    size = space.operators**space.layers
    state = strategy.init(None)
    for step in (strategy.steps - 1, strategy.steps, strategy.steps + 5):
        proposed = numbers(space, strategy.propose(jax.random.key(0), state._replace(step=jnp.int32(step))))
        first = (strategy.steps - 1) * 1000
        np.testing.assert_array_equal(proposed, np.minimum(first + np.arange(1000), size - 1))


@pytest.mark.parametrize("space", [Space(1, 2**31), Space(31, 2), Space(1000, 40)])
def test_spaces_beyond_an_index_are_refused(space):
    with pytest.raises(ValueError, match=r"2\^31 candidates or more"):
        STRATEGIES["exhaustive"](space, SETTINGS)
