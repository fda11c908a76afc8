"""Find out which weights of trained networks matter: remove connections in some order, and see what is left.

  python launch/ablate.py WORKDIR                every finished run of a study
  python launch/ablate.py WORKDIR/runs/RUN ...   some of them

Networks of equal shape are examined together in one program, whatever method and sparsity they were trained with. What
is found is kept in the workdir, WORKDIR/ablation.csv and runs/RUN/ablations.json, and shown by launch/report.py; what
is there already is not done again.

--order: of the connections, the first fractions q are removed. The score of the order is lowest for what goes first.
  smallest, largest     by |w|
  random                uniformly; positive, negative: among the weights of that sign, q is their share
  decile                by |w|, each tenth by itself
  gradient              by |w dL/dw|, L the mean loss of --examples training examples
  activity              by |w| E|x|, x what the connection multiplies
  leave_one_out         by how much L rises without the connection, and Spearman's correlations with it; small networks
--edit: all weights are changed, their layers as wholes.
  unchanged, magnitudes_shuffled, signs_shuffled, weights_shuffled, mean_magnitude (the layer's, with the signs),
  reinitialised, shared_weight (all -2, -1, -0.5, 0.5, 1, 2, without biases, and the vote of the six: Gaier and Ha 2019)

Examples:
  python launch/ablate.py results/digits-mlp-0123456789
  python launch/ablate.py WORKDIR --data_dir=DIR --order=smallest,largest,random --scope=layer,global
  python launch/ablate.py WORKDIR --order=smallest,random --edit=none --retrain_steps=0,200
  python launch/ablate.py WORKDIR --order=leave_one_out --layers=output
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags as absl_flags

from sparse_jax import flags
from sparse_jax.config import ABLATION_EDITS, ABLATION_ORDERS, SHARED_WEIGHT, AblationConfig, StudyConfig
from sparse_jax.data.splits import PARTS
from sparse_jax.errors import UserError
from sparse_jax.study.ablate import NOTHING, ablate

_DEFAULT = AblationConfig()

FLAGS = absl_flags.FLAGS


def _list(name: str, values: Sequence, help: str) -> None:
    absl_flags.DEFINE_list(name, [f"{value:g}" if isinstance(value, float) else str(value) for value in values], help)


_list("order", _DEFAULT.orders, f"How connections are removed: {', '.join(ABLATION_ORDERS)}, or {NOTHING}.")
_list("edit", _DEFAULT.edits, f"How weights are changed: {', '.join((*ABLATION_EDITS, SHARED_WEIGHT))}, or {NOTHING}.")
_list("fractions", _DEFAULT.fractions, "Shares of the connections that are removed, in [0, 1].")
_list("scope", _DEFAULT.scopes, "Who is ranked together: the connections of a layer, or of all (global).")
_list(
    "retrain_steps", _DEFAULT.retrain_steps,
    "Training steps after each change, as in 0,200; on the batches that the run began with.",
)  # fmt: skip
absl_flags.DEFINE_float(
    "retrain_rate", _DEFAULT.retrain_rate, "Learning rate of these steps, of the run's own; constant.", 0
)
absl_flags.DEFINE_enum("part", _DEFAULT.part, PARTS, "The part of the data on which accuracy is measured.")
absl_flags.DEFINE_enum(
    "which", _DEFAULT.which, ["final", "best"], "The network at the end, or of best validation accuracy."
)
absl_flags.DEFINE_integer(
    "examples", _DEFAULT.examples, "Training examples that gradient, activity and leave_one_out look at.", 1
)
absl_flags.DEFINE_string(
    "layers", _DEFAULT.layers, "Regular expression: the layers that change, all unless given; shared_weight: all."
)
_DATA_DIR = flags.define_setting(StudyConfig, "data_dir")


def _numbers(name: str, kind: type) -> tuple:
    try:
        return tuple(kind(text) for text in FLAGS[name].value)
    except ValueError:
        words = "whole numbers" if kind is int else "numbers"
        raise UserError(f"--{name}={','.join(FLAGS[name].value)}: {words}, separated by commas") from None


def main(argv: Sequence[str]) -> int:
    """Examine the runs that the command line names."""
    paths = flags.parse(argv, positional=True)
    return ablate(paths, AblationConfig(
        tuple(FLAGS.order), tuple(FLAGS.edit), tuple(q + 0.0 for q in _numbers("fractions", float)), tuple(FLAGS.scope),
        _numbers("retrain_steps", int), FLAGS.retrain_rate, FLAGS.part, FLAGS.which, FLAGS.examples, FLAGS.layers,
        _DATA_DIR.value[0],
    ))  # fmt: skip


if __name__ == "__main__":
    flags.run(main, __doc__)
