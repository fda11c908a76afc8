"""What a study leaves on disk, after a kill too."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys

import numpy as np
import pytest

from sparse_jax.errors import UserError
from sparse_jax.study import store as store_module
from sparse_jax.study.files import write_atomic
from sparse_jax.study.mask_file import load_masks
from sparse_jax.study.store import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "work")


def python(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_needs_no_jax():
    code = "import sys, sparse_jax.study.store; print({'jax', 'numpy'} & set(sys.modules))"
    with python(code) as process:
        assert process.stdout.read() == "set()\n"


def test_open_twice_is_harmless(store):
    store.write_config({"depth": 3})
    assert open_store(store.root).read_config() == {"depth": 3}


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_workdir_that_is_no_folder(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=str(tmp_path / name)):
        open_store(tmp_path / name)


def test_unwritable_workdir_is_left_alone(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", dir)

    monkeypatch.setattr(store_module.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=f"{tmp_path} cannot be written: Permission denied"):
        open_store(tmp_path)
    assert not list(tmp_path.iterdir())


def test_write_atomic_keeps_the_old_text_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old\n")

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_atomic(path, "new\n")
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, "new Σ\n")
    assert path.read_text(encoding="utf-8") == "new Σ\n"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomic_reaches_the_disk_before_and_after_the_rename(tmp_path, monkeypatch):
    calls = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda file: calls.append(stat.S_ISDIR(os.fstat(file).st_mode)))
    monkeypatch.setattr(os, "replace", lambda old, new: calls.append("rename") or replace(old, new))
    write_atomic(tmp_path / "file", "text")
    assert calls == [False, "rename", True]


def test_config(store):
    assert store.read_config() is None
    config = {"hidden": [300, 100], "rate": 0.1, "method": None}
    store.write_config(config)
    assert store.read_config() == config


@pytest.mark.parametrize("text", [b"", b'{"depth": ', b"[1]", b"\xff\x00"])
def test_broken_config_names_the_file(store, text):
    (store.root / "config.json").write_bytes(text)
    with pytest.raises(UserError, match=str(store.root / "config.json")):
        store.read_config()


def test_results_that_are_not_whole_are_absent(store):
    for run_id in ("b", "a", "missing", "empty", "half", "nan"):
        store.write_result(run_id, {"accuracy": 0.5})
    file = lambda run_id: store.root / "runs" / run_id / "result.json"
    file("missing").unlink()
    file("empty").write_text("")
    file("half").write_text(file("half").read_text()[:-5])
    file("nan").write_text('{"accuracy": NaN}')  # not strict JSON, so not written by us
    results = store.read_results()
    assert list(results.items()) == [("a", {"accuracy": 0.5}), ("b", {"accuracy": 0.5}), ("nan", {"accuracy": None})]


def test_masks_lie_beside_the_result(store):
    masks = {"dense_0/kernel": np.eye(3, dtype=bool)}
    store.write_masks("a", masks)
    assert store.read_results() == {}
    store.write_result("a", {"accuracy": 0.5})
    files = {file.name: file for file in (store.root / "runs" / "a").iterdir()}
    assert files.keys() == {"masks.npz", "result.json"}
    np.testing.assert_equal(load_masks(files["masks.npz"]), masks)


def test_json_is_strict(store):
    values = {
        "nan": float("nan"),
        "nested": [(np.float32("inf"), {"x": -np.inf})],
        "array": np.array([1.5, np.nan]),
    }
    store.write_result("a", values | {"count": np.int64(3), "mask": np.bool_(True)})
    refuse = lambda constant: pytest.fail(constant)
    text = (store.root / "runs" / "a" / "result.json").read_text()
    assert json.loads(text, parse_constant=refuse) == {
        "nan": None,
        "nested": [[None, {"x": None}]],
        "array": [1.5, None],
        "count": 3,
        "mask": True,
    }


def test_csv(store):
    store.write_result("r1", {"method": 'a "b", c', "seed": 1, "accuracy": 0.1 + 0.2, "unused": 5})
    store.write_result("r0", {"method": "set", "seed": 0, "accuracy": float("nan"), "loss": None})
    store.write_result("r2", {"method": "rigl", "seed": 2, "accuracy": 1e-7, "loss": 2.0})
    store.write_result("other", {"method": "static"})
    store.write_csv(("run_id", "seed", "method", "accuracy", "loss"), ["r2", "unfinished", "r1", "r0"])
    assert (store.root / "results.csv").read_bytes().decode() == (
        'run_id,seed,method,accuracy,loss\nr2,2,rigl,1e-07,2.0\nr1,1,"a ""b"", c",0.30000000000000004,\nr0,0,set,,\n'
    )


def test_lists_are_one_cell(store):
    for name, dead in (("a", [3, 7]), ("b", []), ("c", None)):
        store.write_result(name, {"dead_classes": dead})
    store.write_csv(("run_id", "dead_classes"), ["a", "b", "c"])
    assert (store.root / "results.csv").read_text() == "run_id,dead_classes\na,3:7\nb,\nc,\n"


def test_metrics_skip_broken_lines_and_resume_equals_uninterrupted(store):
    rows = [{"step": step, "loss": 1 / (step + 1), "accuracy": None} for step in range(6)]
    for row in rows:
        store.append_metrics("whole", row)
    assert store.read_metrics("whole") == rows
    whole = (store.root / "metrics" / "whole.jsonl").read_bytes()

    broken = store.root / "metrics" / "broken.jsonl"
    lines = whole.splitlines(keepends=True)
    broken.write_bytes(b"".join([*lines[:2], b"\x00\xff\n", b'"text"\n', *lines[2:5], lines[5][:-9]]))
    assert store.read_metrics("broken") == rows[:5]

    store.truncate_metrics("broken", 3)
    assert broken.read_bytes() == b"".join(lines[:4])
    for row in rows[4:]:
        store.append_metrics("broken", row)
    assert broken.read_bytes() == whole


def test_metrics_of_a_run_that_has_none(store):
    store.truncate_metrics("a", 3)
    assert store.read_metrics("a") == []
    assert not list((store.root / "metrics").iterdir())


def test_row_is_appended_by_one_write(store, monkeypatch):
    sizes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: sizes.append(len(line)) or write(file, line))
    store.append_metrics("a", {"step": 0, "losses": [0.25] * 10_000})
    assert sizes == [(store.root / "metrics" / "a.jsonl").stat().st_size]


def test_row_that_does_not_fit_is_an_error(store, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:5]))
    with pytest.raises(OSError, match=r"metrics/a\.jsonl"):
        store.append_metrics("a", {"step": 0})


APPEND_FOREVER = """
import itertools, sys
from sparse_jax.study.store import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
for step in itertools.count():
    store.append_metrics("a", {"step": step, "text": "x" * 5000})
    store.write_result("a", {"step": step})
"""


def test_kill_in_the_middle_of_writing(store):
    with python(APPEND_FOREVER, store.root) as process:
        process.stdout.readline()
        while len(store.read_metrics("a")) < 20:
            assert process.poll() is None
        kill(process)
    steps = [row["step"] for row in store.read_metrics("a")]
    assert steps == list(range(len(steps)))
    assert store.read_results()["a"]["step"] in (steps[-1], steps[-1] - 1)


HOLD = """
import subprocess, sys, time
from sparse_jax.study.store import open_store
with open_store(sys.argv[1]).claim("a") as holder:
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    print(holder, child.pid, flush=True)
    time.sleep(60)
"""


def test_a_claim_is_exclusive_and_dies_with_its_process(store):
    with python(HOLD, store.root) as process:
        holder, child = process.stdout.readline().split()
        try:
            assert holder == "None"
            with store.claim("a") as other, store.claim("free") as none:
                assert (other, none) == (f"process {process.pid} on {socket.gethostname()}", None)
            kill(process)
            with store.claim("a") as other:
                os.kill(int(child), 0)  # the child of the killed process is alive and does not hold it
                assert other is None
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_claim_is_freed_by_an_exception_and_names_its_holder(store):
    (store.root / "locks" / "a.lock").write_text("process 123456789 on a.host.with.a.long.name\n")
    with pytest.raises(KeyError), store.claim("a"):
        raise KeyError
    with store.claim("a") as free, store.claim("a") as holder:
        assert (free, holder) == (None, f"process {os.getpid()} on {socket.gethostname()}")


ADD = """
import sys, time
from sparse_jax.study.store import open_store
store = open_store(sys.argv[1])
for _ in range(50):
    with store.alone():
        config = store.read_config()
        time.sleep(0.001)
        store.write_config({"count": config["count"] + 1})
"""


def test_what_belongs_to_all_is_written_by_one_at_a_time(store):
    store.write_config({"count": 0})
    processes = [python(ADD, store.root) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0] * 3
    for process in processes:
        process.stdout.close()
    assert store.read_config() == {"count": 150}


def test_a_failure_counts_until_there_is_a_result(store):
    store.write_failure("a", {"message": "no memory", "status": "failed"})
    store.write_failure("b", {"message": "no memory", "status": "failed"})
    store.write_result("b", {"status": "ok"})
    store.write_csv(("run_id", "status"), ["a", "b", "c"])
    assert (store.root / "results.csv").read_text() == "run_id,status\na,failed\nb,ok\n"
    assert store.read_failures() == {"a": {"message": "no memory", "status": "failed"}}
    assert store.done("abc", failed=True) == {"a", "b"}
    assert store.done("abc", failed=False) == {"b"}
    store.forget_failures("abc")
    assert store.done("abc", failed=True) == {"b"}
    (store.root / "runs" / "b" / "result.json").write_text("{")
    assert store.done("abc", failed=True) == set()


def test_groups(store):
    assert store.read_groups("cohort") == {}
    store.write_groups("cohort", {"cohort-0": ["a", "b"], "cohort-1": ["c", "b"]})
    store.write_groups("other", {"other-0": ["d"]})
    assert store.read_groups("cohort") == {"cohort-0": ["a", "b"], "cohort-1": ["c", "b"]}
    (store.root / "groups" / "cohort.json").write_text("[")
    with pytest.raises(UserError, match=r"cohort\.json is not a JSON object; restore it"):
        store.read_groups("cohort")


def test_metrics_of_one_run_begin_another(store):
    for step in range(3):
        store.append_metrics("short", {"step": step})
    store.append_metrics("long", {"step": 7})
    store.copy_metrics("short", "long")
    store.append_metrics("long", {"step": 3})
    assert [row["step"] for row in store.read_metrics("long")] == [0, 1, 2, 3]
    assert [row["step"] for row in store.read_metrics("short")] == [0, 1, 2]


NAMED = {
    "write_result": lambda store, name: store.write_result(name, {}),
    "write_masks": lambda store, name: store.write_masks(name, {"layer": np.ones((1, 1), bool)}),
    "append_metrics": lambda store, name: store.append_metrics(name, {}),
    "read_metrics": lambda store, name: store.read_metrics(name),
    "truncate_metrics": lambda store, name: store.truncate_metrics(name, 0),
    "checkpoints": lambda store, name: store.checkpoints(name),
    "write_failure": lambda store, name: store.write_failure(name, {}),
    "forget_failures": lambda store, name: store.forget_failures([name]),
    "done": lambda store, name: store.done([name], failed=True),
    "write_groups": lambda store, name: store.write_groups(name, {}),
    "copy_metrics": lambda store, name: store.copy_metrics(name, name),
    "claim": lambda store, name: store.claim(name).__enter__(),
}


@pytest.mark.parametrize("call", NAMED.values(), ids=NAMED)
def test_names_stay_in_the_workdir(store, call):
    for name in ("", ".", "..", "../up", "/root", "a/b", ".hidden", "a\n", "a b", "é"):
        with pytest.raises(ValueError, match="cannot be the name"):
            call(store, name)
    call(store, "set-erk_s=0.9+seed=3.v2")
