"""How the tables of a search for activation functions are laid out: what its networks are called, and panels."""

import pandas as pd

from sparse_jax.report.safs_records import EPSILON, Safs

CALLED = {"dense": "dense", "default": "default", "stage1": "stage 1", "stage2": "stage 2", "both": "both"}


def named(sparsity: str) -> str:
    """A sparsity, or what stands for it, in words."""
    return sparsity if sparsity.startswith(EPSILON) else f"sparsity {sparsity}"


def level(found: Safs, sparsity: str) -> str:
    """A sparsity as the head of a panel; nothing where there is one only."""
    return "" if len(found.sparsities) < 2 else named(sparsity)


def by_level(found: Safs, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with a panel for each sparsity, in their order."""
    return in_order(frame.assign(panel=[level(found, sparsity) for sparsity in frame["sparsity"]]), found.sparsities)


def by_pipeline(found: Safs, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with a panel for each pipeline, sparsities first and then seeds in their order."""
    pairs = list(zip(frame["sparsity"], frame["seed"], strict=True))
    heads = [joined(level(found, sparsity), f"seed {seed}") if len(set(pairs)) > 1 else "" for sparsity, seed in pairs]
    return in_order(in_order(frame.assign(panel=heads), found.seeds, "seed"), found.sparsities)


def in_order(frame: pd.DataFrame, order: tuple[str, ...], name: str = "sparsity") -> pd.DataFrame:
    """The rows by the place that the value of a column has in an order, otherwise as they are."""
    return frame.iloc[frame[name].map(order.index).argsort(kind="stable")].reset_index(drop=True)


def joined(*heads: str) -> str:
    """Those that say something, as one head of a panel."""
    return " · ".join(filter(None, heads))


def without_level(found: Safs, frame: pd.DataFrame) -> pd.DataFrame:
    """The columns, but for a sparsity that is the same everywhere: the page says it at its head."""
    return frame.drop(columns=["sparsity"] if len(found.sparsities) < 2 else [])
