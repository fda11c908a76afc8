"""Look at topologies: degrees, dead neurons, effective sparsity, paths, and what two topologies share.

  inspect PATH          one topology: its layers and the network. PATH is a mask file (.npz), or the folder of
                        a run, WORKDIR/runs/RUN; of a workdir: one row for each run that has masks
  inspect PATH PATH2    two topologies of one network, and their overlap and Jaccard index by layer

A mask file is the masks.npz of a run, or any .npz of one bool array a layer in the shape of its kernel (inputs
before outputs). Layers without a mask are not in it; those of a run are added, with every connection. An unfinished
run is read from its newest usable checkpoint, also while it trains; its step is shown. In the tables
  effective sparsity    counts a connection only if it lies on a path from an input to an output
  without input/output  neurons that the layer leads to, without an incoming or an outgoing connection
  modularity            of the layer as a bipartite graph (Barber 2007), the best found; in [0, 1)
  power law             its exponent for the highest degrees, and the share of the neurons that these are, chosen
                        for the best fit (Clauset, Shalizi and Newman 2009); --json has its Kolmogorov-Smirnov distance

Examples:
  python launch/topology.py inspect results/digits-mlp-0123456789
  python launch/topology.py inspect masks.npz --json=measures.json
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags as absl_flags

from sparse_jax import flags
from sparse_jax.errors import UserError, unknown

_JSON = absl_flags.DEFINE_string("json", "", "Also write everything that is measured to this file.")


def inspect(paths: Sequence[str]) -> int:
    """Print the measures of one topology, of two, or of the runs of a workdir."""
    from sparse_jax.study import inspect

    return inspect.inspect(paths, _JSON.value)


SUBCOMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"inspect": inspect}


def main(argv: Sequence[str]) -> int:
    """Run the subcommand that the first argument names on the others."""
    name, *arguments = flags.parse(argv, positional=True) or [None]
    if name is None:
        raise UserError(f"which subcommand? Known: {', '.join(SUBCOMMANDS)}")
    if name not in SUBCOMMANDS:
        raise unknown("subcommand", name, SUBCOMMANDS)
    return SUBCOMMANDS[name](arguments)


if __name__ == "__main__":
    flags.run(main, __doc__)
