#!/usr/bin/env bash
# Test the prompts of main.sh with SOURCE, NCTX, CSC, CTP, SHOTS: eval.sh DATASET CFG; see scripts/single.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
: "${SOURCE=imagenet}" "${NCTX=16}" "${CSC=False}" "${CTP=end}"
take CoOp DATASET CFG -- "$@"
prompts
seeds "$(basename "$SOURCE" .yaml)/$SETTING" "evaluation/$SETTING/$D" "${PROMPTS[@]}"
