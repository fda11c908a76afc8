"""What the workdir of a search for activation functions (SAFS) holds, as tables in which nothing odd is left.

A *pipeline* is one seed at one sparsity, or one epsilon. Sparsities, seeds and layers are texts here, as figures and
tables show them; a sparsity that is none but an epsilon is the text `epsilon 20`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from sparse_jax.report.records import NONE
from sparse_jax.report.search_files import RESULT, Search, entries, number, objects, text
from sparse_jax.search.records import CANDIDATES
from sparse_jax.study.files import read_lines

STAGES = ("stage1", "stage2", "both")  # that score candidates
COLUMNS = ("dense", "default", *STAGES)  # the networks of a pipeline
TUNED = ("optimizer", "learning_rate", "momentum", "weight_decay", "lr_schedule")
TRAINED, STOPPED, KNOWN, DIVERGED = FATES = ("trained", "stopped early", "taken over", "diverged")
PIPELINE = ["sparsity", "seed"]
PREFIX = "activation_"  # of the names of layers
EPSILON = "epsilon "  # before the number, where it says how sparse networks are
NUMBERS = ("accuracy", "loss", "epochs", "seconds", "flops", "learning_rate", "momentum", "weight_decay")
_OF_A_CANDIDATE = ("stage", *PIPELINE, "number", "fate", *NUMBERS, "optimizer", "lr_schedule", "operators", "best")
_OF_A_NETWORK = (*PIPELINE, "network", "validation", "test", "test_loss", "diverged", "connections")
_OF_A_SCALE = (*PIPELINE, "network", "layer", "operator", "α", "α from", "α to", "β", "β from", "β to")


class Safs(NamedTuple):
    """One search. Tables lack rows where files lack what they need."""

    model: str | None
    dataset: str | None
    layers: tuple[str, ...]
    sparsities: tuple[str, ...]
    seeds: tuple[str, ...]
    candidates: pd.DataFrame  # columns of _OF_A_CANDIDATE: `number` from 1 within a stage of a pipeline
    networks: pd.DataFrame  # columns of _OF_A_NETWORK, one row a network of a pipeline
    chosen: pd.DataFrame  # sparsity, seed, layer, operator
    tuned: pd.DataFrame  # sparsity, seed, network, and TUNED
    scales: pd.DataFrame  # columns of _OF_A_SCALE: mean, least and largest of a layer
    curves: pd.DataFrame  # sparsity, seed, network, layer, operator, x, y
    seconds: dict[str, float]  # by part of the search, as result.json has them
    notes: list[str]  # what is odd about the files, a sentence each


def read_safs(search: Search) -> Safs:
    """Everything that the files say, and what of it cannot be used."""
    result = search.result or {}
    pipelines = objects(result.get("pipelines"))
    candidates, notes = _candidates(search)
    names = _layers(result.get("layers"), pipelines, candidates)
    curves = _curves(objects(result.get("curves")), names)
    tables = {
        "candidates": candidates,
        "networks": _frame(_networks(pipelines), _OF_A_NETWORK).drop_duplicates([*PIPELINE, "network"]),
        "chosen": _frame(_chosen(pipelines, names), (*PIPELINE, "layer", "operator")),
        "tuned": _frame(_tuned(pipelines), (*PIPELINE, "network", *TUNED)),
        "scales": _frame(_scales(pipelines, names, curves), _OF_A_SCALE),
    }
    sparsities, seeds = (_ordered((*tables.values(), curves), name) for name in PIPELINE)
    if search.result is not None and tables["networks"].empty:
        notes = [*notes, f"{RESULT} names no network that was trained to the end."]
    settings = search.begun["settings"]
    model, dataset = (text(result.get(name)) or text(settings.get(name)) for name in ("model", "dataset"))
    seconds = {name: number(value) for name, value in entries(result.get("seconds")).items()}
    return Safs(model, dataset, names, sparsities, seeds, **tables, curves=curves, seconds=seconds, notes=notes)


def _frame(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns))


def _ordered(tables: Iterable[pd.DataFrame], name: str) -> tuple[str, ...]:
    """All values of a column, by size from the densest on: what does not apply, epsilons from the largest, numbers."""
    found = dict.fromkeys(value for table in tables for value in table[name])

    def place(value: str) -> tuple[int, float]:
        kind = 0 if value == NONE else 1 if value.startswith(EPSILON) else 2
        return kind, (0.0, -1.0, 1.0)[kind] * float(value.removeprefix(EPSILON) if kind else 0)

    return tuple(sorted(found, key=place))


def _pipeline(row: dict[str, Any]) -> dict[str, str]:
    """The sparsity and the seed of anything as texts, to the last digit."""
    values = {name: number(row.get(name)) for name in (*PIPELINE, "epsilon")}
    texts = {name: NONE if math.isnan(value) else f"{value:.15g}" for name, value in values.items()}
    epsilon = texts.pop("epsilon")
    return texts | ({"sparsity": f"{EPSILON}{epsilon}"} if texts["sparsity"] == NONE != epsilon else {})


# --- candidates --------------------------------------------------------------------------------------


def _candidates(search: Search) -> tuple[pd.DataFrame, list[str]]:
    """Every candidate in the order of its pipeline, and what is wrong with the file."""
    path = search.root / CANDIDATES
    if not path.is_file():
        return _frame([], _OF_A_CANDIDATE), [f"There is no {CANDIDATES}, so that nothing is known of the candidates."]
    lines = read_lines(path)
    rows = [row for row in map(_candidate, lines) if row is not None]
    whole = [line for line in path.read_bytes().split(b"\n")[:-1] if line.strip()]  # the last may be cut short
    lost = max(len(whole), len(lines)) - len(rows)
    notes = [f"{lost} of the lines of {CANDIDATES} cannot be read, and are left out."] if lost else []
    frame = _frame(rows, ("place", "side", *_OF_A_CANDIDATE)).sort_values(["place", "side"], kind="stable")
    keys = ["stage", *PIPELINE]
    frame = frame.drop_duplicates([*keys, "place", "side"], keep="last", ignore_index=True)
    frame["number"] = frame.groupby(keys).cumcount() + 1
    scored = frame["accuracy"].where(frame["fate"].isin((TRAINED, KNOWN))).astype(float)
    frame["best"] = scored.groupby([frame[name] for name in keys]).cummax()
    frame["best"] = frame.groupby(keys)["best"].ffill()
    return frame[list(_OF_A_CANDIDATE)], notes


def _candidate(row: dict[str, Any]) -> dict[str, Any] | None:
    """One line; None where it does not say what it is of."""
    stage = row.get("stage")
    if stage not in STAGES:
        return None
    place, side = (number(row.get(name)) for name in (("step", "candidate") if stage == "stage1" else ("trial",) * 2))
    if math.isnan(place) or math.isnan(side):
        return None
    marks = {DIVERGED: "diverged", STOPPED: "stopped", KNOWN: "known"}
    fate = next((fate for fate, name in marks.items() if row.get(name) is True), TRAINED)
    operators = row.get("operators")
    return _pipeline(row) | {name: number(row.get(name)) for name in NUMBERS} | {
        "stage": stage, "place": place, "side": side, "fate": fate,
        "optimizer": text(row.get("optimizer")), "lr_schedule": text(row.get("lr_schedule")),
        "operators": tuple(map(str, operators)) if isinstance(operators, list) else (),
    }  # fmt: skip


# --- the result --------------------------------------------------------------------------------------


def _layers(named: Any, pipelines: list[dict[str, Any]], candidates: pd.DataFrame) -> tuple[str, ...]:
    """The layers by number where they are called so; without a result as many as candidates have operators."""
    if isinstance(named, list) and named:
        return tuple(str(name).removeprefix(PREFIX) for name in named)
    listed = [one["operators"] for one in pipelines if isinstance(one.get("operators"), list)]
    return tuple(map(str, range(max(map(len, [*listed, *candidates["operators"]]), default=0))))


def _networks(pipelines: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for one in pipelines:
        networks = entries(one.get("networks"))
        for name in (name for name in COLUMNS if isinstance(networks.get(name), dict)):
            found = networks[name]
            yield _pipeline(one) | {
                "network": name, "validation": number(found.get("validation_accuracy")),
                "test": number(found.get("test_accuracy")), "test_loss": number(found.get("test_loss")),
                "diverged": found.get("diverged") is True, "connections": number(found.get("connections")),
            }  # fmt: skip


def _operators(one: dict[str, Any], layers: tuple[str, ...]) -> dict[str, str]:
    """Layer -> operator that stage 1 chose."""
    operators = one.get("operators")
    return {layer: str(name) for layer, name in zip(layers, operators if isinstance(operators, list) else (),
                                                    strict=False)}  # fmt: skip


def _chosen(pipelines: list[dict[str, Any]], layers: tuple[str, ...]) -> Iterable[dict[str, Any]]:
    for one in pipelines:
        for layer, operator in _operators(one, layers).items():
            yield _pipeline(one) | {"layer": layer, "operator": operator}


def _tuned(pipelines: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for one in pipelines:
        tuned = entries(one.get("hyperparameters"))
        for name in (name for name in STAGES if isinstance(tuned.get(name), dict)):
            values = {key: number(tuned[name].get(key)) for key in TUNED if key in NUMBERS}
            words = {key: text(tuned[name].get(key)) for key in TUNED if key not in NUMBERS}
            yield _pipeline(one) | {"network": name} | values | words


def _scales(pipelines: list[dict[str, Any]], layers: tuple[str, ...], curves: pd.DataFrame) -> Iterable[dict[str, Any]]:
    """α and β of every layer; the operator is the one chosen, or the one that a curve of that network has."""
    drawn = {(row.network, row.layer): row.operator for row in curves.itertuples()}
    for one in pipelines:
        scales, chosen = entries(one.get("scales")), _operators(one, layers)
        for name in (name for name in STAGES if isinstance(scales.get(name), list)):
            for layer, found in zip(layers, scales[name], strict=False):
                known = {sign: _values(entries(found).get(key)) for sign, key in (("α", "alpha"), ("β", "beta"))}
                operator = chosen.get(layer) if name == "both" else drawn.get((name, layer))
                row = _pipeline(one) | {"network": name, "layer": layer, "operator": operator}
                for sign, values in known.items():
                    row |= {sign: values.mean(), f"{sign} from": values.min(), f"{sign} to": values.max()}
                yield row


def _values(found: Any) -> pd.Series:
    return pd.Series([number(value) for value in (found if isinstance(found, list) else [found])]).dropna()


def _curves(found: list[dict[str, Any]], layers: tuple[str, ...]) -> pd.DataFrame:
    """One row a point; a curve of a layer that the network has not is left out."""
    rows = []
    for one in found:
        layer, x, y = one.get("layer"), one.get("x"), one.get("y")
        if not (type(layer) is int and 0 <= layer < len(layers) and isinstance(x, list) and isinstance(y, list)):
            continue
        words = _pipeline(one) | {"network": str(one.get("column")), "layer": layers[layer]}
        words["operator"] = text(one.get("operator")) or NONE
        rows += [words | {"x": number(a), "y": number(b)} for a, b in zip(x, y, strict=False)]
    return _frame(rows, (*PIPELINE, "network", "layer", "operator", "x", "y")).dropna(ignore_index=True)
