# shellcheck shell=bash
# Sourced by the scripts here: an environment in .venv with the locked versions, made or brought up to date.
#   PYTHON   the interpreter, 3.11 or newer (default: python3.12, python3.11 or python3, the first that works)
#   VENV     the folder of the environment (default: .venv)
# usage: . launch/environment.sh [EXTRA]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv}
wanted=.${1:+[$1]}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ ! -x "$venv/bin/python" ]; then
    for python in ${PYTHON:-python3.12 python3.11 python3}; do
        if new_enough "$python"; then break; fi
        python=
    done
    if [ -z "$python" ]; then
        echo "environment: no Python 3.11 or newer found; name one: PYTHON=/path/to/python bash $0" >&2
        exit 2
    fi
    echo "making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi

version=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
constraints=launch/constraints-$version.txt
locked=(-c "$constraints")
if [ ! -f "$constraints" ]; then
    echo "note: no locked versions for Python $version, taking the newest that setup.cfg allows" >&2
    locked=()
fi
stamp="$(cat setup.cfg pyproject.toml "$constraints" 2>/dev/null | cksum) $wanted"
installed=$(cat "$venv/.installed" 2>/dev/null || true)
if [[ "$installed" != "$stamp"* ]]; then  # with an extra is as good as without
    echo "installing sparse_jax and what it needs (about a minute)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${locked[@]}" --editable "$wanted"
    echo "$stamp" > "$venv/.installed"
fi
