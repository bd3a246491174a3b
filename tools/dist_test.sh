#!/usr/bin/env bash
# Test in several processes: on GPUs one each, otherwise on the CPU over gloo.
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT NPROC [ARGS of test.py]
#
# On several machines set on each: NNODES, NODE_RANK (0 is the first), MASTER_ADDR and PORT of the first.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
show_help "${@:1:3}" # what follows is for the Python tool
[ $# -ge 3 ] || refuse 'CONFIG, CHECKPOINT and NPROC are needed'
require_count NPROC "$3"
exec "$PYTHON" "$root/tools/launch.py" "$3" test "$1" "$2" "${@:4}"
