#!/usr/bin/env bash
# Test as a Slurm job step, one task for each GPU.
#
#   bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [ARGS of test.py]
#
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), GRES (gpu:8; none asks for CPUs only), SRUN_ARGS, PORT (random)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
show_help "${@:1:4}" # what follows is for the Python tool
[ $# -ge 4 ] || refuse 'PARTITION, JOB_NAME, CONFIG and CHECKPOINT are needed'
slurm_launch "$1" "$2" "$root/tools/test.py" "${@:3}"
