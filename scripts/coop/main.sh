#!/usr/bin/env bash
# Train CoOp with CTP end, middle or front and CSC True or False: main.sh DATASET CFG CTP NCTX SHOTS CSC
#     scripts/coop/main.sh emoji_food mini end 4 1 False        # with bundled data; see scripts/single.sh
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
take CoOp DATASET CFG CTP NCTX SHOTS CSC -- "$@"
prompts
seeds "" "$D/$SETTING" "${PROMPTS[@]}" DATASET.NUM_SHOTS "$SHOTS"
