#!/usr/bin/env bash
# A study shared out among the GPUs of this machine: one worker each, which takes the cohorts that no other has.
# One process with all GPUs is what launch/train.py does by itself, and best for few large cohorts; workers are best for
# many cohorts of few runs.
#
#   bash launch/local_gpus.sh --flagfile=configs/mnist_family.flags --workdir=results/family
#   bash launch/local_gpus.sh --dry_run --flagfile=...     prints the commands
#
#   GPUS   which of them, as 0,2,3 (default: all that nvidia-smi lists)
#   VENV   the folder of the environment (default: .venv)
# Each worker writes to gpu-N.log in LOGS (default: logs). Ctrl-C or SIGTERM: all save and stop; the same command continues.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${VENV:-.venv}/bin/python
logs=${LOGS:-logs}

flags=() dry=
for argument in "$@"; do
    case $argument in
        --dry_run) dry=1 ;;
        --shard=*) echo "local_gpus: $argument is given by the GPUs: name them, GPUS=0,1" >&2; exit 2 ;;
        *) flags+=("$argument") ;;
    esac
done
if [ -z "${GPUS:-}" ]; then
    count=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU ' || true)
    GPUS=$(seq -s, 0 $((count - 1)) 2> /dev/null || true)
fi
IFS=, read -ra gpus <<< "$GPUS"
if [ ${#gpus[@]} = 0 ]; then
    echo "local_gpus: nvidia-smi lists no GPU here: name them, GPUS=0,1, or use launch/train.py" >&2
    exit 2
fi
if [ -z "$dry" ] && [ ! -x "$python" ]; then
    echo "local_gpus: no environment in ${VENV:-.venv}: run bash launch/quickstart.sh first" >&2
    exit 2
fi

workers=()
for place in "${!gpus[@]}"; do
    command=("$python" launch/train.py ${flags[@]+"${flags[@]}"} "--shard=$((place + 1))/${#gpus[@]}")
    if [ -n "$dry" ]; then
        printf 'CUDA_VISIBLE_DEVICES=%s ' "${gpus[$place]}"
        printf '%q ' "${command[@]}"
        echo
        continue
    fi
    mkdir -p "$logs"
    CUDA_VISIBLE_DEVICES=${gpus[$place]} "${command[@]}" > "$logs/gpu-${gpus[$place]}.log" 2>&1 &
    workers+=($!)
done
[ -n "$dry" ] && exit 0

worst=0 signalled=''
trap 'signalled=1; kill -TERM "${workers[@]}" 2> /dev/null || true' TERM INT
for place in "${!workers[@]}"; do
    signalled=1
    while [ -n "$signalled" ]; do # a signal ends the wait, not yet the worker
        signalled='' status=0
        wait "${workers[$place]}" || status=$?
    done
    if [ "$status" != 0 ]; then
        echo "local_gpus: the worker of GPU ${gpus[$place]} ended with $status: see $logs/gpu-${gpus[$place]}.log" >&2
    fi
    worst=$((status > worst ? status : worst))
done
exit "$worst"
