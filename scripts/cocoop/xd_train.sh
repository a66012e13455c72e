#!/usr/bin/env bash
# Train CoCoOp on all classes, to test it on other datasets: xd_train.sh DATASET SEED; see scripts/single.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take CoCoOp DATASET SEEDS -- "$@"
seeds "" "$D/$TRAINER/${CFG##*/}_${SHOTS}shots$SUFFIX" DATASET.NUM_SHOTS "$SHOTS"
