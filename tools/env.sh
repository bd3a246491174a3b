# Sourced by the scripts here. Chooses the Python to run: $PYTHON, else that of an active virtual
# environment, else the repository's .venv, else python. Makes this checkout importable.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/usage.sh"
if [ -z "${PYTHON:-}" ]; then
    # A conda base is active in every shell of its users; .venv was made for this repository.
    if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$root/.venv/bin/python" ]; then
        PYTHON=$root/.venv/bin/python
    else
        PYTHON=python
    fi
fi
export PYTHON PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

# Without GPUs the processes share the cores; torchrun would give each a single thread.
share_cores() {
    if [ -z "${OMP_NUM_THREADS:-}" ] && ! nvidia-smi -L >/dev/null 2>&1; then
        local threads=$(($(nproc) / $1))
        export OMP_NUM_THREADS=$((threads > 0 ? threads : 1))
    fi
    export MKL_NUM_THREADS=${MKL_NUM_THREADS:-${OMP_NUM_THREADS:-1}} # else MMEngine sets it, with a warning
}

require_count() {
    case $2 in
        '' | *[!0-9]* | 0*)
            refuse "$1 must be a whole number of at least 1, but is '$2'"
            ;;
    esac
}

# launch NPROC SCRIPT ARGS...: start SCRIPT in NPROC processes on each of NNODES machines.
launch() {
    local nproc=$1
    shift
    require_count NPROC "$nproc"
    require_count NNODES "${NNODES:-1}"
    if [ "${NNODES:-1}" -gt 1 ]; then # without these every machine would wait for the others in silence
        [ -n "${MASTER_ADDR:-}" ] || refuse "NNODES=$NNODES needs MASTER_ADDR, the address of the first machine"
        case ${NODE_RANK:-} in
            '' | *[!0-9]*) refuse "NNODES=$NNODES needs NODE_RANK, the number of this machine from 0 on" ;;
        esac
        [ "$NODE_RANK" -lt "$NNODES" ] || refuse "NODE_RANK must be less than NNODES=$NNODES, but is $NODE_RANK"
    fi
    share_cores "$nproc"
    local rendezvous=(--standalone)
    if [ "${NNODES:-1}" -gt 1 ] || [ -n "${PORT:-}" ]; then
        rendezvous=(--nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}"
            --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}")
    fi
    exec "$PYTHON" "$root/tools/launch.py" "${rendezvous[@]}" --nproc-per-node="$nproc" "$@" --launcher pytorch
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
