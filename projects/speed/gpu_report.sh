#!/usr/bin/env bash
# What ScopeViT does on this GPU: tests, accuracy, speed and memory beside peers, settings, a training by each toolbox.
#
#   bash projects/speed/gpu_report.sh DIR [STEP...]     no network
#
# Steps, all by default, in this order, what no GPU has answered yet before the rest: tests accuracy training inference
# settings plans detection float32 tools compiled inference_compiled compiled_plans compiled_others.
# DIR/report.md grows with each. The folder has each step's log, tables, figures and measurements. Models of timm stand
# beside where timm is installed; 'tools' and some tests need the toolboxes.
#
# MINUTES   after which nothing runs any more (default: 8): what runs then is ended, with what it has written kept (in
#           its .log and .json), and what no longer fits is 'not run'. Name such steps in another call.
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

steps=(tests accuracy training inference settings plans detection float32 tools)
steps+=(compiled inference_compiled compiled_plans compiled_others)
out=$1
case $out in -*) refuse "unknown option $out" ;; esac
shift
for step in "$@"; do
    [[ " ${steps[*]} " == *" $step "* ]] || refuse "unknown step $step"
done
[ $# -eq 0 ] || steps=("$@")
[[ ${MINUTES:=8} =~ ^[0-9]+(\.[0-9]+)?$ ]] || refuse "MINUTES must be a number, but is '$MINUTES'"
deadline=$((SECONDS + $(awk "BEGIN { print int(60 * $MINUTES) }")))
mkdir -p "$out"
device=${DEVICE:-cuda}
if [ "$device" = cuda ]; then
    batch=256 size='' larger=(@800x1344 @800x1088 @512x512) rounds=(--rounds 5)
    toy=() scale=1 workers=(-n 4)
    peers=(swin_tiny_patch4_window7_224 coat_lite_mini pvt_v2_b1 tiny_vit_11m_224 gcvit_xxtiny
        mobilenetv4_hybrid_medium fastvit_sa12 convnextv2_pico deit_small_patch16_224)
else
    batch=2 size=@64 larger=(@96x128 @64x96) rounds=(--rounds 3 --calls 1 --warmup 1)
    toy=(--size 64) scale=16 workers=()
    peers=(resnet18)
fi
[ -z "${PEERS:-}" ] || read -ra peers <<<"$PEERS"
"$PYTHON" -c 'import timm' 2>/dev/null || { echo 'timm is not installed: no other models' && peers=(); }
"$PYTHON" -c 'import xdist' 2>/dev/null || workers=()
peers=("${peers[@]/#/timm:}")
config() { echo "configs/classification/scopevit-$1_8xb128-300e_in1k-256px.py$size"; }
tiny=ScopeViT-tiny=$(config tiny) xtiny=ScopeViT-xtiny=$(config xtiny) small=ScopeViT-small=$(config small)
deployed() { echo "${1%%=*}, deploy form=${1#*=}:deploy"; }
detectors=()
for side in "${larger[@]}"; do
    detectors+=("RetinaNet, ScopeViT-tiny=configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py$side")
done

left() { echo $((deadline - SECONDS)); }
# At the deadline what runs is interrupted, so that it can say how far it came, and ended 10 s later. Tests get half.
python() {
    local seconds=$(($(left) / ${share:-1}))
    timeout -s INT -k 10 $((seconds > 1 ? seconds : 1)) "$PYTHON" "$@"
}

benchmark() { # benchmark NAME ARGS of benchmark.py; its rounds take half of the time that is left at most
    python tools/analysis/benchmark.py --device "$device" --channels-last "${rounds[@]}" --budget $(($(left) / 2)) \
        --json "$out/$1.json" --table "$out/$1.md" --plot "$out/$1.png" "${@:2}"
}
mixed() { benchmark "$@" --dtype bfloat16 --autocast; }
evaluated() { benchmark "$@" --dtype bfloat16; }
effect() { python projects/speed/gpu_settings_effect.py "$@" --device "$device"; }

run() { # run STEP
    case $1 in
        tests)
            share=2 python -m pytest -q -m 'gpu or triton' "${workers[@]}" -p no:cacheprovider \
                --continue-on-collection-errors tests/models tests/analysis tests/swap projects/mixing
            ;;
        accuracy) python projects/speed/gpu_accuracy.py --device "$device" "${toy[@]}" >"$out/$1.md" ;;
        training) mixed "$1" --train --batch-size $batch "$tiny" "$xtiny" "$small" "${peers[@]}" ;;
        inference)
            evaluated "$1" --batch-size $batch "$tiny" "$xtiny" "$small" \
                "$(deployed "$tiny")" "$(deployed "$xtiny")" "$(deployed "$small")" "${peers[@]}"
            ;;
        settings) effect settings --batch-size $batch "${toy[@]}" >"$out/$1.md" ;;
        plans) effect plans --scale $scale >"$out/$1.md" ;;
        detection)
            mixed "$1" --train --batch-size 2 "${detectors[@]}" &&
                evaluated "$1-inference" --batch-size 2 "${detectors[@]}"
            ;;
        float32) # convolutions may be in TF32 in both, which is PyTorch's default; 'settings' has them without
            benchmark "$1" --train --batch-size $((batch / 2)) "$tiny" &&
                benchmark "$1-tf32" --train --batch-size $((batch / 2)) --tf32 "$tiny"
            ;;
        tools) toolboxes ;;
        compiled) mixed "$1" --train --batch-size $batch --compile "$tiny" ;;
        inference_compiled) evaluated "$1" --batch-size $batch --compile "$(deployed "$tiny")" ;;
        compiled_plans) effect plans --scale $scale --compile >"$out/$1.md" ;;
        compiled_others)
            evaluated "$1-inference" --batch-size $batch --compile "$(deployed "$xtiny")" "$(deployed "$small")" &&
                mixed "$1" --train --batch-size $batch --compile "$xtiny" "$small"
            ;;
    esac
}

least() { # least STEP: seconds without which it is not begun
    [ "$device" = cuda ] || { echo 1 && return; }
    case $1 in
        accuracy | plans | detection | float32) echo 30 ;;
        compiled | compiled_plans | compiled_others) echo 200 ;; # compiling took 157 s on an H100
        *) echo 60 ;;
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
    python tools/train.py "$config" "${amp[@]}" --work-dir "$out/work_dirs/$1" \
        --cfg-options default_hooks.logger.interval=1 "${options[@]}"
}

# Each toolbox trains, validates and tests a config of the synthetic scenes, side by side.
toolboxes() {
    local data=$out/scenes pids=() name status=0
    python projects/scenes/make_scenes.py --out-dir "$data" --count 64 16 || return 1
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
shopt -s nullglob
gpu=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name())' 2>/dev/null || echo 'no GPU')
printf '\n# GPU report: %s, DEVICE=%s, %s\n' "$gpu" "$device" "$(date +%F)" >>"$out/report.md"
for step in "${steps[@]}"; do
    start=$SECONDS
    rm -f "$out/$step".{md,log} "$out/$step"-*.md
    if [ "$(left)" -lt "$(least "$step")" ]; then
        result="not run, with $(($(left) > 0 ? $(left) : 0)) s of $MINUTES min left"
    else
        echo "==> $step"
        code=0
        run "$step" >"$out/$step.log" 2>&1 || code=$?
        case $code in
            0) result=done ;;
            124 | 137) result='out of time' ;; # says timeout
            *) if [ "$(left)" -gt 1 ]; then result=FAILED status=1; else result='out of time'; fi ;;
        esac
        result+=" after $((SECONDS - start)) s"
    fi
    echo "    $step: $result"
    {
        printf '\n## %s: %s\n\n' "$step" "$result"
        pages=("$out/$step"[.]md "$out/$step"-*.md)
        for page in "${pages[@]}"; do cat "$page" && echo; done
        if [ ${#pages[@]} -eq 0 ] || [[ $result != done* ]]; then
            tail -qn 15 "$out/$step"[.]log /dev/null | sed 's/^/    /'
        fi
    } >>"$out/report.md"
done
exit $status
