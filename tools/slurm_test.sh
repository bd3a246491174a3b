#!/usr/bin/env bash
# Test as a Slurm job step.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ $# -lt 4 ]; then
    echo "usage: $slurm_usage $0 PARTITION JOB_NAME CONFIG CKPT [ARGS of test.py]" >&2
    exit 2
fi
slurm_launch "$1" "$2" "$root/tools/test.py" "${@:3}"
