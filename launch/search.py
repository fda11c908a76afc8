"""Search for networks: for their activation functions, or for their topology instead of their weights.

  python launch/search.py safs --help   activation functions of sparse networks (Loni et al. 2023, arXiv:2305.10964)
  python launch/search.py wann --help   weight agnostic networks (Gaier and Ha 2019, arXiv:1906.04358)
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags as absl_flags

from sparse_jax import flags
from sparse_jax.config import RunConfig, SafsConfig, StudyConfig, WannConfig, settings
from sparse_jax.errors import UserError, unknown
from sparse_jax.search import safs_plan, wann_plan
from sparse_jax.study.interrupt import Interrupt

SAFS = """Search for the activation functions of sparse networks (SAFS: Loni et al. 2023, arXiv:2305.10964).

Every seed at every sparsity is a pipeline of its own, all of which are trained side by side:

  start    A dense network is trained, and pruned to its largest |w|, the same share of every layer. With any other
           --method, or --initial_topology, a sparse network is trained by it instead: --method=rigl --sparsity=0.98,
           --initial_topology=radix. Everything that follows begins with this network; methods that move connections
           go on doing so, and methods that prune have done so.
  stage 1  late acceptance hill climbing, or another --strategy, finds an operator for every layer: a candidate is
           trained for --candidate_epochs and scored on the validation part
  stage 2  of f(x) = alpha h(beta x) alpha and beta are trained, and optimiser, learning rate, momentum, weight decay
           and schedule tuned by Optuna, once with the default activation function and once with stage 1's; it needs
           pip install -e '.[search]'
  end      the default network, stage 1's, stage 2's, and that of both are trained for --epochs, each from the start

Then the test part is read, which nothing before has seen, and a table shows the five networks (the dense one is the
first), with intervals over seeds and what is gained. The workdir holds

  result.json       the table, the operators, alpha, beta and hyper-parameters, and the learned functions
  candidates.csv    every candidate and every trial: what it was, its validation accuracy, seconds and FLOPs
  networks/         the trained networks, NAME-PIPELINE.npz
  tuning.journal    the trials, unless --storage names a database, which several machines may share

The same command continues where it was stopped, also after kill -9, and takes the course that it would have taken; with
more --num_seeds, or another --sparsity, the table grows. SIGTERM and Ctrl-C save and exit with 75.

Examples:
  python launch/search.py safs
  python launch/search.py safs --flagfile=configs/safs_lenet5_mnist_quick.flags --data_dir=DIR
  python launch/search.py safs --method=rigl --sparsity=0.95,0.99 --num_seeds=5 --operators=relu:swish:tanh:symlog
  python launch/search.py safs --strategy=genetic --candidates=8 --trials=0 --dry_run
"""

WANN = """Search for weight agnostic networks (Gaier and Ha 2019, arXiv:1906.04358).

All connections of a network have one and the same weight, of several that are tried one after the other. Networks grow
from inputs and outputs alone, by single mutations; NSGA-II ranks them by their mean fitness over the weights and by how
few connections they have, or by the mean and the best. There are no biases.

The workdir (--workdir, or a folder under results/ named after the settings) then holds
  result.json   the best network on the test part: accuracy and loss at every weight, their mean, the vote of all
                weights; its best weight is chosen on the validation part, as the network itself
  course.csv    one line a generation: fitness of the best network and of all, connections, hidden nodes, seconds
  masks.npz     its connections, as layers of --model=skip_mlp
  train.flags   python launch/train.py --flagfile=WORKDIR/train.flags trains it with weights of its own
  state.npz     the checkpoint

The same command continues where it was stopped, bit for bit, also after kill -9, and with more --generations what had
ended; SIGTERM and Ctrl-C save and exit with 75. The same seed finds the same network, on any number of CPU devices.

Examples:
  python launch/search.py wann --flagfile=configs/wann_digits.flags
  python launch/search.py wann --dataset=mnist --data_dir=DIR --batch=1000 --generations=2000 --seed=1
  python launch/search.py wann --weights=-1:1 --fitness=accuracy --layers=4 --nodes=3 --dry_run
"""


class Search(NamedTuple):
    """One kind of search."""

    doc: str
    define: Callable[[], None]  # its flags
    run: Callable[[Sequence[str]], int]  # of the command line: the exit status; raises UserError


def _define_wann() -> None:
    for name in wann_plan.DATA:
        flags.define_setting(RunConfig, name, grid=False)
    flags.define(WannConfig)
    for name in wann_plan.HOST:
        flags.define_setting(StudyConfig, name)


def _define_safs() -> None:
    for name in safs_plan.NETWORK:
        flags.define_setting(RunConfig, name, grid=name in safs_plan.LEVELS, default=safs_plan.OWN.get(name))
    flags.define(SafsConfig)
    for name in safs_plan.HOST:
        flags.define_setting(StudyConfig, name)


def _values(names: Sequence[str]) -> dict:
    return {name: absl_flags.FLAGS[name].value[0] for name in names}


def _wann(_: Sequence[str]) -> int:
    interrupt = Interrupt()
    plan = wann_plan.make_plan(wann_plan.Asked(
        WannConfig(**_values(settings(WannConfig))), RunConfig(**_values(wann_plan.DATA)),
        StudyConfig(**_values(wann_plan.HOST)),
    ))  # fmt: skip
    if plan.asked.host.dry_run:
        print(plan.description)
        return 0
    from sparse_jax.search.wann_run import search

    return search(plan, interrupt)


def _safs(argv: Sequence[str]) -> int:
    interrupt = Interrupt()
    axes = {name: absl_flags.FLAGS[name].value for name in safs_plan.NETWORK}
    host = StudyConfig(**_values(safs_plan.HOST))
    grid = flags.Grid(axes, host, *flags.given((*axes, *settings(SafsConfig)), argv))
    plan = safs_plan.make_plan(safs_plan.Asked(SafsConfig(**_values(settings(SafsConfig))), grid))
    for notice in plan.notices:
        print(f"note: {notice}", file=sys.stderr)
    if grid.study.dry_run:
        print(plan.description)
        return 0
    from sparse_jax.search.safs_run import search

    return search(plan, interrupt)


SEARCHES = {"safs": Search(SAFS, _define_safs, _safs), "wann": Search(WANN, _define_wann, _wann)}


def main(argv: Sequence[str]) -> int:
    """Run the search that the command line names."""
    if all(argument.startswith("-") for argument in argv[1:]):
        raise UserError(f"which search? Known: {', '.join(SEARCHES)}, as in search.py safs --help")
    rest = flags.parse(argv, positional=True)
    name, *others = rest
    if name not in SEARCHES:
        raise unknown("search", name, SEARCHES)
    if others:
        raise UserError(f"unexpected argument {others[0]!r}: write --name=value, and lists without spaces")
    return SEARCHES[name].run(argv)


if __name__ == "__main__":
    kind = next((argument for argument in sys.argv[1:] if argument in SEARCHES), None)
    if kind is not None:
        SEARCHES[kind].define()
    flags.run(main, __doc__ if kind is None else SEARCHES[kind].doc)
