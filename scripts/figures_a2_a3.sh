#!/usr/bin/env bash
# Figures A2 and A3: loss, test accuracy, norms and PAN's selections over the epochs of CoOp, PUN, PAN.
# Settings: scripts/low_norm.sh; BETAS selects PUN (1) and PAN (0), EVERY is the number of epochs
# between tested checkpoints.
set -euo pipefail
: "${SHOTS=1}" "${SEEDS=1}" "${BETAS=1.0 0.0}" "${EVERY=1}"
if [[ ${BENCH:-paper} == mini ]]; then : "${DATASETS=emoji_activities}"; fi
: "${DATASETS=caltech101}"
source "$(dirname "${BASH_SOURCE[0]}")/low_norm.sh"
list BETAS
OUTPUT=$OUTPUT/course

train CoOp CoOp TRAIN.CHECKPOINT_FREQ 1
runs=("$OUTPUT/CoOp")
for beta in "${BETAS[@]}"; do
    train "Nemesis_beta$beta" CoOpNemesis TRAIN.CHECKPOINT_FREQ 1 TRAINER.NEMESIS.BETA "$beta"
    runs+=("$OUTPUT/Nemesis_beta$beta")
done
project_python -m nemesis.low_norm.training "${runs[@]}" --root "$DATA" --figures a2 --rescale \
    --every "$EVERY" --output "$OUTPUT/figures_a2_a3" || failed+=("figures A2 and A3")
finish
