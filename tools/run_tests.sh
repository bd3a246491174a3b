#!/usr/bin/env bash
# Set up if needed, then lint and run all tests, one process for each of up to four cores.
#
#   bash tools/run_tests.sh [ARGS of pytest]     -k resume, for example
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/usage.sh
show_help "$@"
bash tools/setup.sh
unset PYTHON VIRTUAL_ENV # run in what was just set up, whatever is active
source tools/env.sh
bash tools/lint.sh
workers=$(nproc)
workers=$((workers < 4 ? workers : 4))
"$PYTHON" -m pytest -n "$workers" --maxschedchunk 1 "$@"
