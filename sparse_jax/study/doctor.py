"""What launch/doctor.py looks at: whether this machine can do what the programs need, and what to do where it cannot.

Of sparse_jax it imports what needs neither jax nor anything else that may be broken, before it is known to work.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version

from sparse_jax.config import JAX_FOR_GPU
from sparse_jax.data import catalog
from sparse_jax.errors import UserError

OK, NOTE, PROBLEM = "ok", "note", "problem"  # a note: everything works, something is slower, or not there
OLDEST = (3, 11)  # Python
MISCOMPILES = ("jaxlib", "0.10.2")  # wrong results on CPU without an error (jax-ml/jax#39103)
LITTLE = 2**30  # bytes; with less on the disk a study may not end
INSTALL = "pip install -e ."


class Finding(NamedTuple):
    """What was found of one thing."""

    name: str
    state: str  # OK, NOTE or PROBLEM
    said: str
    remedy: str = ""  # what to do about it


def examine(data_dir: str, workdir: Path) -> Iterator[Finding]:
    """Everything, one thing after the other.

    Args:
      data_dir: the folder of prepared data sets.
      workdir: where results are to go.
    """
    yield python()
    try:
        needed = requirements()
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", PROBLEM, "sparse_jax is not installed in this environment", INSTALL)
        return
    found = packages(needed)
    yield found
    yield from extras(needed)
    if found.state != PROBLEM:
        yield from devices()
        yield compiler()
    yield cache()
    yield results(workdir)
    yield from data(data_dir)


def python() -> Finding:
    """The interpreter."""
    said = sys.version.split()[0]
    if sys.version_info >= OLDEST:
        return Finding("Python", OK, said)
    return Finding("Python", PROBLEM, said, "install 3.11 or newer: PYTHON=/path/to/it bash launch/quickstart.sh")


def requirements() -> list[Requirement]:
    """What sparse_jax says it needs. Raises PackageNotFoundError where it is not installed."""
    return [Requirement(line) for line in importlib.metadata.requires("sparse_jax") or ()]


def packages(needed: Sequence[Requirement]) -> Finding:
    """What is needed for anything, in versions that fit."""
    always = [one for one in needed if not _extra(one)]
    wrong = [said for one in always if (said := _wrong(one))]
    if wrong:
        return Finding("packages", PROBLEM, "; ".join(wrong), INSTALL)
    return Finding("packages", OK, ", ".join(f"{one.name} {importlib.metadata.version(one.name)}" for one in always))


def extras(needed: Sequence[Requirement]) -> Iterator[Finding]:
    """What is needed for some programs only."""
    for extra in dict.fromkeys(extra for one in needed if (extra := _extra(one))):
        wrong = [said for one in needed if _extra(one) == extra and (said := _wrong(one))]
        remedy = f"if it is wanted: pip install -e '.[{extra}]'" if wrong else ""
        yield Finding(f"extra {extra}", NOTE if wrong else OK, "; ".join(wrong) or "installed", remedy)


def _extra(requirement: Requirement) -> str:
    """The extra that asks for a package; empty for what is always needed."""
    found = re.search(r'extra == "([\w-]+)"', str(requirement.marker))
    return found[1] if found else ""


def _wrong(requirement: Requirement) -> str:
    """What is wrong with an installed package; nothing if it is there, in a version that fits."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if (requirement.name, version) == MISCOMPILES:
        return f"{requirement.name} {version} computes wrongly on CPU without an error (jax-ml/jax#39103)"
    fits = requirement.specifier.contains(version, prereleases=True)
    return "" if fits else f"{requirement.name} {version} is not {requirement.specifier}"


def devices() -> Iterator[Finding]:
    """What jax computes on, and whether it computes."""
    try:
        import jax

        found = jax.devices()
        total = float(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((64, 64))))
    except Exception as error:  # of whatever a driver or a plugin says
        said = " ".join(f"{type(error).__name__}: {error}".split())
        yield Finding("devices", PROBLEM, said, "reinstall jax for this machine: https://docs.jax.dev/installation")
        return
    platform, cores = found[0].platform, os.cpu_count()
    said = f"{len(found)} × {found[0].device_kind}" + (f", {cores} cores" if platform == "cpu" else "")
    if total != 64**3:
        yield Finding("devices", PROBLEM, f"{said}: a sum of 64³ ones is {total:g}", "use another jaxlib or driver")
    elif platform == "gpu" and Version(jax.__version__) < Version(JAX_FOR_GPU):
        remedy = f"pip install -U 'jax[cuda12]>={JAX_FOR_GPU}', on Python 3.12 (jax-ml/jax#36958)"
        yield Finding("devices", PROBLEM, f"{said}: jax {jax.__version__} computes wrongly there", remedy)
    elif platform == "cpu" and (unused := _gpus()):
        remedy = f"to use it: pip install -U 'jax[cuda12]>={JAX_FOR_GPU}', on Python 3.12"
        yield Finding("devices", NOTE, f"{said}; not {unused}", remedy)
    else:
        yield Finding("devices", OK, said)


def _gpus() -> str:
    """The first NVIDIA GPU of this machine, as its driver names it."""
    if (program := shutil.which("nvidia-smi")) is None:
        return ""
    done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.split("\n")[0].split(" (UUID")[0] if done.returncode == 0 else ""


def compiler() -> Finding:
    """The C++ kernel of sparse execution on CPU."""
    from sparse_jax.sparse.build import kernel

    found = kernel()
    if found.prefix:
        return Finding("sparse products", OK, found.description)
    remedy = "install a C++ compiler, g++ or clang++, or name one: CXX=/path/to/it"
    return Finding("sparse products", NOTE, f"in pure JAX on CPU, several times slower: {found.reason}", remedy)


def cache() -> Finding:
    """The folder of compiled programs and decoded data."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparse_jax"
    if said := _unwritable(folder):
        remedy = "name one that can be written, XDG_CACHE_HOME=/path/to/it; without, all is compiled and decoded anew"
        return Finding("cache", NOTE, said, remedy)
    return Finding("cache", OK, str(folder))


def results(workdir: Path) -> Finding:
    """Where results go."""
    if said := _unwritable(workdir.absolute()):
        return Finding("results", PROBLEM, said, "name a folder that can be written: --workdir=/path/to/it")
    free = shutil.disk_usage(_existing(workdir.absolute())).free
    said = f"{workdir}, {free / 2**30:,.1f} GiB free"
    return Finding("results", NOTE, said, "make room, or name another --workdir") if free < LITTLE else (
        Finding("results", OK, said)
    )  # fmt: skip


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _unwritable(folder: Path) -> str:
    """Why nothing can be written to a folder that is made when it is needed; nothing if it can."""
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"


def data(data_dir: str) -> Iterator[Finding]:
    """The data sets that can be trained on, and damaged ones."""
    folder, there, absent = Path(data_dir).expanduser(), [], []
    for name in catalog.DATASETS:
        try:
            catalog.describe(name, str(folder))
        except UserError as error:
            if _on_disk(name, folder):
                yield Finding(f"data set {name}", PROBLEM, str(error), "prepare or copy it again")
            else:
                absent.append(name)
        else:
            there.append(name)
    remedy = f"python launch/prepare_data.py --dataset=NAME --data_dir={data_dir}"
    if absent:
        yield Finding("data sets", NOTE, f"{', '.join(there)}; not in {folder}: {', '.join(absent)}", remedy)
    else:
        yield Finding("data sets", OK, ", ".join(there))


def _on_disk(name: str, folder: Path) -> bool:
    """Whether somebody prepared a data set, or meant to."""
    versions = [path for path in (folder / name).glob("*") if path.name[:1].isdigit()]
    return bool(versions) or any((root / f"{name}.npz").exists() for root in (folder, folder / "tabular"))
