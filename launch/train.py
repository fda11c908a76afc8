"""Train sparse networks: one command, a grid of settings and seeds, one table.

Runs that differ only in seed, sparsity, drop fraction, learning rate or weight decay train together in one
compiled program. Results go to a workdir; the same command continues where it was stopped.

Examples:
  python launch/train.py --method=dense,static,set,rigl --sparsity=0.9,0.98 --num_seeds=3
  python launch/train.py --dataset=mnist --data_dir=DIR --activation=relu,srelu --epsilon=5,10,20
  python launch/train.py --flagfile=configs/quickstart.flags --dry_run
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sparse_jax import flags
from sparse_jax.config import RunConfig, StudyConfig
from sparse_jax.study.run import train_study

flags.define(RunConfig, StudyConfig)


def main(argv: Sequence[str]) -> int:
    """Read the grid and train it."""
    return train_study(flags.read_grid(argv))


if __name__ == "__main__":
    flags.run(main, __doc__)
