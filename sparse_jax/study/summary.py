"""What the terminal shows of a study: the plan before it, the table after it."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from sparse_jax.analysis.statistics import t_interval
from sparse_jax.study.grid import Cohort, Run, Study
from sparse_jax.study.memory import bytes_per_run
from sparse_jax.study.rows import SETTINGS, all_connections, describe_settings, sparsity
from sparse_jax.values import briefly

CONFIDENCE = 0.95
WIDE = 160  # columns where the output is no terminal
NAMED = 5  # dead classes of a setting

ALWAYS = ("method", "activation")
DYNAMIC_LEVELS = ("sparsity", "epsilon")  # shown as the span of a cohort's connections


def _shown(study: Study) -> list[str]:
    """The settings that a table of the study has a column for."""
    return [name for name in SETTINGS if name in ALWAYS or name in study.axes]


def make_console(**options: Any) -> Console:
    """A console that wraps at the terminal's width, and not in a file or a pipe."""
    console = Console(highlight=False, markup=False, **options)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=WIDE, **options)


def _setting_cells(run: Run, names: Sequence[str], brief: Mapping[str, str]) -> list[str]:
    values = describe_settings(run)
    cells = (brief.get(values[name], values[name]) for name in names)
    return ["–" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in cells]


def _brief_names(study: Study) -> dict[str, str]:
    """Shorter names of the values that name other runs."""
    configs = [run.config for run in study.runs]
    return briefly(config.initial_topology for config in configs if config.initial_topology) | briefly(
        config.initial_weights for config in configs
    )


def _by_setting(runs: Sequence[Run]) -> list[list[Run]]:
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(getattr(run.config, name) for name in SETTINGS if name != "seed"), []).append(run)
    return list(groups.values())


def _percent(values: Sequence[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    mean = t_interval(known, CONFIDENCE)
    return f"{mean.value:.2f}" if mean.half_width is None else f"{mean.value:.2f} ± {mean.half_width:.2f}"


def _statuses(results: Sequence[dict]) -> str:
    counts = Counter(result["status"] for result in results)
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _dead_classes(results: Sequence[dict]) -> str:
    """The classes that some run never predicts, and how many runs do so."""
    found = [dead for result in results if (dead := result.get("dead_classes"))]
    classes = sorted(set().union(*found))
    more = f" and {len(classes) - NAMED} more" if len(classes) > NAMED else ""
    return f"{', '.join(map(str, classes[:NAMED]))}{more} in {len(found)} of {len(results)}" if found else "–"


def print_summary(console: Console, study: Study, results: dict[str, dict]) -> None:
    """Mean and t interval over seeds of every setting. Collapsed and diverged runs count, and are named.

    So are classes that are never predicted, if there are some.
    """
    names, brief = [name for name in _shown(study) if name not in DYNAMIC_LEVELS], _brief_names(study)
    failed = any(result["status"] != "ok" for result in results.values())
    dead = any(result.get("dead_classes") for result in results.values())
    caption = f"accuracy in %: mean over seeds ± half a {CONFIDENCE:.0%} t interval"
    table = Table(box=box.SIMPLE_HEAD, caption=caption, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in ("sparsity", "connections", "seeds", "test", "val"):
        table.add_column(name, justify="right", no_wrap=True)
    if failed:
        table.add_column("status")
    if dead:
        table.add_column("dead classes")
    for group in _by_setting(study.runs):
        done = [results[run.id] for run in group if run.id in results]
        if done:
            table.add_row(
                *_setting_cells(group[0], names, brief),
                f"{np.mean([result['sparsity'] for result in done]):.4f}",
                f"{np.mean([result['connections'] for result in done]):,.0f}",
                str(len(done)),
                _percent([result["test_accuracy"] for result in done]),
                _percent([result["val_accuracy"] for result in done]),
                *([_statuses(done)] if failed else []),
                *([_dead_classes(done)] if dead else []),
            )
    console.print(table)


def _plan_row(cohort: Cohort, names: Sequence[str], brief: Mapping[str, str]) -> list[str]:
    first = cohort.runs[0]
    counts = sorted({all_connections(run, sum(run.allocation.counts.values())) for run in cohort.runs})
    span = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} … {counts[-1]:,}"
    megabytes = len(cohort.runs) * bytes_per_run(first) / 2**20
    sizes = [str(len(cohort.runs)), f"{first.problem.steps:,}", span, f"{megabytes:,.1f} MB"]
    cells = zip(*(_setting_cells(run, names, brief) for run in cohort.runs), strict=True)  # the dynamic ones may differ
    return [*(", ".join(dict.fromkeys(values)) for values in cells), *sizes]


def print_plan(console: Console, study: Study) -> None:
    """The cohorts with runs, steps, connections and memory; then each layer's share by sparsity level."""
    names, brief = [name for name in _shown(study) if name not in DYNAMIC_LEVELS], _brief_names(study)
    table = Table(box=box.SIMPLE_HEAD, title=f"{len(study.runs)} runs in {len(study.cohorts)} cohorts")
    for name in names:
        table.add_column(name)
    for name in ("runs", "steps", "connections", "memory of the weights"):
        table.add_column(name, justify="right")
    for cohort in study.cohorts:
        table.add_row(*_plan_row(cohort, names, brief))
    console.print(table)
    _print_layers(console, study)


def _counted_by(run: Run) -> str:
    """What says how many connections the layers have."""
    if run.config.allocation is not None:
        return run.config.allocation
    first = run.config.initial_topology
    if run.masks:
        return first.partition(":")[0]
    return "map" if run.config.layer_sparsity else run.config.structure


def _print_layers(console: Console, study: Study) -> None:
    levels = {}
    for run in study.runs:
        if run.problem.masked:
            key = (run.config.allocation, run.allocation.epsilon, tuple(run.allocation.counts.items()))
            levels.setdefault(key, run)
    if not levels:
        return
    table = Table(box=box.SIMPLE_HEAD, title="connections and sparsity by layer")
    for name in ("allocation", "epsilon", "sparsity", "layer", "shape", "connections", "layer sparsity"):
        table.add_column(name, justify="left" if name in ("allocation", "layer", "shape") else "right")
    for run in levels.values():
        head = [
            _counted_by(run),
            "–" if run.allocation.epsilon is None else f"{run.allocation.epsilon:.4g}",
            f"{sparsity(run, sum(run.allocation.counts.values())):.4f}",
        ]
        for name, shape in run.problem.kernels.items():
            size, count = math.prod(shape), run.allocation.counts.get(name, math.prod(shape))
            layer = name.removesuffix("/kernel")
            table.add_row(*head, layer, "×".join(map(str, shape)), f"{count:,}", f"{1 - count / size:.4f}")
            head = ["", "", ""]
    console.print(table)
