"""The tuner: its course with and without kills, several workers, pruning, where it is remembered."""

import itertools
import logging
import math
import random
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import optuna
import pytest
import sqlalchemy
from optuna.pruners import HyperbandPruner
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from sparse_jax.config import PRUNERS as PRUNER_NAMES
from sparse_jax.config import SAMPLERS as SAMPLER_NAMES
from sparse_jax.errors import UserError
from sparse_jax.search import ranges as ranges_module
from sparse_jax.search import storage as storage_module
from sparse_jax.search.proposals import FIRST, PLACE, PRUNERS, SAMPLERS, members, mixed, propose, valid
from sparse_jax.search.ranges import PACKAGES, Ranges, Values, check_packages, check_ranges, clipped
from sparse_jax.search.storage import JOURNAL, open_storage, quiet
from sparse_jax.search.tuner import Trial, Tuner
from tests.program import ROOT

RANGES = Ranges(("sgd", "adam", "adamw"), (0.1, 10.0), (0.8, 0.99), (1e-6, 1e-2), ("constant", "cosine"))
FIRST_VALUES = Values("adam", 1.0, 0.9, 0.0, "constant")  # a weight decay below the range
ROUND = 4
PIPES = ("stdin", "stdout", "stderr")
WRITES = (
    "create_new_study", "set_study_user_attr", "create_new_trial", "set_trial_user_attr",
    "set_trial_intermediate_value", "set_trial_state_values",
)  # fmt: skip


def tuner_of(storage, **changes):
    settings = {
        "name": "study", "ranges": RANGES, "sampler": "random", "pruner": "none", "seed": 3, "trials": 12, "rungs": 4,
        "worker": "a", "first": FIRST_VALUES,
    }  # fmt: skip
    return Tuner(storage, **settings | changes)


def accuracy(values, share=1.0):
    """What a training would give; half of those with sgd diverge."""
    if values.optimizer == "sgd" and values.momentum > 0.9:
        return None
    return share * (0.9 - 0.05 * (math.log10(values.rate_factor) - 0.4) ** 2 - abs(values.momentum - 0.9))


def train(tuner, trials):
    """Trainings side by side that report at every rung."""
    alive, rungs = list(trials), tuner._rungs
    for step in range(1, rungs + 1):
        for trial in list(alive):
            found = accuracy(trial.values, step / rungs)
            if found is None:
                alive.remove(trial)
                tuner.tell(trial, None)
            elif tuner.report(trial, step, found):
                alive.remove(trial)
                tuner.stopped(trial, found)
    for trial in alive:
        tuner.tell(trial, accuracy(trial.values))


def search(tuner, count=ROUND):
    while batch := tuner.ask(count):
        train(tuner, batch)
    return tuner


def records(tuner):
    return tuner._storage.get_all_trials(tuner._id)


def course(tuner):
    """All that a study is but its clocks."""
    return [
        (trial.number, trial.state.name, trial.values, trial.params, trial.intermediate_values)
        for trial in records(tuner)
    ]


# --- names, packages and ranges --------------------------------------------------------------------


def test_the_names_are_those_of_the_settings():
    assert tuple(SAMPLERS) == tuple(PACKAGES) == SAMPLER_NAMES
    assert tuple(PRUNERS) == PRUNER_NAMES


@pytest.mark.parametrize(
    ("absent", "sampler", "message"),
    [
        ("optuna", "tpe", r"the sampler tpe needs Optuna: pip install -e '\.\[search\]'$"),
        ("smac", "smac", r"the sampler smac needs SMAC3: pip install -e '\.\[smac\]'$"),
    ],
)
def test_a_package_that_is_not_there_is_named(absent, sampler, message, monkeypatch):
    monkeypatch.setattr(ranges_module, "find_spec", lambda name: None if name == absent else object())
    with pytest.raises(UserError, match=message):
        check_packages(sampler)
    monkeypatch.setattr(ranges_module, "find_spec", lambda name: None if name == "smac" else object())
    check_packages("tpe")


@pytest.mark.parametrize(("kind", "name", "near"), [("sampler", "tp", "tpe"), ("pruner", "hyper", "hyperband")])
def test_an_unknown_name_is_refused(kind, name, near):
    with pytest.raises(UserError, match=rf"unknown {kind} '{name}'\. Did you mean '{near}'\?"):
        tuner_of(InMemoryStorage(), **{kind: name})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momenta": (0.9, 0.8)}, "momenta to tune within: 0.9 to 0.8 is empty"),
        ({"rate_factors": (math.nan, 1.0)}, "is empty"),
        ({"weight_decays": (0.0, 0.1)}, "weight_decays to tune within: 0 has no logarithm"),
        ({"rate_factors": (-1.0, 0.1)}, "rate_factors to tune within: -1 has no logarithm"),
        ({"optimizers": ("sgd",)}, "optimizers to tune among: adam of the untuned trial is not among them, add it"),
        ({"lr_schedules": ()}, "lr_schedules to tune among: constant of the untuned"),
    ],
)
def test_ranges_that_hold_nothing_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        check_ranges(RANGES._replace(**changes), FIRST_VALUES)


def test_values_are_moved_into_their_ranges():
    assert clipped(RANGES, FIRST_VALUES) == FIRST_VALUES._replace(weight_decay=1e-6)
    assert clipped(RANGES, Values("sgd", 99.0, 0.5, 0.5, "cosine")) == Values("sgd", 10.0, 0.8, 0.01, "cosine")
    inside = Values("sgd", 10.0, 0.99, 1e-6, "cosine")
    assert clipped(RANGES, inside) == inside


# --- the course ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_asks_for_the_untuned_trial_and_then_within_the_ranges(sampler):
    tuner = tuner_of(InMemoryStorage(), sampler=sampler, trials=18)
    rounds = []
    while batch := tuner.ask(ROUND):
        assert tuner.left() == 18 - sum(map(len, rounds)) - len(batch)
        rounds.append(batch)
        train(tuner, batch)
    trials = list(itertools.chain(*rounds))
    assert [len(batch) for batch in rounds] == [4, 4, 4, 4, 2]
    assert trials[0] == Trial(0, FIRST_VALUES)
    assert [trial.number for trial in trials] == list(range(18))
    assert len({trial.values for trial in trials}) == 18
    for trial in trials[1:]:
        assert clipped(RANGES, trial.values) == trial.values
        assert trial.values.optimizer in RANGES.optimizers
        assert trial.values.lr_schedule in RANGES.lr_schedules
    told = {trial: accuracy(trial.values) for trial in trials if accuracy(trial.values) is not None}
    assert len(told) < 18
    assert tuner.best() == max(told.items(), key=lambda item: item[1])
    assert tuner.best().accuracy >= accuracy(FIRST_VALUES)
    assert (tuner.ask(1), tuner.left(), tuner.waiting()) == ([], 0, [])


def test_of_equals_the_first_is_the_best_and_neither_stopped_nor_diverged_ones_are():
    tuner = tuner_of(InMemoryStorage())
    assert tuner.best() is None
    batch = tuner.ask(6)
    tuner.stopped(batch[0], 0.9)
    tuner.tell(batch[1], None)
    tuner.tell(batch[2], math.nan)
    assert tuner.best() is None
    for trial, value in zip(batch[3:], (0.5, 0.7, 0.7), strict=True):
        assert tuner.tell(trial, value)
    assert tuner.best() == (batch[4], 0.7)
    assert not tuner.tell(batch[3], 0.99)  # a trial ends once
    assert not tuner.tell(batch[3], None)
    assert tuner.best() == (batch[4], 0.7)
    assert optuna.load_study(study_name="study", storage=tuner._storage).best_value == 0.7
    states = [trial.state for trial in records(tuner)]
    assert states == [TrialState.PRUNED, *2 * [TrialState.FAIL], *3 * [TrialState.COMPLETE]]
    assert tuner.left() == 6


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_course_is_that_of_the_seed(sampler):
    same, again, other = (
        course(search(tuner_of(InMemoryStorage(), sampler=sampler, seed=seed, trials=14, rungs=1)))
        for seed in (3, 3, 4)
    )
    assert same == again
    assert [trial[3] for trial in same][1:] != [trial[3] for trial in other][1:]


def test_more_trials_are_the_same_course():
    storage = InMemoryStorage()
    search(tuner_of(storage, sampler="tpe", trials=8))
    assert [tuner_of(storage, sampler="tpe", trials=trials).left() for trials in (7, 9)] == [0, 1]
    longer = course(search(tuner_of(storage, sampler="tpe", trials=16)))
    assert longer == course(search(tuner_of(InMemoryStorage(), sampler="tpe", trials=16)))


def test_no_two_trials_have_the_same_seed():
    seeds = [mixed(seed, number) for seed in range(40) for number in range(40)]
    assert len(set(seeds)) == 1600
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_tpe_learns_from_what_it_was_told_also_that_something_diverges():
    """A quarter of the learning rates is good; with sgd all diverges. Random search has a quarter, and a third."""
    tuner = tuner_of(InMemoryStorage(), sampler="tpe", trials=60)
    asked = []
    while batch := tuner.ask(ROUND):
        asked += batch
        for trial in batch:
            good = 0.25 < math.log10(trial.values.rate_factor) < 0.75
            tuner.tell(trial, None if trial.values.optimizer == "sgd" else 0.5 + 0.3 * good)
    later = [trial.values for trial in asked[30:]]
    assert sum(0.25 < math.log10(values.rate_factor) < 0.75 for values in later) > 15
    assert sum(values.optimizer == "sgd" for values in later) < 5


def test_numbers_are_drawn_evenly_or_by_their_logarithm():
    drawn = [propose("random", seed, RANGES, []) for seed in range(200)]
    for name, middle, tolerance in (("rate_factor", 1.0, 2.0), ("weight_decay", 1e-4, 3.0), ("momentum", 0.895, 1.02)):
        median = sorted(getattr(values, name) for values in drawn)[100]
        assert middle / tolerance < median < middle * tolerance


def test_a_sampler_sees_what_belongs_to_the_study_and_of_what_diverged_that_it_is_bad(monkeypatch):
    seen = []

    class Seeing(RandomSampler):
        def before_trial(self, study, trial):
            seen.append([(other.state, other.value) for other in study.trials[:-1]])

    monkeypatch.setitem(SAMPLERS, "random", lambda distributions, seed, place: Seeing(seed))
    storage = InMemoryStorage()
    ours, theirs = tuner_of(storage), tuner_of(storage, worker="b")
    first, *given_up = ours.ask(3)
    theirs.reclaim(-1)
    complete, diverged, pruned, running = theirs.ask(4)
    assert [first.values, complete.values] == 2 * [FIRST_VALUES]
    theirs.tell(complete, 0.5)
    theirs.tell(diverged, None)
    theirs.report(pruned, 1, 0.25)
    theirs.stopped(pruned, 0.25)
    in_vain = records(theirs)[running.number]
    storage.create_new_trial(theirs._id, in_vain)
    theirs.ask(1)
    states = TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING
    assert seen[-1] == [*zip(states, (0.5, 0.0, 0.25, None), strict=True)]
    assert len(given_up) == 2


def test_a_range_of_one_value_is_that_value():
    ranges = RANGES._replace(momenta=(0.9, 0.9), optimizers=("adam",), weight_decays=(0.01, 0.01))
    tuner = search(tuner_of(InMemoryStorage(), ranges=ranges, sampler="tpe", trials=16))
    drawn = [Values(**trial.params) for trial in records(tuner)]
    assert {(values.optimizer, values.momentum, values.weight_decay) for values in drawn} == {("adam", 0.9, 0.01)}
    assert len({values.rate_factor for values in drawn}) == 16


def test_another_study_of_that_name_is_refused():
    storage = InMemoryStorage()
    tuner_of(storage)
    tuner_of(storage, trials=99, worker="b")
    tuner_of(storage, name="other", seed=4)
    with pytest.raises(UserError, match="the study study was begun with seed 3, not 4: go on with that, or"):
        tuner_of(storage, seed=4)
    with pytest.raises(UserError, match="was begun with first"):
        tuner_of(storage, first=FIRST_VALUES._replace(momentum=0.8))
    with pytest.raises(UserError, match="was begun with ranges"):
        tuner_of(storage, ranges=RANGES._replace(optimizers=("adam", "sgd")))


# --- kills -----------------------------------------------------------------------------------------


class Killed(BaseException):
    """What ends a process where it stands."""


def mortal(storage, monkeypatch, lives):
    """A storage whose user is killed after so many writes, once for each of `lives`; says how many there were."""
    written = itertools.count(1)
    ends = set(itertools.accumulate(lives))

    def deadly(method):
        def write(*arguments, **options):
            result = method(*arguments, **options)
            if next(written) in ends:
                raise Killed
            return result

        return write

    for name in WRITES:
        monkeypatch.setattr(storage, name, deadly(getattr(storage, name)))
    return written


def with_kills(storage, monkeypatch, lives, **changes):
    """The tuner after a search that was killed, begun anew, and killed again."""
    mortal(storage, monkeypatch, lives)
    for _ in range(len(lives) + 1):
        try:
            return search(tuner_of(storage, **changes))
        except Killed:
            continue
    raise AssertionError("more kills than asked for")


def writes_of(monkeypatch, **changes):
    storage = InMemoryStorage()
    with monkeypatch.context() as patch:
        written = mortal(storage, patch, [])
        tuner = search(tuner_of(storage, **changes))
    return course(tuner), next(written) - 1


@pytest.mark.parametrize(
    ("stride", "changes"),
    [
        (1, {"trials": 7, "pruner": "hyperband"}),
        (19, {"trials": 17, "pruner": "hyperband", "sampler": "tpe"}),
        (37, {"trials": 17, "sampler": "tpe"}),
    ],
)
def test_a_search_that_is_killed_anywhere_ends_as_if_it_had_not_been(stride, changes, monkeypatch):
    expected, writes = writes_of(monkeypatch, **changes)
    states = {trial[1] for trial in expected}
    assert states == {"COMPLETE", "FAIL", "PRUNED"} - (set() if "pruner" in changes else {"PRUNED"})
    for last in range(1, writes, stride):
        with monkeypatch.context() as patch:
            assert course(with_kills(InMemoryStorage(), patch, [last], **changes)) == expected, last


def test_a_search_that_is_killed_often_ends_as_if_it_had_not_been(monkeypatch):
    changes, draw = {"trials": 17, "sampler": "tpe", "pruner": "hyperband"}, random.Random(0)
    expected, _ = writes_of(monkeypatch, **changes)
    for _ in range(3):
        lives = [draw.randrange(5, 40) for _ in range(8)]
        with monkeypatch.context() as patch:
            assert course(with_kills(InMemoryStorage(), patch, lives, **changes)) == expected, lives


@pytest.mark.parametrize("url", ["auto", "sqlite:///{}/tuning.db"])
def test_a_storage_on_disk_has_the_same_course(url, tmp_path, monkeypatch):
    changes = {"trials": 6, "pruner": "hyperband", "rungs": 2}
    expected, _ = writes_of(monkeypatch, **changes)

    def opened():
        return open_storage(url.format(tmp_path), tmp_path)

    with monkeypatch.context() as patch:
        storage = opened()
        mortal(storage, patch, [21])
        with pytest.raises(Killed):
            search(tuner_of(storage, **changes))
    assert course(search(tuner_of(opened(), **changes))) == expected


def test_what_was_in_hand_is_handed_out_again_before_anything_else():
    storage = InMemoryStorage()
    before = tuner_of(storage)
    batch = before.ask(ROUND)
    before.tell(batch[1], 0.5)
    after = tuner_of(storage)
    assert after.waiting() == []
    assert after.ask(2) == [batch[0], batch[2]]
    assert after.ask(ROUND) == [batch[3]]  # the rest of that round, alone
    assert [trial.number for trial in after.ask(ROUND)] == [4, 5, 6, 7]
    assert [trial.number for trial in after.ask(ROUND)] == [8, 9, 10, 11]  # while the others are in hand
    assert after.ask(ROUND) == []


# --- several workers -------------------------------------------------------------------------------


def test_workers_see_each_other(tmp_path):
    tuners = [tuner_of(open_storage(f"sqlite:///{tmp_path}/tuning.db", tmp_path), worker=name) for name in "ab"]
    one, two = (tuner.ask(5) for tuner in tuners)
    assert [trial.number for trial in one + two] == list(range(10))
    assert [trial.values for trial in one + two].count(FIRST_VALUES) == 1
    assert [(wait.number, wait.worker) for wait in tuners[0].waiting()] == [(number, "b") for number in range(5, 10)]
    assert [(wait.number, wait.worker) for wait in tuners[1].waiting()] == [(number, "a") for number in range(5)]
    assert [tuner.left() for tuner in tuners] == [2, 2]
    tuners[0].tell(one[0], 0.5)
    tuners[1].tell(two[0], 0.6)
    assert [tuner.best() for tuner in tuners] == 2 * [(two[0], 0.6)]
    assert [len(tuner.ask(5)) for tuner in tuners] == [2, 0]


def test_of_several_that_are_created_at_once_the_first_is_valid():
    """Also if the others go on to be created behind it, none of them keeps the next ones from being valid."""
    places = [0, 0, 0, 1, 2, 1, 1, 2, 3, 5]
    trials = [SimpleNamespace(number=number, user_attrs={PLACE: place}) for number, place in enumerate(places)]
    assert [trial.number for trial in valid(trials)] == [0, 3, 4, 8]


def meanwhile(monkeypatch, tuner, other):
    """Another worker acts once, between what the tuner decides and what it writes."""
    create = tuner._storage.create_new_trial

    def late(*arguments):
        monkeypatch.setattr(tuner._storage, "create_new_trial", create)
        other()
        return create(*arguments)

    monkeypatch.setattr(tuner._storage, "create_new_trial", late)


@pytest.mark.parametrize(("trials", "got"), [(1, 0), (12, 2)])
def test_who_is_quicker_has_the_trial_and_none_is_started_twice(trials, got, tmp_path, monkeypatch):
    one, two = (tuner_of(open_storage("auto", tmp_path), worker=name, trials=trials) for name in "ab")
    theirs = []
    meanwhile(monkeypatch, one, lambda: theirs.extend(two.ask(1)))
    ours = one.ask(2)
    assert [trial.number for trial in theirs] == [0]
    assert [trial.number for trial in ours] == [2, 3][:got]  # 1 was created in ignorance of 0
    assert [trial.values for trial in theirs + ours].count(FIRST_VALUES) == 1
    assert len({trial.values for trial in theirs + ours}) == 1 + got
    assert [trial.number for trial in members(records(one))] == [0, 2, 3][: 1 + got]
    assert {tuner.left() for tuner in (one, two)} == {trials - 1 - got}
    for tuner, batch in ((one, ours), (two, theirs)):
        train(tuner, batch)
    assert len(members(records(search(two)))) == trials
    assert records(one)[1].state == TrialState.FAIL


def test_what_was_created_in_vain_stays_so_if_its_worker_is_killed(tmp_path, monkeypatch):
    one, two = (tuner_of(open_storage("auto", tmp_path), worker=name) for name in "ab")
    meanwhile(monkeypatch, one, lambda: two.ask(1))
    monkeypatch.setattr(one, "_set", lambda *_: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        one.ask(1)
    assert records(two)[1].state == TrialState.RUNNING
    again = tuner_of(open_storage("auto", tmp_path), worker="a")
    assert [wait.number for wait in again.waiting()] == [0]
    assert two.waiting() == []
    assert [trial.number for trial in again.ask(2)] == [2, 3]
    assert again.left() == 12 - 3


def test_what_a_dead_worker_had_is_given_up(tmp_path, monkeypatch):
    tuners = [tuner_of(open_storage("auto", tmp_path), worker=name, trials=4) for name in "ab"]
    lost, ours = tuners[0].ask(3), tuners[1].ask(3)
    assert lost[0].values == FIRST_VALUES
    assert len(ours) == 1
    assert tuners[1].reclaim(100) == []
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 101)
    assert [wait.seconds for wait in tuners[1].waiting()] == pytest.approx(3 * [101], abs=10)
    tuners[0].tell(lost[2], 0.8)
    assert [wait.number for wait in tuners[1].reclaim(100)] == [0, 1]
    assert tuners[1].reclaim(0) == []
    assert tuners[1].left() == 2
    assert tuners[0].report(lost[0], 1, 0.5)  # alive after all: it is told to stop, and its result comes too late
    assert not tuners[0].tell(lost[0], 0.99)
    assert not tuners[0].stopped(lost[1], 0.99)
    assert not tuners[0].tell(lost[1], None)
    assert tuners[1].best() == (lost[2], 0.8)
    instead = tuners[1].ask(5)
    assert [trial.number for trial in instead] == [4, 5]
    assert instead[0].values == FIRST_VALUES  # nobody else would have it
    assert instead[1].values not in [trial.values for trial in lost + ours]
    assert tuners[1].ask(5) == []
    assert [trial.user_attrs[FIRST] for trial in records(tuners[1])] == [True, False, False, False, True, False]


def test_a_worker_that_came_back_is_not_taken_for_dead(monkeypatch):
    storage = InMemoryStorage()
    tuner_of(storage).ask(1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 100)
    tuner_of(storage).ask(1)
    assert tuner_of(storage, worker="b").reclaim(50) == []
    assert len(tuner_of(storage, worker="b").reclaim(-1)) == 1
    assert [trial.number for trial in tuner_of(storage).ask(1)] == [1]


WORKER = f"""
import sys
from pathlib import Path
from sparse_jax.search.ranges import Ranges, Values
from sparse_jax.search.storage import open_storage
from sparse_jax.search.tuner import Tuner
url, folder, trials, worker = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
storage = open_storage(url, Path(folder))
tuner = Tuner(storage, "study", {RANGES}, "random", "none", 3, int(trials), 4, worker, {FIRST_VALUES})
while batch := tuner.ask(3):
    for trial in batch:
        tuner.tell(trial, trial.values.momentum)
"""


@pytest.mark.parametrize(("url", "trials", "names"), [("auto", 20, "abc"), ("sqlite:///{}/tuning.db", 8, "ab")])
def test_processes_share_a_study_that_they_create_at_once_and_one_is_killed(url, trials, names, tmp_path):
    url = url.format(tmp_path)
    command = [sys.executable, "-c", WORKER, url, str(tmp_path), str(trials)]
    pipes = dict.fromkeys(PIPES, subprocess.PIPE)
    processes = [subprocess.Popen([*command, name], cwd=ROOT, text=True, **pipes) for name in names]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes[2:]:
        time.sleep(0.05)
        process.kill()
    for process in processes:
        assert process.communicate(timeout=100)[1] == ""
    assert [process.returncode for process in processes[:2]] == [0, 0]
    tuner = search(tuner_of(open_storage(url, tmp_path), worker="c", trials=trials))
    counted = members(records(tuner))
    assert len(counted) == trials
    assert sum(trial.user_attrs[FIRST] for trial in counted) == 1
    assert len({tuple(trial.params.items()) for trial in counted}) == trials
    assert (tuner.left(), tuner.waiting()) == (0, [])


# --- pruning ---------------------------------------------------------------------------------------


def bracket(name, number, rungs):
    """That of Optuna."""
    pruner = HyperbandPruner(min_resource=1, max_resource=rungs)
    study = optuna.create_study(study_name=name, pruner=pruner)
    pruner.prune(study, optuna.trial.create_trial(value=0.0))
    return pruner._get_bracket_id(study, optuna.trial.FrozenTrial(
        number, TrialState.RUNNING, None, None, None, {}, {}, {}, {}, {}, 0,
    ))  # fmt: skip


def halving(name, reports, rungs, untuned):
    """Asynchronous successive halving (Li et al. 2020, algorithm 2) as Optuna has it: (number, step) -> stops."""
    seen, found = {}, {}
    for number, step, value in reports:
        at, found[number, step] = bracket(name, number, rungs), False
        if step not in (1, 3, 9, 27) or step < 3**at:
            continue
        values = seen.setdefault((at, step), [])
        values.append(value)
        best = sorted(values, reverse=True)[: max(len(values) // 3, 1)]
        found[number, step] = value < best[-1] and step < rungs and number != untuned
    return found


def test_hyperband_stops_those_that_are_not_of_the_better_third():
    with quiet():
        rungs, draw = 9, random.Random(1)
        tuner = tuner_of(InMemoryStorage(), pruner="hyperband", rungs=rungs, trials=30, name="halves")
        assert {bracket("halves", number, rungs) for number in range(30)} == {0, 1, 2}
        reports, answers = [], {}
        while batch := tuner.ask(6):
            alive = list(batch)
            for step in range(1, rungs + 1):
                for trial in list(alive):
                    value = draw.choice([0.2, 0.4, 0.5, 0.6, 0.8])
                    reports.append((trial.number, step, value))
                    answers[trial.number, step] = tuner.report(trial, step, value)
                    assert tuner.report(trial, step, value) == answers[trial.number, step]
                    if answers[trial.number, step]:
                        alive.remove(trial)
                        tuner.stopped(trial, value)
            for trial in alive:
                tuner.tell(trial, 0.5)
        assert answers == halving("halves", reports, rungs, untuned=0)
    stopped = {step for (_, step), stops in answers.items() if stops}
    assert stopped == {1, 3}  # and none at 9, the last
    assert records(tuner)[0].state == TrialState.COMPLETE
    assert 5 < sum(trial.state == TrialState.PRUNED for trial in records(tuner)) < 25


def test_without_a_pruner_nothing_is_stopped():
    tuner = tuner_of(InMemoryStorage())
    trials = tuner.ask(12)
    assert not any(tuner.report(trial, step, 1 / (1 + trial.number)) for step in range(1, 5) for trial in trials)
    assert records(tuner)[3].intermediate_values == dict.fromkeys(range(1, 5), 0.25)


def test_at_the_last_step_nothing_is_stopped():
    tuner = tuner_of(InMemoryStorage(), pruner="hyperband", rungs=3)
    trials = tuner.ask(12)
    assert not any(tuner.report(trial, 3, 1 / (1 + trial.number)) for trial in trials)
    earlier = tuner_of(InMemoryStorage(), pruner="hyperband", rungs=9)
    assert any(earlier.report(trial, 3, 1 / (1 + trial.number)) for trial in earlier.ask(12))


def test_what_diverges_on_the_way_is_stopped_at_a_rung():
    tuner = tuner_of(InMemoryStorage(), pruner="hyperband", rungs=3)  # brackets of 1 and 3
    trials = tuner.ask(6)
    answers = [tuner.report(trial, 1, math.nan) for trial in trials]
    assert answers[0] is False  # the untuned
    assert [not stop for stop in answers[1:]] == [bool(bracket("study", number, 3)) for number in range(1, 6)]


# --- where it is remembered ------------------------------------------------------------------------


def test_nothing_is_said(tmp_path, capfd, caplog, monkeypatch):
    logger = logging.getLogger("optuna")
    monkeypatch.setattr(logger, "propagate", True)  # to where pytest hears it
    optuna.logging.set_verbosity(optuna.logging.INFO)
    search(tuner_of(open_storage("auto", tmp_path), sampler="tpe", trials=13))
    tuner_of(open_storage(f"sqlite:///{tmp_path}/{{braces}}.db", tmp_path))
    assert (tmp_path / "{braces}.db").exists()
    assert (*capfd.readouterr(), caplog.records) == ("", "", [])
    assert logger.level == logging.INFO


def test_a_journal_lies_in_its_folder_and_a_line_cut_short_is_no_harm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w").mkdir()
    whole = search(tuner_of(open_storage("auto", tmp_path / "w"), trials=3))
    assert [path.name for path in (tmp_path / "w").iterdir()] == [JOURNAL]
    journal = tmp_path / "w" / JOURNAL
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "stu')
    relative = (tmp_path / "w").relative_to(tmp_path)
    longer = search(tuner_of(open_storage("auto", relative), trials=6))
    assert len(records(longer)) == 6
    assert course(longer)[:3] == course(whole)[:3]
    assert course(tuner_of(open_storage("auto", relative))) == course(longer)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"a": 1}\n{"b', b'{\n{"a": 1}\n'])
def test_a_line_without_an_end_is_dropped(content, tmp_path):
    path = tmp_path / JOURNAL
    path.write_bytes(content)
    lock = storage_module._Lock(path)
    assert lock.acquire()
    lock.release()
    assert path.read_bytes() == b"".join(line for line in content.splitlines(True) if line.endswith(b"\n"))


def test_a_worker_that_is_killed_while_it_writes_holds_nothing_up(tmp_path):
    open_storage("auto", tmp_path)
    program = (
        "import sys, time; from pathlib import Path; from sparse_jax.search.storage import _Lock\n"
        "lock = _Lock(Path(sys.argv[1])); lock.acquire(); print('has it', flush=True); time.sleep(100)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / JOURNAL)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "has it\n"
    lock = storage_module.fcntl.LOCK_EX | storage_module.fcntl.LOCK_NB
    with (tmp_path / JOURNAL).open("rb+") as file, pytest.raises(BlockingIOError):
        storage_module.fcntl.flock(file, lock)
    process.kill()
    process.communicate()
    begin = time.monotonic()
    assert len(tuner_of(open_storage("auto", tmp_path)).ask(2)) == 2
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:secret@127.0.0.1:1/tuning", r"the storage postgresql://me:\*\*\*@127.0.0.1:1/tuning "),
        ("postgresql+psycopg2://me:secret@h/x", "needs the package psycopg2-binary: pip install 'psycopg2-binary'"),
        ("mysql+pymysql://me:secret@127.0.0.1:1/tuning", r"the storage mysql\+pymysql://me:\*\*\*@127.0.0.1:1/tuning "),
        ("sqlite:///{}/absent/tuning.db", "cannot be opened .unable to open database file.: see that it is there"),
        ("sqlite:///{}/text", "cannot be opened .file is not a database.: see"),
        ("sqlite:///{}/text?passwd=secret", "cannot be opened"),
        ("postgresql+psycopg2://me:{{secret}}@h/x", r"the storage postgresql\+psycopg2://me:\*\*\*@h/x needs"),
        ("sqlite://", "a storage of SQLite without a file forgets all"),
        ("sqlite:///:memory:", "a storage of SQLite without a file forgets all"),
        ("nonsense", "the storage nonsense is no URL of a database, such as"),
        ("", "is no URL of a database"),
        ("postgresql:/me:secret@host", r"the storage postgresql:\.\.\. is no URL"),
        ("postgresql://me:secret@host:port/x", r"the storage postgresql:\.\.\. is no URL"),
        ("postgresql://me:secret", r"the storage postgresql:\.\.\. is no URL"),
        ("postgressql://me:secret@host/x", "unknown database 'postgressql'. Did you mean 'postgresql'?"),
        ("sqlite+nothing:///x.db", "cannot be opened"),
    ],
)
def test_a_storage_that_cannot_be_reached_is_one_line(url, message, tmp_path):
    (tmp_path / "text").write_text("no database " * 100)
    begin = time.monotonic()
    with pytest.raises(UserError, match=message) as caught:
        open_storage(url.format(tmp_path), tmp_path)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert time.monotonic() - begin < 10


def test_what_a_driver_says_is_cut_to_a_line_without_the_password(tmp_path, monkeypatch):
    def refused(url, options):
        raise sqlalchemy.exc.OperationalError("CREATE", {}, Exception("no: 'secret' is wrong\n\tis it running?"))

    monkeypatch.setattr(storage_module, "RDBStorage", refused)
    message = r"the storage sqlite://me:\*\*\*@h/x cannot be opened \(no: '\*\*\*' is wrong\): see that it is there"
    with pytest.raises(UserError, match=message):
        open_storage("sqlite://me:secret@h/x", tmp_path)


def test_tables_that_another_worker_is_creating_are_waited_for(tmp_path, monkeypatch):
    attempts = []

    def late(url, options, made=storage_module.RDBStorage):
        attempts.append(url)
        if len(attempts) < 3:
            raise sqlalchemy.exc.OperationalError("CREATE", {}, Exception("table studies already exists"))
        return made(url, options)

    monkeypatch.setattr(storage_module, "RDBStorage", late)
    tuner_of(open_storage(f"sqlite:///{tmp_path}/tuning.db", tmp_path))
    assert len(attempts) == 3


def test_a_journal_that_cannot_be_written_or_read_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"absent/tuning.journal cannot be written \(No such file or directory\): use"):
        open_storage("auto", tmp_path / "absent")
    (tmp_path / JOURNAL).write_text("no journal\nat all\n")
    with pytest.raises(UserError, match=r"tuning.journal is damaged: delete it to begin the tuning anew"):
        open_storage("auto", tmp_path)


# --- SMAC3 -----------------------------------------------------------------------------------------


@pytest.fixture
def smac(monkeypatch, tmp_path):
    """The module of the sampler, which leaves no file behind."""
    pytest.importorskip("smac")
    from sparse_jax.search import smac_sampler

    monkeypatch.setattr(smac_sampler, "START", 4)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield smac_sampler
    assert list(tmp_path.iterdir()) == []
    assert logging.getLogger("smac").level == logging.NOTSET


def test_smac_asks_within_the_ranges_and_goes_on_after_a_kill(smac, capfd, caplog):
    storage = InMemoryStorage()
    tuner = tuner_of(storage, sampler="smac", trials=8)
    first = tuner.ask(6)  # of the Sobol sequence, also beyond its four as long as nothing was told
    assert first[0].values == FIRST_VALUES
    other = tuner_of(InMemoryStorage(), sampler="smac", trials=8)
    assert [trial.values for trial in other.ask(6)] == [trial.values for trial in first]
    for trial in first[:4]:
        assert tuner.tell(trial, accuracy(trial.values)) == other.tell(trial, accuracy(trial.values))
    last = tuner.ask(1)  # of the model, with two running
    assert tuner_of(storage, sampler="smac", trials=8).ask(9) == [*first[4:], *last]
    assert [trial.values for trial in other.ask(1)] == [trial.values for trial in last]
    for trial in first[1:] + last:
        assert clipped(RANGES, trial.values) == trial.values
        assert {type(value) for value in trial.values} == {str, float}
    assert len({trial.values for trial in first + last}) == 7
    assert (*capfd.readouterr(), caplog.records) == ("", "", [])


def test_smac_learns(smac):
    """The accuracy is that of the momentum, and nothing with adamw: chance has a third without, and a mean of 0.895."""
    tuner = tuner_of(InMemoryStorage(), sampler="smac", trials=19)
    for trial in tuner.ask(12):
        tuner.tell(trial, trial.values.momentum * (trial.values.optimizer != "adamw"))
    found = [trial.values for trial in tuner.ask(4)]
    assert sum(values.optimizer != "adamw" for values in found) >= 3
    assert sum(values.momentum > 0.93 for values in found) >= 3


def test_smac_is_told_that_what_runs_is_as_bad_as_the_worst(smac, monkeypatch):
    told = []
    monkeypatch.setattr(smac, "_next", lambda space, folder, seed, trials, costs: told.append((trials, costs)) or {})
    tuner = tuner_of(InMemoryStorage(), sampler="smac", pruner="hyperband", rungs=9)
    trials = tuner.ask(1)
    tuner.tell(trials[0], 0.5)
    trials += tuner.ask(3)
    assert told == []  # of the start
    trials += tuner.ask(2)
    for trial, value in zip(trials[1:], (0.75, 0.25), strict=False):
        tuner.tell(trial, value)
    told.clear()
    tuner.report(trials[3], 1, 0.125)
    tuner.stopped(trials[3], 0.125)
    tuner.ask(1)
    assert [sorted(costs) for _, costs in told] == [[0.25, 0.5, 0.75, 0.875, 0.875, 0.875]]
    assert len(told[0][0]) == 6
    tuner.tell(trials[4], None)
    tuner.ask(1)
    assert sorted(told[1][1]) == [0.25, 0.5, 0.75, 0.875, 1, 1, 1]  # what diverged has accuracy 0


def test_smac_goes_on_where_all_was_tried(smac, monkeypatch):
    monkeypatch.setattr(smac, "START", 6)
    ranges = Ranges(("sgd", "adam"), (1.0, 1.0), (0.9, 0.9), (1e-4, 1e-4), ("constant", "cosine"))
    tuner = tuner_of(InMemoryStorage(), sampler="smac", trials=8, ranges=ranges)
    search(tuner)
    assert len({tuple(trial.params.items()) for trial in records(tuner)}) == 4
    alone = ranges._replace(optimizers=("adam",), lr_schedules=("constant",))
    assert len(records(search(tuner_of(InMemoryStorage(), sampler="smac", trials=6, ranges=alone)))) == 6
