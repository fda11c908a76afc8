"""Look at topologies, make them, prune to them, and prove what they promise.

  inspect PATH          one topology: its layers and the network. PATH is a mask file (.npz), a folder of MatrixMarket
                        files, or the folder of a run, WORKDIR/runs/RUN; of a workdir: one row for each run that has
                        masks
  inspect PATH PATH2    two topologies of one network, and their overlap and Jaccard index by layer
  make OUT              a new topology. OUT.npz is a mask file; OUT/ a folder of MatrixMarket files, one a layer
  prune RUN OUT         the largest weights of a finished run, WORKDIR/runs/RUN, as a topology; OUT as in make
  verify PATH           counts the paths between every input and every output exactly, in integers of any size; exit
                        status 0 if all are equal, else 1

A mask file is the masks.npz of a run, or any .npz of one bool array a layer in the shape of its kernel (inputs
before outputs). In a folder, LAYER.mtx is the kernel LAYER/kernel, inputs x outputs, and every entry a connection.
--initial_topology=file:PATH of launch/train.py begins with any of them. Layers without a mask are not in it; those of
a run are added, with every connection. An unfinished run is read from its newest usable checkpoint, also while it
trains; its step is shown. In the tables
  effective sparsity    counts a connection only if it lies on a path from an input to an output
  without input/output  neurons that the layer leads to, without an incoming or an outgoing connection
  modularity            of the layer as a bipartite graph (Barber 2007), the best found; in [0, 1)
  power law             its exponent for the highest degrees, and the share of the neurons that these are, chosen
                        for the best fit (Clauset, Shalizi and Newman 2009); --json has its Kolmogorov-Smirnov distance

make takes one of
  --radix=10:10         a RadiX-Net (Robinett and Kepner 2019) by its lists of radices, as 2:2:2/2:2:2, and --widths,
                        one more than there are radices, or one for all layers; with --layer_sizes it is cut to them
  --graph_challenge=60  the RadiX-Net of 60 lists 32:32, of the Sparse DNN Graph Challenge
  --sparsity=0.9        with --layer_sizes: the nearest of a --family. RadiX-Nets and Cayley expanders (Chung 1989) come
                        in certain densities only, and it says in which; random graphs have this one in every layer
Its layers are dense_0, dense_1, ...: those of an MLP whose output layer is dense (--dense_layers=output). With
--last=output they are all layers of an MLP. What is cut are the last neurons of a layer, and it says so.

prune takes one of
  --threshold=0.05      keeps |w| above it; 1.5std: above so many standard deviations of each layer (Han et al. 2015)
  --sparsity=0.9        keeps the largest, of every layer or with --scope=global of all together
Layers of --dense_layers=REGEX are not pruned. A whole grid is pruned to sparsities by launch/train.py, with
--initial_topology=magnitude --initial_weights=trained:RUN --epochs=0.

Examples:
  python launch/topology.py inspect results/digits-mlp-0123456789
  python launch/topology.py inspect masks.npz --json=measures.json
  python launch/topology.py make radix.npz --radix=10:10 --widths=8:3:1 --layer_sizes=784,300,100
  python launch/topology.py make expander.npz --layer_sizes=784,300,100 --sparsity=0.9 --family=cayley
  python launch/topology.py make challenge/ --graph_challenge=60
  python launch/topology.py prune results/digits-mlp-0123456789/runs/RUN masks.npz --threshold=1.5std
  python launch/topology.py verify challenge/
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags as absl_flags

from sparse_jax import flags
from sparse_jax.config import DRAWN, RunConfig
from sparse_jax.errors import UserError, unknown

FLAGS = absl_flags.FLAGS
absl_flags.DEFINE_string("json", "", "inspect: also write everything that is measured to this file.")
absl_flags.DEFINE_string("radix", "", "make: lists of radices, as 10:10 or 2:2:2/2:2:2.")
absl_flags.DEFINE_string("widths", "", "make: widths of a RadiX-Net, as 8:3:1; 1, or the least for --layer_sizes.")
absl_flags.DEFINE_integer("graph_challenge", 1, "make: how many lists 32:32, of two layers each.", 1, 10_000)
absl_flags.DEFINE_string("layer_sizes", "", "make: neurons of every layer, inputs and outputs included.")
absl_flags.DEFINE_float("sparsity", 0.9, "make, prune: in [0, 1), of all layers together.")
absl_flags.DEFINE_string("family", "radix", f"make: one of radix, cayley, {', '.join(DRAWN)}.")
absl_flags.DEFINE_integer("seed", 0, "make: of a random family.", 0, 2**32 - 1)
absl_flags.DEFINE_string("threshold", "", "prune: the |w| up to which connections go, or 1.5std.")
absl_flags.DEFINE_string("scope", "layer", "prune, with --sparsity: who is ranked together, layer or global.")
absl_flags.DEFINE_string("dense_layers", "", "prune: regular expression of the layers that are not.")
absl_flags.DEFINE_string("last", "", "make: name of the last layer, as output.")
absl_flags.DEFINE_float("rewiring", RunConfig.rewiring, "make: of small_world, as in launch/train.py.")
absl_flags.DEFINE_float("degree_exponent", RunConfig.degree_exponent, "make: of scale_free, as in launch/train.py.")


def inspect(paths: Sequence[str]) -> int:
    """Print the measures of one topology, of two, or of the runs of a workdir."""
    from sparse_jax.study import inspect

    return inspect.inspect(paths, FLAGS.json)


def make(paths: Sequence[str]) -> int:
    """Write a new topology."""
    if len(paths) != 1:
        raise UserError(f"make takes one path, not {len(paths)}: of a new .npz, or of a new folder with / at its end")
    from sparse_jax.study.make_topology import Request, make

    values = {name: FLAGS[name].value for name in OF["make"]}
    return make(paths[0], Request(**values, given=_given()))


def prune(paths: Sequence[str]) -> int:
    """Write the topology of the largest weights of a run."""
    from sparse_jax.study.prune import Request, prune

    values = {name: FLAGS[name].value if FLAGS[name].present else None for name in ("threshold", "sparsity")}
    if values["threshold"] is not None and FLAGS["scope"].present:
        raise UserError("--scope has no effect with --threshold: one threshold is global, one in deviations by layer")
    return prune(paths, Request(**values, scope=FLAGS.scope, dense_layers=FLAGS.dense_layers))


def verify(paths: Sequence[str]) -> int:
    """Print whether all pairs of an input and an output have the same number of paths."""
    from sparse_jax.study import verify

    return verify.verify(paths)


SUBCOMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "inspect": inspect, "make": make, "prune": prune, "verify": verify,
}  # fmt: skip
OF = {  # the flags of each
    "inspect": ("json",),
    "make": (
        "radix", "graph_challenge", "widths", "layer_sizes", "sparsity", "family", "seed", "rewiring",
        "degree_exponent", "last",
    ),
    "prune": ("threshold", "sparsity", "scope", "dense_layers"),
    "verify": (),
}  # fmt: skip


def _given() -> frozenset[str]:
    return frozenset(name for names in OF.values() for name in names if FLAGS[name].present)


def main(argv: Sequence[str]) -> int:
    """Run the subcommand that the first argument names on the others."""
    name, *arguments = flags.parse(argv, positional=True) or [None]
    if name is None:
        raise UserError(f"which subcommand? Known: {', '.join(SUBCOMMANDS)}")
    if name not in SUBCOMMANDS:
        raise unknown("subcommand", name, SUBCOMMANDS)
    if extra := sorted(_given() - {*OF[name]}):
        raise UserError(f"--{extra[0]} has no effect with {name}")
    return SUBCOMMANDS[name](arguments)


if __name__ == "__main__":
    flags.run(main, __doc__)
