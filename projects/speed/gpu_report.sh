#!/usr/bin/env bash
# What ScopeViT does on this GPU: tests, speed and memory beside peers, limits, and a training by each toolbox.
#
#   bash projects/speed/gpu_report.sh DIR [STEP...]     no network; its length on a GPU was not measured yet
#
# Steps, all by default and in this order: tests training compiled inference inference_compiled detection float32 tools.
# DIR/report.md grows with each. The folder has each step's log, tables and measurements. Models of timm stand
# beside where timm is installed; 'tools' needs the toolboxes.
#
# PEERS     models of timm to stand beside (default: nine)
# DEVICE    cuda (default), or cpu with small images: to see that every step runs
# PYTHON    the Python to use (default: that of tools/env.sh)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
this_script=projects/speed/gpu_report.sh
source tools/usage.sh
show_help "$@"
[ $# -gt 0 ] || refuse 'name the folder to write to'
source tools/env.sh

steps=(tests training compiled inference inference_compiled detection float32 tools)
out=$1
case $out in -*) refuse "unknown option $out" ;; esac
shift
for step in "$@"; do
    [[ " ${steps[*]} " == *" $step "* ]] || refuse "unknown step $step"
done
[ $# -eq 0 ] || steps=("$@")
mkdir -p "$out"
device=${DEVICE:-cuda}
if [ "$device" = cuda ]; then
    batch=256 size='' large=800x1344 rounds=(--rounds 5)
    peers=(swin_tiny_patch4_window7_224 coat_lite_mini pvt_v2_b1 tiny_vit_11m_224 gcvit_xxtiny
        mobilenetv4_hybrid_medium fastvit_sa12 convnextv2_pico deit_small_patch16_224)
else
    batch=2 size=@64 large=96x128 rounds=(--rounds 3 --calls 1 --warmup 1)
    peers=(resnet18)
fi
[ -z "${PEERS:-}" ] || read -ra peers <<<"$PEERS"
"$PYTHON" -c 'import timm' 2>/dev/null || { echo 'timm is not installed: no other models' && peers=(); }
config() { echo "configs/classification/scopevit-$1_8xb128-300e_in1k-256px.py$size"; }
tiny=$(config tiny)
three=("ScopeViT-tiny=$tiny" "ScopeViT-xtiny=$(config xtiny)" "ScopeViT-small=$(config small)")
deployed=("ScopeViT-tiny, deploy form=$tiny:deploy" "ScopeViT-xtiny, deploy form=$(config xtiny):deploy"
    "ScopeViT-small, deploy form=$(config small):deploy")

benchmark() { # benchmark NAME ARGS of benchmark.py
    "$PYTHON" tools/analysis/benchmark.py --device "$device" --channels-last "${rounds[@]}" \
        --json "$out/$1.json" --table "$out/$1.md" "${@:2}"
}
mixed() { benchmark "$@" --dtype bfloat16 --autocast; }

run() { # run STEP
    case $1 in
        tests) "$PYTHON" -m pytest -q -m "gpu or triton" -p no:cacheprovider tests/models ;;
        training) mixed training --train --batch-size $batch "${three[@]}" "${peers[@]/#/timm:}" ;;
        compiled) mixed compiled --train --batch-size $batch --compile "${three[0]}" ;;
        inference) benchmark inference --batch-size $batch --dtype bfloat16 "${three[@]}" "${deployed[@]}" "${peers[@]/#/timm:}" ;;
        inference_compiled) benchmark inference_compiled --batch-size $batch --dtype bfloat16 --compile "${deployed[0]}" ;;
        detection)
            mixed detection --train --batch-size 2 \
                "RetinaNet, ScopeViT-tiny=configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py@$large"
            ;;
        float32) benchmark float32 --train --batch-size $((batch / 2)) --tf32 "${three[0]}" ;;
        tools) toolboxes ;;
    esac
}

one_toolbox() { # one_toolbox CONFIG SCENES: an epoch with --amp, and validation
    local config=projects/scenes/configs/$1.py data=$2/coco/ split amp=(--amp)
    local options=(train_cfg.max_epochs=1 train_cfg.val_interval=1)
    case $1 in
        *_scenes-32px) data=$2/imagenet ;;
        *_upernet_*) data=$2/ade/ADEChallengeData2016 ;;
        mask-rcnn_*) options+=("val_evaluator.ann_file=${data}annotations/instances_val2017.json") ;;
        td-hm_*)
            options+=("val_evaluator.ann_file=${data}annotations/person_keypoints_val2017.json")
            [ "$device" = cuda ] || amp=() # mmpose does not compute in bfloat16
            ;;
    esac
    for split in train val; do options+=("${split}_dataloader.dataset.data_root=$data"); done
    "$PYTHON" tools/train.py "$config" "${amp[@]}" --work-dir "$out/work_dirs/$1" \
        --cfg-options default_hooks.logger.interval=1 "${options[@]}"
}

# Each toolbox trains, validates and tests a config of the synthetic scenes, side by side.
toolboxes() {
    local data=$out/scenes pids=() name status=0
    "$PYTHON" projects/scenes/make_scenes.py --out-dir "$data" --count 64 16
    for name in scopevit-xtiny_2xb32-17e_scenes-32px mask-rcnn_scopevit-xtiny_fpn_2xb4-1e_scenes \
        scopevit-xtiny_upernet_2xb4-3e_scenes-128x128 td-hm_scopevit-xtiny_2xb16-6e_scenes-128x96; do
        one_toolbox "$name" "$data" >"$out/$name.log" 2>&1 &
        pids+=("$!:$name")
    done
    for name in "${pids[@]}"; do
        if wait "${name%%:*}"; then echo "${name#*:}: trained and validated"; else
            echo "${name#*:}: FAILED, see ${name#*:}.log"
            status=1
        fi
    done
    return $status
}

status=0
echo "# GPU report" >"$out/report.md"
for step in "${steps[@]}"; do
    echo "==> $step"
    start=$SECONDS
    if run "$step" >"$out/$step.log" 2>&1; then result=done; else result=FAILED status=1; fi
    echo "    $result after $((SECONDS - start)) s"
    {
        printf '\n## %s: %s after %s s\n\n' "$step" "$result" $((SECONDS - start))
        if [ -f "$out/$step.md" ]; then cat "$out/$step.md"; else tail -n 15 "$out/$step.log" | sed 's/^/    /'; fi
    } >>"$out/report.md"
done
exit $status
