#!/usr/bin/env bash
# Train in several processes: on GPUs one each, otherwise on the CPU over gloo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ $# -lt 2 ]; then
    echo "usage: [NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1 PORT=free] $0 CONFIG NPROC [ARGS of train.py]" >&2
    exit 2
fi
launch "$2" "$root/tools/train.py" "$1" "${@:3}"
