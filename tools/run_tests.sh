#!/usr/bin/env bash
# Set up if needed, then lint and run all tests, one process for each of up to four cores.
#
#   bash tools/run_tests.sh [ARGS of pytest]     -k resume, for example
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/env.sh
show_help "$@"
set_up
bash tools/lint.sh
workers=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
workers=$((workers < 4 ? workers : 4))
"$PYTHON" -m pytest -n "$workers" --maxschedchunk 1 "$@"
