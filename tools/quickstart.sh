#!/usr/bin/env bash
# From nothing to a trained ScopeViT: set up, train on real images, test, draw.
#
#   bash tools/quickstart.sh [--seed N]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seed=0
while [ $# -gt 0 ]; do
    case $1 in
        --seed)
            seed=${2:?error: --seed needs a number}
            shift 2
            ;;
        *)
            sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
            echo "error: unknown argument $1" >&2
            exit 2
            ;;
    esac
done

bash tools/setup.sh
unset PYTHON VIRTUAL_ENV # run in what was just set up, whatever is active
source tools/env.sh

config=configs/classification/scopevit-xtiny_2xb64-18e_fashion-mnist-32px.py
work_dir=work_dirs/quickstart/$(date +%Y%m%d-%H%M%S) # every run has its own: nothing is overwritten

echo && echo "==> Unpacking 6,000 training and 1,000 test images of clothing"
"$PYTHON" tools/data/fashion_mnist.py unpack
echo && echo "==> Training with two processes; log and checkpoints in $work_dir"
bash tools/dist_train.sh "$config" 2 --work-dir "$work_dir" --seed "$seed"
echo && echo "==> Testing on the held-out images"
bash tools/dist_test.sh "$config" "$(cat "$work_dir/last_checkpoint")" 2 --work-dir "$work_dir"
echo && echo "==> Drawing"
"$PYTHON" tools/visualization/draw_predictions.py "$config" "$work_dir/predictions.pkl" --out "$work_dir/predictions.png"
"$PYTHON" tools/visualization/plot_curves.py "$work_dir" --out "$work_dir/curves.png"

"$PYTHON" - "$work_dir" <<'PYTHON'
import json
import sys

with open(f'{sys.argv[1]}/metrics.json') as file:
    print(f'\nHeld-out top-1 accuracy: {json.load(file)["accuracy/top1"]:.1f} %')
PYTHON
echo "Look at $work_dir/predictions.png and $work_dir/curves.png"
