"""What comes from files is data: nothing is unpickled, evaluated or taken for a program."""

import ast

import pytest

from tests.program import ROOT

SOURCES = sorted([*ROOT.glob("sparse_jax/**/*.py"), *ROOT.glob("launch/*.py")])
FORBIDDEN = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "yaml"}
EVALUATING = {"eval", "exec", "compile", "__import__"}


def faults(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from (name for name in names if name.split(".")[0] in FORBIDDEN)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.startswith("joblib.") and called.split(".")[1] in ("load", "dump"):
                yield called
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in EVALUATING or keywords.get("shell") == "True":
                yield called
            if called.endswith("np.load") and keywords.get("allow_pickle") != "False":
                yield called


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_data(path):
    assert not list(faults(ast.parse(path.read_text())))


@pytest.mark.parametrize("text", [
    "import pickle", "from dill import load", "eval(x)", "np.load(p)", "np.load(p, allow_pickle=True)",
    "subprocess.run(x, shell=True)", "joblib.load(p)",
])  # fmt: skip
def test_faults_are_found(text):
    assert list(faults(ast.parse(text)))
