#!/usr/bin/env bash
# Test the prompts that xd_train.sh trained on SOURCE (imagenet): xd_test.sh DATASET SEED; see scripts/single.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take CoCoOp DATASET SEEDS -- "$@"
setting=$TRAINER/${CFG##*/}_${SHOTS}shots$SUFFIX
seeds "$(basename "${SOURCE-imagenet}" .yaml)/$setting" "evaluation/$setting/$D"
