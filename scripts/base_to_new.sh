#!/usr/bin/env bash
# Base-to-new generalisation: train on half of the classes, test on both halves
# (CoCoOp, section 4.1; Nemesis, Table A4).
# Settings: scripts/lib.sh. BENCH=mini uses the bundled benchmark.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

defaults paper TRAINER=CoCoOp CONFIG=vit_b16_c4_ep10_batch1_ctxv1 SEEDS="1 2 3 4 5" SHOTS=16 \
    OUTPUT=output/base_to_new \
    DATASETS="imagenet caltech101 oxford_pets stanford_cars oxford_flowers food101 fgvc_aircraft
              sun397 dtd eurosat ucf101"
defaults mini TRAINER=CoOp CONFIG=mini_generic SEEDS="1 2 3" SHOTS=16 \
    OUTPUT=output/mini/base_to_new DATASETS="emoji_activities emoji_food"
list SEEDS
list DATASETS
begin "$CONFIG" "$@"

for dataset in "${DATASETS[@]}"; do
    for seed in "${SEEDS[@]}"; do
        folder=$RUNS/$(stem "$dataset")/shots_$SHOTS
        run "$folder/base/seed$seed" "$dataset" "$CONFIG" "$seed" \
            DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES base
        evaluate "$folder/base/seed$seed" "$folder/new/seed$seed" "$dataset" "$CONFIG" "$seed" \
            DATASET.SUBSAMPLE_CLASSES new
    done
done
report base-to-new
