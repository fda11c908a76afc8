"""Every command of README.md and of a flagfile's header is one that its program understands, up to data and runs.

Those that would train only print their plan. What may be lacking is what the user, or earlier commands, have to bring.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program import ROOT

FLAGFILES = sorted((ROOT / "configs").glob("*.flags"))
LACKING = r": nothing matches|: no version of [\w/]+ in|: no data set at| (does not exist|is not there: name .*)$"
DONE_BY_OTHERS = r"\. \.venv|pip install|bash launch/(quickstart|test)\.sh|python launch/prepare_data\.py|.*tutorials/"


def of_shell(text):
    """The commands of lines for a shell, without comments, those of several lines as one."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line for line in (re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines) if line]


def of_readme():
    """The commands of its blocks, and those of a program within its sentences."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`((?:\.venv/bin/)?python [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [command for block in blocks for command in of_shell(block)] + inline


def of_header(path):
    """What stands beside the word command, with the lines below it; a loop over several lines is one command."""
    found = re.search(r"^# command {3}(.*(?:\n#  {9,}.*)*)", path.read_text(), re.MULTILINE)
    text = re.sub(r"\n# *", "\n", found[1]) if found else f"python launch/train.py --flagfile=configs/{path.name}"
    return of_shell(re.sub(r"; do\n", "; do ", text))


COMMANDS = dict.fromkeys(of_readme(), "README")
COMMANDS |= {command: path.stem for path in FLAGFILES for command in of_header(path) if command not in COMMANDS}
TESTED = [command for command in COMMANDS if not re.match(DONE_BY_OTHERS, command)]


def case(command):
    """Of headers, what reads the results of a study is the same few commands over and over."""
    often = COMMANDS[command] == "README" or re.search(r"launch/(train|search)\.py", command)
    return pytest.param(command, id=f"{COMMANDS[command]}: {command}"[:90], marks=[] if often else [pytest.mark.slow])


def test_commands_are_found():
    assert "python launch/train.py --flagfile=configs/understanding_digits.flags" in of_readme()
    assert "python launch/benchmark.py" in of_readme()
    assert any("--shuffle_masks=false,true --workdir=transplanted --initial_topology=" in command for command in TESTED)
    wann = ROOT / "configs" / "wann_digits.flags"
    assert of_header(wann) == ["python launch/search.py wann --flagfile=configs/wann_digits.flags"]
    loops = [command for command in TESTED if command.startswith("for step in")]
    assert len(loops) == 2
    named = {name for command in COMMANDS for name in re.findall(r"--flagfile=configs/(\w+)\.flags", command)}
    steps = ("pruned", "one_time", "retrained", "radix")
    named |= {f"alford_2018_{variant}{step}" for variant in ("", "paper_") for step in steps} | {"alford_2018_paper"}
    assert {path.stem for path in FLAGFILES} - named == {"quickstart"}


def test_files_that_commands_name_are_there():
    named = {name for command in COMMANDS for name in re.findall(r"(?:configs|launch)/[\w/]+\.\w+", command)}
    assert {"configs/published/alford_2018.csv", "configs/tutorials/own_convnet.py", "launch/report.py"} <= named
    assert not [name for name in named if not (ROOT / name).is_file()]


@pytest.mark.parametrize("command", [case(command) for command in TESTED])
def test_a_command_is_understood(command, tmp_path):
    for name in ("launch", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "DIR").mkdir()
    planned = re.sub(r"(launch/(?:train\.py|search\.py \w+))", r"\1 --dry_run", command.replace(".venv/bin/", ""))
    planned = re.sub(r"launch/benchmark\.py", r"launch/benchmark.py --help", planned)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", planned], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 2), done.stderr
    if done.returncode:
        assert all(re.search(LACKING, line) for line in done.stderr.splitlines()), done.stderr


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_the_first_lines_of_a_flagfile_say_what_it_is(path):
    assert re.match(r"# \S.+", path.read_text())
