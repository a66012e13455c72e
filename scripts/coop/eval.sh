#!/usr/bin/env bash
# Test the prompts that coop/main.sh trained on SOURCE (imagenet): eval.sh DATASET CFG.
# SHOTS, NCTX, CSC and CTP select them (16, 16, False, end). See scripts/single.sh.
set -euo pipefail
: "${TRAINER=CoOp}" "${SOURCE=imagenet}" "${SHOTS=16}" "${NCTX=16}" "${CSC=False}" "${CTP=end}"
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take DATASET CFG -- "$@"
prompts
for seed in "${SEEDS[@]}"; do
    model=$OUTPUT/$(stem "$SOURCE")/$TRAINER/$SETTING/seed$seed
    require_finished "$model"
    run "$OUTPUT/evaluation/$TRAINER/$SETTING/$(stem "$DATASET")/seed$seed" "$DATASET" "$CFG" \
        "$seed" --eval-only --model-dir "$model" "${EXTRA[@]}" "${PROMPTS[@]}"
done
finish
