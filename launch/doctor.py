"""Say whether this machine can do what the programs need, and what to do where it cannot.

Looked at are the versions of Python and of the packages, among them a jaxlib that computes wrongly; the devices; the
compiler of sparse products; the folders of compiled programs and of results; and the data sets. Exit status 1 says that
something would stop a training, 0 that nothing would; notes are about what is slower, or only needed by some programs.

Examples:
  python launch/doctor.py
  python launch/doctor.py --data_dir=DIR --workdir=/scratch/studies
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

try:
    from absl import flags as absl_flags

    from sparse_jax import flags
    from sparse_jax.config import AUTO, StudyConfig
    from sparse_jax.study.doctor import PROBLEM, examine
except ImportError as missing:
    print(f"doctor.py: {missing.name} is missing: pip install -e . (or bash launch/quickstart.sh)", file=sys.stderr)
    sys.exit(1)

_FLAGS = ("data_dir", "workdir")


def main(argv: Sequence[str]) -> int:
    """Print what was found, a line or two each."""
    flags.parse(argv)
    data_dir, workdir = (absl_flags.FLAGS[name].value[0] for name in _FLAGS)
    states = []
    for found in examine(data_dir, Path("results" if workdir == AUTO else workdir).expanduser()):
        states.append(found.state)
        print(f"{found.state:8} {found.name}: {found.said}", flush=True)
        if found.remedy:
            print(f"{'':8} → {found.remedy}")
    count = states.count(PROBLEM)
    print(f"\n{count} problem{'' if count == 1 else 's'}" if count else "\nnothing is in the way of a training")
    return 1 if count else 0


if __name__ == "__main__":
    for name in _FLAGS:
        flags.define_setting(StudyConfig, name)
    flags.run(main, __doc__)
