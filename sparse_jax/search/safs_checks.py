"""What a search for activation functions cannot mean, of its own settings. Imports no jax."""

from sparse_jax.config import SEARCH_STRATEGIES, SafsConfig, settings
from sparse_jax.errors import UserError
from sparse_jax.search.ranges import check_packages
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


def check(search: SafsConfig, given: frozenset[str]) -> None:
    """Refuse settings without a meaning, or without an effect although they are `given`. Raises UserError, one line."""
    _refuse_unused(search, given)
    _check_values(search)


def _refuse_unused(search: SafsConfig, given: frozenset[str]) -> None:
    """Refuse a setting of the search that was given although nothing uses it."""
    for name in sorted(given & settings(SafsConfig).keys()):
        if name in OF_TUNING and not search.trials:
            raise UserError(f"--{name} has no effect: --trials=0 has no second stage")
        if search.strategy not in OF_STRATEGY.get(name, (search.strategy,)):
            users = " or ".join(OF_STRATEGY[name])
            raise UserError(f"--{name} has no effect: --strategy={search.strategy} does not use it; it is for {users}")


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
