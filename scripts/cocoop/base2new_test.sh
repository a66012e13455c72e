#!/usr/bin/env bash
# Test what base2new_train.sh has learned on the other half: base2new_test.sh DATASET SEED.
# SUB (new) may also be base or all. More: scripts/cocoop/base2new_train.sh and scripts/single.sh.
set -euo pipefail
: "${TRAINER=CoCoOp}" "${CFG=vit_b16_c4_ep10_batch1_ctxv1}" "${SHOTS=16}" "${SUB=new}"
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take DATASET SEED -- "$@"
setting=$(stem "$DATASET")/shots_$SHOTS/$TRAINER/${CFG##*/}$SUFFIX/seed$SEED
source_of "$OUTPUT/base2new/train_base/$setting"
run "$OUTPUT/base2new/test_$SUB/$setting" "$DATASET" "$CFG" "$SEED" --eval-only \
    --model-dir "$OUTPUT/base2new/train_base/$setting" "${EXTRA[@]}" \
    DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES "$SUB"
finish
