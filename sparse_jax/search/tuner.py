"""The tuning of hyper-parameters, as in the second stage of SAFS (Loni et al. 2023, arXiv:2305.10964): ask and tell.

A study is a list of trials in a storage of Optuna, of which each change is one that happens whole or not at all. What
comes next is a function of that list alone (proposals.py), so that a search goes on after a kill at any moment as it
would have without, if trainings give the same accuracies again. Several workers may share a study. This imports Optuna:
where it may be absent, `ranges.check_packages` comes first.
"""

import json
import math
import time
from typing import Any, NamedTuple

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sparse_jax.errors import UserError, unknown
from sparse_jax.search.proposals import (
    DIVERGED,
    FIRST,
    FOLLOW,
    PLACE,
    PRUNERS,
    RUNG,
    SINCE,
    WORKER,
    distributions_of,
    members,
    propose,
    stops,
    valid,
)
from sparse_jax.search.ranges import Ranges, Values, check_packages, check_ranges, clipped
from sparse_jax.search.storage import quiet


class Trial(NamedTuple):
    """One setting of the hyper-parameters, to be trained."""

    number: int  # of the study; numbers may be left out
    values: Values


class Best(NamedTuple):
    """The trial that a study has found."""

    trial: Trial
    accuracy: float


class Waiting(NamedTuple):
    """A trial that another worker has in hand."""

    number: int
    worker: str
    seconds: float  # since it was handed out


class Tuner:
    """One study, which maximises the accuracy on the validation part.

    Its first trial is the untuned one, as it is: the samplers take its numbers for the nearest within the ranges. No
    pruner stops it, so that the best trial is no worse than without tuning.

    Args:
      storage: as open_storage has it; several studies may share one.
      name: of the study, in its storage.
      ranges: what is chosen from.
      sampler: a name of SAMPLERS.
      pruner: a name of PRUNERS.
      seed: not negative.
      trials: how many the study has, those that diverged and those that were stopped among them.
      rungs: the last step at which trials report.
      worker: who asks: unique among those alive, the same after a restart.
      first: the untuned values.

    Raises:
      UserError: a name is unknown, a package absent, the ranges are empty or lack an untuned name, or the study was
        begun with other settings.
    """

    def __init__(
        self, storage: BaseStorage, name: str, ranges: Ranges, sampler: str, pruner: str, seed: int, trials: int,
        rungs: int, worker: str, first: Values,
    ) -> None:  # fmt: skip
        check_packages(sampler)
        check_ranges(ranges, first)
        if pruner not in PRUNERS:
            raise unknown("pruner", pruner, PRUNERS)
        self._storage, self._name, self._ranges, self._sampler, self._pruner = storage, name, ranges, sampler, pruner
        self._seed, self._most, self._rungs, self._worker, self._first = seed, trials, rungs, worker, first
        self._in_hand: set[int] = set()  # what this object has handed out
        with quiet():
            optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        self._id = storage.get_study_id_from_name(name)
        self._check_settings()

    def ask(self, count: int) -> list[Trial]:
        """Up to `count` trials to train side by side; fewer, or none, where the study has no more left.

        What a killed predecessor of this worker had in hand comes first, and what it was about to ask for: a round
        that was begun is ended as it was, before another is asked for.
        """
        trials = self._trials()
        ours = [trial for trial in members(trials) if trial.user_attrs[WORKER] == self._worker]
        left_over = [trial for trial in ours if _runs(trial) and trial.number not in self._in_hand]
        found, wanted = [trial for trial in left_over[:count] if self._note(trial.number, SINCE, time.time())], count
        if left_over:
            unasked = left_over[-1].user_attrs[FOLLOW] if left_over[-1] is ours[-1] else 0
            wanted = min(count, len(left_over) + unasked)
        while len(found) < wanted and self._room(trials) > 0:
            number = self._create(trials, wanted - len(found) - 1)
            trials = self._trials()
            if any(trial.number == number for trial in valid(trials)):
                found.append(trials[number])
            else:  # another worker was quicker, with a trial that this one did not know of
                self._set(number, TrialState.FAIL, None)
        self._in_hand |= {trial.number for trial in found}
        return [self._trial(trial) for trial in found]

    def report(self, trial: Trial, rung_step: int, accuracy: float) -> bool:
        """Remember the accuracy of a trial that goes on. True: it is to be stopped, for which `stopped` is called.

        Also True for a trial that was taken from this worker. A report that is made again, after a kill, is answered as
        it was. At the last step nothing is stopped: there would be nothing to gain.

        Args:
          trial: which was handed out.
          rung_step: in [1, rungs], ascending; trials that report at the same step are compared in the order in which
            they do.
          accuracy: there; may be NaN.
        """
        identity, key = self._identity(trial.number), f"{RUNG}{rung_step}"
        try:
            self._storage.set_trial_intermediate_value(identity, rung_step, float(accuracy))
            trials = self._trials()
            known = trials[trial.number].user_attrs
            if key in known:
                return known[key][0]
            stop, noted = stops(self._pruner, self._rungs, self._name, trials, trial.number)
            stop &= rung_step < self._rungs and not known[FIRST]
            self._storage.set_trial_user_attr(identity, key, [stop, noted])
        except UpdateFinishedTrialError:
            return True
        return stop

    def tell(self, trial: Trial, accuracy: float | None) -> bool:
        """End a trial that was trained to its end; with None, or NaN, it diverged, and is never the best.

        Returns:
          Whether it counts: not where the trial has ended already, or was taken from this worker.
        """
        return self._end(trial, TrialState.COMPLETE, accuracy)

    def stopped(self, trial: Trial, accuracy: float) -> bool:
        """End a trial that the pruner stopped, with its last accuracy. Returns as `tell`; never the best."""
        return self._end(trial, TrialState.PRUNED, accuracy)

    def best(self) -> Best | None:
        """The best of the trials that were trained to their end, of equals the first; None as long as there is none."""
        ended = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        if not ended:
            return None
        trial = max(ended, key=lambda trial: trial.value)
        return Best(self._trial(trial), trial.value)

    def left(self) -> int:
        """How many trials nobody has asked for yet."""
        return max(self._room(self._trials()), 0)

    def waiting(self) -> list[Waiting]:
        """The trials that other workers have in hand, alive or dead."""
        now = time.time()
        return [
            Waiting(trial.number, trial.user_attrs[WORKER], now - trial.user_attrs[SINCE])
            for trial in members(self._trials())
            if _runs(trial) and trial.user_attrs[WORKER] != self._worker
        ]

    def reclaim(self, older_than_seconds: float) -> list[Waiting]:
        """Give up what other workers have had in hand for longer: others are asked for in their stead.

        Should such a worker be alive, it is told so when it reports or tells. The clocks of the workers have to agree
        better than the seconds given.

        Returns:
          What was given up.
        """
        old = [trial for trial in self.waiting() if trial.seconds > older_than_seconds]
        return [trial for trial in old if self._set(trial.number, TrialState.FAIL, None)]

    # --- what the storage has ----------------------------------------------------------------------

    def _check_settings(self) -> None:
        """A study goes on as it was begun; only `trials` may differ."""
        settings = {
            "ranges": self._ranges, "sampler": self._sampler, "pruner": self._pruner, "seed": self._seed,
            "rungs": self._rungs, "first": self._first,
        }  # fmt: skip
        ours, known = json.loads(json.dumps(settings)), self._storage.get_study_user_attrs(self._id)
        for key, value in ours.items():
            if key not in known:
                self._storage.set_study_user_attr(self._id, key, value)
            elif known[key] != value:
                raise UserError(
                    f"the study {self._name} was begun with {key} {known[key]}, not {value}: go on with that, or use "
                    "another storage"
                )

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def _identity(self, number: int) -> int:
        """What the storage calls a trial."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _room(self, trials: list[FrozenTrial]) -> int:
        return self._most - len(members(trials))

    def _trial(self, trial: FrozenTrial) -> Trial:
        return Trial(trial.number, self._first if trial.user_attrs[FIRST] else Values(**trial.params))

    def _create(self, trials: list[FrozenTrial], follow: int) -> int:
        """The number of a new trial after these, which may turn out not to be valid."""
        first = not any(trial.user_attrs[FIRST] for trial in members(trials))
        values = self._first if first else propose(self._sampler, self._seed, self._ranges, trials)
        attributes = {
            WORKER: self._worker, PLACE: len(valid(trials)), FOLLOW: follow, FIRST: first, SINCE: time.time(),
        }  # fmt: skip
        trial = create_trial(
            state=TrialState.RUNNING, params=clipped(self._ranges, values)._asdict(),
            distributions=distributions_of(self._ranges), user_attrs=attributes,
        )  # fmt: skip
        return self._storage.get_trial(self._storage.create_new_trial(self._id, trial)).number

    def _end(self, trial: Trial, state: TrialState, accuracy: float | None) -> bool:
        if accuracy is not None and not math.isnan(accuracy):
            return self._set(trial.number, state, [float(accuracy)])
        return self._note(trial.number, DIVERGED, True) and self._set(trial.number, TrialState.FAIL, None)

    def _note(self, number: int, key: str, value: Any) -> bool:
        """Whether the trial had not ended before."""
        try:
            self._storage.set_trial_user_attr(self._identity(number), key, value)
        except UpdateFinishedTrialError:
            return False
        return True

    def _set(self, number: int, state: TrialState, values: list[float] | None) -> bool:
        """Whether the trial had not ended before."""
        try:
            return self._storage.set_trial_state_values(self._identity(number), state, values)
        except UpdateFinishedTrialError:
            return False


def _runs(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING
