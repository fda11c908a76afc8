"""Several processes that train together: what they find is what one finds, and what happens if one of them ends."""

import functools
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from sparse_jax.study.interrupt import Interrupt
from tests import program
from tests.program import AS_A_USER, ROOT, SMALL, outcome, rows

STUDY = (*SMALL, "--num_seeds=3", "--sparsity=0.5,0.9")
TOGETHER = "--cpu_devices=2"
run = functools.partial(program.run, env=AS_A_USER)
ENDED_BY_JAX = -signal.SIGABRT  # where its own watch sees that the first process is gone before we do


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def together(*arguments, cwd, more=((), ())):
    """Two processes of two devices each, running; `more` are arguments of each."""
    address = f"127.0.0.1:{free_port()}"
    return [
        started(*arguments, TOGETHER, f"--coordinator={address}", "--num_processes=2", f"--process_id={i}", *own,
                cwd=cwd)
        for i, own in enumerate(more)
    ]  # fmt: skip


def started(*arguments, cwd, **environment):
    command = [sys.executable, str(ROOT / "launch" / "train.py"), *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=AS_A_USER | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(processes, timeout=280):
    """(status, stdout, stderr) of each."""
    found = [process.communicate(timeout=timeout) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, found, strict=True)]


# Its threads write in pieces, and one's words may come in the middle of another's.
GLOO = r"\[Gloo\] Rank|is connected to|Expected number of connected peer ranks is :|peer ranks\.|\d+|\s"


def succeed(processes):
    for status, _, err in (found := ended(processes)):
        assert status == 0, err
    assert not re.sub(GLOO, "", found[1][1])  # one of them tells


SETTINGS = (
    ("--method=static,dense",),
    ("--method=set", "--interval=7", "--layout=vmap", "--lane_width=2", "--data_placement=host"),
    ("--method=gmp", "--interval=7", "--execution=sparse", "--ema=0.9"),
    ("--method=snfs", "--interval=7", "--batch_devices=2"),
)


@pytest.mark.parametrize(
    "setting",
    [("--method=rigl", "--interval=7"), *(pytest.param(setting, marks=pytest.mark.slow) for setting in SETTINGS)],
)
def test_two_processes_find_what_one_finds(setting, tmp_path):
    command = (*STUDY, *setting)
    assert run(*command, "--cpu_devices=4", "--workdir=one", cwd=tmp_path).returncode == 0
    succeed(together(*command, "--workdir=two", cwd=tmp_path))
    found, expected = outcome(tmp_path / "two"), outcome(tmp_path / "one")
    assert len(found[0]) >= 6
    assert found == expected


@pytest.mark.slow
def test_two_processes_share_batches(tmp_path):
    """The order of a sum over processes is another: equal but for the last bits."""
    command = (*STUDY, "--method=rigl", "--interval=7", "--batch_devices=4")
    assert run(*command, "--cpu_devices=4", "--workdir=one", cwd=tmp_path).returncode == 0
    succeed(together(*command, "--workdir=two", cwd=tmp_path))
    found, expected = (rows(tmp_path / name) for name in ("two", "one"))
    for one, other in zip(found, expected, strict=True):
        assert (one["run_id"], one["connections"]) == (other["run_id"], other["connections"])
        assert float(one["test_accuracy"]) == pytest.approx(float(other["test_accuracy"]), abs=0.02)


def wait_for_metrics(workdir, processes):
    deadline = time.monotonic() + 200
    while not list((workdir / "metrics").glob("*.jsonl")):
        assert all(process.poll() is None for process in processes), ended(processes)
        assert time.monotonic() < deadline
        time.sleep(0.02)


LONG = (*STUDY, "--method=rigl", "--interval=7", "--epochs=12", "--workdir=w")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What the long study finds if nothing happens to it."""
    folder = tmp_path_factory.mktemp("reference")
    assert run(*LONG, cwd=folder).returncode == 0
    return outcome(folder / "w")


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("asked", [0, 1])
def test_one_is_asked_to_stop_and_both_do(asked, reference, tmp_path):
    """With the state saved; then one process goes on, with another number of devices."""
    processes = together(*LONG, cwd=tmp_path)
    wait_for_metrics(tmp_path / "w", processes)
    processes[asked].send_signal(signal.SIGTERM)
    (first, _, told), (second, *_) = ended(processes)
    assert (first, second) == (75, 75), told
    assert "stopped and saved" in told
    assert len(rows(tmp_path / "w")) < 6
    assert run(*LONG, cwd=tmp_path).returncode == 0
    assert outcome(tmp_path / "w") == reference


def test_the_first_signal_saves_also_where_another_process_was_asked_before(monkeypatch):
    """What is heard of another's signal is none of one's own, of which the second ends at once."""
    ended_with = []
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    monkeypatch.setattr(os, "_exit", ended_with.append)
    interrupt = Interrupt()
    interrupt.asked = True  # as `Hosts.listen` sets it
    interrupt._ask(signal.SIGTERM, None)
    assert not ended_with
    interrupt._ask(signal.SIGTERM, None)
    assert ended_with == [128 + signal.SIGTERM]


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("killed", [0, 1])
def test_one_is_killed_and_the_other_says_so(killed, reference, tmp_path):
    """Then both are started again, and go on."""
    processes = together(*LONG, cwd=tmp_path)
    wait_for_metrics(tmp_path / "w", processes)
    processes[killed].kill()
    found = ended(processes)
    assert found[killed][0] == -signal.SIGKILL
    status, _, err = found[1 - killed]
    assert status == 1 or (killed == 0 and status == ENDED_BY_JAX), err
    assert "one of them has ended" in err or "another task died" in err
    succeed(together(*LONG, cwd=tmp_path))
    assert outcome(tmp_path / "w") == reference


def test_processes_need_as_many_devices_each(tmp_path):
    found = ended(together("--dataset=digits", "--workdir=w", cwd=tmp_path, more=((), ("--cpu_devices=3",))))
    assert [status for status, *_ in found] == [2, 2]
    assert all("the processes have different numbers of devices" in err for *_, err in found)
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
@pytest.mark.faults
def test_the_disk_of_the_first_is_full(tmp_path):
    """All end with one status, and the line of the first; then they go on."""
    processes = together(*STUDY, "--method=rigl", "--workdir=w", cwd=tmp_path)
    wait_for_metrics(tmp_path / "w", processes)
    resource.prlimit(processes[0].pid, resource.RLIMIT_FSIZE, (100, 100))
    (first, _, told), (second, _, silent) = ended(processes)
    assert (first, second) == (74, 74), (told, silent)
    assert "once there is room to write" in told
    succeed(together(*STUDY, "--method=rigl", "--workdir=w", cwd=tmp_path))


def test_processes_with_other_data_do_not_train_together(tmp_path):
    x, y = np.eye(20), np.arange(20) % 2
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        np.savez(tmp_path / str(i) / "set.npz", x_train=x + i, y_train=y, x_test=x, y_test=y)
    common = ("--dataset=set.npz", "--batch_size=2", f"--workdir={tmp_path / 'w'}", "--sparsity=0.5")
    address = f"127.0.0.1:{free_port()}"
    processes = [
        started(*common, TOGETHER, f"--coordinator={address}", "--num_processes=2", f"--process_id={i}",
                cwd=tmp_path / str(i))
        for i in range(2)
    ]  # fmt: skip
    (first, _, told), (second, _, silent) = ended(processes)
    assert (first, second) == (2, 2)
    assert "the processes differ in the data" in told
    assert "differ" not in silent
    assert not list((tmp_path / "w" / "runs").glob("*/result.json"))


def test_what_all_refuse_one_tells(tmp_path):
    (first, _, told), (second, _, silent) = ended(together(*STUDY, "--batch_devices=8", "--workdir=w", cwd=tmp_path))
    assert (first, second) == (2, 2)
    assert told.splitlines()[-1] == "train.py: --batch_devices=8 does not divide the 4 devices here"
    assert silent == ""


@pytest.mark.slow
def test_slurm_says_who_takes_part(tmp_path):
    """Its environment simulated: two tasks of a step on this machine."""
    step = {
        "SLURM_JOB_ID": str(100_000 + free_port()), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
    }  # fmt: skip
    command = (*STUDY, "--method=set", TOGETHER, "--coordinator=auto", "--workdir=w")
    tasks = [{"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    succeed([started(*command, cwd=tmp_path, **step, **task) for task in tasks])
    assert len(rows(tmp_path / "w")) == 6


@pytest.mark.parametrize(("arguments", "message"), [
    (("--coordinator=auto",), "neither SLURM, Open MPI nor a TPU pod is found here"),
    (("--coordinator=node",), "'node' is no HOST:PORT, such as node7:8476, nor auto or none"),
    (("--coordinator=node:99999",), "is no HOST:PORT"),
    (("--num_processes=2",), "are for --coordinator=HOST:PORT"),
    (("--coordinator=auto", "--process_id=1"), "are for --coordinator=HOST:PORT"),
    (("--coordinator=a:1", "--num_processes=2", "--process_id=2"), "is none of --num_processes=2: 0 is first"),
])  # fmt: skip
def test_bad_input_is_one_line(arguments, message, tmp_path):
    found = run(*SMALL, *arguments, "--workdir=w", cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert message in found.stderr
    assert found.stderr.count("\n") == 1
    assert not (tmp_path / "w").exists()
