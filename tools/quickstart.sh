#!/usr/bin/env bash
# From nothing to a trained ScopeViT: set up, train, test on held-out images, draw.
#
#   bash tools/quickstart.sh [--task TASK] [--seed N] [--pretrained CHECKPOINT]
#
# TASK is classification (the default: real images of clothing, minutes), detection (RetinaNet),
# instance (Mask R-CNN), segmentation (UperNet and Semantic FPN), pose, or all of the last four.
# Those train on synthetic scenes as one does on ImageNet and then on COCO or ADE20K: the backbone
# is pretrained as a classifier, published, and fine-tuned in each task. For these --pretrained takes
# an earlier run's published backbone instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/env.sh
show_help "$@"

task=classification seed=0 pretrained=
while [ $# -gt 0 ]; do
    case $1 in
        --task | --seed | --pretrained)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            declare "${1#--}=$2"
            shift 2
            ;;
        *) refuse "unknown argument $1" ;;
    esac
done

scenes=projects/scenes
retinanet=$scenes/configs/retinanet_scopevit-xtiny_fpn_2xb4-1e_scenes.py
mask_rcnn=$scenes/configs/mask-rcnn_scopevit-xtiny_fpn_2xb4-1e_scenes.py
upernet=$scenes/configs/scopevit-xtiny_upernet_2xb4-3e_scenes-128x128.py
semantic_fpn=$scenes/configs/scopevit-xtiny_fpn_2xb4-4e_scenes-128x128.py
pose=$scenes/configs/td-hm_scopevit-xtiny_2xb16-6e_scenes-128x96.py
case $task in
    classification) configs=() ;;
    detection) configs=("$retinanet") ;;
    instance) configs=("$mask_rcnn") ;;
    segmentation) configs=("$upernet" "$semantic_fpn") ;;
    pose) configs=("$pose") ;;
    all) configs=("$retinanet" "$mask_rcnn" "$upernet" "$semantic_fpn" "$pose") ;;
    *) refuse "--task must be classification, detection, instance, segmentation, pose or all, but is $task" ;;
esac
if [ -n "$pretrained" ] && [ "$task" = classification ]; then
    refuse '--pretrained is for the tasks that fine-tune a backbone: add --task detection, for example'
fi
if [ -n "$pretrained" ] && [ ! -f "$pretrained" ]; then
    refuse "--pretrained $pretrained does not exist"
fi

set_up

# Two processes, on as many GPUs or on the CPU; where there is one GPU, one with the batch of both.
processes=2
if nvidia-smi -L >/dev/null 2>&1; then
    processes=$("$PYTHON" -c 'import torch; print(1 if torch.cuda.is_available() and torch.cuda.device_count() == 1 else 2)')
fi

runs=work_dirs/quickstart/$(date +%Y%m%d-%H%M%S) # every run has its own: nothing is overwritten

say() { echo && echo "==> $*"; }

figures=() # processes that draw them
trap 'kill ${figures[@]+"${figures[@]}"} 2>/dev/null || true' EXIT # bash 3.2 knows no empty array

# train CONFIG WORK_DIR [ARGS of train.py]: train, test, draw.
train() {
    local config=$1 work_dir=$2 options=(--seed "$seed")
    if [ "$processes" = 1 ] && [[ $config =~ _2xb([0-9]+)- ]]; then
        options+=(--cfg-options train_dataloader.batch_size=$((2 * BASH_REMATCH[1])))
    fi
    say "Training $config, processes: $processes; log and checkpoints in $work_dir"
    bash tools/dist_train.sh "$config" "$processes" --work-dir "$work_dir" "${@:3}" "${options[@]}"
    say "Testing on held-out images"
    bash tools/dist_test.sh "$config" "$(cat "$work_dir/last_checkpoint")" "$processes" --work-dir "$work_dir"
    # Beside what comes next, which begins with loading libraries.
    "$PYTHON" tools/visualization/plot_curves.py "$work_dir" --out "$work_dir/curves.png" &
    figures+=($!)
    "$PYTHON" tools/visualization/draw_predictions.py "$config" "$work_dir/predictions.pkl" \
        --out "$work_dir/predictions.png" &
    figures+=($!)
}

if [ "$task" = classification ]; then
    say "Unpacking 6,000 training and 1,000 test images of clothing"
    "$PYTHON" tools/data/fashion_mnist.py unpack
    train configs/classification/scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py "$runs"
else
    say "Making synthetic scenes in the layouts of ImageNet, COCO and ADE20K"
    "$PYTHON" "$scenes/make_scenes.py"
    if [ -z "$pretrained" ]; then
        train "$scenes/configs/scopevit-xtiny_2xb32-17e_scenes-32px.py" "$runs/pretraining"
        say "Publishing the pretrained backbone"
        "$PYTHON" tools/converters/publish_model.py "$(cat "$runs/pretraining/last_checkpoint")" \
            "$runs/scopevit-xtiny_scenes.pth"
        pretrained=$(ls "$runs"/scopevit-xtiny_scenes-*.pth)
    fi
    for config in "${configs[@]}"; do
        train "$config" "$runs/$(basename "$config" .py)" --pretrained "$pretrained"
    done
fi

"$PYTHON" - "$runs" <<'PYTHON'
import json
import sys
from pathlib import Path

names = {
    'accuracy/top1': ('top-1 accuracy (%)', 1),
    'coco/bbox_mAP_50': ('box AP50', 3),
    'coco/segm_mAP_50': ('mask AP50', 3),
    'mIoU': ('mIoU (%)', 1),
    'coco/AP': ('keypoint AP, boxes given', 3),
}
print('\nOn held-out images:')
for path in sorted(Path(sys.argv[1]).rglob('metrics.json'), key=lambda path: path.stat().st_mtime):
    for key, value in json.loads(path.read_text()).items():
        if key in names:
            name, digits = names[key]
            print(f'  {value:7.{digits}f}  {name:26}{path.parent}')
PYTHON
for figure in "${figures[@]}"; do
    wait "$figure" || echo 'One figure could not be drawn; what is wrong with it stands above.' >&2
done
echo 'Look at predictions.png and curves.png there.'
