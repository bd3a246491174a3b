#!/usr/bin/env bash
# Set up everything: an environment in .venv with the versions tested together. Safe to run again.
#
#   bash tools/setup.sh                    make or complete .venv in this repository
#   bash tools/setup.sh --active [--yes]   use the active environment, after saying what would change
#   bash tools/setup.sh --mmcv-operators   also compile mmcv's own operators (minutes; few configs need them)
#
# Nothing is compiled otherwise, but ScopeViT's attention kernel for CPUs where there is a C++ compiler.
# A torch that is in the environment already stays.
#
# PYTHON           the Python (3.10 to 3.14) to build .venv from (default: that of .venv, else the first one found)
# TORCH_INDEX_URL  where torch comes from; https://download.pytorch.org/whl/cpu for a small one without CUDA
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/usage.sh
show_help "$@"

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

# 1. A Python, and the environment: $prefix, with its own $python.
fits() { "$1" -c "import sys$2; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))" 2>/dev/null; }
version() { "$1" --version 2>&1 || echo missing; }
if [ -n "$active" ]; then
    prefix=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    [ -n "$prefix" ] || fail '--active: no environment is active; activate one, or leave --active out to use .venv'
    base=$prefix/bin/python
    fits "$base" '' || fail "--active: Python 3.10 to 3.14 is needed, but $base is: $(version "$base")"
else
    prefix=.venv base=''
    if [ -n "${PYTHON:-}" ]; then tried=("$PYTHON"); else tried=(.venv/bin/python python3 python3.{12,11,13,10,14}); fi
    for name in "${tried[@]}"; do
        if fits "$name" ', venv, ensurepip'; then
            base=$name
            break
        fi
    done
    first=${PYTHON:-python3}
    [ -n "$base" ] || fail "Python 3.10 to 3.14 with its venv module is needed, but $first is: $(version "$first")
The shortest ways to one:
  sudo apt-get install -y python3-venv         if python3 is one of these and lacks the module
  uv python install 3.12 && PYTHON=\$(uv python find 3.12) bash tools/setup.sh
  pyenv install 3.12 && PYTHON=\$(pyenv prefix 3.12)/bin/python bash tools/setup.sh"
fi
python=$prefix/bin/python

# 2. Nothing to do? The stamp names all that an environment is made from.
stamp=$prefix/.scopevit-setup
made_from=$(
    {
        cat requirements/*.txt setup.py tools/setup.sh tools/mmcv_operators.sh scopevit/stack/mmpose.py \
            scopevit/models/ops/mmcv_finder.py scopevit/models/ops/attention.cpp
        echo "$PWD $(version "$base") $(command -v "${CXX:-c++}" || true)"
    } | cksum
)
if [ "$(cat "$stamp" 2>/dev/null)" = "$made_from" ] && "$python" -c '' 2>/dev/null && [ -z "$operators" ]; then
    echo "Set-up: $prefix is up to date"
    exit
fi
if [ "$(uname)" = Linux ]; then # OpenCV links them; better known before the downloads
    for library in libGL.so.1 libgthread-2.0.so.0; do
        "$base" -c "import ctypes; ctypes.CDLL('$library')" 2>/dev/null ||
            fail "this machine lacks $library: sudo apt-get install -y libgl1 libglib2.0-0, then run this again"
    done
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
        grep -iE -A1 '^(error|fatal)|no space|could not|: error' "$log" | tail -n 6 >&2 || true
        fail "$what failed; all that was printed is in $prefix/setup.log
What was done so far is kept: run this again. What is wrong with an environment: $python -m scopevit doctor"
    fi
    printf '%s s\n' $((SECONDS - begin))
}
pip() { "$python" -m pip install --disable-pip-version-check "$@"; }
installed() { "$python" -c "import importlib.metadata as m; print('$1==' + m.version('$1'))" 2>/dev/null; }

start=$SECONDS
if [ -z "$active" ] && [ "$(version "$python")" != "$(version "$base")" ]; then
    step "Making $prefix ($(version "$base"))" "$base" -m venv --clear "$prefix"
fi

# What is tested; but a torch that is there stays, and torchvision follows it.
grep -vE '^torch(vision)?==' requirements/constraints.txt >"$work/constraints.txt"
torch=$(installed torch || true) torchvision=$(installed torchvision || true)
if [ -n "$torch" ]; then
    build=${torch#*+}
    [ "$build" = "$torch" ] || index=https://download.pytorch.org/whl/$build
    fitting='torchvision>=0.29' # for every torch from 2.14 on; before, each had one of its own
    if [[ $torch =~ ==2\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -lt 14 ]; then
        fitting="torchvision==0.$((BASH_REMATCH[1] + 15)).*"
    fi
    if [[ $torch =~ ==(1\.|2\.[0-5]\.) ]]; then
        fail "$python has $torch, and scopevit takes PyTorch 2.6 or newer: $python -m pip install --upgrade torch torchvision,
or leave it as it is and set up another environment"
    fi
    torchvision=${torchvision:-$fitting}
else
    torch=$(grep '^torch==' requirements/constraints.txt)
    torchvision=$(grep '^torchvision==' requirements/constraints.txt)
fi
index=${TORCH_INDEX_URL:-${index:-}}
printf '%s\n' "$torch" "$torchvision" >>"$work/constraints.txt"

# Without mmcv-lite where mmcv is, or will be, compiled: it would overwrite it.
left_out='^-r'
if [ -n "$operators" ] || installed mmcv >/dev/null; then left_out='^-r|^mmcv-lite'; fi
wanted=(-c "$work/constraints.txt")
for list in requirements/*.txt; do
    [ "$list" != requirements/constraints.txt ] || continue
    grep -vE "$left_out" "$list" >"$work/$(basename "$list")" || true
    wanted+=(-r "$work/$(basename "$list")")
done

if [ -n "$active" ]; then
    echo "The active environment $prefix would get, beside an editable scopevit and mmpose:"
    pip --dry-run "${wanted[@]}" >"$work/dry" 2>&1 || fail "pip cannot tell what would change: $(tail -n 3 "$work/dry")"
    sed -n 's/^Would install/ /p' "$work/dry"
    if [ -z "$yes" ]; then
        [ -t 0 ] || fail 'nothing was changed: there is no terminal to ask on; say --yes if the list above is as you want it'
        read -r -p 'Go on? [y/N] ' answer
        [[ $answer =~ ^[yY] ]] || fail 'nothing was changed'
    fi
fi

if [ -z "$index" ] && ! installed torch >/dev/null && [ "$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null; then
    echo 'No NVIDIA GPU was found, but torch brings CUDA by default, some GB. Without:'
    echo '  TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu bash tools/setup.sh'
fi
if [ -n "$index" ]; then # their dependencies come with the next step: that index has few versions of them
    step "Installing $torch and $torchvision from $index" pip --index-url "$index" --no-deps "$torch" "$torchvision"
else
    step "Installing $torch and $torchvision" pip -c "$work/constraints.txt" "$torch" "$torchvision"
fi
step 'Installing the toolboxes and what they need' pip "${wanted[@]}"
[ -z "$operators" ] || step "Compiling mmcv's operators" bash tools/mmcv_operators.sh "$python"
step 'Installing mmpose' "$python" scopevit/stack/mmpose.py
step 'Installing scopevit' pip --no-deps --no-build-isolation -e .
step 'Checking that all fits' "$python" -m scopevit doctor
cp "$log" "$prefix/setup.log"
echo "$made_from" >"$stamp"
echo "Set-up: $prefix is ready after $((SECONDS - start)) s"
[ -n "$active" ] || echo "Activate it with: source $prefix/bin/activate"
