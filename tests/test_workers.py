"""Several workers on one study, dead ones among them, and studies that grow."""

import json
import random
import shutil
import time

import pytest

from sparse_jax.study import assemble, execute
from sparse_jax.study.extension import course
from sparse_jax.study.grid import Cohort
from sparse_jax.study.interrupt import Interrupt
from sparse_jax.study.shares import in_turn, work_through
from sparse_jax.study.store import open_store
from sparse_jax.study.train_group import Trainer
from tests.program import SMALL, outcome, rows, run, start
from tests.test_grid import study_of
from tests.test_study import HARDWARE, InProcess, resumed

STUDY = (
    *SMALL, "--hidden_sizes=12", "--method=static,set", "--activation=relu,tanh", "--sparsity=0.5,0.9", "--num_seeds=2",
    "--cpu_devices=1", "--workdir=study",
)  # fmt: skip


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What a single worker leaves, and how long it takes with warm caches."""
    folder = tmp_path_factory.mktemp("single")
    assert run(*STUDY, "--workdir=cold", cwd=folder).returncode == 0
    begin = time.monotonic()
    assert run(*STUDY, cwd=folder).returncode == 0
    return outcome(folder / "study"), time.monotonic() - begin


def kill_one_of_two(reference, folder, kills, seed):
    expected, duration = reference
    rng = random.Random(seed)
    for attempt in range(kills):
        here = folder / str(attempt)
        here.mkdir()
        workers = [start(*STUDY, cwd=here) for _ in range(2)]
        time.sleep(rng.uniform(0.2, 1) * duration)
        victim = rng.randrange(2)
        workers[victim].kill()
        ended = [(*worker.communicate(timeout=300), worker.returncode) for worker in workers]
        assert ended[1 - victim][2] == 0, ended
        last = run(*STUDY, cwd=here)  # the other may have ended before the victim was killed
        assert last.returncode == 0, last.stderr
        assert outcome(here / "study") == expected
        shutil.rmtree(here)


@pytest.mark.slow
def test_two_workers_one_of_which_is_killed(reference, tmp_path):
    kill_one_of_two(reference, tmp_path, kills=2, seed=0)


@pytest.mark.slow
def test_two_workers_one_of_which_is_killed_ten_times(reference, tmp_path):
    kill_one_of_two(reference, tmp_path, kills=10, seed=1)


@pytest.mark.slow
def test_a_worker_without_anything_to_claim_ends_with_one_line(reference, tmp_path):
    assert run(*STUDY, cwd=tmp_path).returncode == 0
    store = open_store(tmp_path / "study")
    lost = rows(store.root)[0]["run_id"]
    cohort = store.read_results()[lost]["group"].rpartition("-")[0]
    (store.root / "runs" / lost / "result.json").unlink()
    with store.claim(cohort):
        holder = (store.root / "locks" / f"{cohort}.lock").read_text().strip()
        ended = run(*STUDY, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (
        0, f"nothing left to claim: 1 of 4 cohorts are trained by {holder}\n",
    )  # fmt: skip
    assert run(*STUDY, cwd=tmp_path).returncode == 0
    assert outcome(store.root) == reference[0]


@pytest.mark.slow
def test_shares_without_takeover_together_are_the_study(reference, tmp_path):
    for index in (1, 2, 3):
        ended = run(*STUDY, f"--shard={index}/3", "--notakeover", cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        left = {1: "8 of 16 runs are left", 2: "4 of 16 runs are left", 3: ""}[index]
        assert left in ended.stdout
        assert ("left to the other shares" in ended.stdout) == bool(left)
    assert outcome(tmp_path / "study") == reference[0]


def names(cohorts):
    return "".join(cohort.id for cohort in cohorts)


COHORTS = [Cohort(name, ()) for name in "abcdefg"]


def test_a_share_comes_first_and_every_cohort_once():
    assert names(in_turn(COHORTS, "1/1", True)) == names(in_turn(COHORTS, "1/1", False)) == "abcdefg"
    assert [names(in_turn(COHORTS, f"{i}/3", False)) for i in (1, 2, 3)] == ["adg", "be", "cf"]
    assert [names(in_turn(COHORTS, f"{i}/3", True)) for i in (1, 2, 3)] == ["adgbecf", "becfadg", "cfadgbe"]
    assert [names(in_turn(COHORTS[:1], f"{i}/2", False)) for i in (1, 2)] == ["a", ""]


def test_what_a_worker_left_is_taken_over_in_the_next_round(tmp_path):
    """b is held until the others are trained, and c by someone who goes on."""
    store, trained = open_store(tmp_path), []
    busy, dying = store.claim("c"), store.claim("b")
    busy.__enter__(), dying.__enter__()

    def train(cohort):
        trained.append(cohort.id)
        if cohort.id == "d":
            dying.__exit__(None, None, None)
        return True

    held = work_through(COHORTS[:4], store, lambda cohort: cohort.id not in trained, train)
    assert trained == ["a", "d", "b"]
    assert held.keys() == {"c"}
    assert work_through(COHORTS[4:], store, lambda cohort: True, lambda cohort: False) is None
    busy.__exit__(None, None, None)


GROWN = (*SMALL, "--hidden_sizes=12", "--workdir=study", "--lr_schedule=constant", "--method=set,dense")


def test_more_seeds_and_values_train_only_what_is_missing(tmp_path):
    first = (*GROWN, "--sparsity=0.5", "--num_seeds=2")
    assert run(*first, cwd=tmp_path).returncode == 0
    before = (tmp_path / "study" / "results.csv").read_bytes()
    ended = run(*GROWN, "--sparsity=0.5,0.8", "--num_seeds=3", cwd=tmp_path)
    assert ended.returncode == 0
    assert "note: the workdir has 4 runs; 5 of the 9 asked for are new" in ended.stderr
    assert "5/5 runs" in ended.stderr
    assert (tmp_path / "study" / "results.csv").read_bytes().startswith(before)
    assert run(*GROWN, "--sparsity=0.5,0.8", "--num_seeds=3", "--workdir=whole", cwd=tmp_path).returncode == 0
    key = lambda row: row["run_id"]
    assert sorted(rows(tmp_path / "study"), key=key) == sorted(rows(tmp_path / "whole"), key=key)
    again = run(*first, cwd=tmp_path)
    assert "first step" not in again.stderr
    assert len(rows(tmp_path / "study")) == 9


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["masked", "sparse"])
def test_more_epochs_continue_bit_for_bit(tmp_path, execution):
    """The update that was not made at the last step of the shorter run is made now."""
    methods = "--method=" + ("set,rigl,dense" if execution == "masked" else "accset")
    command = (*GROWN, methods, f"--execution={execution}", "--ema=0.9", "--dropout=0.1", "--activation=srelu",
               "--drop_schedule=constant", "--stop_fraction=1", "--interval=1epoch", "--sparsity=0.8")  # fmt: skip
    assert run(*command, "--epochs=2", cwd=tmp_path).returncode == 0
    before = (tmp_path / "study" / "results.csv").read_bytes()
    ended = run(*command, "--epochs=4", "--num_seeds=2", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "study" / "results.csv").read_bytes().startswith(before)
    assert run(*command, "--epochs=4", "--num_seeds=2", "--workdir=whole", cwd=tmp_path).returncode == 0
    longer, metrics = outcome(tmp_path / "study")
    expected, expected_metrics = outcome(tmp_path / "whole")
    found = {row["run_id"]: row for row in longer}
    assert [found[row["run_id"]] for row in expected] == expected
    assert {name: metrics[name] for name in expected_metrics} == expected_metrics


@pytest.mark.slow
def test_a_longer_run_begins_at_the_end_of_the_shorter_one(tmp_path, monkeypatch):
    axes = {"lr_schedule": ["constant"], "train_size": [200], "hidden_sizes": [(9,)], "batch_size": [20]}
    done = InProcess(tmp_path, monkeypatch, epochs=[2], **axes)
    starts = []
    monkeypatch.setattr(execute.Monitor, "begin", lambda self, group, step, where: starts.append(step))
    resumed(done, study_of(epochs=[5], **axes))
    steps = done.study.runs[0].problem.steps
    assert starts == [steps]
    for checkpoint in (done.store.root / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    resumed(done, study_of(epochs=[6], **axes))  # without the checkpoint it begins anew
    assert starts == [steps, 0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "--lr_schedule=cosine"),
        ({"lr_schedule": ["constant"]}, None),
        ({"lr_schedule": ["constant"], "method": ["rigl"]}, "--drop_schedule=cosine"),
        ({"lr_schedule": ["constant"], "method": ["rigl"], "drop_schedule": ["constant"]}, "--stop_fraction=0.75"),
        ({"lr_schedule": ["constant"], "method": ["gmp"]}, "--density_schedule=cubic"),
        ({"lr_schedule": ["constant"], "method": ["mest_soft"], "drop_schedule": ["constant"]}, "--method=mest_soft"),
        ({"lr_schedule": ["constant"], "method": ["dense"]}, None),
    ],
)
def test_what_goes_by_the_whole_training_is_named(settings, expected):
    assert course(study_of(**settings).runs[0].config) == expected


@pytest.mark.slow
def test_a_study_of_more_epochs_says_why_it_begins_anew(tmp_path):
    command = (*SMALL, "--hidden_sizes=12", "--sparsity=0.5", "--workdir=w")
    assert run(*command, "--epochs=1", cwd=tmp_path).returncode == 0
    ended = run(*command, "--epochs=2", cwd=tmp_path)
    assert "runs of fewer epochs are not continued, as --lr_schedule=cosine goes by the whole training" in ended.stderr
    assert "fewer epochs" not in run(*command, "--epochs=2", cwd=tmp_path).stderr


def test_a_failure_is_recorded_and_retried_on_request(tmp_path, monkeypatch):
    """The programs of one activation cannot be made, until they can."""
    make_train = assemble.make_train

    def broken(config, problem, **settings):
        if config.activation == ("tanh",):
            raise MemoryError("no memory\nbut much to say")
        return make_train(config, problem, **settings)

    axes = {"activation": [("relu",), ("tanh",), ("selu",)], "train_size": [200], "hidden_sizes": [(9,)],
            "batch_size": [20], "epochs": [1], "num_seeds": 2}  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(assemble, "make_train", broken)
        done = InProcess(tmp_path, monkeypatch, **axes)
    failures = done.store.read_failures()
    failed = {run.id for run in done.study.runs if run.config.activation == ("tanh",)}
    assert failures.keys() == failed
    assert all(failure["message"] == "MemoryError: no memory" for failure in failures.values())
    assert "but much to say" in failures[min(failed)]["traceback"]
    assert {row["status"] for row in rows(done.store.root) if row["run_id"] in failed} == {"failed"}
    assert len(rows(done.store.root)) == 6
    resumed(done, done.study)
    assert done.store.read_failures().keys() == failed
    resumed(done, done.study, retry_failed=True)
    assert done.store.read_failures() == {}
    assert not any(row["status"] == "failed" for row in rows(done.store.root))


def ids(study):
    return [run.id for run in study.runs]


TINY = {"train_size": [200], "hidden_sizes": [(9,)], "batch_size": [20], "lr_schedule": ["constant"]}


def stopped(done, study, monkeypatch, chunks):
    """Ask to stop after so many pieces of work."""
    asked, chunk = Interrupt(), Trainer._chunk

    def counted(self, *args):
        asked.count = getattr(asked, "count", 0) + 1
        asked.asked = asked.count >= chunks
        return chunk(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_chunk", counted)
        return resumed(done, study, interrupt=asked)


@pytest.mark.slow
def test_groups_that_overlap_train_no_run_twice(tmp_path, monkeypatch):
    """Of four seeds, then of two of them, both stopped; then of four again, and longer."""
    four, two = study_of(num_seeds=4, epochs=[2], **TINY), study_of(num_seeds=2, epochs=[2], **TINY)
    done = InProcess(tmp_path, monkeypatch, num_seeds=1, epochs=[2], activation=[("tanh",)], **TINY)
    assert stopped(done, four, monkeypatch, 2).stopped
    assert stopped(done, two, monkeypatch, 2).stopped
    trained = []
    monkeypatch.setattr(execute.Monitor, "end", lambda self, group, runs, *rest: trained.append(runs))
    assert not resumed(done, four).stopped
    assert trained == [4]
    assert all(len(done.store.read_metrics(run_id)) == 2 for run_id in ids(four))
    resumed(done, study_of(num_seeds=4, epochs=[3], **TINY))
    alone = InProcess(tmp_path / "alone", monkeypatch, num_seeds=4, epochs=[3], **TINY)
    found = done.store.read_results()
    assert {run_id: found[run_id]["digest"] for run_id in ids(alone.study)} == {
        run_id: result["digest"] for run_id, result in alone.store.read_results().items()
    }


def test_a_checkpoint_of_other_runs_is_not_taken(tmp_path, monkeypatch):
    """The record of the groups is lost, and a new group would have the name of an old one."""
    done = InProcess(tmp_path, monkeypatch, num_seeds=2, epochs=[2], **TINY)
    for path in (done.store.root / "groups").iterdir():
        path.unlink()
    resumed(done, study_of(num_seeds=4, epochs=[2], **TINY))
    digests = [result["digest"] for result in done.store.read_results().values()]
    assert len(set(digests)) == 4


def test_a_group_that_is_too_large_here_is_divided(tmp_path, monkeypatch):
    study = study_of(num_seeds=4, epochs=[2], **TINY)
    done = InProcess(tmp_path, monkeypatch, num_seeds=1, epochs=[2], activation=[("tanh",)], **TINY)
    assert stopped(done, study, monkeypatch, 2).stopped
    trained = []
    monkeypatch.setattr(execute.Monitor, "end", lambda self, group, runs, *rest: trained.append(runs))
    resumed(done, study, hardware=HARDWARE._replace(lane_width=2))
    assert trained == [2, 2]


def test_failed_runs_are_told_and_give_an_exit_status(tmp_path):
    command = (*SMALL, "--hidden_sizes=12", "--sparsity=0.5", "--num_seeds=2", "--workdir=w")
    assert run(*command, cwd=tmp_path).returncode == 0
    store = open_store(tmp_path / "w")
    before = [row["run_id"] for row in rows(store.root)]
    lost = before[0]
    (store.root / "runs" / lost / "result.json").unlink()
    store.write_failure(lost, {"message": "no memory", "status": "failed"})
    ended = run(*command, cwd=tmp_path)
    assert ended.returncode == 1
    assert "1 runs failed" in ended.stderr
    assert "--retry_failed" in ended.stderr
    assert run(*command, "--retry_failed", cwd=tmp_path).returncode == 0
    assert [row["run_id"] for row in rows(store.root)] == before


def test_a_failure_is_told_also_where_another_worker_holds_the_rest(tmp_path):
    study = (*STUDY, "--activation=relu")
    assert run(*study, cwd=tmp_path).returncode == 0
    store = open_store(tmp_path / "study")
    names = [row["run_id"] for row in rows(store.root)]
    held = store.read_results()[names[-1]]["group"].rpartition("-")[0]
    for name in (names[0], names[-1]):
        (store.root / "runs" / name / "result.json").unlink()
    store.write_failure(names[0], {"message": "no memory", "status": "failed"})
    with store.claim(held):
        ended = run(*study, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stdout.startswith("nothing left to claim: 1 of 2")
    assert "1 runs failed" in ended.stderr


def test_config_says_what_was_asked_for_and_where(tmp_path):
    command = (*SMALL, "--hidden_sizes=12", "--sparsity=0.5", "--workdir=w")
    for change in ((), ("--num_seeds=2",), ()):
        assert run(*command, *change, cwd=tmp_path).returncode == 0
    config = json.loads((tmp_path / "w" / "config.json").read_text())
    assert [entry["command"] for entry in config["commands"]] == [
        " ".join(["python launch/train.py", *command]), " ".join(["python launch/train.py", *command, "--num_seeds=2"]),
    ]  # fmt: skip
    assert [entry["settings"]["num_seeds"] for entry in config["commands"]] == [[1], [2]]
    assert len(config["runs"]) == 2
    assert len(config["sessions"]) == 1
    assert {result["session"] for result in open_store(tmp_path / "w").read_results().values()} == {0}
