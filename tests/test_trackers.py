"""What a tracker hears of a study: every run, every row, every result, also after an interruption."""

import sys

import pytest

from sparse_jax.config import TRACKERS as NAMES
from sparse_jax.errors import UserError
from sparse_jax.study import trackers
from sparse_jax.study.store import open_store
from sparse_jax.study.trackers import MODULES, TRACKERS, Guarded, check, numbers
from tests.program import SMALL, rows, run, start
from tests.test_grid import study_of
from tests.test_resume import wait_for

STUDY = (*SMALL, "--hidden_sizes=12", "--sparsity=0.5,0.9", "--tracker=tensorboard", "--workdir=w")


def scalars(folder):
    """{run: {name: {step: value}}} of event files: a length, 4 bytes of checksum, the event, 4 bytes more."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.glob("*/events*"), key=lambda path: path.stat().st_mtime_ns):
        values, data = found.setdefault(path.parent.name, {}), path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            if len(data) < length + 16:  # a kill cut it short
                break
            event = Event.FromString(data[12 : 12 + length])
            for value in event.summary.value:
                values.setdefault(value.tag, {})[event.step] = value.simple_value
            data = data[16 + length :]
    return found


def test_the_names_are_those_of_the_settings():
    assert TRACKERS.keys() == MODULES.keys() == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_has_three_methods(name):
    assert {key for key in vars(TRACKERS[name]) if not key.startswith("_")} == {"begin", "log", "end"}


def test_only_numbers_are_drawn():
    row = {"step": 3, "loss": 0.5, "moved": 2, "text": "a", "none": None, "inputs": [1, 2]}
    assert numbers(row) == {"loss": 0.5, "moved": 2}


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    check("none")
    with pytest.raises(UserError, match=r"--tracker=wandb needs the package wandb: pip install -e '\.\[trackers\]'"):
        check("wandb")


def test_a_tracker_that_fails_is_told_of_once_and_loses_nothing(capsys):
    class Broken:
        def begin(self, run, rows):
            pass

        def log(self, run, row):
            raise ConnectionError("the network is down\nand stays so")

    guarded = Guarded("wandb", Broken())
    guarded.begin(None, [])
    for _ in range(3):
        guarded.log(None, {})
    guarded.end(None, {})
    assert capsys.readouterr().err == "note: --tracker=wandb hears no more of this session: the network is down\n"


class Fake:
    """Stands for a run of wandb, and for the package."""

    def __init__(self, **settings):
        self.settings, self.rows, self.summary, self.finished, self.made = settings, [], {}, False, []
        self.step = 3  # what it knows already ends before

    Settings = dict

    def init(self, **settings):
        self.made.append(Fake(**settings))
        return self.made[-1]

    def log(self, row, step):
        self.rows.append((step, row))

    def finish(self):
        self.finished = True


def test_wandb_has_a_run_for_every_run(tmp_path, monkeypatch):
    package = Fake()
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    tracker, runs = TRACKERS["wandb"](tmp_path), study_of(num_seeds=2).runs
    for one in runs:
        tracker.begin(one, [{"step": 2, "loss": 2.0}, {"step": 4, "loss": 1.0}])
    for one in runs:
        tracker.log(one, {"step": 5, "loss": 0.5, "inputs": [1]})
        tracker.end(one, {"test_accuracy": 0.25, "status": "ok", "kernels": {}})
    assert [(made.settings["id"], made.settings["project"]) for made in package.made] == [
        (one.id, "sparse_jax") for one in runs
    ]
    for made in package.made:
        assert made.settings["resume"] == "allow"
        assert made.rows == [(4, {"loss": 1.0}), (5, {"loss": 0.5})]
        assert made.summary == {"test_accuracy": 0.25, "status": "ok"}
        assert made.finished
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    tracker.begin(runs[0], [])
    assert package.made[-1].settings["project"] is None


def test_tensorboard_has_every_row_also_after_an_interruption(tmp_path):
    pytest.importorskip("tensorboardX")
    process = start(*STUDY, "--epochs=40", cwd=tmp_path)
    wait_for(tmp_path, "w/metrics/*.jsonl", process)
    process.kill()
    process.communicate()
    assert run(*STUDY, "--epochs=40", cwd=tmp_path).returncode == 0
    found = scalars(tmp_path / "w" / "tensorboard")
    table = {row["run_id"]: row for row in rows(tmp_path / "w")}
    assert found.keys() == table.keys()
    for name, values in found.items():
        logged = {row["step"]: row["val_accuracy"] for row in open_store(tmp_path / "w").read_metrics(name)}
        assert len(logged) == 40
        assert values["val_accuracy"] == pytest.approx(logged)
        last = values["result/test_accuracy"]
        assert list(last.values()) == pytest.approx([float(table[name]["test_accuracy"])])
