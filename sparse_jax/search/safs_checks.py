"""What a search for activation functions cannot mean, of its own settings. Imports no jax."""

from sparse_jax.config import SEARCH_STRATEGIES, SafsConfig, settings
from sparse_jax.errors import UserError
from sparse_jax.search.ranges import check_packages
from sparse_jax.study.grid import unused_in_flagfile
from sparse_jax.values import show

MOST_EVALUATED = 1_000_000  # by exhaustive
OF_STRATEGY = {  # setting of the first stage -> who uses it
    "steps": tuple(name for name in SEARCH_STRATEGIES if name != "exhaustive"), "lahc_history": ("lahc",),
    "annealing_from": ("annealing",), "annealing_to": ("annealing",), "tournament": ("genetic",),
    "mutation": ("genetic",),
}  # fmt: skip
OF_TUNING = (  # settings of the second stage
    "scale", "abreast", "sampler", "pruner", "tuned_optimizers", "tuned_rates", "tuned_momenta", "tuned_weight_decays",
    "tuned_schedules", "storage",
)  # fmt: skip


def check(search: SafsConfig, given: frozenset[str], beside: frozenset[str]) -> list[str]:
    """Refuse settings without a meaning, or without an effect although they are `given`. Raises UserError, one line.

    Returns:
      what the user should know: settings without an effect that only a flagfile has, which are `beside`.
    """
    unused = {name: why for name in settings(SafsConfig) if (why := _why_unused(search, name))}
    for name in sorted(given & unused.keys()):
        raise UserError(f"--{name} has no effect: {unused[name]}")
    _check_values(search)
    return unused_in_flagfile(beside & unused.keys())


def _why_unused(search: SafsConfig, name: str) -> str | None:
    """Why nothing uses a setting of the search; None if it is used."""
    if name in OF_TUNING and not search.trials:
        return "--trials=0 has no second stage"
    if search.strategy not in OF_STRATEGY.get(name, (search.strategy,)):
        return f"--strategy={search.strategy} does not use it; it is for {' or '.join(OF_STRATEGY[name])}"
    return None


def _check_values(search: SafsConfig) -> None:
    if search.trials:
        check_packages(search.sampler)
    for name in ("operators", "tuned_optimizers", "tuned_schedules"):
        values = getattr(search, name)
        if len(set(values)) < len(values):
            raise UserError(f"--{name}={show(values)} names one twice")
    for name in ("tuned_rates", "tuned_momenta", "tuned_weight_decays"):
        ends = getattr(search, name)
        if len(ends) > 2 or list(ends) != sorted(ends):
            raise UserError(f"--{name}={show(ends)} is neither one number nor a range: from and to, as 0.1:10")
    if search.strategy == "genetic" and search.candidates < 2:
        raise UserError("--strategy=genetic is a population of --candidates: it takes 2 or more")
    if search.annealing_to > search.annealing_from:
        raise UserError(
            f"--annealing_to={search.annealing_to:g} is above --annealing_from={search.annealing_from:g}: it cools down"
        )


def check_size(search: SafsConfig, layers: int) -> None:
    """Refuse to try all candidates of so many layers where there are too many. Raises UserError."""
    size = len(search.operators) ** layers
    if search.strategy == "exhaustive" and size > MOST_EVALUATED:
        raise UserError(
            f"--strategy=exhaustive would try {size:,} candidates, {len(search.operators)} operators in {layers} "
            "layers: name fewer --operators, or use lahc"
        )
