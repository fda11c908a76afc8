#!/usr/bin/env bash
# A study on a Cloud TPU slice, one machine or a pod: create it, copy this clone, install, train on all workers together.
# Needs gcloud, with a project and a zone set.
#
#   bash launch/tpu_pod.sh create NAME v5litepod-16
#   bash launch/tpu_pod.sh install NAME
#   bash launch/tpu_pod.sh train NAME --flagfile=configs/mnist_family.flags --workdir=results/family
#   bash launch/tpu_pod.sh fetch NAME results/family
#   bash launch/tpu_pod.sh delete NAME
#   with --dry_run anywhere: prints the commands and does nothing
#
# train again is resume: the workdir lies on the first worker, the only one that writes it. Data sets, mask files and runs
# whose weights are taken have to lie on every worker, in the same place. A slice that was preempted is gone with its disks: name a --workdir on a mounted bucket, or
# fetch in between, and put it back (gcloud compute tpus tpu-vm scp) before training goes on.
#   ZONE      of the slice (default: that of gcloud)
#   VERSION   of its software (default: v2-alpha-tpuv5-lite for v5e, tpu-ubuntu2204-base else)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
usage="tpu_pod: create NAME TYPE, install NAME, train NAME [FLAGS], fetch NAME WORKDIR, or delete NAME"

words=() dry=
for argument in "$@"; do
    case $argument in
        --dry_run) dry=1 ;;
        --coordinator=* | --num_processes=* | --process_id=*)
            echo "tpu_pod: $argument is known from the pod: leave it out" >&2; exit 2 ;;
        *) words+=("$argument") ;;
    esac
done
if [ ${#words[@]} -lt 2 ]; then
    echo "$usage" >&2
    exit 2
fi
action=${words[0]} name=${words[1]}
rest=("${words[@]:2}")
if [[ ! $name =~ ^[a-z][a-z0-9-]*$ ]]; then
    echo "tpu_pod: $name is no name of a slice: a letter, then letters, digits and -, all in lower case" >&2
    exit 2
fi
if [ -z "$dry" ] && ! command -v gcloud > /dev/null; then
    echo "tpu_pod: gcloud is not installed: see cloud.google.com/sdk, or use --dry_run to see the commands" >&2
    exit 2
fi
zone=()
[ -n "${ZONE:-}" ] && zone=(--zone "$ZONE")

run() {
    if [ -n "$dry" ]; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

on() { # WORKER COMMAND
    run gcloud compute tpus tpu-vm ssh "$name" ${zone[@]+"${zone[@]}"} --worker="$1" --command="$2"
}

case $action in
    create)
        if [ ${#rest[@]} != 1 ]; then
            echo "tpu_pod: create $name TYPE, such as v5litepod-16" >&2
            exit 2
        fi
        default=tpu-ubuntu2204-base
        [[ ${rest[0]} == v5lite* ]] && default=v2-alpha-tpuv5-lite
        run gcloud compute tpus tpu-vm create "$name" ${zone[@]+"${zone[@]}"} \
            --accelerator-type="${rest[0]}" --version="${VERSION:-$default}"
        ;;
    install)
        python='{ command -v python3.11 > /dev/null || sudo apt-get install -qqy python3.11 python3.11-venv; }'
        archive=${TMPDIR:-/tmp}/sparse_jax.tar.gz
        run git archive --format=tar.gz --prefix=sparse_jax/ -o "$archive" HEAD
        run gcloud compute tpus tpu-vm scp "$archive" "$name": ${zone[@]+"${zone[@]}"} --worker=all
        on all "tar xzf sparse_jax.tar.gz && cd sparse_jax && $python && python3.11 -m venv .venv && .venv/bin/pip install -q -c launch/constraints-3.11.txt -e . 'jax[tpu]'"
        ;;
    train)
        if [ ${#rest[@]} = 0 ]; then
            echo "tpu_pod: train $name FLAGS, such as --flagfile=configs/mnist_family.flags" >&2
            exit 2
        fi
        on all "cd sparse_jax && .venv/bin/python launch/train.py --coordinator=auto $(printf '%q ' "${rest[@]}")"
        ;;
    fetch)
        if [ ${#rest[@]} != 1 ] || [[ ${rest[0]} == -* ]]; then
            echo "tpu_pod: fetch $name WORKDIR" >&2
            exit 2
        fi
        run mkdir -p "$(dirname "${rest[0]}")"
        source=${rest[0]}
        [[ $source == /* ]] || source=sparse_jax/$source
        run gcloud compute tpus tpu-vm scp --recurse "$name:$source" "$(dirname "${rest[0]}")" \
            ${zone[@]+"${zone[@]}"} --worker=0
        ;;
    delete)
        run gcloud compute tpus tpu-vm delete "$name" ${zone[@]+"${zone[@]}"} --quiet
        ;;
    *)
        echo "$usage" >&2
        exit 2
        ;;
esac
