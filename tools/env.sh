# Sourced by the scripts here. Chooses the Python to run: $PYTHON, else that of an active
# environment, else the repository's .venv, else python3. Makes this checkout importable.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${PYTHON:-}" ]; then
    if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
        PYTHON=python
    elif [ -x "$root/.venv/bin/python" ]; then
        PYTHON=$root/.venv/bin/python
    else
        PYTHON=python3
    fi
fi
export PYTHON PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

# Without GPUs the processes share the cores; torchrun would give each a single thread.
share_cores() {
    if [ -z "${OMP_NUM_THREADS:-}" ] && ! nvidia-smi -L >/dev/null 2>&1; then
        local threads=$(($(nproc) / $1))
        export OMP_NUM_THREADS=$((threads > 0 ? threads : 1))
    fi
}

# launch NPROC SCRIPT ARGS...: start SCRIPT in NPROC processes on each of NNODES machines.
launch() {
    local nproc=$1
    shift
    case $nproc in
        '' | *[!0-9]* | 0) echo "error: NPROC must be a number of processes, but is '$nproc'" >&2; exit 2 ;;
    esac
    share_cores "$nproc"
    local rendezvous=(--standalone)
    if [ "${NNODES:-1}" -gt 1 ] || [ -n "${PORT:-}" ]; then
        rendezvous=(--nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}"
            --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}")
    fi
    exec "$PYTHON" -m torch.distributed.run "${rendezvous[@]}" --nproc-per-node="$nproc" "$@" --launcher pytorch
}

slurm_usage="[GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 GRES=gpu:8 SRUN_ARGS= PORT=random]"

# slurm_launch PARTITION JOB_NAME SCRIPT ARGS...: one task for each GPU; GRES=none asks for CPUs only.
slurm_launch() {
    local gpus=${GPUS:-8}
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
