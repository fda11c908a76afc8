"""Settings of the topology and the method that have no meaning together. Imports no jax."""

from sparse_jax.config import FILE, FROM_RUN, SAMPLED, SCORED, SHARED, RunConfig
from sparse_jax.errors import UserError
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.recipes import NATURES, Nature, known_masks
from sparse_jax.topology.patterns import Pattern, parse_pattern

WITHIN_A_STRUCTURE = ("random", "magnitude", "snip", "grasp")  # first masks that are chosen within any


def refuse_conflicts(config: RunConfig) -> None:
    """Refuse combinations of structure, scope, allocation, first masks, schedule and method that have no meaning.

    Args:
      config: of a network with masks; what it does not use is None.

    Raises:
      UserError: that names both sides, and what would go together.
    """
    pattern, nature = parse_pattern(config.structure), NATURES[config.method]
    if config.importance_pruning and not OUTLINES[config.model].in_series:
        raise UserError(
            f"--importance_pruning={config.importance_pruning:g} cuts off neurons, and those of --model={config.model} "
            "have inputs by other ways: use --importance_pruning=0"
        )
    if config.initial_topology == "synflow" and not OUTLINES[config.model].homogeneous:
        raise UserError(
            f"--initial_topology=synflow is for networks whose outputs scale with their inputs, which those of "
            f"--model={config.model} do not: use random, magnitude, snip or grasp"
        )
    if pattern.kind != "none":
        _check_structure(config, pattern, nature)
    if config.ablation and pattern.kind != "fan_in":
        raise UserError(
            f"--ablation={config.ablation:g} of --method={config.method} goes by fan-in: use --structure=fan_in, or "
            "--ablation=0"
        )
    if config.allocation == "global":
        _check_global(config, pattern, nature)
    if nature.count == "schedule":
        _check_schedule(config, nature)
    if config.scope in SHARED and (nature.count != "constant" or config.grow_score is None):
        raise UserError(
            f"--scope={config.scope} moves connections between layers, and --method={config.method} says how many each "
            "of them has: use --scope=layer or global"
        )


def _check_structure(config: RunConfig, pattern: Pattern, nature: Nature) -> None:
    structure, first, method = f"--structure={config.structure}", config.initial_topology, f"--method={config.method}"
    if config.scope not in (None, "layer"):
        raise UserError(
            f"{structure} holds in every layer by itself: --scope={config.scope} does not keep it, use --scope=layer"
        )
    if first not in (*WITHIN_A_STRUCTURE, config.structure) and not first.startswith((FILE, FROM_RUN)):
        raise UserError(f"--initial_topology={first} does not keep {structure}: use {_or(WITHIN_A_STRUCTURE)}")
    if pattern.kind == "block" and nature.by_sign:
        raise UserError(f"{method} goes by the sign of a weight, and a block has none: use --method=set_magnitude")
    if nature.count == "accuracy":
        raise UserError(f"{method} takes away single connections, and {structure} would not hold: use --structure=none")
    scores = {"drop_score": config.drop_score, "grow_score": config.grow_score}
    drawn = [f"--{name}={score}" for name, score in scores.items() if score in SAMPLED]
    if pattern.kind == "block" and drawn:
        raise UserError(f"{drawn[0]} draws single connections, and {structure} has blocks: use magnitude, or random")
    if config.importance_pruning and pattern.kind == "block" and pattern.second > 1:
        raise UserError(
            f"--importance_pruning={config.importance_pruning:g} cuts off single neurons, and a block of {structure} "
            f"has {pattern.second}: use blocks of one, as {pattern.first}x1, or --importance_pruning=0"
        )


def _check_global(config: RunConfig, pattern: Pattern, nature: Nature) -> None:
    if config.initial_topology not in SCORED:
        raise UserError(
            "--allocation=global ranks the connections of all layers by a score, which "
            f"--initial_topology={config.initial_topology} has not: use {_or(SCORED)}"
        )
    needs_counts = {f"--structure={config.structure}": pattern.kind != "none"}
    needs_counts[f"--method={config.method}"] = nature.count != "constant"
    for setting in (setting for setting, needs in needs_counts.items() if needs):
        raise UserError(
            f"{setting} needs a number of connections for each layer, and --allocation=global sets only their sum: "
            "use another allocation"
        )


def _check_schedule(config: RunConfig, nature: Nature) -> None:
    first, method = config.initial_topology, f"--method={config.method}"
    if known_masks(first):
        raise UserError(
            f"--initial_topology={first} fixes how many connections there are, and {method} prunes to a sparsity: "
            "use a method that keeps their number"
        )
    if config.density_schedule == "cyclic" and not nature.grows:
        raise UserError(
            f"--density_schedule=cyclic takes connections back in, which {method} cannot: use --method=ac_dc, or "
            "another schedule"
        )


def _or(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
