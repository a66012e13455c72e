#!/usr/bin/env bash
# Train CoCoOp on half of the classes: base2new_train.sh DATASET SEED; see scripts/single.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take CoCoOp DATASET SEEDS -- "$@"
seeds "" "base2new/train_base/$D/shots_$SHOTS/$TRAINER/${CFG##*/}$SUFFIX" \
    DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES base
