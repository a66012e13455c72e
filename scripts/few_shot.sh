#!/usr/bin/env bash
# Few-shot learning: every dataset with every number of shots and every seed (Nemesis, Table A5).
# Settings: scripts/lib.sh. BENCH=mini uses the bundled benchmark.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

defaults paper TRAINER=CoOp BACKBONE=rn50 SEEDS="1 2 3 4 5" SHOTS="1 2 4 8 16" \
    OUTPUT=output/few_shot \
    DATASETS="imagenet caltech101 oxford_pets stanford_cars oxford_flowers food101 fgvc_aircraft
              sun397 dtd eurosat ucf101"
defaults mini TRAINER=CoOp CONFIG=mini SEEDS="1 2 3" SHOTS="1 4 16" OUTPUT=output/mini/few_shot \
    DATASETS="emoji_activities emoji_food"
list SEEDS
list SHOTS
list DATASETS
begin "${CONFIG:-$BACKBONE}" "$@"

# The papers' epochs; see configs/trainers/backbones/recipe.yaml.
config_for() { # DATASET SHOTS
    case "$1 $2" in
        imagenet\ * | *\ 1) echo "${BACKBONE}_ep50" ;;
        *\ 2 | *\ 4) echo "${BACKBONE}_ep100" ;;
        *) echo "$BACKBONE" ;;
    esac
}

for dataset in "${DATASETS[@]}"; do
    for shots in "${SHOTS[@]}"; do
        for seed in "${SEEDS[@]}"; do
            run "$RUNS/$(stem "$dataset")/shots_$shots/seed$seed" "$dataset" \
                "${CONFIG:-$(config_for "$dataset" "$shots")}" "$seed" DATASET.NUM_SHOTS "$shots"
        done
    done
done
report few-shot
