"""The first stage of SAFS (Loni et al. 2023, arXiv:2305.10964): which operator has which layer.

It is a function of the scores that candidates.jsonl holds, so that a search that was stopped, at any moment, goes
through them again without training, and then takes the course that it would have taken.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from sparse_jax.search.rounds import Settings, Space
from sparse_jax.search.safs_networks import Start
from sparse_jax.search.safs_work import SCORES, End, Work, begin, identity, named, scores_of, training_flops, untuned
from sparse_jax.search.side_by_side import SideBySide
from sparse_jax.search.strategies import STRATEGIES
from sparse_jax.training.parts import SEARCH

STAGE1 = "stage1"
Operators = tuple[int, ...]  # of every layer, by index
Asked = tuple[int, Operators]  # the place of a pipeline, and a candidate of it


def find_operators(work: Work, starts: Sequence[Start], program: SideBySide) -> list[Operators]:
    """The operators of the highest validation accuracy that the first stage finds, by pipeline.

    Pipelines search side by side, each by itself. A candidate begins with the network of its pipeline, and is trained
    with α = β = 1 and the hyper-parameters that were asked for. What has been scored is not trained again.

    Args:
      work: the search.
      starts: by pipeline.
      program: in which candidates are trained.

    Raises:
      StoppedError: it was interrupted.
    """
    search, plan = work.plan.asked.search, work.plan
    settings = Settings(
        search.candidates, search.steps, search.lahc_history, search.annealing_from,
        search.annealing_to / search.annealing_from, search.tournament, search.mutation,
    )  # fmt: skip
    strategy = STRATEGIES[search.strategy](Space(plan.layers, len(search.operators)), settings)
    init, propose, accept = (jax.jit(jax.vmap(part)) for part in (strategy.init, strategy.propose, strategy.accept))
    seeds = np.array([pipeline.run.config.seed for pipeline in plan.pipelines], np.uint32)
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), SEARCH))(seeds)
    in_round = jax.jit(jax.vmap(jax.random.fold_in, (0, None)))
    state, scores = init(in_round(keys, strategy.steps)), _Scores(work, starts, program)
    for step in range(strategy.steps):
        now = in_round(keys, step)
        candidates = np.asarray(propose(now, state))
        accuracies = scores.of(step, strategy.steps, candidates)
        state = accept(now, state, candidates, np.float32(1 - accuracies))
    return [tuple(map(int, best)) for best in np.asarray(state.best.candidate)]


class _Scores:
    """How candidates did: read from the records, or trained for, and then written there."""

    def __init__(self, work: Work, starts: Sequence[Start], program: SideBySide) -> None:
        self._work, self._starts, self._program = work, starts, program
        places = {pipeline.id: place for place, pipeline in enumerate(work.plan.pipelines)}
        lines = [line for name in places for line in work.records.of(STAGE1, name)]
        self._told = {(places[line["pipeline"]], line["step"], line["candidate"]) for line in lines}
        self._known: dict[Asked, dict[str, Any]] = {}
        for line in lines:
            operators = tuple(map(work.plan.operators.index, line["operators"]))
            self._known.setdefault((places[line["pipeline"]], operators), line)

    def of(self, step: int, steps: int, candidates: np.ndarray) -> np.ndarray:
        """float64[pipelines, B], the accuracies of the candidates int32[pipelines, B, layers] of a step of `steps`."""
        asked = [(place, tuple(map(int, one))) for place, own in enumerate(candidates) for one in own]
        told = f"stage 1, {step + 1} of {steps}: {self._best()}"
        missing, fresh = [one for one in dict.fromkeys(asked) if one not in self._known], set()
        self._work.meter.advance(told, self._work.plan.epochs[1] * (len(asked) - len(missing)))
        for some in self._program.portions(missing):
            self._known |= self._trained(some, told)
            fresh |= {*some}
            self._work.records.add(self._lines(step, asked, fresh))
        self._work.records.add(self._lines(step, asked, fresh))
        return np.array([self._known[one]["accuracy"] for one in asked]).reshape(candidates.shape[:2])

    def _best(self) -> str:
        """The mean over pipelines of what is best so far."""
        best: dict[int, float] = {}
        for (place, _), scores in self._known.items():
            best[place] = max(best.get(place, 0.0), scores["accuracy"])
        return f"best {100 * sum(best.values()) / len(best):.1f} % on average" if best else "the first candidates"

    def _trained(self, missing: Sequence[Asked], told: str) -> dict[Asked, dict[str, Any]]:
        plan, begun, flops = self._work.plan, [], []
        for at, one in missing:
            pipeline, sparse = plan.pipelines[at], self._starts[at].sparse
            run = pipeline.candidate
            begun.append(begin(plan, pipeline, run, sparse, End(one, False, untuned(run))))
            flops.append(training_flops(run, sparse.masks, run.config.epochs))
        trained = self._program.train(begun, self._work.watch(told))
        scores = ({**scores_of(one), "flops": cost} for one, cost in zip(trained, flops, strict=True))
        return dict(zip(missing, scores, strict=True))

    def _lines(self, step: int, asked: Sequence[Asked], fresh: set[Asked]) -> Iterable[dict[str, Any]]:
        """What is known of a step and not in the records yet; `fresh` are candidates that were trained for it.

        Of equal ones the first is fresh: it is taken out.
        """
        plan = self._work.plan
        count = len(asked) // len(plan.pipelines)
        for number, one in enumerate(asked):
            place, candidate = number // count, number % count
            if one not in self._known or (place, step, candidate) in self._told:
                continue
            self._told.add((place, step, candidate))
            first = one in fresh
            fresh.discard(one)
            scores = {name: self._known[one][name] for name in (*SCORES, "flops")}
            yield {
                "stage": STAGE1, **identity(plan.pipelines[place]), "step": step, "candidate": candidate,
                "operators": named(plan, one[1]), **scores, **({} if first else {"seconds": 0.0, "flops": 0.0}),
                "known": not first,
            }  # fmt: skip
