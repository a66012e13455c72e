#!/usr/bin/env bash
# Test the prompts that main.sh trained on SOURCE (imagenet) with NCTX (16), CSC (False), CTP (end) and
# SHOTS: eval.sh DATASET CFG; see scripts/single.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../single.sh"
: "${SOURCE=imagenet}" "${NCTX=16}" "${CSC=False}" "${CTP=end}"
take CoOp DATASET CFG -- "$@"
prompts
seeds "$(basename "$SOURCE" .yaml)/$SETTING" "evaluation/$SETTING/$D" "${PROMPTS[@]}"
