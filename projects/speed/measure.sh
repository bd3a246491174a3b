#!/usr/bin/env bash
# Measure what README.md beside this shows, into results/; keep the machine quiet meanwhile.
#
#   bash projects/speed/measure.sh [ratio] [evaluation] [training] [large] [curve] [loading] [pipelines]
#
# timm's models need: pip install --no-deps -r projects/imagenet_table/requirements.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
this_script=projects/speed/measure.sh
source tools/usage.sh
show_help "$@"
source tools/env.sh

out=projects/speed/results
released=projects/speed/released_style.py:tiny
ours=configs/classification/scopevit-tiny_8xb128-300e_in1k-256px.py
table=projects/imagenet_table/configs
swin=$table/swin-2g_8xb128-300e_in1k-224px.py
three=("released style=$released@256" "ScopeViT-tiny=$ours" "ScopeViT-tiny, deploy form=$ours:deploy")

benchmark() { # benchmark NAME ARGS of benchmark.py
    echo "==> $1"
    "$PYTHON" tools/analysis/benchmark.py --threads 2 --json "$out/$1.json" --table "$out/$1.md" "${@:2}"
}

# With freed memory kept, as tools/train.py keeps it, which spares the kernel from clearing it again.
keeping_memory() {
    MALLOC_TRIM_THRESHOLD_=$(((1 << 31) - 1)) MALLOC_MMAP_THRESHOLD_=$((32 << 20)) "$@"
}

# Against the released way of computing, alone in a process.
ratio() {
    benchmark ratio --batch-size 8 --rounds 20 "${three[@]}"
    keeping_memory benchmark ratio_kept_memory --batch-size 8 --rounds 20 "${three[@]}"
}

# The same beside the paper's and newer peers, each at its own size.
evaluation() {
    benchmark evaluation --batch-size 8 --rounds 15 --plot "$out/evaluation.png" \
        "${three[@]}" \
        "Swin-2G=$swin" "DeiT-S=mmpretrain::deit/deit-small_4xb256_in1k.py" \
        "ConvNeXt V2-P=$table/convnext-v2-pico_8xb128-300e_in1k-224px.py" \
        "MobileViTv2-1.5=timm:mobilevitv2_150@256" "CoaT Mini=timm:coat_mini@224" \
        "CrossViT-S=timm:crossvit_small_240@240" \
        "MobileNetV4-Hybrid-M=timm:mobilenetv4_hybrid_medium@320" \
        "FastViT-SA12=timm:fastvit_sa12@256" "FastViT-SA12, deploy form=timm:fastvit_sa12@256:deploy" \
        "RepViT-M1.1=timm:repvit_m1_1@224" "RepViT-M1.1, deploy form=timm:repvit_m1_1@224:deploy" \
        "EfficientFormerV2-S2=timm:efficientformerv2_s2@224" "PVTv2-b1=timm:pvt_v2_b1@224"
}

training() {
    local two=("released style=$released@256" "ScopeViT-tiny=$ours")
    benchmark training --train --batch-size 8 --rounds 25 "${two[@]}"
    keeping_memory benchmark training_kept_memory --train --batch-size 8 --rounds 25 "${two[@]}"
}

# The size of detection.
large() {
    benchmark large_evaluation --batch-size 1 --rounds 7 \
        "released style=$released@768x1280" "ScopeViT-tiny=$ours@768x1280" \
        "ScopeViT-tiny, deploy form=$ours@768x1280:deploy"
    benchmark large_training --train --batch-size 1 --rounds 5 --warmup 2 \
        "released style=$released@768x1280" "ScopeViT-tiny=$ours@768x1280" \
        "ScopeViT-tiny, checkpoints=$ours@768x1280?model.backbone.with_cp=True"
}

# Time, memory and the attention's share as images grow.
curve() {
    local sizes=(--size 128 --size 256 --size 512 --size 768 --size 1024 --size 1536)
    benchmark curve --batch-size 1 --rounds 5 "${sizes[@]}" --plot "$out/curve.png" \
        "ScopeViT-tiny=$ours" "ScopeViT-tiny, max_keys 1024=$ours?model.backbone.max_keys=1024" \
        "Swin-2G=$swin?model.backbone.pad_small_map=True" "PVTv2-b1=timm:pvt_v2_b1"
}

# Whether a training waits for its data. Synthetic scenes, enlarged, stand in for photographs: 280 to 510
# pixels large as in ImageNet, 430 to 770 as in COCO and ADE20K.
loading() {
    "$PYTHON" projects/scenes/make_scenes.py --out-dir data/scenes_large --only imagenet --enlarge 4 --count 1200 8
    "$PYTHON" projects/scenes/make_scenes.py --out-dir data/scenes_large --only coco ade20k --enlarge 3 --count 600 8
    loading_time imagenet "$ours" train_dataloader.dataset.data_root=data/scenes_large/imagenet --iters 4 --warmup 1
    loading_time coco configs/detection/mask-rcnn_scopevit-tiny_fpn_1x_coco.py \
        train_dataloader.dataset.data_root=data/scenes_large/coco/ --iters 10 --warmup 2
    loading_time ade20k configs/segmentation/scopevit-tiny_upernet_8xb2-160k_ade20k-512x512.py \
        train_dataloader.dataset.data_root=data/scenes_large/ade/ADEChallengeData2016 --iters 10 --warmup 2
}

# ImageNet's pipelines beside mmpretrain's own.
pipelines() {
    "$PYTHON" projects/speed/pipelines.py --json "$out/pipelines.json" --table "$out/pipelines.md"
}

loading_time() { # loading_time NAME CONFIG OPTION ARGS of data_time.py
    echo "==> $1"
    "$PYTHON" tools/analysis/data_time.py "$2" --cfg-options "$3" \
        --json "$out/loading_$1.json" --table "$out/loading_$1.md" "${@:4}"
}

for part in "$@"; do
    case $part in
        ratio | evaluation | training | large | curve | loading | pipelines) ;;
        *) refuse "there is no measurement called $part" ;;
    esac
done
[ $# -gt 0 ] || set -- ratio evaluation training large curve loading pipelines
for part in "$@"; do
    "$part"
done
