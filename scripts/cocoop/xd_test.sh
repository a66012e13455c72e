#!/usr/bin/env bash
# Test the prompts that xd_train.sh trained on SOURCE (imagenet) on another dataset: xd_test.sh DATASET SEED.
# See scripts/cocoop/base2new_train.sh and scripts/single.sh.
set -euo pipefail
: "${TRAINER=CoCoOp}" "${CFG=vit_b16_c4_ep10_batch1_ctxv1}" "${SHOTS=16}" "${SOURCE=imagenet}"
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take DATASET SEED -- "$@"
setting=$TRAINER/${CFG##*/}_${SHOTS}shots$SUFFIX
require_finished "$OUTPUT/$(stem "$SOURCE")/$setting/seed$SEED"
run "$OUTPUT/evaluation/$setting/$(stem "$DATASET")/seed$SEED" "$DATASET" "$CFG" "$SEED" \
    --eval-only --model-dir "$OUTPUT/$(stem "$SOURCE")/$setting/seed$SEED" "${EXTRA[@]}"
finish
