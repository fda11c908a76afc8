"""What hyper-parameters are tuned within, as plain data; imports no Optuna, so that it can be checked without."""

from importlib.util import find_spec
from typing import NamedTuple

from sparse_jax.errors import UserError, unknown

NUMBERS = {"rate_factor": "rate_factors", "momentum": "momenta", "weight_decay": "weight_decays"}
NAMES = {"optimizer": "optimizers", "lr_schedule": "lr_schedules"}
LOGARITHMIC = ("rate_factor", "weight_decay")

# what a sampler needs: the modules that have to be there, what they are called, and the extra that brings them
OPTUNA = ("optuna", "Optuna", "search")
PACKAGES = {"tpe": (OPTUNA,), "random": (OPTUNA,), "smac": (OPTUNA, ("smac", "SMAC3", "smac"))}


class Values(NamedTuple):
    """The hyper-parameters of one trial."""

    optimizer: str
    rate_factor: float  # the learning rate, as a multiple of the optimiser's usual one (config.LEARNING_RATES)
    momentum: float
    weight_decay: float
    lr_schedule: str


class Ranges(NamedTuple):
    """Where each of them may lie: names to choose among, and both ends of numbers, which may be equal."""

    optimizers: tuple[str, ...]
    rate_factors: tuple[float, float]  # logarithmic, above 0
    momenta: tuple[float, float]
    weight_decays: tuple[float, float]  # logarithmic, above 0
    lr_schedules: tuple[str, ...]


def check_packages(sampler: str) -> None:
    """Raises UserError if a sampler lacks its packages; to be called before tuner.py is imported."""
    if sampler not in PACKAGES:
        raise unknown("sampler", sampler, PACKAGES)
    for module, name, extra in PACKAGES[sampler]:
        if find_spec(module) is None:
            raise UserError(f"tuning with the sampler {sampler} needs {name}: pip install -e '.[{extra}]'")


def check_ranges(ranges: Ranges, first: Values) -> None:
    """Raises UserError for ranges that hold nothing, and for untuned names that are not among them.

    The numbers of `first` may lie outside; see `clipped`.
    """
    for one, several in NUMBERS.items():
        low, high = getattr(ranges, several)
        if not low <= high:
            raise UserError(f"{several} to tune within: {low:g} to {high:g} is empty, put the smaller number first")
        if one in LOGARITHMIC and not low > 0:
            raise UserError(f"{several} to tune within: {low:g} has no logarithm, begin above 0")
    for one, several in NAMES.items():
        names, name = getattr(ranges, several), getattr(first, one)
        if name not in names:
            raise UserError(f"{several} to tune among: {name} of the untuned trial is not among them, add it")


def clipped(ranges: Ranges, values: Values) -> Values:
    """The same values, each number moved to the nearest in its range."""
    numbers = {}
    for one, several in NUMBERS.items():
        low, high = getattr(ranges, several)
        numbers[one] = min(max(getattr(values, one), low), high)
    return values._replace(**numbers)
