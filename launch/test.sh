#!/usr/bin/env bash
# The tests, in the environment of the quickstart. Fast ones by default; --all runs every one.
# Other arguments go to pytest: bash launch/test.sh -k selection. The files run in the order of their names: sorted by
# the number of their tests, the longest would be the last, on one core.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh" test
chosen=(-m "not slow")
if [ "${1:-}" = --all ]; then
    chosen=()
    shift
fi
exec "$venv/bin/python" -m pytest -n "$(nproc)" --dist loadfile --no-loadscope-reorder "${chosen[@]}" "$@"
