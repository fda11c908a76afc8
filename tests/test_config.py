"""The settings: complete, consistent with the families they name, and told by --help."""

import dataclasses
import math
import re
import signal
import subprocess
import sys
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from sparse_jax import config
from sparse_jax.activations.by_layer import ACTIVATIONS, GATES
from sparse_jax.activations.scaling import SCALES
from sparse_jax.config import AUTO, RunConfig, StudyConfig, settings
from sparse_jax.data.augmentation import AUGMENTATIONS
from sparse_jax.data.catalog import DATASETS, FILES
from sparse_jax.data.normalization import NORMALIZATIONS
from sparse_jax.models.layers import DTYPES, INITIALIZERS
from sparse_jax.models.registry import MODELS
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.recipes import METHOD_SETTINGS, MODEL_RECIPES, NATURES, RECIPES, USED_BY
from sparse_jax.topology.allocation import ALLOCATIONS
from sparse_jax.topology.birth import BIRTHS
from sparse_jax.topology.criteria import DROP, GROW, by_sign
from sparse_jax.topology.initial import INITIAL
from sparse_jax.topology.methods import METHODS, Settings
from sparse_jax.topology.redistribution import SHARES
from sparse_jax.topology.schedules import DENSITY_SCHEDULES, DROP_SCHEDULES
from sparse_jax.training.optimizers import LR_SCHEDULES, OPTIMIZERS, make_optimizer
from sparse_jax.values import within

TRAIN = Path(__file__).parents[1] / "launch" / "train.py"
SETTINGS = settings(RunConfig) | settings(StudyConfig)
RATES = dict.fromkeys(config.RATES, jnp.float32(0.5))
RULES = {name: method(Settings("output", RATES)) for name, method in METHODS.items()}
CONDITIONAL = set(USED_BY)
KINDS = {"name", "text", "path", "int", "float", "bool", "sizes", "names", "fractions", "numbers", "interval",
"shard", "structure", "name_or_path", "radix", "address"}
BOUNDED = {"int", "float", "sizes", "fractions", "interval"}

every_setting = pytest.mark.parametrize("name", SETTINGS)


def values(value):
    return value if isinstance(value, tuple) else (value,)


# --- the families ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "family"),
    [
        ("DATASETS", DATASETS), ("DATASET_FILES", FILES), ("NORMALIZATIONS", NORMALIZATIONS), ("MODELS", MODELS),
        ("MODELS", OUTLINES), ("MODELS", MODEL_RECIPES), ("INITIALIZERS", INITIALIZERS), ("GATES", GATES),
        ("DTYPES", DTYPES), ("AUGMENTATIONS", AUGMENTATIONS),
        ("ACTIVATIONS", ACTIVATIONS), ("METHODS", METHODS), ("ALLOCATIONS", ALLOCATIONS),
        ("DROP_SCHEDULES", DROP_SCHEDULES), ("DENSITY_SCHEDULES", DENSITY_SCHEDULES), ("DRAWN", INITIAL),
        ("DROP_SCORES", DROP), ("GROW_SCORES", GROW), ("SHARED", SHARES), ("BIRTHS", BIRTHS),
        ("METHODS", RECIPES), ("METHODS", NATURES), ("OPTIMIZERS", OPTIMIZERS), ("LR_SCHEDULES", LR_SCHEDULES),
        ("ACTIVATION_SCALES", SCALES), ("OPTIMIZERS", config.OPTIMIZER_SLOTS), ("OPTIMIZERS", config.LEARNING_RATES),
    ],
)  # fmt: skip
def test_the_names_are_those_of_the_family(names, family):
    assert sorted(getattr(config, names)) == sorted(family)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_uses_the_settings_that_its_rule_needs(name):
    used, rule = METHOD_SETTINGS[name], RULES[name]
    assert ("sparsity" in used) == rule.masked
    assert bool({"interval", "levels"} & used) == (rule.update != "never")
    assert ("levels" in used) == (rule.rewind != "no")
    assert ("density_schedule" in used) == (rule.count == "schedule")
    assert ("shrink_rate" in used) == (rule.count == "accuracy")
    assert ("backward_factor" in used) == rule.backward
    assert ("noise" in used) == rule.walks
    assert ("first_threshold" in used) == (rule.remove == "below_threshold")


@pytest.mark.parametrize("name", METHODS)
def test_the_nature_of_a_method_is_that_of_its_rule(name):
    rule, nature = RULES[name], NATURES[name]
    assert (nature.count, nature.grows) == (rule.count, rule.grows)
    assert nature.by_sign == (rule.groups is by_sign or "positive" in rule.drop.needs)


def test_conditional_settings_are_settings_and_no_others_can_be_none():
    optional = {name for name, field in settings(RunConfig).items() if type(None) in typing.get_args(field.type)}
    assert optional == CONDITIONAL
    assert {other for users in USED_BY.values() for other in users} <= set(settings(RunConfig))


@pytest.mark.parametrize("recipe", [*RECIPES.values(), *MODEL_RECIPES.values()])
def test_a_recipe_holds_valid_values_of_the_settings_that_can_be_auto(recipe):
    for setting, value in recipe.items():
        metadata = SETTINGS[setting].metadata
        if value is None:
            continue
        assert metadata["auto"]
        if value == AUTO:
            continue
        for one in values(value):
            assert "choices" not in metadata or one in metadata["choices"]
            assert "bounds" not in metadata or setting == "interval" or within(one, metadata["bounds"])
        assert setting != "interval" or re.fullmatch(r"[1-9]\d*(epoch)?", value)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_has_as_many_slots_and_needs_the_rate_that_the_table_says(name):
    params = {"dense_0": {"kernel": jnp.zeros((3, 2))}}
    tx = make_optimizer(RunConfig(optimizer=name), jnp.float32(config.LEARNING_RATES[name]), jnp.float32(0))
    slots = [leaf for leaf in jax.tree.leaves(tx.init(params)) if leaf.shape == (3, 2)]
    assert len(slots) == config.OPTIMIZER_SLOTS[name]
    assert within(config.LEARNING_RATES[name], SETTINGS["learning_rate"].metadata["bounds"])


# --- the settings ----------------------------------------------------------------------------------


def test_every_field_but_the_seed_is_a_setting_of_one_class():
    fields = [field.name for cls in (RunConfig, StudyConfig) for field in dataclasses.fields(cls)]
    assert sorted(fields) == sorted(["seed", *SETTINGS])


def test_only_the_axes_of_a_grid_can_be_dynamic():
    assert set(config.DYNAMIC) - {"seed"} <= {name for name in SETTINGS if SETTINGS[name].metadata.get("grid")}


@every_setting
def test_a_setting_says_what_it_is(name):
    metadata = SETTINGS[name].metadata
    assert re.fullmatch(r"[A-Z].+\.", metadata["help"])
    assert re.fullmatch(r"\d \w+", metadata["section"])
    assert metadata["kind"] in KINDS
    assert ("choices" in metadata) == (metadata["kind"] in ("name", "names", "name_or_path"))
    assert ("forms" in metadata) == (metadata["kind"] == "name_or_path")
    assert ("bounds" in metadata) == (metadata["kind"] in BOUNDED)


@pytest.mark.parametrize("name", [name for name in SETTINGS if "bounds" in SETTINGS[name].metadata])
def test_bounds_are_an_interval_that_excludes_nan_and_infinity(name):
    bounds = SETTINGS[name].metadata["bounds"]
    low, high = map(float, re.fullmatch(r"[\[(](\S+), (\S+)[\])]", bounds).groups())
    assert low < high
    assert (within(low, bounds), within(high, bounds)) == (bounds[0] == "[", bounds[-1] == "]")
    assert not any(within(value, bounds) for value in (math.nan, math.inf, -math.inf))


@every_setting
def test_the_default_is_a_value_that_the_flag_would_take(name):
    field = SETTINGS[name]
    if field.default == AUTO:
        assert field.metadata.get("auto") or name == "workdir"
    elif field.default is not None:
        for value in values(field.default):
            assert "choices" not in field.metadata or value in field.metadata["choices"]
            assert "bounds" not in field.metadata or within(float(value), field.metadata["bounds"])
    else:
        assert name in CONDITIONAL


# --- help ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["--help", "-h", "--helpfull"])
def help_text(request):
    result = subprocess.run(
        [sys.executable, TRAIN, request.param, "--sparsity=7"], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_help_tells_every_setting_with_its_help_and_its_names(help_text):
    told = " ".join(help_text.split())
    for name, field in SETTINGS.items():
        flag = f"--[no]{name}:" if field.metadata["kind"] == "bool" else f"--{name}:"
        assert flag in told
        assert f"{flag} {field.metadata['help']}" in told
    for known in (metadata["choices"] for metadata in (f.metadata for f in SETTINGS.values()) if "choices" in metadata):
        assert f"One of: {', '.join(known)}." in told


def test_help_begins_with_examples_that_work(help_text):
    examples = re.findall(r"^  python launch/train\.py (.*)$", help_text, re.MULTILINE)
    assert examples
    assert {flag for example in examples for flag in re.findall(r"--(\w+)", example)} <= {*SETTINGS, "flagfile"}


def test_help_of_which_only_the_head_is_read_ends_quietly():
    with subprocess.Popen([sys.executable, TRAIN, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 128 + signal.SIGPIPE
