"""launch/evaluate.py on runs that launch/train.py trained: their results again, exported networks, and refusals."""

import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.sparse

from sparse_jax.data.catalog import make_reader
from sparse_jax.errors import UserError
from sparse_jax.study import evaluate, export
from sparse_jax.study import trained as trained_module
from sparse_jax.study.finished import find
from sparse_jax.study.trained import BEST, FINAL, load
from sparse_jax.topology.masks import select
from sparse_jax.training.hardware import Hardware
from tests.program import run
from tests.test_checkpoint import halve

SHARED = ("--dataset=digits", "--train_size=300", "--batch_size=16", "--method=static", "--cpu_devices=2")
MLPS = (
    "--hidden_sizes=24,12", "--execution=masked,sparse", "--activation=srelu", "--sparsity=0.95", "--ema=0.9",
    "--epochs=3", "--optimizer=adam", "--learning_rate=0.02",
)  # fmt: skip
PLAIN = ("--execution=sparse", "--sparsity=0.98", "--epochs=1", "--validation_fraction=0")
STUDIES = {"mlps": MLPS, "plain": (*PLAIN, "--hidden_sizes=24,12"), "lenet": (*PLAIN, "--model=lenet5_alford")}


def program(cwd, *arguments):
    return run(*arguments, cwd=cwd, program="evaluate.py")


def train(root, name):
    done = run(*SHARED, *STUDIES[name], f"--workdir={name}", cwd=root)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with workdirs, trained by the program; not to be changed."""
    root = tmp_path_factory.mktemp("evaluate")
    for name in ("mlps", "plain"):
        train(root, name)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 17, (30, 8, 8, 1)).astype(np.uint8)
    y = np.arange(30) % 10
    np.savez(root / "other.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.savez(root / "floats.npz", x_train=x / 16, y_train=y, x_test=x / 16, y_test=y)
    np.savez(root / "fewer.npz", x_train=x, y_train=y % 5, x_test=x, y_test=y % 5)
    return root


def results(world, workdir):
    """Folder of a run -> its result."""
    return {path.parent: json.loads(path.read_text()) for path in sorted((world / workdir).glob("runs/*/result.json"))}


def find_run(world, workdir, execution="sparse"):
    (folder,) = (folder for folder, result in results(world, workdir).items() if result["execution"] == execution)
    return folder


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("workdir", "execution", "which"),
    [
        ("mlps", "masked", FINAL), ("mlps", "sparse", BEST), ("plain", "sparse", FINAL),
        pytest.param("mlps", "sparse", FINAL, marks=pytest.mark.slow),
        pytest.param("lenet", "sparse", FINAL, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_numbers_are_those_of_the_result(world, tmp_path, workdir, execution, which):
    if not (world / workdir).exists():
        train(world, workdir)
    folder = find_run(world, workdir, execution)
    result, before = results(world, workdir)[folder], files_below(world / workdir)
    done = program(world, f"--run={folder}", f"--which={which}", f"--export={tmp_path / 'out'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert files_below(world / workdir) == before
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    scores = about["scores"]["digits"]
    if which == BEST:
        assert scores["validation"]["accuracy"] == result["best_val_accuracy"]
        assert scores["test"]["accuracy"] == result["test_accuracy_at_best_val"]
    else:
        parts = {"train": "train", "test": "test"} | ({"validation": "val"} if workdir == "mlps" else {})
        assert scores.keys() == parts.keys()
        for part, name in parts.items():
            assert scores[part]["accuracy"] == result[f"{name}_accuracy"]
            assert scores[part]["loss"] == pytest.approx(result[f"{name}_loss"], rel=1e-6)
    assert f"test  {100 * scores['test']['accuracy']:.2f}" in re.sub(r" {2,}", "  ", done.stdout)
    assert f"connections  {result['connections']:,} of " in done.stdout
    assert f"{result['inference_flops']:,} an example" in done.stdout
    assert sum(layer["connections"] for layer in about["layers"]) == result["connections"]
    assert about["flops_per_example"]["trained"] == result["inference_flops"]
    assert about["flops_per_example"]["exported"] < result["inference_flops"]  # there are dead neurons
    assert about["compaction"]["largest_relative_difference"] <= 1e-5
    check_folder(tmp_path / "out", about)


def check_folder(folder, about):
    """What model.json says of the files is so, read without any of our code."""
    weights, layers = dict(np.load(folder / "weights.npz")), {layer["name"]: layer for layer in about["layers"]}
    matrices = {path.relative_to(folder / "csr").with_suffix("").as_posix() for path in folder.rglob("csr/*.npz")}
    assert matrices == {name for name, layer in layers.items() if len(layer["shape"]) == 2}
    for name in matrices:
        kernel, exported = scipy.sparse.load_npz(folder / "csr" / f"{name}.npz"), layers[name]["exported"]
        assert (list(kernel.shape[::-1]), kernel.nnz) == (exported["shape"], exported["connections"])
        parts = [weights[f"{name}/kernel:{part}"] for part in ("data", "indices", "indptr")]
        assert all(map(np.array_equal, parts, (kernel.data, kernel.indices, kernel.indptr)))
    code = ["import os, sys", "os.chdir(sys.argv[1])", *about["load"], "print(logits.shape)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code), str(folder)], capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "(1, 10)\n", done.stderr


def test_another_data_set_has_its_test_part_evaluated(world):
    done = program(world, f"--run={find_run(world, 'mlps')}", "--dataset=other.npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"test +\d+\.\d\d +\d\.\d{4} +30 ", done.stdout)
    assert "train " not in done.stdout
    assert "of other.npz, with the normalisation fitted to the training part of digits" in done.stdout


def test_refused_in_one_line(world, tmp_path):
    """By the program: exit status 2, one line, and no folder."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    one, before = f"--run={find_run(world, 'mlps')}", files_below(world)
    refused = {
        (): ["which run", "--run=WORKDIR/runs/RUN"],
        (one, "--which=last"): ["--which", "final"],
        (one, f"--export={tmp_path / 'full'}"): ["full is not empty", "new folder"],
        (one, "--dataset=fewer.npz", f"--export={tmp_path / 'new'}"): ["8×8×1 uint8, 5 classes", "10 classes"],
        (one, "--dataset=floats.npz", f"--export={tmp_path / 'new'}"): ["float32", "uint8"],
        (f"--run={find_run(world, 'plain')}", "--which=best"): ["no validation part", "--which=final"],
    }
    for arguments, parts in refused.items():
        done = program(world, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert re.fullmatch(r"evaluate\.py: .+\n", done.stderr), done.stderr
        assert all(part in done.stderr for part in parts), done.stderr
    assert files_below(world) == before
    assert not (tmp_path / "new").exists()


@pytest.fixture
def copied(world, tmp_path):
    """A copy of a run, to be damaged."""
    shutil.copytree(world / "mlps", tmp_path / "work")
    return tmp_path / "work" / "runs" / find_run(world, "mlps").name


def refusal(path):
    with pytest.raises(UserError) as caught:
        load(find(str(path)), FINAL)
    return str(caught.value)


def test_a_run_is_found_by_any_path(world, tmp_path, monkeypatch):
    folder = find_run(world, "mlps")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    for path in (tmp_path / "link", f"../runs/{folder.name}", folder.name):
        assert find(str(path)).id == folder.name
    monkeypatch.chdir(folder)
    assert find(".").id == folder.name


@pytest.mark.parametrize("method", ["set", pytest.param("gmp", marks=pytest.mark.slow)])
def test_the_best_network_has_its_own_connections(tmp_path, method):
    """Some have a weight of zero: those that had just grown. Before its last pruning gmp has no best network."""
    command = (*SHARED, f"--method={method}", "--hidden_sizes=24,12", "--sparsity=0.8", "--interval=5", "--epochs=1")
    assert run(*command, "--stop_fraction=1", "--batch_size=27", "--workdir=w", cwd=tmp_path).returncode == 0
    (folder,) = (tmp_path / "w" / "runs").iterdir()
    if method == "gmp":
        assert json.loads((folder / "result.json").read_text())["best_val_accuracy"] is not None
    best = load(find(str(folder)), BEST)
    weights = select(best.params, best.masks)
    assert all((weights[name][~mask] == 0).all() for name, mask in best.masks.items())
    if method == "set":
        assert sum(best.connections.values()) == json.loads((folder / "result.json").read_text())["connections"]


def test_scores_are_the_same_where_the_data_stream(world):
    trained, reader = load(find(str(find_run(world, "mlps", "masked"))), FINAL), make_reader("~")
    own = evaluate.read_own(trained.place, reader)
    problem = trained_module.problem_of(trained, own.info)
    hardware = Hardware(tuple(jax.devices()[:1]), "map", 32)
    expected = evaluate.score(hardware, trained, problem, own, own.parts)

    class Small(Hardware):
        def holds(self, size):
            return False

    streamed = evaluate.score(Small(*hardware), trained, problem, own, own.parts)
    for part, score in expected.items():
        assert streamed[part][::2] == score[::2]
        assert streamed[part].loss == pytest.approx(score.loss, rel=1e-6)


def test_other_data_than_a_run_was_trained_on_are_refused(world):
    changed = find(str(find_run(world, "mlps")))._replace(data={"digits": "another"})
    with pytest.raises(UserError, match=r"digits is not the one that .* was trained on"):
        evaluate.read_own(changed, make_reader("~"))


def test_an_unfinished_network_is_refused(world):
    place = find(str(find_run(world, "mlps")))
    earlier = lambda folder: trained_module.read_group(folder)._replace(step=47)
    with pytest.raises(UserError, match="an earlier one is of step 47 of 48"):
        load(place, FINAL, earlier)


def test_a_run_without_a_best_network_is_refused(copied, monkeypatch):
    """As one of a method that prunes that was never evaluated after its last pruning."""
    read = trained_module.read_newest

    def never_evaluated(*args):
        if (snapshot := read(*args)) is None:
            return None
        leaves = snapshot.leaves | {".best.correct": np.full_like(snapshot.leaves[".best.correct"], -1)}
        return snapshot._replace(leaves=leaves)

    monkeypatch.setattr(trained_module, "read_newest", never_evaluated)
    with pytest.raises(UserError, match="none was evaluated; use --which=final"):
        load(find(str(copied)), BEST)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert export.check_folder(str(tmp_path / "link")) == tmp_path / "empty"
    assert export.check_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    with pytest.raises(UserError, match="cannot be written"):
        export.check_folder(str(tmp_path / "file" / "x"))

    def refuse(dir):
        raise PermissionError(13, "Permission denied", dir)

    monkeypatch.setattr("sparse_jax.study.folder.tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match="new cannot be written: Permission denied"):
        export.check_folder(str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_what_is_no_finished_run_is_refused(copied, tmp_path):
    work = copied.parent.parent
    assert "is a workdir" in refusal(work)
    assert copied.name in refusal(work)
    assert "is not there" in refusal(tmp_path / "gone" / "runs" / "run")
    assert "is no run: name the folder" in refusal(tmp_path)
    assert "is no run of" in refusal(copied.parent / "other")
    (copied / "result.json").unlink()
    assert "is not finished: the command that began its study continues it" in refusal(copied)


def test_a_checkpoint_that_is_gone_or_damaged_is_refused(copied):
    groups = copied.parent.parent / "checkpoints"
    assert load(find(str(copied)), FINAL).step == 48  # 3 epochs of 16 batches
    for step in groups.glob("*/[0-9]*"):
        halve(max((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size))
    assert "is damaged" in refusal(copied)
    assert len(refusal(copied).splitlines()) == 1
    shutil.rmtree(groups)
    assert "is gone" in refusal(copied)


def test_a_run_of_another_version_is_refused(copied):
    path = copied.parent.parent / "config.json"
    config = json.loads(path.read_text())
    config["runs"][copied.name].pop("ema")
    path.write_text(json.dumps(config))
    assert "another version" in refusal(copied)


def test_help_teaches(tmp_path):
    done = program(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(part in done.stdout for part in ("--run", "--export", "model.stablehlo", "Examples"))
    assert "[grid]" not in done.stdout
