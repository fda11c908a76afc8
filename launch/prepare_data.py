"""Download a data set of the TFDS catalogue and prepare it for training, once: needs pip install -e '.[prepare]'.

What is there is left alone. Without network, run this on a machine that has one and copy the folder
DIR/NAME/VERSION it names to the same place below another DIR; DIR/downloads is not needed afterwards. Data sets of
the program have nothing to prepare; of a tabular one, such as madelon, it says where its file has to lie.

Examples:
  python launch/prepare_data.py --dataset=cifar100 --data_dir=DIR
  python launch/prepare_data.py --dataset=imagenet_resized/16x16
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags as absl_flags

from sparse_jax import flags
from sparse_jax.config import DATASETS, StudyConfig
from sparse_jax.data.prepare import prepare, tfds_builder
from sparse_jax.errors import UserError

_DATASET = absl_flags.DEFINE_string("dataset", "", f"Data set by name. One of: {', '.join(DATASETS)}.")
_DATA_DIR = flags.define_setting(StudyConfig, "data_dir")


def main(argv: Sequence[str]) -> int:
    """Prepare one data set and say what is there."""
    flags.parse(argv)
    if not _DATASET.value:
        raise UserError(f"which data set? --dataset=NAME with one of: {', '.join(DATASETS)}")
    print(prepare(_DATASET.value, _DATA_DIR.value[0], tfds_builder))
    return 0


if __name__ == "__main__":
    flags.run(main, __doc__)
