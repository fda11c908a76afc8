"""A short list of rules that a study supports: what to take in place of what, where, and by how much."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sparse_jax.analysis.crossing import Crossed, Response, is_ordered
from sparse_jax.analysis.effects import Contrast, Effect, side_by_side
from sparse_jax.analysis.statistics import Interval, known, t_interval

LEAST_SEEDS = 3  # [ours]
MOST = 10  # rules in all, and half of them under a condition [ours]
PER_TERM = 2  # rules on one factor, or on the same two factors [ours]


class Side(NamedTuple):
    """One side of a condition, or everything: where it is, in words, the effect there, and the pairs behind it."""

    words: str
    effect: Interval
    pairs: int


class Rule(NamedTuple):
    """A sentence and what supports it.

    Attributes:
      sentence: with the effects, their intervals and the numbers of pairs.
      effect: over seeds, in the response itself; with a condition the effect on the first side less that on the
        other; the value named first is the better one, on the first side.
      adjusted_p: Holm's, over all contrasts of the study.
      seeds, pairs: numbers behind it.
      runs_first, runs_second: ids of the runs with the value named first, and of those they are paired with.
      collapsed, diverged: how many of all these did.
      reverses: whether the value named first is better on one side and worse on the other.
      contrast: the same as data, the value named first first, the first side `here`.
      sides: one, or two with a condition.
    """

    sentence: str
    effect: Interval
    adjusted_p: float
    seeds: int
    pairs: int
    runs_first: tuple[str, ...]
    runs_second: tuple[str, ...]
    collapsed: int
    diverged: int
    reverses: bool
    contrast: Contrast
    sides: tuple[Side, ...]


def rules(crossed: Crossed, found: Sequence[Effect], response: Response, confidence: float) -> list[Rule]:
    """The rules that are supported, the largest effect first.

    A contrast is supported if Holm's p over all contrasts is under 1 − confidence, if the interval of its mean over at
    least three seeds, Student's, does not hold 0, nor that on one side at least of its condition, and if it is no less
    than `response.least`. The contrasts are laid down before a run is looked at, all of them are tested together, and
    those shown are chosen among the supported ones only: so the chance that any is there by accident is under
    1 − confidence, however they are chosen. What is chosen as the largest of many is on average a little less large
    than it looks.

    Of those supported a few are shown: of one factor, or of the same two, no more than two, which find fault with
    different values, and never the same interaction from both of its sides; conditions under which a rule reverses
    come first. A rule without a condition is left out where a supported reversal contradicts it, where a rule that is
    shown says the same of both sides, and where an interaction that is shown means that it may hold on one side only.
    """
    supported = [_oriented(one, confidence) for one in found if is_supported(one, response, confidence)]
    supported.sort(key=lambda one: (-_size(one), is_ordered(crossed.orders[one.contrast.factor])))
    divided = [one for one in supported if one.contrast.condition is not None]
    turning = [one for one in divided if _reverses(one, confidence)]
    lasting = [one for one in divided if not _reverses(one, confidence)]
    conditional = _few([*turning, *lasting], MOST // 2)
    terms = {_term(one) for one in conditional}
    narrow = {_pair(one) for one in (*turning, *conditional)}
    narrow |= {_pair(one) for one in lasting if _term(one) in terms and not _lasts(one, confidence)}
    plain = [one for one in supported if one.contrast.condition is None and _pair(one) not in narrow]
    chosen = [*conditional, *_few(plain, MOST - len(conditional))]
    chosen.sort(key=lambda one: -_size(one))
    return [_rule(one, crossed, response, confidence) for one in chosen]


def is_supported(effect: Effect, response: Response, confidence: float) -> bool:
    """Whether a contrast may be a rule, see `rules`."""
    values = known(effect.values)
    if effect.adjusted_p is None or effect.adjusted_p >= 1 - confidence or len(values) < LEAST_SEEDS:
        return False
    if abs(np.mean(values)) < response.least or not _is_sure(effect.values, confidence):
        return False
    return any(_is_sure(side, confidence) for side in (effect.here, effect.there) if side is not None)


def _excludes_zero(interval: Interval) -> bool:
    return interval.low is not None and (interval.low > 0 or interval.high < 0)


def _size(effect: Effect) -> float:
    """Effects of equal size, as of an interaction from both of its sides, are equal but for rounding."""
    return round(abs(float(np.nanmean(effect.values))), 9)


def _is_sure(values: np.ndarray, confidence: float) -> bool:
    return _excludes_zero(t_interval(known(values), confidence))


def _oriented(effect: Effect, confidence: float) -> Effect:
    """The same with the side first that is sure, or the larger one of two, and the value that is better there."""
    contrast = effect.contrast
    strengths = [
        (_is_sure(side, confidence), abs(float(np.nanmean(side))))
        for side in (effect.here, effect.there) if side is not None
    ]  # fmt: skip
    if max(strengths) != strengths[0]:
        contrast = contrast._replace(here=contrast.there, there=contrast.here)
        effect = effect._replace(
            values=-effect.values, here=effect.there, there=effect.here, pairs=effect.pairs[::-1], contrast=contrast
        )
    if np.nanmean(effect.here) < 0:
        contrast = contrast._replace(first=contrast.second, second=contrast.first)
        there = None if effect.there is None else -effect.there
        effect = effect._replace(values=-effect.values, here=-effect.here, there=there, contrast=contrast)
    return effect


def _reverses(effect: Effect, confidence: float) -> bool:
    """Whether the signs are opposite on both sides, for sure."""
    if effect.there is None or effect.reversal_p is None or effect.reversal_p >= 1 - confidence:
        return False
    return all(_is_sure(side, confidence) for side in (effect.here, effect.there))


def _pair(effect: Effect) -> tuple[str, frozenset[str]]:
    return effect.contrast.factor, frozenset((effect.contrast.first, effect.contrast.second))


def _term(effect: Effect) -> frozenset[str | None]:
    return frozenset((effect.contrast.factor, effect.contrast.condition))


def _lasts(effect: Effect, confidence: float) -> bool:
    """Whether the value that is better on the first side is so on the other, for sure."""
    interval = t_interval(known(effect.there), confidence)
    return interval.value > 0 and _excludes_zero(interval)


def _few(ordered: Iterable[Effect], most: int) -> list[Effect]:
    """The first of them, without those that others before them imply."""
    chosen: list[Effect] = []
    for one in ordered:
        same = [other.contrast for other in chosen if _term(other) == _term(one)]
        implied = any(other.factor != one.contrast.factor or other.second == one.contrast.second for other in same)
        if not implied and len(same) < PER_TERM and len(chosen) < most:
            chosen.append(one)
    return chosen


def _rule(effect: Effect, crossed: Crossed, response: Response, confidence: float) -> Rule:
    contrast, pairs = effect.contrast, side_by_side(crossed, effect.contrast.factor)
    order = crossed.orders[contrast.factor]
    columns = [order.index(value) for value in (contrast.first, contrast.second)]
    both = np.isfinite(pairs.values[:, columns]).all(axis=1)
    firsts, seconds = (tuple(pairs.runs[both, at].tolist()) for at in columns)
    ended = pairs.statuses[both][:, columns]
    sides = tuple(
        Side(words, t_interval(known(values), confidence), count)
        for words, values, count in zip(
            _places(contrast, crossed), (effect.here, effect.there), effect.pairs, strict=True
        ) if values is not None
    )  # fmt: skip
    values = known(effect.values)
    return Rule(
        _sentence(contrast, sides, response), t_interval(values, confidence), effect.adjusted_p, len(values),
        sum(effect.pairs), firsts, seconds, int((ended == "collapsed").sum()), int((ended == "diverged").sum()),
        _reverses(effect, confidence), contrast, sides,
    )  # fmt: skip


def _places(contrast: Contrast, crossed: Crossed) -> tuple[str, str]:
    """Both sides of a condition in words."""
    if contrast.condition is None:
        return "", ""
    return tuple(
        _place(contrast.condition, values, crossed.orders[contrast.condition])
        for values in (contrast.here, contrast.there)
    )


def _place(name: str, values: Sequence[str], order: Sequence[str]) -> str:
    if is_ordered(order):
        if len(values) == 1:
            return f"at {name} {values[0]}"
        return f"up to {name} {values[-1]}" if values[0] == order[0] else f"from {name} {values[0]} on"
    if len(values) == 1:
        return f"with {name} {values[0]}"
    others = ", ".join(one for one in order if one not in values)
    return f"with {name} other than {others}"


def _sentence(contrast: Contrast, sides: Sequence[Side], response: Response) -> str:
    """`With activation sigmoid, normalization zscore instead of none adds 31.2 points of test accuracy (…); …`"""
    number: Callable[[float], str] = lambda value: f"{round(response.scale * value, 1) + 0:.1f}".replace("-", "−")
    words = f"{contrast.factor} {contrast.first} instead of {contrast.second}"
    text = ""
    for side in sides:
        value, low, high = side.effect
        lasting = low is not None and low * high > 0
        if lasting and value < 0:
            value, low, high = -value, -high, -low
        verb = "may change nothing:" if not lasting else "adds" if side.effect.value > 0 else "costs"
        ends = "" if low is None else f"{number(low)} to {number(high)}; "
        pairs = f"{side.pairs} {'pair' if side.pairs == 1 else 'pairs'} of runs"
        what = f"{words} {verb} {number(value)} {response.unit} of {response.name}" if not text else (
            f"; {side.words} it {verb} {number(value)}"
        )  # fmt: skip
        lead = f"{side.words}, " if side.words and not text else ""
        text += f"{lead}{what} ({ends}{pairs})"
    return f"{text[:1].upper()}{text[1:]}."
