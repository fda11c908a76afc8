"""The second stage of SAFS (Loni et al. 2023, arXiv:2305.10964): α and β are trained, and the training is tuned.

Two networks of every pipeline are tuned, each by itself: with the default activation functions, and with those of the
first stage. What was tried stands in a storage of Optuna, which several machines may share.
"""

import socket
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparse_jax.config import LEARNING_RATES
from sparse_jax.search.ranges import Ranges, Values
from sparse_jax.search.safs_networks import Start
from sparse_jax.search.safs_plan import Pipeline, values_of
from sparse_jax.search.safs_stage1 import Operators
from sparse_jax.search.safs_work import (
    End,
    Tuned,
    Work,
    begin,
    choices_of,
    identity,
    named,
    scores_of,
    training_flops,
    untuned,
)
from sparse_jax.search.side_by_side import SideBySide, StoppedError
from sparse_jax.search.tuner import Trial, Tuner
from sparse_jax.study.grid import digest

STAGE2, BOTH = "stage2", "both"
POLL = 2.0  # seconds between two looks at what other machines have in hand
LOST = 10  # times the usual time of a trial, after which another machine's counts as lost; LEAST seconds at least
LEAST = 600.0


class Arm(NamedTuple):
    """One network of a pipeline that is tuned."""

    stage: str  # STAGE2 or BOTH
    pipeline: Pipeline
    start: Start
    operators: Operators
    tuner: Tuner


def tune(
    work: Work, starts: Sequence[Start], found: Sequence[Operators], program: SideBySide, storage: Any
) -> list[dict[str, End]]:
    """How the networks with trained α and β are to be trained at the end, by pipeline and column.

    Args:
      work: the search.
      starts: by pipeline.
      found: the operators of the first stage, by pipeline.
      program: in which trials are trained.
      storage: of `storage.open_storage`.

    Raises:
      StoppedError: it was interrupted.
    """
    pipelines = list(zip(work.plan.pipelines, starts, found, strict=True))
    arms = [
        Arm(stage, pipeline, start, operators, _tuner(work, stage, pipeline, operators, storage))
        for pipeline, start, own in pipelines
        for stage, operators in ((STAGE2, work.plan.default), (BOTH, own))
    ]
    search, trials = work.plan.asked.search, len(arms) * work.plan.asked.search.trials
    made = trials - sum(arm.tuner.left() for arm in arms)
    work.meter.advance("stage 2", work.plan.epochs[1] * made)
    while True:
        asked = [(arm, trial) for arm in arms for trial in arm.tuner.ask(search.abreast)]
        if asked:
            _try(work, asked, program, f"stage 2, {made + len(asked)} of {trials}: {_best(arms)}")
            made += len(asked)
        elif not _waits(work, arms):
            break
    ends = [End(arm.operators, True, _chosen(arm)) for arm in arms]
    return [{STAGE2: ends[at], BOTH: ends[at + 1]} for at in range(0, len(ends), 2)]


def _tuner(work: Work, stage: str, pipeline: Pipeline, operators: Operators, storage: Any) -> Tuner:
    search, choices = work.plan.asked.search, choices_of(work.plan)
    ends = [(ends[0], ends[-1]) for ends in (search.tuned_rates, search.tuned_momenta, search.tuned_weight_decays)]
    usual = untuned(pipeline.candidate)
    factor = usual.learning_rate / LEARNING_RATES[usual.optimizer]
    what = digest([values_of(work.plan.asked), work.dataset, stage, named(work.plan, operators)])
    return Tuner(
        storage,
        name=f"{what}-{stage}-{pipeline.id}",
        ranges=Ranges(choices.optimizers, *ends, choices.lr_schedules),
        sampler=search.sampler,
        pruner=search.pruner,
        seed=pipeline.run.config.seed,
        trials=search.trials,
        rungs=work.plan.epochs[1],
        worker=f"{socket.gethostname()}:{work.workdir}",
        first=Values(usual.optimizer, factor, *usual[2:]),
    )


def _tuned(values: Values) -> Tuned:
    rate = LEARNING_RATES[values.optimizer] * values.rate_factor
    return Tuned(values.optimizer, rate, values.momentum, values.weight_decay, values.lr_schedule)


def _try(work: Work, asked: Sequence[tuple[Arm, Trial]], program: SideBySide, told: str) -> None:
    """Train trials, write what they are worth, and tell it; those whose line a killed process wrote are told only."""
    lines = {(line["stage"], line["pipeline"], line["trial"]): line for line in work.records.lines if "trial" in line}
    new = []
    for arm, trial in asked:
        line = lines.get((arm.stage, arm.pipeline.id, trial.number))
        if line is not None and _tuned(trial.values)._asdict() == {name: line[name] for name in Tuned._fields}:
            _tell(arm, trial, line)
        else:  # not tried here yet: the same number may be another trial of another storage
            new.append((arm, trial))
    for some in program.portions(new):
        _train(work, some, program, told)


def _train(work: Work, trials: Sequence[tuple[Arm, Trial]], program: SideBySide, told: str) -> None:
    """Train trials, no more than the program has lanes for, write what they are worth, and tell it."""
    search, epochs = work.plan.asked.search, work.plan.epochs[1]

    def rung(epoch: int, places: list[int], accuracies: list[float]) -> list[bool]:
        reports = zip(places, accuracies, strict=True)
        return [trials[at][0].tuner.report(trials[at][1], epoch, accuracy) for at, accuracy in reports]

    begun = [
        begin(work.plan, arm.pipeline, arm.pipeline.candidate, arm.start.sparse,
              End(arm.operators, True, _tuned(trial.values)))
        for arm, trial in trials
    ]  # fmt: skip
    trained = program.train(begun, work.watch(told), rung=rung if search.pruner != "none" else None)
    lines = [
        {
            "stage": arm.stage, **identity(arm.pipeline), "trial": trial.number,
            "operators": named(work.plan, arm.operators), **_tuned(trial.values)._asdict(), **scores_of(one),
            "stopped": one.epochs < epochs,
            "flops": training_flops(arm.pipeline.candidate, arm.start.sparse.masks, one.epochs),
        }
        for (arm, trial), one in zip(trials, trained, strict=True)
    ]  # fmt: skip
    work.records.add(lines)
    for (arm, trial), line in zip(trials, lines, strict=True):
        _tell(arm, trial, line)


def _tell(arm: Arm, trial: Trial, line: Mapping[str, Any]) -> None:
    if line["stopped"]:
        arm.tuner.stopped(trial, line["accuracy"])
    else:
        arm.tuner.tell(trial, None if line["diverged"] else line["accuracy"])


def _best(arms: Sequence[Arm]) -> str:
    found = [best.accuracy for arm in arms if (best := arm.tuner.best()) is not None]
    return f"best {100 * sum(found) / len(found):.1f} % on average" if found else "the first trials"


def _chosen(arm: Arm) -> Tuned:
    """The best hyper-parameters; as they were asked for, with a word, if with all of them the network diverged."""
    best = arm.tuner.best()
    if best is not None:
        return _tuned(best.trial.values)
    print(f"note: all trials of {arm.stage} of {arm.pipeline.id} diverged: it is not tuned", file=sys.stderr)
    return untuned(arm.pipeline.candidate)


def _waits(work: Work, arms: Sequence[Arm]) -> bool:
    """Whether other machines have trials in hand; those that take far too long are given up, to be asked for again."""
    if not any(arm.tuner.waiting() for arm in arms):
        return any(arm.tuner.left() for arm in arms)
    usual = [line["seconds"] for line in work.records.lines if "trial" in line]
    patience = max(LEAST, LOST * statistics.median(usual)) if usual else LEAST
    for arm in arms:
        if lost := arm.tuner.reclaim(patience):
            print(f"note: {len(lost)} trials of {lost[0].worker} are given up: no result came", file=sys.stderr)
    work.meter.advance("stage 2: waiting for the trials of other machines", 0)
    time.sleep(POLL)
    if work.interrupt.asked:
        raise StoppedError
    return True
