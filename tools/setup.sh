#!/usr/bin/env bash
# Set up everything: an environment in .venv with the pinned stack. Safe to run again.
#
#   bash tools/setup.sh            make or complete .venv in this repository
#   bash tools/setup.sh --active   use the active environment, after listing what would change
#
# PYTHON           the Python 3.10 or 3.11 to build .venv from (default: the first one found)
# TORCH_INDEX_URL  where torch comes from; for a small CPU-only install
#                  https://download.pytorch.org/whl/cpu
# MAX_JOBS         compiler processes for mmcv (default: number of cores)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null; }

case " $* " in
    *" --active "*) candidates=(python) ;;
    *) if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); else candidates=(python3 python3.11 python3.10); fi ;;
esac
for python in "${candidates[@]}"; do
    if fits "$python"; then
        exec "$python" "$root/tools/setup/install.py" "$@"
    fi
done
found=$("${candidates[0]}" --version 2>&1 || true)
cat >&2 <<MESSAGE
error: Python 3.10 or 3.11 is needed, but ${candidates[0]} is: ${found:-missing}
Install one and run this again (or name one with PYTHON=/path/to/python3.11):
  sudo apt-get install -y python3.11 python3.11-venv python3.11-dev
(Where apt does not know python3.11, add the deadsnakes archive or use pyenv or conda.)
MESSAGE
exit 1
