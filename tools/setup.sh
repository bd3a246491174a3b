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
# PYTHON           the Python (3.10 to 3.14) to build .venv from (default: the first one found)
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

# 1. A Python, and the environment: $prefix, with its own $python.
fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }
if [ -n "$active" ]; then
    prefix=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    [ -n "$prefix" ] || fail '--active: no environment is active; activate one, or leave --active out to use .venv'
    base=$prefix/bin/python
    fits "$base" || fail "--active: Python 3.10 to 3.14 is needed, but $base is: $("$base" --version 2>&1 || true)"
else
    prefix=.venv base=''
    for name in ${PYTHON:-python3 python3.12 python3.11 python3.13 python3.10 python3.14}; do
        if fits "$name"; then
            base=$name
            break
        fi
    done
    [ -n "$base" ] || fail "Python 3.10 to 3.14 with its venv module is needed (python3 is: $(python3 --version 2>&1 || true)).
The shortest ways to one:
  sudo apt-get install -y python3-venv         if python3 is one of these and lacks the module
  uv python install 3.12 && PYTHON=\$(uv python find 3.12) bash tools/setup.sh
  pyenv install 3.12 && PYTHON=\$(pyenv prefix 3.12)/bin/python bash tools/setup.sh"
fi
python=$prefix/bin/python

# 2. Nothing to do? The stamp names all that an environment is made from.
stamp=$prefix/.scopevit-setup
made_from=$(cat requirements/*.txt setup.py tools/setup.sh tools/mmcv_operators.sh scopevit/stack/mmpose.py \
    scopevit/models/ops/mmcv_finder.py scopevit/models/layers/attention.cpp | cat - <(echo "$PWD $("$base" -V)") | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" = "$made_from" ] && "$python" -c '' 2>/dev/null && [ -z "$operators" ]; then
    echo "Set-up: $prefix is up to date"
    exit
fi

# 3. The steps. pip's own words go to a log.
mkdir -p "$prefix"
log=$PWD/$prefix/setup.log
[ -z "$active" ] || log=$prefix/setup.log
: > "$log"
step() {
    local begin=$SECONDS what=$1
    printf '==> %s ... ' "$what"
    if ! "${@:2}" >>"$log" 2>&1; then
        printf 'failed\n' >&2
        grep -iE '^(error|fatal)|no space|could not' "$log" | tail -n 5 >&2 || true
        fail "$what failed; all that was printed is in $log
What was done so far is kept: run this again. What is wrong with an environment: $python -m scopevit doctor"
    fi
    printf '%s s\n' $((SECONDS - begin))
}
pip() { "$python" -m pip install --disable-pip-version-check "$@"; }
installed() { "$python" -c "import importlib.metadata as m; print('$1==' + m.version('$1'))" 2>/dev/null; }

if [ -z "$active" ] && [ "$("$python" -V 2>/dev/null)" != "$("$base" -V)" ]; then
    step "Making $prefix ($("$base" -V))" "$base" -m venv --clear "$prefix"
fi

# What is tested, but for a torch and torchvision that are there.
constraints=$prefix/scopevit-constraints.txt
present=$(installed torch; installed torchvision) || true
{
    if [[ $present = *torch==* ]]; then grep -vE '^torch(vision)?==' requirements/constraints.txt; else cat requirements/constraints.txt; fi
    echo "$present"
} > "$constraints"
lists=(runtime classification detection segmentation pose export tests lint)
if installed mmcv >/dev/null || [ -n "$operators" ]; then # mmcv-lite would overwrite it
    grep -v '^mmcv-lite' requirements/openmmlab.txt > "$prefix/openmmlab.txt"
else
    cp requirements/openmmlab.txt "$prefix/openmmlab.txt"
fi
wanted=(-c "$constraints" -r "$prefix/openmmlab.txt")
for list in "${lists[@]}"; do
    grep -v '^-r' "requirements/$list.txt" > "$prefix/$list.txt" && wanted+=(-r "$prefix/$list.txt")
done

if [ -n "$active" ]; then
    echo "The active environment $prefix would get, beside an editable scopevit and mmpose:"
    pip --dry-run --quiet "${wanted[@]}" 2>>"$log" | sed -n 's/^Would install/ /p'
    if [ -z "$yes" ]; then
        [ -t 0 ] || fail 'nothing was changed: there is no terminal to ask on; say --yes if the list above is as you want it'
        read -r -p 'Go on? [y/N] ' answer
        [[ $answer =~ ^[yY] ]] || fail 'nothing was changed'
    fi
fi

begin=$SECONDS
if [ -z "$present" ] && [ -z "${TORCH_INDEX_URL:-}" ] && [ "$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null; then
    echo 'No NVIDIA GPU was found, but torch brings CUDA by default, some GB. Without: TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu'
fi
index=(${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"})
step "Installing torch and torchvision${present:+ (there already: $(echo $present))}" pip "${index[@]}" -c "$constraints" torch torchvision
step 'Installing mmcv, the toolboxes and what they need' pip "${wanted[@]}"
[ -z "$operators" ] || step "Compiling mmcv's operators" bash tools/mmcv_operators.sh "$python"
step 'Installing mmpose' "$python" scopevit/stack/mmpose.py
step 'Installing scopevit' pip --no-deps --no-build-isolation -e .
step 'Checking that all fits' "$python" -m scopevit doctor
echo "$made_from" > "$stamp"
echo "Set-up: $prefix is ready after $((SECONDS - begin)) s"
sed -n '/^error: \|^note: /{p;n;p}' "$log" | grep -v 'has no compiled\|nothing, unless' || true
[ -n "$active" ] || echo "Activate it with: source $prefix/bin/activate"
