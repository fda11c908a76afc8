"""Experiments on the networks of finished runs, on many of a cohort at once, and what is recorded of them."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sparse_jax.analysis import ablation
from sparse_jax.analysis.ablation import AblationParts, make_ablation
from sparse_jax.analysis.curves import bounds, cuts_of, spearman
from sparse_jax.analysis.importance import ORDERS, ranks, shuffled
from sparse_jax.config import DECILES, SHARED_WEIGHT, SHARED_WEIGHTS, AblationConfig
from sparse_jax.study.ablate import Experiment
from sparse_jax.study.group import lane_of
from sparse_jax.study.rows import number, share
from sparse_jax.study.subjects import Subject, TrainedCohort
from sparse_jax.training.cohort import over_runs, place, replicate
from sparse_jax.training.hardware import Hardware
from sparse_jax.training.state import HyperParams, Tally


class Chunk(NamedTuple):
    """Networks under examination: what the experiments on them share."""

    parts: AblationParts
    subjects: tuple[Subject, ...]
    hyper: HyperParams  # with a leading axis of networks, padded
    width: int
    mesh: jax.sharding.Mesh
    layout: str
    data: Any  # on the devices
    rows: tuple[np.ndarray, np.ndarray]
    examples: np.ndarray  # int32[], for scores
    request: AblationConfig
    programs: dict[tuple, Callable]  # of the cohort; those that are compiled already

    def compiled(self, per_run: int, function: Callable, *static: Any) -> Callable:
        """A function of one network, for all of them: of `parts`, `static`, `per_run` arguments and shared ones."""
        key = function.__name__, *static, self.mesh.size
        if key not in self.programs:
            one = functools.partial(function, self.parts, *static)
            self.programs[key] = jax.jit(over_runs(one, self.layout, self.mesh, per_run))
        return self.programs[key]

    def placed(self, trees: Sequence[Any]) -> Any:
        """One tree a network, with a leading axis, on the devices."""
        return place(jax.tree.map(lambda *leaves: np.stack(leaves), *trees), self.width, self.mesh)

    def score(self, tally: Tally) -> dict[str, Any]:
        """Accuracy and loss on the rows; both None where the loss is not finite, as after training that diverged."""
        if not np.isfinite(tally.loss):
            return {"accuracy": None, "loss": None}
        return {"accuracy": share(tally.correct, self.rows[1] - self.rows[0]), "loss": number(tally.loss)}


def make_lay_out(
    cohort: TrainedCohort, layers: tuple[str, ...], hardware: Hardware, request: AblationConfig
) -> Callable[[Sequence[Subject]], Chunk]:
    """(networks) -> the chunk of them; all of a cohort share programs and data."""
    variants = max(len(request.fractions), len(SHARED_WEIGHTS), DECILES + 1)
    parts = make_ablation(cohort.config, cohort.problem, layers, hardware.abreast(cohort.kernel_bytes, variants))
    rows = tuple(np.int32(row) for row in cohort.rows(request.part))
    examples, programs = np.int32(min(request.examples, cohort.sizes[0])), {}

    @functools.cache
    def data_on(mesh: jax.sharding.Mesh) -> Any:
        return replicate(cohort.data, mesh)

    def lay_out(subjects: Sequence[Subject]) -> Chunk:
        mesh, width = hardware.place(len(subjects))
        hyper = place(jax.tree.map(lambda *leaves: np.stack(leaves), *(one.hyper for one in subjects)), width, mesh)
        of_all = data_on(mesh), rows, examples, request, programs
        return Chunk(parts, tuple(subjects), hyper, width, mesh, hardware.layout, *of_all)

    return lay_out


def conduct(chunk: Chunk, experiments: Sequence[Experiment]) -> Iterator[tuple[Experiment, list[dict[str, Any]]]]:
    """Every experiment with its record of each of the networks, in their order."""
    for kind, conducted in _CONDUCTED.items():
        some = [one for one in experiments if one.kind == kind]
        for experiment, records in conducted(chunk, some) if some else ():
            settings = experiment.settings(chunk.request)
            yield experiment, [{"settings": settings} | record for record in records]


Found = Iterator[tuple[Experiment, list[dict[str, Any]]]]


def _orders(chunk: Chunk, experiments: Sequence[Experiment]) -> Found:
    """Connections removed in an order."""
    names = tuple(dict.fromkeys(one.name for one in experiments))
    exact, more = _exact(chunk) if "leave_one_out" in names else (_nothing(chunk), [{}] * len(chunk.subjects))
    scored = _scored(chunk, names, exact)
    for one in experiments:
        ranked = chunk.placed([_ranked(chunk, of_run, one.scope) for of_run in scored[one.name]])
        cuts = cuts_of(one.name, chunk.request.fractions)
        counts = [_candidates(chunk, subject, one.name) for subject in chunk.subjects]
        ends = chunk.placed([_ends(cuts, of_layers, one.scope) for of_layers in counts])
        curve = chunk.compiled(3, ablation.curve)
        host = jax.device_get(curve(chunk.hyper, ranked, ends, chunk.data, chunk.rows, _steps(one)))
        yield one, [
            {"connections": sum(counts[lane].values()), "points": _points(chunk, cuts, lane_of(host, lane))}
            | (more[lane] if one.name == "leave_one_out" else {})
            for lane in range(len(counts))
        ]


def _scored(chunk: Chunk, names: tuple[str, ...], exact: Any) -> dict[str, list[ablation.Scored]]:
    """The orders of every network by their names, on the host."""
    found = chunk.compiled(2, ablation.scored, names)(chunk.hyper, exact, chunk.data, chunk.examples)
    host = jax.device_get(found)
    return {name: [lane_of(host[name], lane) for lane in range(len(chunk.subjects))] for name in names}


def _ranked(chunk: Chunk, order: ablation.Scored, scope: str) -> np.ndarray:
    return ranks(scope, *order, _sizes(chunk))


def _sizes(chunk: Chunk) -> list[int]:
    return [math.prod(shape) for shape in chunk.parts.shapes.values()]


def _ends(cuts: Sequence[tuple[float, float]], counts: dict[str, int], scope: str) -> dict[str, np.ndarray]:
    """By layer, int32[cuts, 2]: the ranks between which each cut goes."""
    total = sum(counts.values())
    return {layer: bounds(cuts, total if scope == "global" else count) for layer, count in counts.items()}


def _points(chunk: Chunk, cuts: Sequence[tuple[float, float]], outcome: ablation.Outcome) -> list[dict[str, Any]]:
    return [
        {"from": a, "to": b, "removed": int(outcome.removed[i]), **chunk.score(lane_of(outcome.tally, i))}
        for i, (a, b) in enumerate(cuts)
    ]


def _steps(experiment: Experiment) -> np.ndarray | None:
    return np.int32(experiment.steps) if experiment.steps else None


def _candidates(chunk: Chunk, subject: Subject, order: str) -> dict[str, int]:
    """By layer, how many connections an order may remove."""
    may, found = ORDERS[order].candidates, {}
    for layer in chunk.parts.layers:
        mask = subject.hyper.masks[layer]
        found[layer] = int((mask if may is None else mask & may(subject.weights(layer))).sum())
    return found


def _nothing(chunk: Chunk) -> Any:
    empty = np.zeros(0, np.int32), np.zeros(0, np.float32)
    return chunk.placed([empty] * len(chunk.subjects))


def places_of(subject: Subject, layers: Sequence[str]) -> np.ndarray:
    """int32[connections]: where they are in one list of all entries of all layers."""
    return np.flatnonzero(np.concatenate([subject.hyper.masks[layer].ravel() for layer in layers])).astype(np.int32)


def _exact(chunk: Chunk) -> tuple[Any, list[dict[str, Any]]]:
    """Places and losses of every connection left out, on the devices; and their rank correlations with other scores."""
    layers = chunk.parts.layers
    places = [places_of(subject, layers) for subject in chunk.subjects]
    size = sum(_sizes(chunk))
    most = max(place.size for place in places)
    padded = chunk.placed([np.pad(place, (0, most - place.size), constant_values=size) for place in places])
    compared = chunk.compiled(2, ablation.compared)
    scored = compared(chunk.hyper, padded, chunk.data, chunk.examples)
    losses, host = scored["leave_one_out"], jax.device_get(scored)
    lanes = [lane_of(host, lane) for lane in range(len(places))]
    found = [_correlations(place, of_run, chunk.parts.shapes) for place, of_run in zip(places, lanes, strict=True)]
    return (padded, losses), [{"correlations": one} for one in found]


def _correlations(
    places: np.ndarray, scored: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]
) -> dict[str, dict[str, float | None]]:
    """Spearman's, of every score with the exact importance: of all layers together, then of each."""
    scored = {name: values[: places.size] for name, values in scored.items()}
    exact = scored.pop("leave_one_out")
    layer_of = np.repeat(np.arange(len(shapes)), [math.prod(shape) for shape in shapes.values()])
    chosen = {"all": np.ones(places.size, bool)}
    chosen |= {layer: layer_of[places] == i for i, layer in enumerate(shapes)}
    return {
        where: {name: spearman(values[which], exact[which]) for name, values in scored.items()}
        for where, which in chosen.items()
    }


def _edits(chunk: Chunk, experiments: Sequence[Experiment]) -> Found:
    """All weights changed at once."""
    counts = [sum(_candidates(chunk, subject, "smallest").values()) for subject in chunk.subjects]
    host = jax.device_get(chunk.compiled(1, ablation.at_random)(chunk.hyper, chunk.data))
    at_random = [lane_of(host, lane) for lane in range(len(chunk.subjects))]
    sources = [shuffled(_ranked(chunk, order, "layer"), order.candidates, _sizes(chunk)) for order in at_random]
    given = chunk.placed(sources), chunk.placed([np.bool_(one.active_fan) for one in chunk.subjects])
    for steps in dict.fromkeys(one.steps for one in experiments):
        some = [one for one in experiments if one.steps == steps]
        edited = chunk.compiled(3, ablation.edited, tuple(one.name for one in some))
        host = jax.device_get(edited(chunk.hyper, *given, chunk.data, chunk.rows, _steps(some[0])))
        for i, one in enumerate(some):
            yield one, [
                {"connections": count, "points": [chunk.score(lane_of(lane_of(host, lane), i))]}
                for lane, count in enumerate(counts)
            ]


def _shared(chunk: Chunk, experiments: Sequence[Experiment]) -> Found:
    """One weight on all connections of all layers."""
    (one,), weights = experiments, np.asarray(SHARED_WEIGHTS, np.float32)
    found = chunk.compiled(1, ablation.shared)(chunk.hyper, chunk.data, chunk.rows, weights)
    host, examples = jax.device_get(found), chunk.rows[1] - chunk.rows[0]
    tallies = [lane_of(host.tally, lane) for lane in range(len(chunk.subjects))]
    yield one, [
        {
            "connections": sum(int(mask.sum()) for mask in subject.hyper.masks.values()),
            "points": [{"weight": w, **chunk.score(lane_of(tally, i))} for i, w in enumerate(SHARED_WEIGHTS)],
            "vote_accuracy": share(vote, examples),
        }
        for subject, tally, vote in zip(chunk.subjects, tallies, host.vote, strict=False)
    ]


_CONDUCTED: dict[str, Callable[[Chunk, Sequence[Experiment]], Found]] = {
    "order": _orders, "edit": _edits, SHARED_WEIGHT: _shared,
}  # fmt: skip
