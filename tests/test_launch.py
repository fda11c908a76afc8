"""The scripts that start studies on clusters and on machines with several GPUs, with what is not here simulated."""

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.program import AS_A_USER, ROOT, SMALL, rows

SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch"), ROOT / ".ci" / "run"])
STUDY = [*SMALL, "--method=set,static,rigl", "--num_seeds=2"]


@pytest.fixture
def clone(tmp_path):
    """A folder with the programs, an environment that is this one, and a scontrol that notes what it is told."""
    for name in ("launch", "sparse_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    executable(tmp_path / ".venv" / "bin" / "python", f'exec {sys.executable} "$@"')
    executable(tmp_path / "bin" / "scontrol", f'echo "$@" >> {tmp_path}/scontrol.log')
    return tmp_path


def executable(path, line):
    path.write_text(f"#!/usr/bin/env bash\n{line}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def started(clone, script, *arguments, **environment):
    command = ["bash", str(ROOT / "launch" / script), *arguments]
    path = f"{clone / 'bin'}:{os.environ['PATH']}"
    environment = AS_A_USER | {
        "SLURM_SUBMIT_DIR": str(clone), "VENV": str(clone / ".venv"), "PATH": path, "LOGS": str(clone / "logs"),
        **environment,
    }  # fmt: skip
    return subprocess.Popen(
        command, cwd=clone, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def ended(*args, **environment):
    process = started(*args, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def task(index, count, **more):
    """What SLURM tells a task of an array whose indices begin with 5."""
    return {"SLURM_ARRAY_TASK_ID": str(index + 4), "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": str(count),
            "SLURM_JOB_ID": f"12_{index}", **more}  # fmt: skip


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script):
    done = subprocess.run(["shellcheck", "-x", str(script)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_a_dry_run_prints_the_commands(clone):
    status, out, _ = ended(clone, "slurm_array.sbatch", "--dry_run", "--workdir=a b", **task(2, 4))
    assert (status, out) == (0, f"{clone}/.venv/bin/python launch/train.py --workdir=a\\ b --shard=2/4 \n")
    status, out, _ = ended(clone, "slurm_multinode.sbatch", "--dry_run", "--workdir=w")
    train = f"{clone}/.venv/bin/python launch/train.py --coordinator=auto --workdir=w"
    assert (status, out) == (0, f"srun --kill-on-bad-exit=0 {train} \n")
    status, out, _ = ended(clone, "local_gpus.sh", "--dry_run", "--workdir=w", GPUS="0,3")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["CUDA_VISIBLE_DEVICES=0", "CUDA_VISIBLE_DEVICES=3"]
    assert [line.split()[-1] for line in out.splitlines()] == ["--shard=1/2", "--shard=2/2"]
    assert not (clone / "w").exists()


def test_a_dry_run_prints_what_is_done_on_a_tpu(clone):
    def told(*arguments, **environment):
        status, out, err = ended(clone, "tpu_pod.sh", *arguments, "--dry_run", **environment)
        assert status == 0, err
        return [shlex.split(line) for line in out.splitlines()]

    (create,) = told("create", "pod", "v5litepod-16", ZONE="here")
    assert create == [
        "gcloud", "compute", "tpus", "tpu-vm", "create", "pod", "--zone", "here", "--accelerator-type=v5litepod-16",
        "--version=v2-alpha-tpuv5-lite",
    ]  # fmt: skip
    assert [command[0] for command in told("install", "pod")] == ["git", "gcloud", "gcloud"]
    (train,) = told("train", "pod", "--workdir=a b", "--method=set")
    assert train[4:7] == ["ssh", "pod", "--worker=all"]
    inner = shlex.split(train[7].removeprefix("--command="))
    assert inner[:3] == ["cd", "sparse_jax", "&&"]
    assert inner[3:] == [".venv/bin/python", "launch/train.py", "--coordinator=auto", "--workdir=a b", "--method=set"]
    assert told("fetch", "pod", "results/w")[1][5:] == [
        "--recurse", "pod:sparse_jax/results/w", "results", "--worker=0",
    ]  # fmt: skip
    assert told("delete", "pod")[0][-2:] == ["pod", "--quiet"]


@pytest.mark.parametrize(("script", "arguments", "environment", "message"), [
    ("slurm_multinode.sbatch", ("--method=set",), {}, "name a --workdir"),
    ("slurm_multinode.sbatch", ("--workdir=w", "--coordinator=a:1"), {}, "is known from SLURM: leave it out"),
    ("slurm_multinode.sbatch", ("--workdir=w",), {"SLURM_SUBMIT_DIR": "/"}, "is not the clone of sparse_jax"),
    ("slurm_multinode.sbatch", ("--workdir=w",), {"VENV": "none"}, "run bash launch/quickstart.sh in"),
    ("tpu_pod.sh", (), {}, "create NAME TYPE, install NAME"),
    ("tpu_pod.sh", ("begin", "pod", "--dry_run"), {}, "create NAME TYPE, install NAME"),
    ("tpu_pod.sh", ("create", "pod", "--dry_run"), {}, "such as v5litepod-16"),
    ("tpu_pod.sh", ("train", "pod", "--dry_run"), {}, "such as --flagfile="),
    ("tpu_pod.sh", ("train", "pod", "--process_id=1"), {}, "is known from the pod: leave it out"),
    ("tpu_pod.sh", ("delete", "a;b"), {}, "is no name of a slice"),
    ("slurm_array.sbatch", ("--method=set",), {}, "name a --workdir that all tasks see"),
    ("slurm_array.sbatch", ("--workdir=w", "--shard=1/2"), {}, "use sbatch --array=1-N"),
    ("slurm_array.sbatch", ("--workdir=w",), {"SLURM_SUBMIT_DIR": "/"}, "is not the clone of sparse_jax"),
    ("slurm_array.sbatch", ("--workdir=w",), {"VENV": "none"}, "run bash launch/quickstart.sh in"),
    ("local_gpus.sh", ("--workdir=w",), {"GPUS": "", "PATH": "/usr/bin:/bin"}, "nvidia-smi lists no GPU here"),
    ("local_gpus.sh", ("--workdir=w", "--shard=1/2"), {"GPUS": "0"}, "name them, GPUS=0,1"),
    ("local_gpus.sh", ("--workdir=w",), {"GPUS": "0", "VENV": "none"}, "run bash launch/quickstart.sh first"),
])  # fmt: skip
def test_bad_input_is_one_line(clone, script, arguments, environment, message):
    status, out, err = ended(clone, script, *arguments, **environment)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (clone / "w").exists()


def test_tasks_of_an_array_share_a_study(clone):
    """One is told that its time is up, saves, and goes back into the queue; it is requeued beside another."""
    workdir, arguments = clone / "w", (*STUDY, "--epochs=60", f"--workdir={clone / 'w'}")
    process = started(clone, "slurm_array.sbatch", *arguments, **task(1, 2))
    wait_for(workdir / "metrics", process)
    process.send_signal(signal.SIGTERM)  # to the shell of the job alone, as --signal=B:TERM does
    _, err = process.communicate(timeout=100)
    assert process.returncode == 75, err
    assert (clone / "scontrol.log").read_text() == "requeue 12_1\n"
    assert not (workdir / "results.csv").exists() or len(rows(workdir)) < 6
    tasks = [started(clone, "slurm_array.sbatch", *arguments, **task(index, 2)) for index in (1, 2)]
    for one in tasks:
        _, err = one.communicate(timeout=300)
        assert one.returncode == 0, err
    assert len(rows(workdir)) == 6
    assert {row["status"] for row in rows(workdir)} == {"ok"}


def wait_for(folder: Path, process):
    deadline = time.monotonic() + 200
    while not list(folder.glob("*.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_tpu_needs_gcloud(clone):
    """Where there is hardly any program: no test may find a real one."""
    for name in ("bash", "dirname"):
        (clone / "few" / name).parent.mkdir(exist_ok=True)
        (clone / "few" / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [shutil.which("bash"), str(ROOT / "launch" / "tpu_pod.sh"), "create", "pod", "v5litepod-1"], check=False,
        env={"PATH": str(clone / "few")}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "gcloud is not installed" in done.stderr


SRUN = """
shift
for i in 0 1; do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
    echo $! >> tasks
done
worst=0
while read -r task; do
    status=0
    wait "$task" || status=$?
    worst=$((status > worst ? status : worst))
done < tasks
exit "$worst"
"""


@pytest.mark.slow
def test_tasks_of_a_step_train_as_one(clone):
    """With an srun that starts two tasks here: their time is up, all save, the job is requeued and ends."""
    executable(clone / "bin" / "srun", SRUN)
    arguments, tasks = ("--workdir=w", *STUDY, "--epochs=60"), clone / "tasks"
    step = {"SLURM_JOB_ID": str(100_000 + os.getpid()), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2",
            "SLURM_STEP_NUM_TASKS": "2"}  # fmt: skip
    process = started(clone, "slurm_multinode.sbatch", *arguments, **step)
    wait_for(clone / "w" / "metrics", process)
    for pid in tasks.read_text().split():  # --signal=TERM tells the tasks alone
        os.kill(int(pid), signal.SIGTERM)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 75, err
    assert (clone / "scontrol.log").read_text() == f"requeue {step['SLURM_JOB_ID']}\n"
    tasks.unlink()
    status, _, err = ended(clone, "slurm_multinode.sbatch", *arguments, **step)
    assert status == 0, err
    assert {row["status"] for row in rows(clone / "w")} == {"ok"}
    assert len(rows(clone / "w")) == 6


@pytest.mark.slow
def test_workers_of_several_gpus_share_a_study(clone):
    """Of two that have one core each here; then two of which one has nothing to train with."""
    workdir = clone / "w"
    status, _, err = ended(clone, "local_gpus.sh", *STUDY, f"--workdir={workdir}", GPUS="0,1")
    assert status == 0, err
    assert len(rows(workdir)) == 6
    assert {path.name for path in (clone / "logs").iterdir()} == {"gpu-0.log", "gpu-1.log"}
    status, _, err = ended(clone, "local_gpus.sh", "--sparsity=7", f"--workdir={workdir}", GPUS="0,1")
    assert status == 2
    assert err.count("ended with 2: see") == 2


@pytest.mark.slow
def test_workers_of_several_gpus_stop_together(clone):
    process = started(clone, "local_gpus.sh", *STUDY, "--epochs=60", f"--workdir={clone / 'w'}", GPUS="0,1")
    wait_for(clone / "w" / "metrics", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 75, err
    assert all("the same command continues" in path.read_text() for path in (clone / "logs").iterdir())
