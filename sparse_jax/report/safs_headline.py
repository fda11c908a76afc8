"""The page of a search for activation functions: the question, the answer in numbers, and the sections."""

from sparse_jax.report.exhibits import Section, Words
from sparse_jax.report.headline import counted
from sparse_jax.report.provenance import again_search
from sparse_jax.report.records import NONE
from sparse_jax.report.safs_frames import CALLED, named
from sparse_jax.report.safs_networks import Gain, gain, networks_section
from sparse_jax.report.safs_operators import operators_section, top_operators
from sparse_jax.report.safs_parts import cost_section, course_section, learned_section, tuned_section
from sparse_jax.report.safs_records import DIVERGED, EPSILON, PIPELINE, STAGES, Safs, read_safs
from sparse_jax.report.search_files import SETTINGS, Search
from sparse_jax.report.tables import signed

# what changes the accuracy of the sparse network, the most comprehensive that was trained first
CHANGES = {
    "both": "Searched activation functions", "stage1": "Searched operators",
    "stage2": "Learned α and β and tuned hyper-parameters",
}  # fmt: skip
ALONE = {"stage1": "the operators alone have", "stage2": "stage 2 without them has"}
WHERE = {
    "stage1": "stage 1", "stage2": "stage 2 with the default activation function",
    "both": "stage 2 with the operators found",
}  # fmt: skip


def safs_page(search: Search) -> tuple[Words, list[Section]]:
    """What the page says, as far as the search has come."""
    found = read_safs(search)
    title = f"Activation functions for sparse {found.model or 'networks'}" + (
        f" on {found.dataset}" if found.dataset else ""
    )
    headline = sentences(found) or [_so_far(found)]
    notes = [*([search.lacks] if search.ended and search.lacks else []), *found.notes, *_diverged(found)]
    words = Words("search", title, _varied(found), _completeness(found, search), headline, notes,
                  again_search(search.root, SETTINGS, search.begun, _asked(found)))  # fmt: skip
    sections = (networks_section, course_section, operators_section, learned_section, tuned_section, cost_section)
    return words, [section(found, search.lacks) for section in sections]


def _asked(found: Safs) -> dict[str, str]:
    """The flags that say which pipelines there are: search.json leaves them out, since more may be added."""
    levels = {
        "sparsity": [one for one in found.sparsities if one != NONE and not one.startswith(EPSILON)],
        "epsilon": [one.removeprefix(EPSILON) for one in found.sparsities if one.startswith(EPSILON)],
    }
    flags = {name: ",".join(values) for name, values in levels.items() if values}
    seeds = [seed for seed in found.seeds if seed != NONE]
    return flags | ({"num_seeds": str(len(seeds)), "first_seed": seeds[0]} if seeds else {})


def _varied(found: Safs) -> str:
    sparsities = [sparsity for sparsity in found.sparsities if sparsity != NONE]
    words = [named(sparsities[0])] if len(sparsities) == 1 else []
    words += [f"{len(sparsities)} sparsities"] if len(sparsities) > 1 else []
    words += [f"{len(found.seeds)} seeds" if len(found.seeds) > 1 else "one seed"] if found.seeds else []
    words += [counted(len(found.layers), "layer")] if found.layers else []
    return ", ".join(words)


def _completeness(found: Safs, search: Search) -> str:
    counts = {stage: int((found.candidates["stage"] == stage).sum()) for stage in STAGES}
    told = ", ".join(f"{CALLED[stage]} {count:,}" for stage, count in counts.items() if count)
    candidates = f"{counted(sum(counts.values()), 'candidate')}{f' ({told})' if told else ''}"
    if not search.ended:
        return f"{candidates} so far; the search has not ended."
    pipelines = len(found.networks[PIPELINE].drop_duplicates())
    return f"{counted(pipelines, 'pipeline')}, {candidates}; ended."


def _so_far(found: Safs) -> str:
    """What is known while there is no network to compare."""
    scored = found.candidates.dropna(subset=["best"])
    if scored.empty:
        return "No candidate has been scored yet."
    best = scored.loc[scored["best"].astype(float).idxmax()]
    where = f"{WHERE[best['stage']]}{_at(best['sparsity'])}, of seed {best['seed']}"
    return (
        f"The best validation accuracy so far is {best['best']:.1%}, in {where}; what it is worth on the test part is "
        "measured at the end."
    )


def _at(sparsity: str) -> str:
    return "" if sparsity == NONE else f" at {named(sparsity)}"


def sentences(found: Safs) -> list[str]:
    """The gain at each sparsity, what the stages have of it at the last, and the operators; none without gains."""
    told, last = [], []
    for sparsity in found.sparsities:
        gains = {name: one for name in CHANGES if (one := gain(found, sparsity, name, "default")) is not None}
        if gains:
            first = next(iter(gains.values()))
            told.append(f"{_gain(found, sparsity, first)}{_sparsity(found, sparsity, first)}")
            last = _stages(found, sparsity, gains)
    return [*told, *last, *([f"{top_operators(found)}."] if told and len(found.chosen) else [])]


def _gain(found: Safs, sparsity: str, one: Gain) -> str:
    """The answer to the question of a sparsity."""
    name = found.model or "the networks"
    verb = "raise" if one.points.value > 0 else "lower"
    verb = "do not surely change" if one.doubtful else verb
    chance = " The interval contains 0, so this may be chance." if one.doubtful else ""
    return (
        f"{CHANGES[one.network]} {verb} the test accuracy of {name}{_at(sparsity)} from {one.before:.1%} to "
        f"{one.after:.1%}: {_points(one)} points ({_precision(one)}).{chance}"
    )


def _points(one: Gain) -> str:
    return signed(f"{100 * one.points.value:+.1f}")


def _precision(one: Gain) -> str:
    if one.points.low is None or one.points.high is None:
        return "one seed, so nothing is known of its precision"
    low, high = (signed(f"{100 * end:.1f}") for end in (one.points.low, one.points.high))
    return f"95% interval {low} to {high}, {one.seeds} seeds, paired"


def _stages(found: Safs, sparsity: str, gains: dict[str, Gain]) -> list[str]:
    """What the stages bring by themselves, where there are both."""
    parts = [f"{ALONE[name]} {_brief(gains[name])}" for name in ALONE if name in gains]
    if "both" not in gains or not parts:
        return []
    head = f"{named(sparsity).capitalize()}: against" if len(found.sparsities) > 1 else "Against"
    beside = gain(found, sparsity, "both", "stage2")
    alike = f" Tuned alike, the operators found have {_brief(beside)} against the default one." if beside else ""
    return [f"{head} the default {' and '.join(parts)}.{alike}"]


def _brief(one: Gain) -> str:
    if one.points.low is None or one.points.high is None:
        return f"{_points(one)} points"
    low, high = (signed(f"{100 * end:.1f}") for end in (one.points.low, one.points.high))
    return f"{_points(one)} points ({low} to {high}{', which may be chance' if one.doubtful else ''})"


def _sparsity(found: Safs, sparsity: str, one: Gain) -> str:
    """What it costs to be sparse, and how much of that is won back, as far as neither may be chance."""
    cost = gain(found, sparsity, "default", "dense")
    if cost is None or cost.points.value >= 0 or cost.doubtful:
        return ""
    share = -one.points.value / cost.points.value
    back = f", and {share:.0%} of these points are won back" if 0 < share <= 1 and not one.doubtful else ""
    return f" Sparsity costs {-100 * cost.points.value:.1f} points of the dense networks' {cost.before:.1%}{back}."


def _diverged(found: Safs) -> list[str]:
    """Networks and candidates whose loss was not finite in the end."""
    networks, candidates = int(found.networks["diverged"].sum()), int((found.candidates["fate"] == DIVERGED).sum())
    notes = [f"{networks} of {len(found.networks)} networks diverged; those with an accuracy are in the means."]
    more = [f"{candidates} of {counted(len(found.candidates), 'candidate')} diverged."]
    return (notes if networks else []) + (more if candidates else [])
