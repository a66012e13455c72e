#!/usr/bin/env bash
# Test the prompts of base2new_train.sh on the other half of the classes, or on SUB (new, base or all):
# base2new_test.sh DATASET SEED; see scripts/single.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take CoCoOp DATASET SEEDS -- "$@"
setting=$D/shots_$SHOTS/$TRAINER/${CFG##*/}$SUFFIX
seeds "base2new/train_base/$setting" "base2new/test_${SUB=new}/$setting" \
    DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES "$SUB"
