#!/usr/bin/env bash
# Figures A2 and A3: loss, test accuracy, norms and PAN's selections over the epochs of CoOp, PUN, PAN.
# low_norm.sh says what the environment may set; BETAS chooses PUN (1) and PAN (0), EVERY tests the
# checkpoint of every so many epochs.
set -euo pipefail
if [[ ${BENCH:-paper} == mini ]]; then : "${DATASETS:=emoji_activities}"; fi
: "${DATASETS:=caltech101}" "${SHOTS:=1}" "${SEEDS:=1}" "${BETAS:=1.0 0.0}"
source "$(dirname "$0")/low_norm.sh"
OUTPUT=$OUTPUT/course

train CoOp CoOp TRAIN.CHECKPOINT_FREQ 1
runs=("$OUTPUT/CoOp")
for beta in $BETAS; do
    train "Nemesis_beta$beta" CoOpNemesis TRAIN.CHECKPOINT_FREQ 1 TRAINER.NEMESIS.BETA "$beta"
    runs+=("$OUTPUT/Nemesis_beta$beta")
done
"$PYTHON" -m analysis.corruption.training "${runs[@]}" --root "$DATA" --figures a2 --rescale \
    --every "${EVERY:-1}" --output "$OUTPUT/figures_a2_a3"
