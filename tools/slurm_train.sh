#!/usr/bin/env bash
# Train as a Slurm job step.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ $# -lt 3 ]; then
    echo "usage: $slurm_usage $0 PARTITION JOB_NAME CONFIG [ARGS of train.py]" >&2
    exit 2
fi
slurm_launch "$1" "$2" "$root/tools/train.py" "${@:3}"
