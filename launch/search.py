"""Search for networks: their topology instead of their weights.

  wann    weight agnostic networks (Gaier and Ha 2019, arXiv:1906.04358), in which all connections have one and the
          same weight, of several that are tried one after the other. Networks grow from inputs and outputs alone, by
          single mutations; NSGA-II ranks them by their mean fitness over the weights and by how few connections they
          have, or by the mean and the best. There are no biases.

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

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags as absl_flags

from sparse_jax import flags
from sparse_jax.config import RunConfig, StudyConfig, WannConfig, settings
from sparse_jax.errors import UserError, unknown
from sparse_jax.search.plan import DATA, HOST, Asked, make_plan
from sparse_jax.study.interrupt import Interrupt

for name in DATA:
    flags.define_setting(RunConfig, name, grid=False)
flags.define(WannConfig)
for name in HOST:
    flags.define_setting(StudyConfig, name)


def wann(arguments: Sequence[str]) -> int:
    """Search for weight agnostic networks."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}: write --name=value, and lists without spaces")
    interrupt = Interrupt()
    plan = make_plan(Asked(
        WannConfig(**_values(settings(WannConfig))), RunConfig(**_values(DATA)), StudyConfig(**_values(HOST))
    ))  # fmt: skip
    if plan.asked.host.dry_run:
        print(plan.description)
        return 0
    from sparse_jax.search.wann_run import search

    return search(plan, interrupt)


SUBCOMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"wann": wann}


def _values(names: Sequence[str]) -> dict:
    return {name: absl_flags.FLAGS[name].value[0] for name in names}


def main(argv: Sequence[str]) -> int:
    """Run the search that the first argument names."""
    name, *arguments = flags.parse(argv, positional=True) or [None]
    if name is None:
        raise UserError(f"which search? Known: {', '.join(SUBCOMMANDS)}")
    if name not in SUBCOMMANDS:
        raise unknown("search", name, SUBCOMMANDS)
    return SUBCOMMANDS[name](arguments)


if __name__ == "__main__":
    flags.run(main, __doc__)
