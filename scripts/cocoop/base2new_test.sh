#!/usr/bin/env bash
# Test the prompts of base2new_train.sh on the other half of the classes: base2new_test.sh DATASET SEED.
# SUB (new) can also be base or all. See scripts/cocoop/base2new_train.sh and scripts/single.sh.
set -euo pipefail
: "${TRAINER=CoCoOp}" "${CFG=vit_b16_c4_ep10_batch1_ctxv1}" "${SHOTS=16}" "${SUB=new}"
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take DATASET SEED -- "$@"
setting=$(stem "$DATASET")/shots_$SHOTS/$TRAINER/${CFG##*/}$SUFFIX/seed$SEED
require_finished "$OUTPUT/base2new/train_base/$setting"
run "$OUTPUT/base2new/test_$SUB/$setting" "$DATASET" "$CFG" "$SEED" --eval-only \
    --model-dir "$OUTPUT/base2new/train_base/$setting" "${EXTRA[@]}" \
    DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES "$SUB"
finish
