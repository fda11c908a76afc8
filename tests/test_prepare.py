"""Preparing a data set: what is done once, what is said, and what no failure leaves behind; without network."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sparse_jax.data import catalog, images, prepare
from sparse_jax.errors import UserError
from tests.records import write_set

PROGRAM = Path(__file__).parents[1] / "launch" / "prepare_data.py"
IMAGES = [name for name, source in catalog.DATASETS.items() if source is catalog.IMAGES]
REMEDY = r"without network, prepare it on a machine that has one and copy the folder {} from there.*--dataset=FILE\.npz"


def maker(work, calls, urls=()):
    """A make_builder whose builder does `work` in the place of downloading."""

    def make_builder(name, folder):
        calls.append((name, folder))
        return SimpleNamespace(version="3.0.2", url_infos=dict.fromkeys(urls), download_and_prepare=work)

    return make_builder


def fail(*arguments):
    raise AssertionError("this must not be called")


def written(folder, name="cifar100"):
    x, y = np.zeros((6, 32, 32, 3), np.uint8), np.arange(6) % 3
    return write_set(folder, name, "3.0.2", 3, {"train": (x, y), "test": (x[:4], y[:4])})


@pytest.mark.parametrize("name", ["cifar100", "emnist/balanced"])
def test_a_set_is_prepared_once_and_found(tmp_path, capsys, name):
    pytest.importorskip("array_record")
    calls = []

    def work():
        print("TFDS talks")
        written(tmp_path, name)

    line = prepare.prepare(name, str(tmp_path), maker(work, calls))
    what = f"{name}, 6 train and 4 test examples of 32x32x3, 3 classes, version 3.0.2 in {tmp_path / name / '3.0.2'}"
    assert line == f"prepared: {what}"
    assert capsys.readouterr() == ("", "TFDS talks\n")
    assert prepare.prepare(name, str(tmp_path), fail) == f"there already: {what}"
    assert calls == [(name, str(tmp_path))]


def test_a_failure_is_one_line_and_leaves_nothing_that_is_read(tmp_path):
    def work():
        (tmp_path / "cifar100/incomplete.ABCDEF_3.0.2").mkdir(parents=True)
        raise ConnectionError("the line\n  went dead")

    with pytest.raises(UserError, match=REMEDY.format(tmp_path / "cifar100/3.0.2")) as error:
        prepare.prepare("cifar100", str(tmp_path), maker(work, []))
    assert "cannot prepare cifar100: ConnectionError: the line\n  went dead; " in str(error.value)
    with pytest.raises(UserError, match="no version of cifar100"):
        catalog.describe("cifar100", str(tmp_path))


def test_what_was_prepared_is_checked(tmp_path):
    with pytest.raises(UserError, match="no version of cifar100"):
        prepare.prepare("cifar100", str(tmp_path), maker(lambda: None, []))

    def half():
        next(written(tmp_path).glob("*-test.array_record*")).unlink()

    with pytest.raises(UserError, match="0 of 1 array_record files of test; remove that folder and prepare it with"):
        prepare.prepare("cifar100", str(tmp_path), maker(half, []))


def test_a_damaged_folder_is_to_be_removed_first(tmp_path):
    (written(tmp_path) / "features.json").unlink()
    with pytest.raises(UserError, match=r"metadata .* damaged .*remove that folder and prepare it with"):
        prepare.prepare("cifar100", str(tmp_path), fail)


def nowhere(host, port):
    if host.endswith(".invalid"):
        raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.parametrize(
    ("urls", "proxies", "tried"),
    [
        (["https://a.invalid/x", "https://a.invalid/y"], {}, False),
        (["https://a.invalid/x", "https://b.example/y"], {}, True),
        (["https://a.invalid/x"], {"https": "http://proxy"}, True),
        ([], {}, True),
    ],
)
def test_without_an_address_nothing_is_tried(tmp_path, monkeypatch, urls, proxies, tried):
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr(urllib.request, "getproxies", lambda: proxies)
    done = []

    def work():
        done.append("downloaded")
        raise OSError("no")

    reason = "OSError: no" if tried else "no address of a.invalid: Name or service not known"
    folder = tmp_path / "kmnist/3.0.2"
    with pytest.raises(UserError, match=f"cannot prepare kmnist: {reason}; {REMEDY.format(folder)}"):
        prepare.prepare("kmnist", str(tmp_path), maker(work, [], urls))
    assert bool(done) == tried
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_data_dir_that_cannot_be_a_folder_is_refused(tmp_path, folder):
    (tmp_path / "file").touch()
    place = tmp_path / folder
    with pytest.raises(UserError, match=f"{place}") as error:
        prepare.prepare("cifar100", str(place), maker(lambda: (place / "cifar100").mkdir(parents=True), []))
    assert ("is a file, not a folder" in str(error.value)) == (folder == "file")


class Broken:
    version = "3.0.2"

    @property
    def url_infos(self):
        raise ValueError("no checksums")


def no_builder(name, folder):
    raise RuntimeError("a builder of another version")


@pytest.mark.parametrize(
    ("make_builder", "reason", "version"),
    [(no_builder, "RuntimeError: a builder", "VERSION"), (lambda *_: Broken(), "ValueError: no checksums", "3.0.2")],
)
def test_whatever_fails_before_the_download_is_told_too(tmp_path, make_builder, reason, version):
    remedy = REMEDY.format(tmp_path / "cifar100" / version)
    with pytest.raises(UserError, match=f"cannot prepare cifar100: {reason}.*; {remedy}"):
        prepare.prepare("cifar100", str(tmp_path), make_builder)


def test_libraries_that_do_not_go_together_are_told(tmp_path, monkeypatch):
    (tmp_path / "tensorflow_datasets.py").write_text("raise TypeError('Descriptors cannot be created directly')")
    monkeypatch.setattr(prepare, "find_spec", lambda module: module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorflow_datasets", raising=False)
    with pytest.raises(UserError, match=r"cannot import tensorflow_datasets: TypeError: Desc.*; run pip install -e"):
        prepare.prepare("mnist", str(tmp_path), prepare.tfds_builder)


ALL = {"tensorflow_datasets", "tensorflow", "importlib_resources"}


@pytest.mark.parametrize("absent", [{"tensorflow_datasets"}, {"tensorflow"}, {"importlib_resources"}, ALL])
def test_without_tensorflow_one_line_names_the_extra(tmp_path, monkeypatch, absent):
    monkeypatch.setattr(prepare, "find_spec", lambda module: None if module in absent else module)
    with pytest.raises(UserError, match=r"mnist needs .*; run pip install -e '\.\[prepare\]'") as error:
        prepare.prepare("mnist", str(tmp_path), prepare.tfds_builder)
    named = re.search("needs (.*);", str(error.value))[1].split(" and ")
    assert set(named) == absent


@pytest.mark.parametrize("name", IMAGES)
def test_the_catalogue_is_that_of_tfds(tmp_path, monkeypatch, name):
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr(prepare, "find_spec", lambda module: module)
    builder = prepare.tfds_builder(name, str(tmp_path))
    assert Path(builder.data_path) == tmp_path / name / str(builder.version)
    assert {"image", "label"} <= set(builder.info.features)
    assert len(builder.info.features["image"].shape) == 3


@pytest.mark.parametrize("name", ["digits", "two_spirals"])
def test_what_is_no_set_of_tfds_needs_no_preparation(tmp_path, name):
    info = catalog.describe(name, "")
    line = prepare.prepare(name, str(tmp_path), fail)
    assert line.startswith(f"nothing to prepare: {name}, {info.train_size:,} train")
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_is_absent_is_told_its_place(tmp_path):
    with pytest.raises(UserError, match=f"no data set at {tmp_path}/madelon.npz or .*numpy.savez"):
        prepare.prepare("madelon", str(tmp_path), fail)


# --- the program -----------------------------------------------------------------------------------


def run(*arguments, cwd):
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, PROGRAM, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


REFUSED = {
    "": ["which data set?", "--dataset=NAME", "cifar100"],
    "--dataset=": ["which data set?"],
    "--dataset=emnist": ["unknown dataset 'emnist'", "'emnist/balanced'", ".csv"],
    "--dataset=mnits": ["'mnits'", "'mnist'"],
    "--dataset=madelon --data_dir=nowhere": ["nowhere/madelon.npz", "numpy.savez"],
    "--dataset=mnist --data_dir=": ["--data_dir", "''"],
    "--dataset=mnist --data_dir=a,b c": ["unexpected argument 'c'"],
    "--dataset=gone.csv": ["gone.csv"],
    "--data_set=mnist": ["'data_set'", "dataset"],
}


@pytest.mark.parametrize("line", REFUSED)
def test_the_program_refuses_in_one_line(tmp_path, line):
    result = run(*line.split(), cwd=tmp_path)
    assert (result.returncode, result.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert result.stderr.startswith("prepare_data.py: ")
    assert result.stderr.count("\n") == 1
    assert [word for word in REFUSED[line] if word not in result.stderr] == [], result.stderr


def test_the_program_says_what_is_there(tmp_path):
    folder = written(tmp_path / "a b", "emnist/balanced")
    result = run("--dataset=emnist/balanced", "--data_dir=a b", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("there already: emnist/balanced, 6 train")
    assert result.stdout.endswith(f"in '{folder.relative_to(tmp_path)}'\n")
    assert images.versions("emnist/balanced", str(tmp_path / "a b")) == [folder]


def test_an_interrupt_ends_the_program_quietly(tmp_path):
    program = "from sparse_jax import flags\ndef main(argv): raise KeyboardInterrupt\nflags.run(main, '')"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=PROGRAM.parents[1], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (128 + signal.SIGINT, "", "")


def test_help_tells_the_flags_and_the_examples(tmp_path):
    result = run("--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("python launch/prepare_data.py --dataset=cifar100", "--data_dir:", "--dataset:", ".[prepare]"):
        assert word in result.stdout
    assert "[grid]" not in result.stdout
