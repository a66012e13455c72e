#!/usr/bin/env bash
# Test zero-shot CLIP: zeroshot.sh DATASET CFG. See scripts/single.sh.
set -euo pipefail
: "${TRAINER=ZeroshotCLIP}"
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take DATASET CFG -- "$@"
run "$OUTPUT/$TRAINER/${CFG##*/}$SUFFIX/$(stem "$DATASET")" "$DATASET" "$CFG" 1 \
    --eval-only "${EXTRA[@]}"
finish
