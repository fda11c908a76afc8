"""Who may import whom, and the habits that the house rules forbid, read from the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparse_jax.config import ACTIVATIONS

PACKAGE = Path(__file__).parents[1] / "sparse_jax"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

INNER = {"topology", "activations", "models", "data", "sparse"}
UPPER = {"study", "search", "analysis", "report"}
# room or module of the package -> what else of the package it may import
ARROWS = {
    "errors": set(),
    "config": {"errors"},
    "recipes": {"config"},
    "values": {"errors", "config", "topology"},
    "flags": {"errors", "config", "values"},
    "topology": {"errors"},
    "activations": {"errors", "config"},
    "models": {"errors", "config"},
    "data": {"errors", "config"},
    "sparse": {"errors", "config", "topology"},
    "training": {"errors", "config", "recipes", *INNER},
    **{
        room: {"errors", "config", "recipes", "values", "flags", "training", *INNER, *UPPER}
        for room in (*UPPER, "sparsify")
    },
}
# ... and what of other people's packages
PEERS = {
    "errors": set(),
    "config": set(),
    "recipes": set(),
    "values": {"absl"},
    "flags": {"absl"},
    "topology": {"jax", "numpy"},
    "activations": {"jax", "flax"},
    "models": {"jax", "flax"},
    "sparse": {"jax", "jaxlib", "numpy", "flax"},
    "data": {"jax", "numpy", "sklearn", "tensorflow_datasets", "array_record"},
    "training": {"jax", "numpy", "flax", "optax", "orbax"},
    "analysis": {"jax", "numpy", "scipy", "pandas"},
    "sparsify": {"jax", "numpy", "optax"},
    "search": {"jax", "numpy", "rich", "optuna", "sqlalchemy", "smac", "ConfigSpace", "joblib"},
    "report": {"numpy", "pandas", "altair", "jinja2", "markupsafe", "vl_convert"},
}
WITHOUT_JAX = (
    "config", "values", "flags", "errors", "study.grid", "study.run", "study.rows", "study.summary", "study.store",
    "study.execution", "sparse.compiler",
    "study.resolve", "study.counts", "study.conflicts", "study.mask_file", "study.inspect",
    "study.sources", "study.constructed", "study.finished", "study.verify", "study.matrix_market", "study.folder",
    "analysis.statistics", "analysis.levels", "analysis.categories", "analysis.curves", "study.ablate",
    "study.ablations",
    "topology.allocation", "topology.patterns", "topology.graph", "topology.paths", "topology.power_law", "recipes",
    "topology.circulant", "topology.radix", "topology.radix_search", "topology.cayley",
    "models.shapes", "data.catalog", "data.splits", "data.prepare", "training.problem", "training.timeline",
    "training.flops", "search.wann_plan", "search.safs_plan", "search.places",
    "search.ranges", "search.files", "search.records",
)  # fmt: skip
NONLINEAR = {name.replace("_", "") for name in ACTIVATIONS if name != "linear"} | {
    "silu", "crelu", "celu", "glu", "mish", "softmax", "logsoftmax", "logsigmoid", "hardtanh", "relu6",
    "maximum", "minimum", "clip", "where", "abs", "sign", "exp", "expm1", "log1p", "erf", "sin", "cos", "square",
}  # fmt: skip


def nodes(room="") -> Iterator[tuple[str, ast.AST]]:
    """Every node of every file of a room, with the file's name."""
    for name, path in FILES.items():
        if name.startswith(room):
            for node in ast.walk(ast.parse(path.read_text())):
                yield name, node


def imports(node: ast.AST) -> list[str]:
    """The modules that an import statement names, at whatever depth it stands."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "write imports in full"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def room_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


EDGES = [
    (file, module.split("."))
    for file, node in nodes()
    for module in imports(node)
    if file != "__init__.py" and module.split(".")[0] not in sys.stdlib_module_names
]


def test_every_room_has_its_place():
    assert {room_of(file) for file in FILES} - {"__init__"} <= ARROWS.keys()
    assert len(EDGES) > 100


def test_rooms_import_only_what_lies_below_them():
    wrong = [
        f"{file} imports {'.'.join(module)}"
        for file, module in EDGES
        if module[0] == "sparse_jax" and module[1] not in ARROWS[room_of(file)] | {room_of(file)}
    ]
    assert wrong == []


def test_rooms_keep_to_the_libraries_of_their_trade():
    wrong = [
        f"{file} imports {'.'.join(module)}"
        for file, module in EDGES
        if module[0] != "sparse_jax" and room_of(file) in PEERS and module[0] not in PEERS[room_of(file)]
    ]
    assert wrong == []


def test_what_checks_the_input_needs_no_jax():
    """Neither now, nor later inside a function, nor through what it imports."""
    files = {module.replace(".", "/") + ".py" for module in WITHOUT_JAX}
    assert files <= FILES.keys()
    assert [file for file, module in EDGES if file in files and module[0] == "jax"] == []
    modules = ", ".join(f"sparse_jax.{module}" for module in WITHOUT_JAX)
    heavy = "{'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'sklearn', 'scipy', 'statsmodels', 'tensorflow_datasets'}"
    program = f"import sys, {modules}; sys.exit(str({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60
    )
    assert result.stderr == "set()\n"


# --- habits ----------------------------------------------------------------------------------------


def names(node: ast.AST) -> list[str]:
    """The names that a node speaks."""
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.Name):
        return [node.id]
    return [module.split(".")[-1] for module in imports(node)]


def test_no_model_has_a_nonlinearity_of_its_own():
    wrong = [
        f"{file}:{node.lineno} {name}"
        for file, node in nodes("models/")
        for name in names(node)
        if name.lower().replace("_", "") in NONLINEAR or _is_jax_nn(node)
    ]
    assert wrong == []


def _is_jax_nn(node: ast.AST) -> bool:
    return (isinstance(node, ast.Attribute) and ast.unparse(node) == "jax.nn") or "jax.nn" in imports(node)


def _called(node: ast.AST) -> str | None:
    """The function that a call names, without what stands before its last dot."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
        return None
    return names(node.func)[0]


def test_families_are_dicts_and_nothing_is_looked_up_by_its_name_in_the_source():
    """getattr may read a field of an object; it may not choose a member of a module, nor what is called."""
    wrong = []
    for file, path in FILES.items():
        tree = list(ast.walk(ast.parse(path.read_text())))
        imported = {
            alias.asname or alias.name.split(".")[0]
            for node in tree if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
        }  # fmt: skip
        for node in tree:
            chooses = _called(node) == "getattr" and ast.unparse(node.args[0]).split(".")[0] in imported
            calls = isinstance(node, ast.Call) and _called(node.func) == "getattr"
            if chooses or calls or _called(node) in ("globals", "eval", "exec", "import_module", "__import__"):
                wrong.append(f"{file}:{node.lineno} {ast.unparse(node)}")
    assert wrong == []


def test_defaults_stand_in_config_only():
    """No .get("name", default): a constant key is a setting; a variable key may well be absent from a table."""
    wrong = [
        f"{file}:{node.lineno} {ast.unparse(node)}"
        for file, node in nodes()
        if file != "config.py" and _called(node) in ("get", "setdefault", "pop")
        and len(node.args) == 2 and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
        and "environ" not in ast.unparse(node.func)
    ]  # fmt: skip
    assert wrong == []


@pytest.mark.parametrize("room", ["topology/", "activations/", "models/", "training/", "search/", "data/batches.py"])
def test_no_seed_has_a_default(room):
    wrong = [
        f"{file}:{node.lineno}"
        for file, node in nodes(room)
        if isinstance(node, ast.FunctionDef | ast.Lambda)
        for argument, default in zip(
            [*node.args.args, *node.args.kwonlyargs][::-1],
            [*node.args.defaults, *node.args.kw_defaults][::-1], strict=False,
        )
        if argument.arg in ("key", "seed", "rng") and default is not None
    ]  # fmt: skip
    assert wrong == []
