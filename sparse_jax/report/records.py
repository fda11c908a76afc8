"""The runs of one or several workdirs as one table, and what a reader has to know about how it came together."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sparse_jax.errors import UserError
from sparse_jax.study.rows import COLUMNS
from sparse_jax.study.store import Store
from sparse_jax.values import briefly, show, telling

FINISHED = ("ok", "collapsed", "diverged")  # what a result.json can say of its run
STATUSES = (*FINISHED, "failed", "unfinished")
PRIMARY = ("dataset", "model", "method", "activation")  # they decide what `auto` is, never the other way round
LEVELS = ("sparsity_target", "epsilon")  # settings whose values are points of an axis
LENT = ("initial_topology", "initial_weights")  # settings that may name other runs
SEEDS = ("seed", "num_seeds", "first_seed")
MEASURED = (
    "sparsity", "connections", "parameters", "train_accuracy", "val_accuracy", "best_val_accuracy", "test_accuracy",
    "test_accuracy_at_best_val", "train_loss", "val_loss", "seconds", "kernel_sparsity", "effective_sparsity",
    "dead_neurons", "training_flops", "inference_flops", "step_ms", "majority", "silent_neurons",
    "silent_share", "loss_spikes",
)  # fmt: skip
NONE = "–"  # of a setting that does not apply, such as the sparsity of a dense network
LISTED = 6  # run ids that a note names


class Source(NamedTuple):
    """One workdir, and what its config.json says."""

    store: Store
    config: dict[str, Any]


class Records(NamedTuple):
    """All that a report is made from."""

    runs: pd.DataFrame  # one row for each run planned or found; columns of results.csv, store, status, message
    sources: tuple[Source, ...]
    varied: tuple[str, ...]  # columns of `runs`: the settings with more than one value
    told: tuple[str, ...]  # those of them that tell all combinations apart; the others go with these
    orders: dict[str, tuple[str, ...]]  # the values of each of them as text, as they were given
    notes: tuple[str, ...]  # what is odd about the workdirs, a sentence each

    @property
    def finished(self) -> pd.DataFrame:
        """The runs that have a result."""
        return self.runs[self.runs["status"].isin(FINISHED)]

    @property
    def complete(self) -> bool:
        """Whether every planned run has ended, in a result or a failure."""
        return not (self.runs["status"] == "unfinished").any()

    def metrics(self, run: pd.Series) -> list[dict]:
        """The rows that a run logged while it trained."""
        return Store(Path(run["store"])).read_metrics(run["run_id"])


def open_sources(workdirs: Sequence[str]) -> tuple[Source, ...]:
    """Raises UserError unless every path is the workdir of a study."""
    sources = []
    for root in dict.fromkeys(Path(workdir).expanduser().absolute() for workdir in workdirs):
        if not root.is_dir():
            raise UserError(f"workdir {root} {'is no folder' if root.exists() else 'does not exist'}")
        config = Store(root).read_config()
        if config is None:
            raise UserError(f"{root} is no workdir: it has no config.json of a study and no search.json")
        if not isinstance(config.get("runs"), dict):
            raise UserError(f"{root / 'config.json'} is not that of a study")
        sources.append(Source(Store(root), config))
    return tuple(sources)


def read(sources: Sequence[Source]) -> Records:
    """The runs of all workdirs, each once."""
    rows, notes = {}, []
    conflicts: list[str] = []
    for source in sources:
        found, damaged = _rows(source)
        notes += [f"{damaged} of the result files in {source.store.root} cannot be read."] if damaged else []
        for run_id, row in found.items():
            before = rows.get(run_id)
            if before is None or (before["status"] not in FINISHED and row["status"] in FINISHED):
                rows[run_id] = row
            elif row["status"] in FINISHED and row.get("digest") != before.get("digest"):
                conflicts.append(run_id)
    runs = _frame(list(rows.values()))
    for name in LENT:
        runs[name] = shortened(runs[name])
    varied = tuple(name for name in runs.columns if _is_varied(name, runs, sources))
    orders = {name: _order(runs[name], name) for name in varied}
    texts = {name: runs[name].map(setting_text) for name in varied}
    rows = [dict(zip(texts, values, strict=True)) for values in zip(*texts.values(), strict=True)]
    told = telling(rows, varied, (*PRIMARY, *LEVELS, *LENT[:1]))
    notes += _going_along(varied, told)
    return Records(runs, tuple(sources), varied, told, orders, (*notes, *_conflicts(conflicts), *_versions(sources)))


def setting_text(value: Any) -> str:
    """A value of a setting as filters and figures show it."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return NONE
    if value == "":
        return show(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def shortened(values: pd.Series) -> pd.Series:
    """Settings that name other runs, by shorter names where these are different."""
    short = briefly(value for value in values.unique() if isinstance(value, str))
    return pd.Series([short.get(value, value) for value in values], index=values.index, dtype=object)


def _going_along(varied: tuple[str, ...], told: tuple[str, ...]) -> list[str]:
    names = [name.replace("_", " ") for name in varied if name not in told]
    if not names:
        return []
    return [f"Not told apart where they go with other settings: {', '.join(names)}; the table of all runs has them."]


def _rows(source: Source) -> tuple[dict[str, dict], int]:
    """Run id -> row, in the order of the plan, and how many result files are damaged."""
    results = source.store.read_results()
    files = list(source.store.root.glob("runs/*/result.json"))
    planned = source.config["runs"]
    rows = {}
    for run_id in [*planned, *(name for name in results if name not in planned)]:
        settings = _settings(planned[run_id]) if run_id in planned else {}
        outcome = results[run_id] if run_id in results else _failure(source.store, run_id)
        if outcome.get("status") not in STATUSES:
            outcome = outcome | {"status": "unfinished"}
        rows[run_id] = settings | outcome | {"run_id": run_id, "store": str(source.store.root)}
        rows[run_id] |= {name: settings[name] for name in LEVELS if name in settings}
    return rows, len(files) - len(results)


def _failure(store: Store, run_id: str) -> dict[str, Any]:
    """What is known of a run without a result."""
    path = store.root / "runs" / run_id / "failure.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {"status": "unfinished"}
    except (OSError, ValueError):
        found = None
    message = found.get("message") if isinstance(found, dict) else None
    return {"status": "failed", "message": str(message) if message else "it left no message"}


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run under the names that results.csv has for them."""
    texts = {name: show(tuple(value)) if isinstance(value, list) else value for name, value in config.items()}
    return {"sparsity_target" if name == "sparsity" else name: value for name, value in texts.items()}


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The columns of results.csv first; what is measured is a number, or missing where it is none."""
    present = {name: None for row in rows for name in row}
    columns = list(dict.fromkeys((*COLUMNS, "store", "status", "message", *present)))
    runs = pd.DataFrame([[row.get(name) for name in columns] for row in rows], columns=columns, dtype=object)
    for name in MEASURED:
        runs[name] = pd.to_numeric(runs[name], errors="coerce").astype(float) if name in runs else float("nan")
    return runs


def _is_varied(name: str, runs: pd.DataFrame, sources: Sequence[Source]) -> bool:
    """Whether the study asks what this setting does: it has several values that no other setting brings about."""
    setting = "sparsity" if name == "sparsity_target" else name
    configs = [config for source in sources for config in source.config["runs"].values()]
    if name in (*SEEDS, *MEASURED) or not any(setting in config for config in configs):
        return False
    entries = [entry.get("settings") for source in sources for entry in asked(source)]
    given = [values.get(setting) if isinstance(values, dict) else None for values in entries]
    if given and isinstance(given[0], list) and len(given[0]) == 1 and all(values == given[0] for values in given):
        return False
    others = [other for other in PRIMARY if other in runs] if name not in PRIMARY else []
    texts = runs[name].map(setting_text)
    if not others:
        return texts.nunique() > 1
    return bool((texts.groupby([runs[other].map(setting_text) for other in others]).nunique() > 1).any())


def _order(values: pd.Series, name: str) -> tuple[str, ...]:
    """Numbers by size, names as they were given; what does not apply comes first."""
    texts = list(dict.fromkeys(values.map(setting_text)))
    known = [text for text in texts if text != NONE]
    if all(isinstance(value, int | float) and value is not True for value in values if setting_text(value) != NONE):
        known.sort(key=float)
    return (*(text for text in texts if text == NONE), *known)


def _conflicts(run_ids: list[str]) -> list[str]:
    if not run_ids:
        return []
    listed = ", ".join(run_ids[:LISTED]) + (", …" if len(run_ids) > LISTED else "")
    noun = "run has" if len(run_ids) == 1 else "runs have"
    return [f"{len(run_ids)} {noun} different results in two workdirs; the first is shown: {listed}."]


def sessions(source: Source) -> list[dict[str, Any]]:
    """The sessions that trained a study, as its config.json lists them."""
    found = source.config.get("sessions")
    return [session for session in found if isinstance(session, dict)] if isinstance(found, list) else []


def asked(source: Source) -> list[dict[str, Any]]:
    """The commands that asked for the runs of a workdir, as its config.json lists them, with their settings."""
    found = source.config.get("commands")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _versions(sources: Sequence[Source]) -> list[str]:
    """Of which packages and commits more than one version was at work."""
    seen: dict[str, dict[str, None]] = {}
    for session in (session for source in sources for session in sessions(source)):
        versions = session.get("versions")
        known = dict(versions) if isinstance(versions, dict) else {}
        for name, version in (known | {"commit": session.get("commit")}).items():
            seen.setdefault(str(name), {})[str(version)] = None
    mixed = [f"{name} {', '.join(values)}" for name, values in seen.items() if len(values) > 1]
    return [f"The runs come from different versions: {'; '.join(mixed)}."] if mixed else []
