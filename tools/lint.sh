#!/usr/bin/env bash
# Lint: style and complexity, formatting, imports that run downwards only, types, docstrings.
#
#   bash tools/lint.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/usage.sh
show_help "$@"
[ $# -eq 0 ] || refuse "it takes no arguments, but got '$1'"
source tools/env.sh
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -c 'from importlinter.cli import lint_imports_command; lint_imports_command()' --no-cache
"$PYTHON" -m mypy
"$PYTHON" -m interrogate scopevit
