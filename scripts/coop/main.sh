#!/usr/bin/env bash
# Train CoOp few-shot: main.sh DATASET CFG CTP NCTX SHOTS CSC, as in CoOp's repository:
#     scripts/coop/main.sh caltech101 rn50_ep50 end 16 1 False
#     scripts/coop/main.sh emoji_food mini end 4 1 False        # with bundled data
# CTP: end, middle or front; CSC: class-specific contexts, True or False. See scripts/single.sh.
set -euo pipefail
: "${TRAINER=CoOp}"
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take DATASET CFG CTP NCTX SHOTS CSC -- "$@"
prompts
for seed in "${SEEDS[@]}"; do
    run "$OUTPUT/$(stem "$DATASET")/$TRAINER/$SETTING/seed$seed" "$DATASET" "$CFG" "$seed" \
        "${EXTRA[@]}" "${PROMPTS[@]}" DATASET.NUM_SHOTS "$SHOTS"
done
finish
