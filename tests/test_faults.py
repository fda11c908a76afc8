"""What happens to long studies: kills, damage, full disks, clocks, company. Nothing is lost but the last interval.

`bash launch/test.sh --faults` runs these, `--soak` the sixty kills. Every study here ends as one that nothing happened
to, byte for byte but for times.
"""

import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest

from sparse_jax.study.locks import awaited
from tests import program
from tests.program import AS_A_USER, ROOT, SMALL, outcome, rows

pytestmark = [pytest.mark.slow, pytest.mark.faults]
STUDY = (
    *SMALL, "--method=set,rigl,gmp", "--sparsity=0.5,0.9", "--interval=7", "--num_seeds=2", "--epochs=6",
    "--workdir=study",
)  # fmt: skip
COHORTS = 3
CANNOT_WRITE = 74
run, start = functools.partial(program.run, env=AS_A_USER), functools.partial(program.start, env=AS_A_USER)


class Reference(NamedTuple):
    """The study that nothing happened to."""

    outcome: tuple
    seconds: float  # with warm caches


@pytest.fixture(scope="session")
def reference(tmp_path_factory, worker_id):
    """Trained once for all workers of pytest-xdist: the first trains it, the others wait."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "reference"
    folder.mkdir(exist_ok=True)
    measured = folder / "seconds"
    with awaited(folder / "lock"):
        if not measured.exists():
            assert run(*STUDY, "--workdir=cold", cwd=folder).returncode == 0
            begin = time.monotonic()
            assert run(*STUDY, cwd=folder).returncode == 0
            measured.write_text(str(time.monotonic() - begin))
    return Reference(outcome(folder / "study"), float(measured.read_text()))


def goes_on(folder, reference):
    """The same command ends the study, as if nothing had happened."""
    ended = run(*STUDY, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert len(list((folder / "study" / "groups").glob("*[0-9a-f].json"))) == COHORTS
    assert outcome(folder / "study") == reference.outcome
    return ended


def killed(folder, reference, kills, seed):
    """Kill the study so many times, at random moments of its course; where it has ended before, it begins once more."""
    rng, studies, count = random.Random(seed), 0, 0
    while count < kills:
        place = folder / str(studies)
        place.mkdir()
        studies += 1
        while count < kills:
            process = start(*STUDY, cwd=place)
            time.sleep(rng.uniform(0.2, 1) * reference.seconds)
            if process.poll() is not None:
                assert process.wait() == 0, process.communicate()
                process.communicate()
                break
            process.send_signal(rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
            process.communicate(timeout=100)
            count += 1
        goes_on(place, reference)
    return studies


def test_five_kills(reference, tmp_path):
    killed(tmp_path, reference, kills=5, seed=0)


@pytest.mark.soak
def test_sixty_kills(reference, tmp_path):
    killed(tmp_path, reference, kills=60, seed=1)


# --- checkpoints -----------------------------------------------------------------------------------


def flipped(step):
    for file in step.rglob("d/*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


def truncated(step):
    for file in step.rglob("d/*"):
        os.truncate(file, file.stat().st_size // 2)


def half_deleted(step):
    for number, file in enumerate(sorted(path for path in step.rglob("*") if path.is_file())):
        if number % 2:
            file.unlink()


def emptied(step):
    shutil.rmtree(step)
    step.mkdir()


@pytest.mark.parametrize("damage", [flipped, truncated, half_deleted, emptied])
def test_the_newest_checkpoint_is_damaged(reference, tmp_path, damage):
    process = start(*STUDY, cwd=tmp_path)
    while not list(tmp_path.glob("study/checkpoints/*/[1-9]*/_CHECKPOINT_METADATA")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    group = max((tmp_path / "study" / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime)
    damage(max((step for step in group.iterdir() if step.name.isdigit()), key=lambda step: int(step.name)))
    assert "is passed over" in goes_on(tmp_path, reference).stderr


# --- disks -----------------------------------------------------------------------------------------


def limited(*arguments, cwd, size):
    """The program where no file may be larger than so many bytes, as on a disk that is full."""
    limit = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
    limit += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", limit, str(ROOT / "launch" / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, env=AS_A_USER, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("size", [100, 3_000, 8_000])
def test_a_disk_is_full(reference, tmp_path, size):
    """In config.json, in a checkpoint, in the results: one line, and the work that was saved is there."""
    ended = limited(*STUDY, "--nocompilation_cache", cwd=tmp_path, size=size)
    assert ended.returncode in (2, CANNOT_WRITE), ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("train.py: ")
    assert "Traceback" not in ended.stderr
    goes_on(tmp_path, reference)


def test_a_workdir_that_may_not_be_written(tmp_path):
    """Also by root, here without the capability to write everywhere."""
    unprivileged = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.getuid() == 0 else []
    if unprivileged and shutil.which("setpriv") is None:
        pytest.skip("for root nothing is read-only")
    assert run(*STUDY, cwd=tmp_path).returncode == 0
    everything = [tmp_path / "study", *(tmp_path / "study").rglob("*")]
    for path in everything:
        path.chmod(path.stat().st_mode & 0o555)
    before = {path: path.stat().st_mtime_ns for path in everything}
    command = [sys.executable, str(ROOT / "launch" / "train.py"), *STUDY, "--num_seeds=3"]
    ended = subprocess.run(
        [*unprivileged, *command], capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path
    )
    assert ended.returncode == 2, ended.stderr
    assert "cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert before == {path: path.stat().st_mtime_ns for path in everything}


# --- clocks, caches, company -----------------------------------------------------------------------

BACKWARDS = """
import time
_begun, _now = time.time(), time.time
time.time = lambda: 2 * _begun - _now() - 3600
time.time_ns = lambda: int(1e9 * time.time())
open(__file__ + ".read", "w").close()
"""


def test_a_clock_that_goes_backwards(reference, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BACKWARDS)
    process = program.start(*STUDY, cwd=tmp_path, env=AS_A_USER | {"PYTHONPATH": str(tmp_path)})
    time.sleep(0.6 * reference.seconds)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert (tmp_path / "sitecustomize.py.read").exists()
    goes_on(tmp_path, reference)


def test_a_cache_is_corrupt(tmp_path):
    """Of compiled programs, in three ways; caches of kernels and data are damaged in test_build.py, test_images.py."""
    environment = AS_A_USER | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    command = (*SMALL, "--method=set")
    assert program.run(*command, "--workdir=before", cwd=tmp_path, env=environment).returncode == 0
    files = sorted(path for path in (tmp_path / "cache").rglob("*-cache"))
    assert len(files) >= 3
    for number, path in enumerate(files):
        content = bytearray(path.read_bytes())
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        path.write_bytes((content[: len(content) // 2], flipped, b"")[number % 3])
    ended = program.run(*command, "--workdir=after", cwd=tmp_path, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert outcome(tmp_path / "after") == outcome(tmp_path / "before")


def test_two_launches_in_one_workdir(reference, tmp_path):
    both = [start(*STUDY, cwd=tmp_path) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    goes_on(tmp_path, reference)


def test_one_run_of_a_cohort_is_not_finite(reference, tmp_path):
    """The others are what they are without it."""
    ended = run(*STUDY, "--learning_rate=0.1,1e29", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    table = rows(tmp_path / "study")
    assert {row["status"] for row in table if row["learning_rate"] == "1e+29"} == {"diverged"}
    expected = {row["run_id"]: row["digest"] for row in reference.outcome[0]}
    assert {row["run_id"]: row["digest"] for row in table if row["learning_rate"] == "0.1"} == expected
