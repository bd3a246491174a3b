#!/usr/bin/env bash
# Set up everything: an environment in .venv with the versions tested together. Safe to run again.
#
#   bash tools/setup.sh                    make or complete .venv in this repository
#   bash tools/setup.sh --active [--yes]   use the active environment, or that of $PYTHON, after saying what would change
#   bash tools/setup.sh --mmcv-operators   also compile mmcv's own operators (minutes; few configs need them)
#
# Nothing is compiled otherwise, but ScopeViT's attention kernel for CPUs where there is a C++ compiler.
# A torch that is in the environment already stays.
#
# PYTHON           the Python (3.10 to 3.13; 3.14 was not run) to build .venv from (default: that of .venv, else the
#                  first one found); with --active the Python of the environment
# TORCH_INDEX_URL  where torch comes from; https://download.pytorch.org/whl/cpu for a small one without CUDA
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/usage.sh
show_help "$@"
unset PYTHONPATH # what lies there is not of the environment

active='' yes='' operators=''
for word in "$@"; do
    case $word in
        --active) active=1 ;;
        --yes) yes=1 ;;
        --mmcv-operators) operators=1 ;;
        *) refuse "unknown argument $word" ;;
    esac
done
[ -z "$yes" ] || [ -n "$active" ] || refuse '--yes goes with --active'

# 1. A Python, and the environment: $prefix, with its own $python, made by $base.
fits() { "$1" -c "import sys$2; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))" 2>/dev/null; }
version() { "$1" --version 2>&1 || echo missing; }
if [ -n "$active" ]; then
    prefix=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    python=${PYTHON:-${prefix:+$prefix/bin/python}}
    [ -n "$python" ] || fail '--active: no environment is active; activate one, or name its Python: PYTHON=/usr/bin/python3'
    fits "$python" '' || fail "--active: Python 3.10 to 3.13 is needed, but $python is: $(version "$python")"
    base=$python prefix=$("$python" -c 'import sys; print(sys.prefix)')
    [ -w "$prefix" ] || fail "--active: you may not write to $prefix; leave --active out to use .venv"
else
    prefix=.venv python=.venv/bin/python base=''
    if [ -n "${PYTHON:-}" ]; then tried=("$PYTHON"); else tried=(python3.{12,11,13,10} python3 python3.14); fi
    if [ -z "${PYTHON:-}" ] && fits "$python" ''; then tried=() base=$python; fi
    for name in ${tried[@]+"${tried[@]}"}; do # bash 3.2 knows no empty array
        if fits "$name" ', venv, ensurepip'; then
            base=$name
            break
        fi
    done
    first=${PYTHON:-python3}
    [ -n "$base" ] || fail "Python 3.10 to 3.13 with its venv module is needed, but $first is: $(version "$first")
The shortest ways to one:
  sudo apt-get install -y python3-venv         if python3 is one of these and lacks the module
  uv python install 3.12 && PYTHON=\$(uv python find 3.12) bash tools/setup.sh
  pyenv install 3.12 && PYTHON=\$(pyenv prefix 3.12)/bin/python bash tools/setup.sh"
fi

# 2. Nothing to do? The stamp names all that an environment is made from, and the versions that came of it.
plan() { "$python" scopevit/stack/plan.py "$@"; }
stamp=$prefix/.scopevit-setup
made_from() {
    {
        cat requirements/*.txt setup.py tools/setup.sh scopevit/stack/{plan,mmpose}.py \
            scopevit/models/ops/{mmcv_finder.py,attention.cpp}
        echo "$PWD $(version "$base") $(command -v "${CXX:-c++}" || true)"
        plan versions 2>/dev/null || true
    } | cksum
}
if [ "$(cat "$stamp" 2>/dev/null)" = "$(made_from)" ] && [ -z "$operators" ] && plan torch >/dev/null; then
    echo "Set-up: $prefix is up to date"
    exit
fi

# 3. The steps. pip's own words go to a log.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log
step() {
    local begin=$SECONDS what=$1
    printf '==> %s ... ' "$what"
    if ! "${@:2}" >>"$log" 2>&1; then
        printf 'failed\n' >&2
        mkdir -p "$prefix" && cp "$log" "$prefix/setup.log"
        grep -iE -A1 '^(error|fatal)|no space|could not|: error|no module named' "$log" | tail -n 6 >&2 || true
        fail "$what failed; all that was printed is in $prefix/setup.log
What was done so far is kept: run this again. What is wrong with an environment: $python -m scopevit doctor"
    fi
    printf '%s s\n' $((SECONDS - begin))
}
pip() { "$python" -m pip install --disable-pip-version-check "$@"; }
installed() { "$python" -c "import importlib.metadata as m; m.version('$1')" 2>/dev/null; }

start=$SECONDS
if [ -z "$active" ] && [ "$(version "$python")" != "$(version "$base")" ]; then
    step "Making $prefix ($(version "$base"))" "$base" -m venv --clear "$prefix"
fi
"$python" -m pip --version >/dev/null 2>&1 || step 'Adding pip' "$python" -m ensurepip # uv leaves it out

# What is tested; but a torch that is there stays, and torchvision follows it.
choice=$(plan torch) || exit 1 # it has said why
read -r torch torchvision index <<<"$choice"
grep -vE '^torch(vision)?==' requirements/constraints.txt >"$work/constraints.txt"
printf '%s\n' "$torch" "$torchvision" >>"$work/constraints.txt"

# Without mmcv-lite where mmcv is, or will be, compiled: it would overwrite it.
left_out='^-r'
if [ -n "$operators" ] || installed mmcv; then left_out='^-r|^mmcv-lite'; fi
wanted=(-c "$work/constraints.txt")
for list in requirements/*.txt; do
    [ "$list" != requirements/constraints.txt ] || continue
    grep -vE "$left_out" "$list" >"$work/$(basename "$list")" || true
    wanted+=(-r "$work/$(basename "$list")")
done

# OpenCV without windows where it is that already, and where what the other one links is missing.
headless=''
if installed opencv-python-headless; then headless=1; fi
for library in libGL.so.1 libgthread-2.0.so.0; do
    [ "$(uname)" = Linux ] && [ -z "$headless" ] || break
    if ! "$base" -c "import ctypes; ctypes.CDLL('$library')" 2>/dev/null; then
        headless=1 sudo='sudo '
        [ "$(id -u)" != 0 ] || sudo=''
        echo "This machine lacks $library: OpenCV comes without windows (opencv-python-headless), which training does not need."
        echo "  For the other one: ${sudo}apt-get install -y libgl1 libglib2.0-0, then"
        echo "  $python -m pip uninstall -y opencv-python-headless && bash tools/setup.sh"
    fi
done
without_windows() { # the two write the same files
    "$python" -m pip uninstall -y opencv-python
    pip -c requirements/constraints.txt --no-deps --force-reinstall opencv-python-headless
}

if [ -n "$active" ]; then
    echo "The environment $prefix would get, beside an editable scopevit and mmpose${headless:+, and OpenCV without windows}:"
    pip --dry-run --report "$work/report" ${index:+--extra-index-url "$index"} "${wanted[@]}" >"$work/dry" 2>&1 ||
        fail "pip cannot tell what would change: $(tail -n 3 "$work/dry")
It has to be 22.2 or newer: $python -m pip install --upgrade pip"
    plan changes "$work/report" | tee "$work/changes"
    if [ -f "$stamp" ] && [ "$(cat "$work/changes")" = '  nothing new' ]; then yes=1; fi # it was completed before
    if [ -z "$yes" ]; then
        [ -t 0 ] || fail 'nothing was changed: there is no terminal to ask on; if the list above is as you want it,
  bash tools/setup.sh --active --yes'
        read -r -p 'Go on? [y/N] ' answer
        [[ $answer =~ ^[yY] ]] || fail 'nothing was changed'
    fi
fi

if [ -n "$index" ]; then # their dependencies come with the next step: that index has few versions of them
    step "Installing $torch and $torchvision from $index" pip --index-url "$index" --no-deps "$torch" "$torchvision"
else
    step "Installing $torch and $torchvision" pip -c "$work/constraints.txt" "$torch" "$torchvision"
fi
step 'Installing the toolboxes and what they need' pip "${wanted[@]}"
[ -z "$headless" ] || step 'Exchanging OpenCV for the one without windows' without_windows
[ -z "$operators" ] || step "Compiling mmcv's operators" "$python" -m scopevit.stack.mmcv_operators
step 'Installing mmpose' "$python" scopevit/stack/mmpose.py
step 'Installing scopevit' pip --no-deps --no-build-isolation -e .
examine() { "$python" -m scopevit doctor --findings | tee "$work/findings"; }
step 'Checking that all fits' examine
cat "$work/findings"
cp "$log" "$prefix/setup.log"
made_from >"$stamp"
echo "Set-up: $prefix is ready after $((SECONDS - start)) s"
[ -n "$active" ] || echo "Activate it with: source $prefix/bin/activate"
