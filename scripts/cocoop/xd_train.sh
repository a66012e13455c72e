#!/usr/bin/env bash
# Train CoCoOp on all classes, to test it on other datasets: xd_train.sh DATASET SEED.
# See scripts/cocoop/base2new_train.sh and scripts/single.sh.
set -euo pipefail
: "${TRAINER=CoCoOp}" "${CFG=vit_b16_c4_ep10_batch1_ctxv1}" "${SHOTS=16}"
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take DATASET SEED -- "$@"
run "$OUTPUT/$(stem "$DATASET")/$TRAINER/${CFG##*/}_${SHOTS}shots$SUFFIX/seed$SEED" \
    "$DATASET" "$CFG" "$SEED" "${EXTRA[@]}" DATASET.NUM_SHOTS "$SHOTS"
finish
