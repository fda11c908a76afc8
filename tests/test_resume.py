"""Interrupted and continued studies end as uninterrupted ones."""

import random
import signal
import time

import pytest

from tests.program import SMALL, outcome, run, start

STUDY = (
    *SMALL, "--method=set,rigl", "--activation=srelu", "--sparsity=0.5,0.9", "--interval=7", "--dropout=0.2",
    "--workdir=study",
)  # fmt: skip


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The outcome of the study without interruption, and the seconds it took with warm caches."""
    folder = tmp_path_factory.mktemp("reference")
    assert run(*STUDY, "--workdir=cold", cwd=folder).returncode == 0
    begin = time.monotonic()
    assert run(*STUDY, cwd=folder).returncode == 0
    return outcome(folder / "study"), time.monotonic() - begin


def kill_and_continue(reference, tmp_path, kills, seed):
    expected, duration = reference
    rng = random.Random(seed)
    killed = attempt = 0
    while killed < kills:
        folder = tmp_path / str(attempt)
        folder.mkdir()
        attempt += 1
        while killed < kills:
            process = start(*STUDY, cwd=folder)
            time.sleep(rng.uniform(0.2, 1) * duration)
            if process.poll() is not None:
                process.communicate()
                break
            process.kill()
            process.communicate()
            killed += 1
        ended = run(*STUDY, cwd=folder)
        assert ended.returncode == 0, ended.stderr
        assert outcome(folder / "study") == expected


def test_killed_three_times(reference, tmp_path):
    kill_and_continue(reference, tmp_path, kills=3, seed=0)


@pytest.mark.slow
def test_killed_twenty_times(reference, tmp_path):
    kill_and_continue(reference, tmp_path, kills=20, seed=1)


def wait_for(path, pattern, process):
    """Until the process has made a file that matches."""
    while not list(path.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_asks_to_be_started_again(reference, tmp_path, number):
    process = start(*STUDY, cwd=tmp_path)
    wait_for(tmp_path, "study/metrics/*.jsonl", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "the same command continues study" in err
    assert "Traceback" not in err
    assert run(*STUDY, cwd=tmp_path).returncode == 0
    assert outcome(tmp_path / "study") == reference[0]


def test_a_damaged_checkpoint_is_passed_over(reference, tmp_path):
    process = start(*STUDY, cwd=tmp_path)
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
    ended = run(*STUDY, cwd=tmp_path)
    assert ended.returncode == 0
    assert f"{newest} is passed over" in ended.stderr
    assert outcome(tmp_path / "study") == reference[0]


def test_a_finished_study_is_not_trained_again(reference, tmp_path):
    assert run(*STUDY, cwd=tmp_path).returncode == 0
    before = (tmp_path / "study" / "results.csv").read_bytes()
    ended = run(*STUDY, cwd=tmp_path)
    assert ended.returncode == 0
    assert "first step" not in ended.stderr
    assert "set" in ended.stdout
    assert (tmp_path / "study" / "results.csv").read_bytes() == before


def test_a_lost_result_is_restored_from_the_checkpoint(reference, tmp_path):
    assert run(*STUDY, cwd=tmp_path).returncode == 0
    next((tmp_path / "study" / "runs").iterdir()).joinpath("result.json").unlink()
    ended = run(*STUDY, cwd=tmp_path)
    assert ended.returncode == 0
    assert "first step" not in ended.stderr
    assert outcome(tmp_path / "study") == reference[0]


@pytest.mark.parametrize(
    ("change", "name"), [("--epochs=5", "epochs"), ("--sparsity=0.5", "sparsity"), ("--num_seeds=3", "num_seeds")]
)
def test_a_changed_setting_is_refused_by_name(tmp_path, change, name):
    process = start(*STUDY, cwd=tmp_path)
    wait_for(tmp_path, "study/config.json", process)
    process.kill()
    process.communicate()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    ended = run(*STUDY, change, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"--{name}=" in ended.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_second_launch_is_refused_while_the_first_lives(tmp_path):
    process = start(*STUDY, cwd=tmp_path)
    try:
        wait_for(tmp_path, "study/locks/*.lock", process)
        time.sleep(0.2)
        ended = run(*STUDY, cwd=tmp_path)
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
        assert f"in use by process {process.pid}" in ended.stderr
    finally:
        process.kill()
        process.communicate()
    assert run(*STUDY, cwd=tmp_path).returncode == 0
