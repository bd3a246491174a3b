#!/usr/bin/env bash
# Compile mmcv with its own operators for an environment; tools/setup.sh --mmcv-operators calls this.
#
#   bash tools/mmcv_operators.sh PYTHON
#
# For GPUs it needs nvcc of the CUDA that torch is built for. The wheel is kept in ~/.cache/scopevit, under a
# name that says what it was built for.
#
# MAX_JOBS              compiler processes (default: number of cores)
# TORCH_CUDA_ARCH_LIST  GPUs to compile for (default: those of this machine)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/usage.sh
show_help "$@"
[ $# -eq 1 ] && [ -x "$(command -v -- "$1")" ] || refuse 'name the Python of the environment'
python=$1
version=$(sed -n 's/^mmcv==//p' requirements/constraints.txt)

facts=$("$python" -c '
import sys, torch
gpus = {"%d.%d" % torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
print("cp%d%d" % sys.version_info[:2], torch.__version__, torch.version.cuda or "none", ";".join(sorted(gpus)))')
read -r tag torch cuda gpus <<<"$facts"
gpus=${TORCH_CUDA_ARCH_LIST:-$gpus}
export MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)}
export CFLAGS="-g0 ${CFLAGS:-}" # without debug symbols it takes half the time
if [ -n "$gpus" ]; then
    command -v nvcc >/dev/null || [ -n "${CUDA_HOME:-}" ] ||
        fail "nvcc is missing: install the CUDA toolkit $cuda; without --mmcv-operators none is needed, for GPUs either"
    export FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST=$gpus
fi

kept=${XDG_CACHE_HOME:-$HOME/.cache}/scopevit/wheels
kept=$kept/mmcv-${version}_${tag}_torch-$torch${gpus:+_sm-${gpus//;/-}}_$(uname -sm | tr ' ' _)
if ! ls "$kept"/mmcv-*.whl >/dev/null 2>&1; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$python" -m pip install ninja psutil wheel
    "$python" -m pip download --no-deps --no-build-isolation --no-binary :all: -d "$work" "mmcv==$version"
    tar -xzf "$work/mmcv-$version.tar.gz" -C "$work"
    if [[ ! $torch =~ ^2\.([0-9]|1[0-3])\. ]]; then # torch's headers ask for it from 2.14 on
        sed -i.before 's/-std=c++17/-std=c++20/' "$work/mmcv-$version/setup.py"
    fi
    "$python" -m pip wheel -v --no-build-isolation --no-deps -w "$work/wheel" "$work/mmcv-$version"
    mkdir -p "$(dirname "$kept")"
    rm -rf "$kept" && mv "$work/wheel" "$kept"
fi
"$python" -m pip uninstall -y mmcv-lite
# Always: an mmcv of the same version may have been built for another torch.
"$python" -m pip install --no-deps --force-reinstall "$kept"/mmcv-*.whl
"$python" -c 'import torch, mmcv.ops; print(mmcv.ops.nms(torch.ones(1, 4), torch.ones(1), 0.5))'
