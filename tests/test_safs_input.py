"""A search for activation functions that is asked for wrongly: one line, before anything is imported or written."""

import os

import pytest

from tests.program import ROOT
from tests.served import Served

TOUCHED_JAX = 99
FLAGFILE = "--method=set\n--drop_fraction=0.2\n--lahc_history=7\n--abreast=2\n--trials=2\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Programs that end where they import jax."""
    folder = tmp_path_factory.mktemp("no_jax")
    (folder / "jax.py").write_text(f"import os; os._exit({TOUCHED_JAX})")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    with Served("sparse_jax.search.safs_plan", "sklearn.datasets", env=environment) as served:
        yield served


@pytest.fixture
def search(served, tmp_path):
    """A function of a command line that returns the process, ended."""
    (tmp_path / "asked.flags").write_text(FLAGFILE)

    def run(arguments):
        program = ROOT / "launch" / "search.py"
        return served.run(program, "safs", *arguments.split(), cwd=tmp_path, env=dict(os.environ))

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--operators=relu,tanh", "--operators: takes one value, not a list, whose parts are separated by colons"),
        ("--operators=relu:rellu", "--operators: unknown operators 'rellu'. Did you mean 'relu'? Known: relu, relu6"),
        ("--operators=", "--operators: '' names none. Known: relu"),
        ("--operators=relu:tanh:relu", "--operators=relu:tanh:relu names one twice"),
        ("--activation=relu:tanh:relu", "--activation=relu:tanh:relu names 3 layers, but --model=mlp"),
        ("--method=dense", "has no sparse network to search for"),
        ("--epochs=0", "leaves nothing to compare"),
        ("--trials=0 --sampler=random", "--sampler has no effect: --trials=0 has no second stage"),
        ("--strategy=random --lahc_history=7", "--lahc_history has no effect: --strategy=random does not use it"),
        ("--warmup_epochs=5 --candidate_epochs=2", "--candidate_epochs=2: --warmup_epochs=5 would not end"),
        ("--validation_fraction=0", "leaves nothing to score candidates by"),
        ("--strategy=genetic", "it takes 2 or more"),
        ("--strategy=exhaustive --hidden_sizes=9,9,9,9,9,9", "name fewer --operators, or use lahc"),
        ("--strategy=climb", "unknown strategy 'climb'"),
        ("--tuned_rates=3:1", "is neither one number nor a range"),
        ("--tuned_momenta=0.1:0.2:0.3", "is neither one number nor a range"),
        ("--strategy=annealing --annealing_to=1", "it cools down"),
        ("--learning_rate=0.1,0.2", "--learning_rate: takes one value, not a list"),
        ("--drop_fraction=0.3", "--drop_fraction has no effect"),
        ("--flagfile=asked.flags --strategy=random --lahc_history=3", "--lahc_history has no effect"),
        ("--flagfile=asked.flags --trials=0 --abreast=2", "--abreast has no effect: --trials=0 has no second stage"),
        ("--flagfile=unused.flags --num_seeds=2", "--lahc_history has no effect: --strategy=random does not use it"),
        ("--population=3", "Unknown command line flag 'population'"),
        ("--dataset=mnist --data_dir=nowhere", "no version of mnist in"),
    ],
)
def test_bad_input_is_one_line(search, arguments, message, tmp_path):
    (tmp_path / "unused.flags").write_text(FLAGFILE + "--strategy=random\n")
    before = set(tmp_path.iterdir())
    done = search(arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        ("--trials=0", ["abreast"]),
        ("--strategy=random", ["lahc_history"]),
        ("--method=static", ["drop_fraction"]),
        ("--method static --strategy=random --trials=0", ["abreast, lahc_history", "drop_fraction"]),
        ("--num_seeds=2", []),
        ("", []),
    ],
)
def test_what_a_flagfile_has_beside_the_command_line_need_not_be_used(search, arguments, unused):
    done = search(f"--flagfile=asked.flags {arguments}")
    assert done.returncode == TOUCHED_JAX
    assert done.stderr == "".join(f"note: nothing uses what the flagfile says of {names}\n" for names in unused)
