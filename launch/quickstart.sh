#!/usr/bin/env bash
# From a fresh clone to trained and compared sparse networks, with nothing but Python 3.11 or newer.
# shellcheck source=launch/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "" # no extra; without an argument it would see those of this script
exec "$venv/bin/python" launch/train.py --flagfile=configs/quickstart.flags "$@"
