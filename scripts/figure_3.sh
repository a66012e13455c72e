#!/usr/bin/env bash
# Figure 3: accuracy, corrupted prompts' accuracy and mean norm over the epochs, CoOp beside Nemesis.
# low_norm.sh says what the environment may set; FACTOR rescales a vector, BETA chooses PUN (1) or
# PAN (0), EVERY tests the checkpoint of every so many epochs.
set -euo pipefail
if [[ ${BENCH:-paper} == mini ]]; then : "${DATASETS:=emoji_activities}"; fi
: "${DATASETS:=caltech101}" "${SHOTS:=1}" "${SEEDS:=1}"
source "$(dirname "$0")/low_norm.sh"
OUTPUT=$OUTPUT/course

train CoOp CoOp TRAIN.CHECKPOINT_FREQ 1
train "Nemesis_beta${BETA:=1.0}" CoOpNemesis TRAIN.CHECKPOINT_FREQ 1 TRAINER.NEMESIS.BETA "$BETA"
for dataset in $DATASETS; do for shots in $SHOTS; do for seed in $SEEDS; do
    "$PYTHON" -m analysis.corruption.training --root "$DATA" \
        {"$OUTPUT/CoOp","$OUTPUT/Nemesis_beta$BETA"}/"$dataset/shots_$shots/seed$seed" \
        --figures 3 --rescale "${FACTOR:-0.5}" --every "${EVERY:-1}" \
        --output "$OUTPUT/figure_3/$dataset/shots_$shots/seed$seed"
done; done; done
