"""Evaluate the network of a finished run again, on its own data set or on another, and export it.

Its own data set is split as it was for training, and all three parts are evaluated: the numbers are those of the
run's result.json. Of another data set, which must have the same inputs and as many classes, the test part is
evaluated, with the normalisation fitted to the run's own training part.

--export=FOLDER writes what other programs need, without the network's dead neurons where its dense layers are in
series (mlp and LeNets), which leaves the outputs as they are:
  model.json        what the other files are, layer by layer, and how to load them
  weights.npz       all parameters; sparse matrices as their CSR parts
  csr/LAYER.npz     W[outputs, inputs] of each sparse dense layer, for scipy.sparse.load_npz
  model.stablehlo   raw inputs -> logits, for jax.export.deserialize, on CPU, CUDA and TPU

Examples:
  python launch/evaluate.py --run=results/digits-mlp-0123456789/runs/RUN
  python launch/evaluate.py --run=WORKDIR/runs/RUN --which=best --data_dir=DIR --export=exported
  python launch/evaluate.py --run=WORKDIR/runs/RUN --data_dir=DIR --dataset=fashion_mnist
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags as absl_flags

from sparse_jax import flags
from sparse_jax.config import StudyConfig
from sparse_jax.errors import UserError

_RUN = absl_flags.DEFINE_string("run", "", "Folder of the finished run, WORKDIR/runs/RUN.")
_DATASET = absl_flags.DEFINE_string("dataset", "", "Data set by name or path; the run's own unless given.")
_DATA_DIR = flags.define_setting(StudyConfig, "data_dir")
_WHICH = absl_flags.DEFINE_enum(
    "which", "final", ["final", "best"], "The network at the end, or that of highest validation accuracy."
)
_EXPORT = absl_flags.DEFINE_string("export", "", "Also write the network to this new folder.")


def main(argv: Sequence[str]) -> int:
    """Evaluate one run, and export it."""
    flags.parse(argv)
    if not _RUN.value:
        raise UserError("which run? --run=WORKDIR/runs/RUN names the folder of a finished one")
    from sparse_jax.study.evaluate import evaluate_run

    return evaluate_run(_RUN.value, _DATASET.value, _DATA_DIR.value[0], _WHICH.value, _EXPORT.value)


if __name__ == "__main__":
    flags.run(main, __doc__)
