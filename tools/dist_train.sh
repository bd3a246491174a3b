#!/usr/bin/env bash
# Train in several processes: on GPUs one each, otherwise on the CPU over gloo.
#
#   bash tools/dist_train.sh CONFIG NPROC [ARGS of train.py]
#
# On several machines set on each: NNODES, NODE_RANK (0 is the first), MASTER_ADDR and PORT of the first.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
show_help "${@:1:2}" # what follows is for the Python tool
[ $# -ge 2 ] || refuse 'CONFIG and NPROC are needed'
require_count NPROC "$2"
exec "$PYTHON" "$root/tools/launch.py" "$2" train "$1" "${@:3}"
