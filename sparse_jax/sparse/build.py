"""The C++ kernel: compiled at its first use for the machine at hand, kept in the user's cache folder.

Without a compiler, or if anything goes wrong, there is none, and products are computed in pure JAX.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import signal
import subprocess
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jaxlib
import numpy as np

from sparse_jax.sparse.compiler import COMPILERS, OFF, SWITCH, find_compiler, switched_off

FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-shared", "-pthread")
TARGETS = ("forward", "backward", "gradient", "by_output")
TIME_LIMIT = 120.0  # seconds that the compiler may take; it takes 5
LONGEST_REASON = 400  # characters: it may begin with the path of the library

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernel.cc", "layer.h", "threads.h", "tiles.h"))


class Kernel(NamedTuple):
    """What computes sparse products on CPU."""

    prefix: str | None  # of the names of its FFI targets; None: there is no kernel
    description: str
    reason: str | None = None  # why there is none, in one line

    def target(self, name: str) -> str:
        """The FFI target of one of TARGETS. It names the build: compiled programs that are kept mix no versions.

        Raises:
          RuntimeError: if there is no kernel.
        """
        if self.prefix is None:
            raise RuntimeError(f"there is no C++ kernel: {self.reason}")
        return f"{self.prefix}_{name}"


class _KernelError(Exception):
    """There is no kernel, for the reason given."""


def make_kernel() -> Kernel:
    """Load the kernel, compiled if the cache folder does not hold it. Never raises."""
    try:
        return _load()
    except Exception as error:  # whatever it is, training goes on without the kernel
        text = str(error) if isinstance(error, _KernelError) else f"{type(error).__name__}: {error}"
        return Kernel(None, "pure JAX", " ".join(text.split())[:LONGEST_REASON])


_kernel = functools.cache(make_kernel)
_one_at_a_time = threading.Lock()


def kernel() -> Kernel:
    """The kernel of this process; the same at every call."""
    with _one_at_a_time:
        return _kernel()


def chosen_formulation(formulation: str | None) -> str:
    """The formulation of sparse products given, or if None the quickest of this process: "kernel" or "jax"."""
    if formulation is not None:
        return formulation
    return "kernel" if jax.default_backend() == "cpu" and kernel().prefix else "jax"


def _load() -> Kernel:
    if switched_off():
        raise _KernelError(f"switched off by {SWITCH}={OFF}")
    compiler = find_compiler()
    if compiler is None:
        raise _KernelError(f"no C++ compiler: neither $CXX nor {', '.join(COMPILERS)}")
    version = _version(compiler)
    key = _key(compiler, version)
    library = ctypes.CDLL(str(find_library(compiler, _folder(key))))
    made = Kernel(f"sparse_jax_{key}", f"C++ kernel ({_short_name(compiler, version)})")
    for name in TARGETS:
        function = jax.ffi.pycapsule(getattr(library, f"sparse_{name}"))
        jax.ffi.register_ffi_target(made.target(name), function, platform="cpu")
    with ThreadPoolExecutor(1) as pool:  # a thread of its own, as this one may be tracing a program
        pool.submit(_check, made).result()
    return made


def _run(command: list[str]) -> tuple[int, str]:
    """Exit status and output of the command. It and all that it starts end within TIME_LIMIT."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **options, text=True, errors="replace", start_new_session=True) as process:
        try:
            printed, _ = process.communicate(timeout=TIME_LIMIT)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise _KernelError(f"{Path(command[0]).name} took more than {TIME_LIMIT:g} s") from None
            raise
    return process.returncode, printed


def _version(compiler: list[str]) -> str:
    status, printed = _run([*compiler, "--version"])
    if status:
        raise _KernelError(f"{Path(compiler[0]).name} --version failed: {_complaint(printed)}")
    return printed.split("\n")[0]


def _complaint(printed: str) -> str:
    """The line that says what is wrong."""
    lines = [line for line in printed.splitlines() if line.strip()] or ["it prints nothing"]
    return next((line for line in lines if "error" in line), lines[0])


def _processor() -> str:
    """What the machine code depends on: the instructions of the processor."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    return f"{platform.machine()} {platform.processor()}"


def _key(compiler: list[str], version: str) -> str:
    """Of all that the library depends on."""
    parts = [compiler, version, FLAGS, _processor(), jaxlib.__version__, *(path.read_bytes() for path in _SOURCES)]
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def _folder(key: str) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "sparse_jax" / "kernels" / key


def _short_name(compiler: list[str], version: str) -> str:
    number = re.search(r"(?:version|\)) (\d+(?:\.\d+)+)", version)
    return f"{Path(compiler[0]).name} {number[1]}" if number else Path(compiler[0]).name


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def find_library(compiler: list[str], folder: Path) -> Path:
    """The library in the folder, compiled if there is none. Its name is its digest: a damaged file is none."""
    for path in sorted(folder.glob("*.so")):
        if _digest(path) == path.stem:
            return path
    temporary = folder / f"{uuid.uuid4().hex}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise _KernelError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        _compile(compiler, temporary)
        return temporary.rename(folder / f"{_digest(temporary)}.so")
    finally:
        temporary.unlink(missing_ok=True)


def _compile(compiler: list[str], library: Path) -> None:
    """For this very processor, or if the compiler cannot, for all of its family."""
    command = [*compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", "-o", str(library), str(_SOURCES[0])]
    status, printed = _run([*command, "-march=native"])
    if status:
        status, printed = _run(command)
    if status:
        raise _KernelError(f"{Path(compiler[0]).name} failed: {_complaint(printed)}")


def _check(made: Kernel) -> None:
    """Raises if one small product, or its derivatives, differs from NumPy's."""
    weights = np.array([[0, 2, 0], [-1, 0, 3]], np.float32)  # of two inputs and three outputs
    outputs, input_starts = np.array([1, 0, 2, 3], np.int32), np.array([0, 1, 3], np.int32)  # the last slot is empty
    values = np.array([2, -1, 3, 7], np.float32)
    x = np.arange(42, dtype=np.float32).reshape(2, 21) - 10
    dy = np.cos(np.arange(63, dtype=np.float32)).reshape(3, 21)

    def call(name: str, shapes: list[tuple], *arguments: np.ndarray) -> list[np.ndarray]:
        results = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
        return [np.asarray(result) for result in jax.ffi.ffi_call(made.target(name), results)(*arguments)]

    order = call("by_output", [((4,), np.int32), ((4,), np.int32), ((4,), np.int32)], outputs, input_starts)
    (y,) = call("forward", [((3, 21), np.float32)], values, outputs, input_starts, *order, x)
    (dvalues, dx) = call("backward", [((4,), np.float32), (x.shape, np.float32)], values, outputs, input_starts, x, dy)
    (again,) = call("gradient", [((4,), np.float32)], outputs, input_starts, x, dy)
    expected = [x[0] @ dy[1], x[1] @ dy[0], x[1] @ dy[2], 0]
    pairs = [(y, weights.T @ x), (dx, weights @ dy), (dvalues, expected), (again, expected)]
    pairs += zip(order, ([1, 0, 1, 2], [0, 1, 2, 3], [1, 0, 2, 3]), strict=True)
    if not all(np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs):
        raise _KernelError("the results of the C++ kernel are wrong")
