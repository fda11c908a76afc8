"""What launch/doctor.py says of a machine, whole and broken."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from sparse_jax.sparse import build
from sparse_jax.study import doctor
from tests import program

EXTRA = 'nobody_wrote_this>=1; extra == "search"'


def state(finding):
    return finding.state, bool(finding.remedy)


GOOD, TOLD, BAD = (doctor.OK, False), (doctor.NOTE, True), (doctor.PROBLEM, True)


def test_an_old_python(monkeypatch):
    assert state(doctor.python()) == GOOD
    monkeypatch.setattr(doctor, "OLDEST", (99,))
    assert state(doctor.python()) == BAD


@pytest.mark.parametrize(("line", "said"), [
    ("nobody_wrote_this>=1", "nobody_wrote_this is missing"), ("numpy>=999", f"numpy {np.__version__} is not >=999"),
])  # fmt: skip
def test_packages_that_do_not_fit(line, said):
    found = doctor.packages([Requirement("absl-py"), Requirement(line), Requirement(EXTRA)])
    assert state(found) == BAD
    assert found.said == said
    assert state(doctor.packages([Requirement("numpy>=2"), Requirement(EXTRA)])) == GOOD


def test_the_packages_of_this_environment_fit():
    assert state(doctor.packages(doctor.requirements())) == GOOD


def test_a_jaxlib_that_computes_wrongly(monkeypatch):
    version = importlib.metadata.version("jaxlib")
    assert doctor.MISCOMPILES == ("jaxlib", "0.10.2")
    monkeypatch.setattr(doctor, "MISCOMPILES", ("jaxlib", version))
    found = doctor.packages([Requirement("jaxlib")])
    assert state(found) == BAD
    assert "computes wrongly on CPU" in found.said


def test_extras_that_are_not_there():
    (found,) = doctor.extras([Requirement("numpy>=2"), Requirement(EXTRA)])
    assert found.name == "extra search"
    assert state(found) == TOLD
    assert "pip install -e '.[search]'" in found.remedy
    (found,) = doctor.extras([Requirement('numpy; extra == "search"')])
    assert state(found) == GOOD


def test_devices(monkeypatch):
    import jax

    monkeypatch.setattr(doctor, "_gpus", lambda: "")
    (found,) = doctor.devices()
    assert state(found) == GOOD
    monkeypatch.setattr(doctor, "_gpus", lambda: "GPU 0: NVIDIA H100")
    (found,) = doctor.devices()
    assert state(found) == TOLD
    assert "not GPU 0: NVIDIA H100" in found.said
    with monkeypatch.context() as patch:
        patch.setattr(jax, "jit", lambda function: lambda x: 7)
        (found,) = doctor.devices()
        assert state(found) == BAD
        assert "is 7" in found.said

    def broken():
        raise RuntimeError("no\ndriver")

    monkeypatch.setattr(jax, "devices", broken)
    (found,) = doctor.devices()
    assert state(found) == BAD
    assert found.said == "RuntimeError: no driver"


def test_no_compiler(monkeypatch):
    monkeypatch.setattr(build, "kernel", lambda: build.Kernel(None, "pure JAX", "no C++ compiler"))
    found = doctor.compiler()
    assert state(found) == TOLD
    assert "several times slower: no C++ compiler" in found.said


def test_folders_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert state(doctor.cache()) == GOOD
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert state(doctor.cache()) == TOLD
    assert state(doctor.results(tmp_path / "new" / "folder")) == GOOD
    assert state(doctor.results(tmp_path / "file" / "x")) == BAD
    monkeypatch.setattr(doctor, "LITTLE", 2**80)
    assert state(doctor.results(tmp_path)) == TOLD
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_data_sets_that_are_absent_or_damaged(tmp_path):
    (found,) = doctor.data(str(tmp_path))
    assert state(found) == TOLD
    assert "digits" in names(found.said)[0]
    assert "mnist" in names(found.said)[1]
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "madelon.npz").write_bytes(b"damaged")
    *damaged, found = doctor.data(str(tmp_path))
    assert [one.name for one in damaged] == ["data set mnist", "data set madelon"]
    assert all(state(one) == BAD for one in damaged)
    assert "mnist" not in names(found.said)[1]


def names(said):
    """The data sets that are there, and those that are not."""
    there, absent = said.split("; not in ")
    return there.split(", "), absent.partition(": ")[2].split(", ")


def test_the_program(tmp_path):
    done = program.run(f"--workdir={tmp_path / 'w'}", cwd=tmp_path, program="doctor.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is in the way of a training" in done.stdout
    for name in ("Python", "packages", "devices", "sparse products", "cache", "results", "data sets"):
        assert f" {name}: " in done.stdout
    assert not (tmp_path / "w").exists()
    (tmp_path / "file").touch()
    done = program.run(f"--workdir={tmp_path / 'file' / 'w'}", cwd=tmp_path, program="doctor.py")
    assert done.returncode == 1
    assert "1 problem" in done.stdout
    done = program.run("--date_dir=x", cwd=tmp_path, program="doctor.py")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_an_environment_without_anything(tmp_path):
    (tmp_path / "absl.py").write_text('raise ModuleNotFoundError("no", name="absl")')
    launched = [sys.executable, str(Path(program.ROOT) / "launch" / "doctor.py")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(launched, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "doctor.py: absl is missing: pip install -e . (or bash launch/quickstart.sh)\n"
