# Sourced by the scripts here. Chooses the Python to run: $PYTHON, else that of an active virtual environment or of a
# conda environment that setup.sh --active completed, else the repository's .venv, else python. Makes this checkout
# importable.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/usage.sh"
given_python=${PYTHON:-}
active_prefix=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    # A conda base is active in every shell of its users; .venv was made for this repository.
    if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$root/.venv/bin/python" ] && [ ! -f "$active_prefix/.scopevit-setup" ]; then
        PYTHON=$root/.venv/bin/python
    fi
fi
export PYTHON PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

# Complete the environment to run in: the active one (or that of a given PYTHON) if setup.sh --active completed it before,
# else .venv.
set_up() {
    [ -z "$given_python" ] || active_prefix=$("$given_python" -c 'import sys; print(sys.prefix)' 2>/dev/null || true)
    if [ -f "$active_prefix/.scopevit-setup" ] && [ ! "$active_prefix" -ef "$root/.venv" ]; then
        PYTHON=${given_python:-$active_prefix/bin/python}
        bash "$root/tools/setup.sh" --active
    else
        PYTHON=$given_python bash "$root/tools/setup.sh"
        PYTHON=$root/.venv/bin/python
    fi
}

require_count() {
    case $2 in
        '' | *[!0-9]* | 0*) refuse "$1 must be a whole number of at least 1, but is '$2'" ;;
    esac
}

# slurm_launch PARTITION JOB_NAME SCRIPT ARGS...: one task for each GPU; GRES=none asks for CPUs only.
slurm_launch() {
    local gpus=${GPUS:-8}
    require_count GPUS "$gpus"
    local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    local gres=${GRES:-gpu:$per_node}
    export MASTER_PORT=${PORT:-$((20000 + RANDOM % 20000))}
    local options=(--partition="$1" --job-name="$2" --ntasks="$gpus" --ntasks-per-node="$per_node"
        --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1)
    if [ "$gres" != none ]; then
        options+=(--gres="$gres")
    fi
    # SRUN_ARGS holds several words.
    # shellcheck disable=SC2086
    exec srun "${options[@]}" ${SRUN_ARGS:-} "$PYTHON" -u "${@:3}" --launcher slurm
}
