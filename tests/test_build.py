"""The C++ kernel is built once, and whatever is wrong with compiler or cache, there is a reason and no exception."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import pytest

from sparse_jax.sparse import build

COMPILER = next(filter(None, map(shutil.which, build.COMPILERS)), None)
SWITCHED_OFF = os.environ.get(build.SWITCH) == "off"
needs_compiler = pytest.mark.skipif(COMPILER is None or SWITCHED_OFF, reason="no C++ compiler, or switched off")


@pytest.fixture
def bin_folder(monkeypatch, tmp_path):
    """A folder that is all of $PATH but for the shell's own tools, and a cache folder of the test's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "sleep", "cp"):
        (folder / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv(build.SWITCH, raising=False)
    return folder


def script(folder: Path, compiling: str, version: str = "echo 'c++ (Fake) 1.2.3'") -> Path:
    """A compiler c++ that runs the given shell code, with the library to write in $out."""
    path = folder / "c++"
    find_out = 'while [ $# -gt 0 ]; do [ "$1" = -o ] && out="$2"; shift; done'
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then {version}; exit; fi\n{find_out}\n{compiling}\n')
    path.chmod(0o755)
    return path


def reason() -> str:
    """Why there is no kernel."""
    made = build.make_kernel()
    assert made.prefix is None
    assert made.description == "pure JAX"
    assert "\n" not in made.reason
    return made.reason


def test_no_compiler(bin_folder):
    assert reason().startswith("no C++ compiler")


def test_switched_off(bin_folder, monkeypatch):
    monkeypatch.setenv(build.SWITCH, "off")
    assert reason() == "switched off by SPARSE_JAX_KERNEL=off"


def test_a_compiler_that_does_not_even_tell_its_version(bin_folder):
    script(bin_folder, "exit 0", version="exit 3")
    assert reason() == "c++ --version failed: it prints nothing"


def test_a_compiler_that_fails(bin_folder, tmp_path):
    script(bin_folder, "echo 'In file x:'; echo 'fatal error: no such header'; exit 1")
    assert reason() == "c++ failed: fatal error: no such header"
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_compiler_that_refuses_this_processor_gets_another_chance(bin_folder, tmp_path):
    compiling = 'case "$all" in *march=native*) exit 1;; esac; echo made > "$out"'
    path = script(bin_folder, compiling)
    path.write_text(path.read_text().replace("#!/bin/sh\n", '#!/bin/sh\nall="$*"\n'))
    assert build.find_library([str(path)], tmp_path / "kernels").read_text() == "made\n"


def test_a_compiler_that_writes_garbage(bin_folder):
    script(bin_folder, 'echo garbage > "$out"')
    assert reason().startswith("OSError")


def test_a_compiler_that_writes_nothing(bin_folder):
    script(bin_folder, "exit 0")
    assert reason().startswith("OSError")


@needs_compiler
def test_a_library_without_the_products(bin_folder, tmp_path):
    (tmp_path / "empty.cc").write_text("")
    library = tmp_path / "empty.so"
    command = [COMPILER, "-shared", "-o", library, tmp_path / "empty.cc"]
    subprocess.run(command, env={"PATH": os.defpath}, check=True)
    script(bin_folder, f'cp {library} "$out"')
    assert "sparse_forward" in reason()


@pytest.mark.parametrize("where", ["compiling", "version"])
def test_a_compiler_that_hangs(bin_folder, monkeypatch, tmp_path, where):
    """It is ended, and with it what it has started."""
    monkeypatch.setattr(build, "TIME_LIMIT", 0.5)
    script(bin_folder, **{"compiling": "exit 0", where: f"(sleep 1; echo > {tmp_path}/late) & sleep 60"})
    start = time.monotonic()
    assert reason() == "c++ took more than 0.5 s"
    assert time.monotonic() - start < 10
    time.sleep(1)
    assert not (tmp_path / "late").exists()


def test_a_cache_that_cannot_be_written(bin_folder, tmp_path):
    script(bin_folder, "exit 0")
    (tmp_path / "cache").write_text("a file")
    assert reason().startswith(f"cannot write to {tmp_path / 'cache'}")


def test_results_are_checked(monkeypatch):
    made = build.kernel()
    if made.prefix is None:
        pytest.skip(made.reason)
    build._check(made)
    correct = jax.ffi.ffi_call
    for target in build.TARGETS:

        def wrong(name, *arguments, target=target):
            call = correct(name, *arguments)
            return (lambda *inputs: [1 + result for result in call(*inputs)]) if name.endswith(target) else call

        monkeypatch.setattr(jax.ffi, "ffi_call", wrong)
        with pytest.raises(Exception, match="kernel are wrong"):
            build._check(made)


class TestCache:
    """A fake compiler that counts: the cache holds whatever it makes."""

    @pytest.fixture
    def compiler(self, bin_folder, tmp_path):
        return script(bin_folder, f'echo compiling >> {tmp_path}/log; sleep 0.2; echo library > "$out"')

    @pytest.fixture
    def find(self, compiler, tmp_path):
        return lambda: build.find_library([str(compiler)], tmp_path / "kernels")

    def test_compiles_once(self, find, tmp_path):
        assert find() == find()
        assert (tmp_path / "log").read_text() == "compiling\n"
        assert [path.suffix for path in (tmp_path / "kernels").iterdir()] == [".so"]

    def test_a_damaged_library_is_compiled_again(self, find):
        find().write_text("librarY\n")
        assert find().read_text() == "library\n"

    def test_two_at_once(self, find, tmp_path):
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda _: find(), range(2))
        assert first == second
        assert first.read_text() == "library\n"
        assert [path.suffix for path in (tmp_path / "kernels").iterdir()] == [".so"]


def test_the_key_is_that_of_all_it_depends_on(monkeypatch):
    compiler = ["/usr/bin/c++"]
    key = build._key(compiler, "1")
    keys = {key, build._key(["/usr/bin/g++"], "1"), build._key([*compiler, "-m32"], "1"), build._key(compiler, "2")}
    for module, name, value in [
        (build, "FLAGS", ("-O0",)),
        (build, "_processor", lambda: "another"),
        (build, "_SOURCES", build._SOURCES[:1]),
        (build.jaxlib, "__version__", "0"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            keys.add(build._key(compiler, "1"))
    assert len(keys) == 8
    assert build._key(compiler, "1") == key


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("c++ (Debian 12.2.0-14+deb12u1) 12.2.0", "c++ 12.2.0"),
        ("Debian clang version 14.0.6", "c++ 14.0.6"),
        ("Apple clang version 15.0.0 (clang-1500.3.9.4)", "c++ 15.0.0"),
        ("something else", "c++"),
    ],
)
def test_description(version, name):
    assert build._short_name(["/usr/bin/c++"], version) == name


def test_without_a_kernel_it_has_no_targets():
    with pytest.raises(RuntimeError, match="no C\\+\\+ kernel: a reason"):
        build.Kernel(None, "pure JAX", "a reason").target("forward")


@needs_compiler
def test_there_is_a_kernel():
    made = build.kernel()
    assert made.reason is None
    assert made.description.startswith("C++ kernel (")
    assert build.kernel() is made


def test_sources_are_installed():
    """Whatever is compiled is among the package data."""
    text = (Path(__file__).parents[1] / "setup.cfg").read_text()
    assert f"sparse_jax.sparse = {', '.join(path.name for path in build._SOURCES)}\n" in text


def test_the_first_use_may_be_within_a_program_that_is_traced():
    code = "import jax; from sparse_jax.sparse import build; jax.jit(lambda x: print(build.kernel().reason))(1.0)"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert printed.stdout.strip() == str(build.kernel().reason)
