"""What a report says of the settings that vary: which of them tell runs apart, and how they are called."""

import pandas as pd
import pytest

from sparse_jax.report.frames import layout_of
from sparse_jax.report.records import NONE, Records, setting_text, shortened
from sparse_jax.values import telling

GMP = "from_run:results/a/pruned/runs/*-gmp-*-s{sparsity}-seed{seed}-*"
ONCE = "from_run:results/a/one_time/runs/*-s{sparsity}-seed{seed}-*"


@pytest.mark.parametrize(
    ("value", "short"),
    [
        (GMP, "from_run:pruned/gmp"),
        (ONCE, "from_run:one_time"),
        ("trained:w/runs/*-dense-relu-*-seed{seed}-*", "trained:w/dense relu"),
        ("original:w/runs/mnist-mlp-dense-relu-seed0-0123456789", "original:w/mnist mlp dense relu seed0 0123456789"),
        ("file:masks.npz", "file:masks.npz"),
        ("random", "random"),
        (None, None),
    ],
)
def test_runs_that_lend_are_called_by_their_workdir_and_the_words_of_the_pattern(value, short):
    (found,) = shortened(pd.Series([value], dtype=object))
    assert found == short


def test_names_stay_long_where_short_ones_would_be_equal():
    values = pd.Series([GMP, GMP.replace("/a/", "/b/"), "random"], dtype=object)
    pd.testing.assert_series_equal(shortened(values), values)


KEPT = ("method", "initial_topology")


def told(**columns):
    """What tells the rows of these columns apart."""
    rows = [dict(zip(columns, map(str, values), strict=True)) for values in zip(*columns.values(), strict=True)]
    return telling(rows, list(columns), KEPT)


def test_settings_that_others_bring_about_are_not_told():
    """Epochs go with the first masks; the learning rate is crossed with them, and the method is always told."""
    found = told(
        method=["static"] * 4, epochs=[20, 20, 0, 0], initial_topology=["random", "random", "radix", "radix"],
        learning_rate=[0.1, 0.2, 0.1, 0.2],
    )  # fmt: skip
    assert found == ("method", "initial_topology", "learning_rate")


def test_of_two_settings_that_go_together_the_first_is_told():
    assert told(batch_size=[1, 1, 2, 2], learning_rate=[0.1, 0.1, 0.2, 0.2]) == ("batch_size",)


def test_crossed_settings_are_all_told():
    assert told(batch_size=[1, 1, 2, 2], learning_rate=[0.1, 0.2, 0.1, 0.2]) == ("batch_size", "learning_rate")


def test_an_empty_text_is_called_none():
    assert (setting_text(""), setting_text(None)) == ("none", NONE)


def test_colours_are_for_first_masks_where_these_were_varied():
    names = ("method", "sparsity_target", "initial_topology")
    records = Records(pd.DataFrame(), (), names, names, dict.fromkeys(names, ("a",)), ())
    assert layout_of(records)[3:] == ("initial_topology", ("method",), "sparsity_target")
