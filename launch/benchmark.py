"""Measure what the README claims about speed: ratios of two things timed in turn in one run.

Absolute times depend on the machine and on what else it does; the ratios are medians over rounds in which the
two sides alternate. Exit status 0 says that everything ran, not that a target was met.

Examples:
  python launch/benchmark.py                    all measurements, half an hour on 2 cores
  python launch/benchmark.py --only=update      those whose name contains a word
  python launch/benchmark.py --smoke            one short round each: does it run?
  python launch/benchmark.py --data_dir=DIR     with the prepared MNIST there, for the time to the first step
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags as absl_flags

from sparse_jax import flags
from sparse_jax.config import StudyConfig

_ONLY = absl_flags.DEFINE_string("only", "", "Run the measurements whose name contains this word.")
_SMOKE = absl_flags.DEFINE_bool("smoke", False, "One short round each, to see that everything runs.")
_DATA_DIR = flags.define_setting(StudyConfig, "data_dir")
_JSON = absl_flags.DEFINE_string("json", "", "Also write the results to this file.")


def main(argv: Sequence[str]) -> int:
    """Run the chosen measurements and print their table."""
    flags.parse(argv)
    from ablation_measurements import ABLATION_MEASUREMENTS
    from launch_measurements import LAUNCH_MEASUREMENTS
    from layer_measurements import LAYER_MEASUREMENTS
    from measurements import MEASUREMENTS, Bench, Measurement
    from rich import box
    from rich.table import Table
    from search_measurements import SEARCH_MEASUREMENTS
    from sparse_measurements import SPARSE_MEASUREMENTS

    from sparse_jax.errors import unknown
    from sparse_jax.study.meter import Meter
    from sparse_jax.study.provenance import provenance
    from sparse_jax.study.summary import make_console
    from sparse_jax.training.hardware import set_up

    hardware = set_up(StudyConfig())
    bench = Bench(hardware, _SMOKE.value, _DATA_DIR.value[0])
    table = Table(box=box.SIMPLE_HEAD, title=hardware.description, caption="ratio: ours / other, lower is better")
    for name in Measurement._fields:
        table.add_column(name)
    done = []
    families = (
        MEASUREMENTS, SPARSE_MEASUREMENTS, LAYER_MEASUREMENTS, ABLATION_MEASUREMENTS, SEARCH_MEASUREMENTS,
        LAUNCH_MEASUREMENTS,
    )  # fmt: skip
    known = {measure.__name__.replace("_", " "): measure for measure in itertools.chain(*families)}
    chosen = {name: measure for name, measure in known.items() if _ONLY.value in name}
    if not chosen:
        raise unknown("measurement", _ONLY.value, known)
    with Meter(0, len(chosen)) as meter:
        for name, measure in chosen.items():
            done += measure(bench)
            meter.advance(f"measured {name}")
    for line in done:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value or "–") for value in line))
    make_console().print(table)
    if _JSON.value:
        report = provenance(hardware, sparse=True) | {"measurements": [line._asdict() for line in done]}
        Path(_JSON.value).write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    flags.run(main, __doc__)
