"""Interrupted and continued studies end as uninterrupted ones."""

import random
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.program import AS_A_USER, SMALL, outcome, rows, run, start

STUDY = (
    *SMALL, "--method=set,rigl", "--activation=srelu", "--sparsity=0.5,0.9", "--interval=7", "--dropout=0.2",
    "--augmentation=dubowski", "--ema=0.9", "--workdir=study",
)  # fmt: skip


EXECUTIONS = {"masked": (), "sparse": ("--execution=sparse", "--sparsity=0.9", "--method=set")}
masked_only = pytest.mark.parametrize("reference", ["masked"], indirect=True)  # where execution makes no difference


class Reference(NamedTuple):
    """A study without interruption."""

    command: tuple[str, ...]
    folder: Path
    outcome: tuple
    seconds: float  # with warm caches


@pytest.fixture(scope="module", params=["masked", pytest.param("sparse", marks=pytest.mark.slow)])
def reference(request, tmp_path_factory):
    command, folder = (*STUDY, *EXECUTIONS[request.param]), tmp_path_factory.mktemp("reference")
    assert run(*command, "--workdir=cold", cwd=folder).returncode == 0
    begin = time.monotonic()
    assert run(*command, cwd=folder).returncode == 0
    return Reference(command, folder, outcome(folder / "study"), time.monotonic() - begin)


def kill_and_continue(reference, tmp_path, kills, seed):
    command, _, expected, duration = reference
    rng = random.Random(seed)
    killed = attempt = 0
    while killed < kills:
        folder = tmp_path / str(attempt)
        folder.mkdir()
        attempt += 1
        while killed < kills:
            process = start(*command, cwd=folder)
            time.sleep(rng.uniform(0.2, 1) * duration)
            if process.poll() is not None:
                process.communicate()
                break
            process.kill()
            process.communicate()
            killed += 1
        ended = run(*command, cwd=folder)
        assert ended.returncode == 0, ended.stderr
        assert outcome(folder / "study") == expected


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_and_continued(reference, tmp_path, kills):
    kill_and_continue(reference, tmp_path, kills, seed=kills)


def wait_for(path, pattern, process):
    """Until the process has made a file that matches."""
    while not list(path.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_asks_to_be_started_again(reference, tmp_path, number):
    process = start(*reference.command, cwd=tmp_path)
    wait_for(tmp_path, "study/metrics/*.jsonl", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "the same command continues study" in err
    assert "Traceback" not in err
    assert run(*reference.command, cwd=tmp_path).returncode == 0
    assert outcome(tmp_path / "study") == reference.outcome


def test_a_damaged_checkpoint_is_passed_over(reference, tmp_path):
    process = start(*reference.command, cwd=tmp_path)
    wait_for(tmp_path, "study/checkpoints/*/[1-9]*/_CHECKPOINT_METADATA", process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    group = next((tmp_path / "study" / "checkpoints").iterdir())
    newest = max((step for step in group.iterdir() if step.name.isdigit()), key=lambda step: int(step.name))
    for file in newest.rglob("d/*"):  # some of them hold no array any more
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    ended = run(*reference.command, cwd=tmp_path)
    assert ended.returncode == 0
    assert f"{newest} is passed over" in ended.stderr
    assert outcome(tmp_path / "study") == reference.outcome


@masked_only
def test_a_finished_study_is_not_trained_again(reference, tmp_path):
    shutil.copytree(reference.folder / "study", tmp_path / "study")
    before = (tmp_path / "study" / "results.csv").read_bytes()
    ended = run(*reference.command, cwd=tmp_path)
    assert ended.returncode == 0
    assert "first step" not in ended.stderr
    assert "set" in ended.stdout
    assert (tmp_path / "study" / "results.csv").read_bytes() == before


@pytest.mark.slow
@masked_only
def test_a_lost_result_is_restored_from_the_checkpoint(reference, tmp_path):
    assert run(*reference.command, cwd=tmp_path).returncode == 0
    next((tmp_path / "study" / "runs").iterdir()).joinpath("result.json").unlink()
    ended = run(*reference.command, cwd=tmp_path)
    assert ended.returncode == 0
    assert "first step" not in ended.stderr
    assert outcome(tmp_path / "study") == reference.outcome


@pytest.mark.slow
@masked_only
def test_a_killed_study_goes_on_as_a_part_of_a_larger_one(reference, tmp_path):
    process = start(*reference.command, cwd=tmp_path)
    wait_for(tmp_path, "study/checkpoints/*/[1-9]*/_CHECKPOINT_METADATA", process)
    process.kill()
    process.communicate()
    for change in ((), ("--num_seeds=2",)):
        assert run(*reference.command, *change, cwd=tmp_path).returncode == 0
    table = rows(tmp_path / "study")
    assert table[: len(reference.outcome[0])] == reference.outcome[0]
    assert len(table) == 2 * len(reference.outcome[0])


@pytest.mark.slow
@masked_only
def test_a_study_goes_on_with_other_devices(reference, tmp_path):
    """As a user compiles it: the compiler of tests rounds the programs of one and of two runs a device differently."""
    process = start(*reference.command, "--num_seeds=1", cwd=tmp_path, env=AS_A_USER)
    wait_for(tmp_path, "study/checkpoints/*/[1-9]*/_CHECKPOINT_METADATA", process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    for devices in (1, 3):
        ended = run(*reference.command, f"--cpu_devices={devices}", cwd=tmp_path, env=AS_A_USER)
        assert ended.returncode == 0
        assert "passed over" not in ended.stderr
        assert "begun under other device" in ended.stderr or devices == 3
    assert run(*reference.command, "--workdir=whole", cwd=tmp_path, env=AS_A_USER).returncode == 0
    assert outcome(tmp_path / "study") == outcome(tmp_path / "whole")


@pytest.mark.slow
@masked_only
def test_the_metrics_of_finished_runs_survive_the_training_of_others(reference, tmp_path):
    assert run(*reference.command, cwd=tmp_path).returncode == 0
    lost = next((tmp_path / "study" / "runs").iterdir())
    (lost / "result.json").unlink()
    shutil.rmtree(tmp_path / "study" / "checkpoints")
    (tmp_path / "study" / "metrics" / f"{lost.name}.jsonl").unlink()
    process = start(*reference.command, cwd=tmp_path)
    wait_for(tmp_path, f"study/metrics/{lost.name}.jsonl", process)
    process.kill()
    process.communicate()
    assert run(*reference.command, cwd=tmp_path).returncode == 0
    assert outcome(tmp_path / "study") == reference.outcome


def test_other_data_under_the_same_name_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.normal(size=(60, 3)), "y_train": np.arange(60) % 2}
    arrays |= {"x_test": rng.normal(size=(20, 3)), "y_test": np.arange(20) % 2}
    np.savez(tmp_path / "set.npz", **arrays)
    command = (*SMALL, "--dataset=set.npz", "--train_size=0", "--sparsity=0.5", "--workdir=w")
    assert run(*command, cwd=tmp_path).returncode == 0
    next((tmp_path / "w" / "runs").iterdir()).joinpath("result.json").unlink()
    np.savez(tmp_path / "set.npz", **arrays | {"x_test": -arrays["x_test"]})
    ended = run(*command, cwd=tmp_path)
    assert ended.returncode == 2
    assert "set.npz is not the one this study was begun on" in ended.stderr


def test_another_number_of_lanes_is_refused(tmp_path):
    command = (*SMALL, "--sparsity=0.5", "--workdir=w")
    assert run(*command, cwd=tmp_path).returncode == 0
    assert run(*command, "--lane_width=3", cwd=tmp_path).returncode == 0  # map has one lane whatever the width
    ended = run(*command, "--layout=vmap", "--lane_width=2", cwd=tmp_path)
    assert ended.returncode == 2
    assert "begun with 1 lanes, not 2" in ended.stderr
