#!/usr/bin/env bash
# Test zero-shot CLIP: zeroshot.sh DATASET CFG; see scripts/single.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take ZeroshotCLIP DATASET CFG -- "$@"
run 1 "$TRAINER/${CFG##*/}$SUFFIX/$D" --eval-only
finish
