#!/usr/bin/env bash
# The tests, in the environment of the quickstart. Fast ones by default; --all runs every one, --faults those of kills,
# damage and full disks (seven minutes on 2 cores), --soak sixty kills (a quarter of an hour).
# Other arguments go to pytest: bash launch/test.sh -k selection. The order of the files is that of tests/conftest.py:
# sorted by the number of their tests, the longest would be the last, on one core.
# shellcheck source=launch/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh" test
chosen=(-m "not slow") dist=loadfile
case ${1:-} in
    --all) chosen=() ;;
    --faults) chosen=(-m "faults and not soak") dist=load ;;
    --soak) chosen=(-m soak) ;;
esac
case ${1:-} in --all | --faults | --soak) shift ;; esac
exec "$venv/bin/python" -m pytest -n "$(nproc)" --dist "$dist" --no-loadscope-reorder "${chosen[@]}" "$@"
