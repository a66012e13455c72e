#!/usr/bin/env bash
# Train CoCoOp on half of the classes: base2new_train.sh DATASET SEED, as in CoCoOp's repository.
# With bundled data: CFG=mini scripts/cocoop/base2new_train.sh emoji_food 1
# Optional: CFG (vit_b16_c4_ep10_batch1_ctxv1) and SHOTS (16). See scripts/single.sh.
set -euo pipefail
: "${TRAINER=CoCoOp}" "${CFG=vit_b16_c4_ep10_batch1_ctxv1}" "${SHOTS=16}"
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take DATASET SEED -- "$@"
run "$OUTPUT/base2new/train_base/$(stem "$DATASET")/shots_$SHOTS/$TRAINER/${CFG##*/}$SUFFIX/seed$SEED" \
    "$DATASET" "$CFG" "$SEED" "${EXTRA[@]}" \
    DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES base
finish
