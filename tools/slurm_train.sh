#!/usr/bin/env bash
# Train as a Slurm job step, one task for each GPU.
#
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGS of train.py]
#
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), GRES (gpu:8; none asks for CPUs only), SRUN_ARGS, PORT (random)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
show_help "${@:1:3}" # what follows is for the Python tool
[ $# -ge 3 ] || refuse 'PARTITION, JOB_NAME and CONFIG are needed'
slurm_launch "$1" "$2" "$root/tools/train.py" "${@:3}"
