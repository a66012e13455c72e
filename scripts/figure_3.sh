#!/usr/bin/env bash
# Figure 3: accuracy, corrupted prompts' accuracy and mean norm over epochs, for CoOp and Nemesis.
# Settings: scripts/low_norm.sh; FACTOR rescales a vector, BETA selects PUN (1) or PAN (0), EVERY is
# the number of epochs between tested checkpoints.
set -euo pipefail
: "${SHOTS=1}" "${SEEDS=1}" "${FACTOR=0.5}" "${BETA=1.0}" "${EVERY=1}"
if [[ ${BENCH:-paper} == mini ]]; then : "${DATASETS=emoji_activities}"; fi
: "${DATASETS=caltech101}"
source "$(dirname "${BASH_SOURCE[0]}")/low_norm.sh"
OUTPUT=$OUTPUT/course

train CoOp CoOp TRAIN.CHECKPOINT_FREQ 1
train "Nemesis_beta$BETA" CoOpNemesis TRAIN.CHECKPOINT_FREQ 1 TRAINER.NEMESIS.BETA "$BETA"
for dataset in "${DATASETS[@]}"; do for shots in "${SHOTS[@]}"; do for seed in "${SEEDS[@]}"; do
    folder=$(stem "$dataset")/shots_$shots/seed$seed
    project_python -m nemesis.low_norm.training "$OUTPUT/CoOp/$folder" \
        "$OUTPUT/Nemesis_beta$BETA/$folder" --root "$DATA" --figures 3 \
        --rescale "$FACTOR" --every "$EVERY" --output "$OUTPUT/figure_3/$folder" ||
        failed+=("figure 3: $folder")
done; done; done
finish
