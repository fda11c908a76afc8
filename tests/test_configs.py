"""Every flagfile is a command that its program understands, up to the data and the runs that it begins with."""

import re
import subprocess
import sys

import pytest

from tests.program import ROOT

FLAGFILES = sorted((ROOT / "configs").glob("*.flags"))
LACKING = r"nothing matches results/|no version of [\w/]+ in|no data set at"


def program_of(path):
    """The program and the subcommand of its header, of launch/search.py; launch/train.py of the others."""
    command = rf"^#.*python (launch/search\.py \w+) --flagfile=configs/{path.name}"
    named = re.search(command, path.read_text(), re.MULTILINE)
    return named[1].split() if named else ["launch/train.py"]


def test_flagfiles_of_searches_are_told_from_those_of_studies():
    assert program_of(ROOT / "configs" / "wann_digits.flags") == ["launch/search.py", "wann"]
    assert program_of(ROOT / "configs" / "quickstart.flags") == ["launch/train.py"]


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_a_flagfile_is_a_plan(path, tmp_path):
    command = [sys.executable, *program_of(path), f"--flagfile={path}", f"--data_dir={tmp_path}", "--dry_run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 2), done.stderr
    if done.returncode:
        assert re.search(LACKING, done.stderr), done.stderr


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_its_first_lines_say_what_it_is(path):
    assert re.match(r"# \S.+", path.read_text())
